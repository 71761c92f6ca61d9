"""What `factorize` returns: factored matrices to keep, with the functions as methods."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpinv import _damping, _inputs, _tolerances, _uses
from jaxpinv._uses import Stored, Use

#: Name, value and length of vectors.
_Columns = tuple[str, ArrayLike, int]


@partial(jax.tree_util.register_dataclass, data_fields=("_stored",), meta_fields=())
@dataclass(frozen=True, eq=False, repr=False)
class Factorization:
    r"""Matrices, factored once for many uses: what `factorize` returns.

    An opaque pytree. It may be an argument or a result of functions transformed by
    `jax.jit`, `jax.vmap`, `jax.lax.scan` and others, the carry of a loop, and donated. Its
    methods return the results of the functions of the same names, with all derivatives in
    the matrices that were factored. Its leaves have the batch shape as leading axes; use
    `jax.tree.map` to index or stack them.

    **Differentiability.** The results of the methods are differentiable in the argument `a`
    of `factorize`, like those of the functions, even if the factorization is made inside a
    `jit`, a `scan` or a differentiated function and used outside it. Do not differentiate
    the leaves, and do not compute with them. With a damping, value and derivatives exist at
    every matrix, in the damping too: see `jaxpinv.pinv`.

    **Cost of dampings.** With `damp`, a method multiplies vectors by singular vectors, for
    each damping. If the matrices were factored by singular values, as with `method="svd"`,
    these are there. If not, the method computes them once for all dampings of a `jax.vmap`
    or a batch shape; so for a loop over dampings choose `method="svd"`. In two cases a
    method costs as much as the function with `damp`: if a tolerance was given, because it
    refers to `[A; D]`; and, unless with `method="svd"`, if a side is at most 8 and a matrix
    has at most 512 elements, because a batch of these is factored faster than decomposed.
    """

    _stored: Stored

    @property
    def rank(self) -> Array:
        """Number of singular values that were kept.

        In JAX's default integer dtype, of batch shape. It is 0 where `pinv` gives NaN.
        """
        return _uses.rank(Use(self._stored))

    def pinv(self, *, damp: ArrayLike | None = None) -> Array:
        """The pseudo-inverses, `(..., n, m)`, as `jaxpinv.pinv` returns them.

        Args:
            damp: as in `solve`.

        Raises:
            TypeError: if `damp` is not real.
            ValueError: if `damp` is negative and not traced, or does not broadcast.

        **Cost.** A product of `2 m n^2` flops, n being the shorter side. With a damping,
        for each six of these and eight of `2 n^3` flops: see `Factorization`.
        """
        use, is_damped = self._with("pinv", None, damp)
        return _uses.pinv(use, is_damped=is_damped)

    def solve(self, b: ArrayLike, *, damp: ArrayLike | None = None) -> Array:
        """The solutions of minimum norm, `pinv(a) @ b`, as in `jaxpinv.lstsq`.

        Args:
            b: a vector, `(m,)`, or an array of matrices, `(..., m, k)`, as in
                `jaxpinv.lstsq`. Batch shapes broadcast.
            damp: a damping of all unknowns, as in `jaxpinv.lstsq`: a number or an array
                that broadcasts against the batch shape, traced or not, not negative. There
                is no `damp_scale`: singular vectors of `A` serve every damping that is the
                same for all unknowns, and no other. With unequal ones, scale the columns of
                `A` before it is factored if none is zero, or use `jaxpinv.lstsq`.

        Returns:
            The solutions, `(..., n)` or `(..., n, k)`, in the dtype that `a` and `b` have
            in common.

        Raises:
            TypeError: if `b` is not numeric, or of a higher precision than the one that the
                matrices were factored in.
            ValueError: if the rows of `a` and `b` are not as many, the batch shapes do not
                broadcast, or `damp` is negative and not traced.

        **Differentiability.** In `a`, `b` and `damp`, as `jaxpinv.lstsq`.

        **Cost.** Products of matrices with vectors, `O(m n k)`, for each damping too: see
        `Factorization`.

        Example:
            >>> import jax
            >>> import jax.numpy as jnp
            >>> import jaxpinv
            >>> factored = jaxpinv.factorize(jnp.diag(jnp.array([2.0, 1.0])), method="svd")
            >>> b = jnp.array([1.0, 1.0])
            >>> path = jax.vmap(lambda damp: factored.solve(b, damp=damp))
            >>> x = path(jnp.array([0.0, 1.0]))
            >>> bool(jnp.allclose(x, jnp.array([[0.5, 1.0], [0.4, 0.5]])))
            True

        Source:
            Methods of regularization by filter factors: P. C. Hansen, "Rank-Deficient and
            Discrete Ill-Posed Problems", SIAM 1998, section 4.2. The refinement: A. Bjorck,
            "Iterative refinement of linear least squares solutions I", BIT 7 (1967)
            257-278.
        """
        columns = ("b", b, self._stored.a.shape[-2])
        use, is_damped = self._with("solve", columns, damp)
        return _uses.solve(use, is_damped=is_damped)

    def null_projection(self, x: ArrayLike, *, damp: ArrayLike | None = None) -> Array:
        """The projections onto the null space, as `jaxpinv.null_projection` returns them.

        Args:
            x: a vector, `(n,)`, or an array of matrices, `(..., n, k)`.
            damp: as in `solve`.

        Returns:
            The projections, in the shape of `x` but for the batch, which broadcasts, and in
            the dtype that `a` and `x` have in common.

        Raises:
            TypeError: as `solve` does, for `x`.
            ValueError: as `solve` does, for the columns of `a`.

        **Cost.** As `solve`.
        """
        columns = ("x", x, self._stored.a.shape[-1])
        use, is_damped = self._with("null_projection", columns, damp)
        return _uses.null_projection(use, is_damped=is_damped)

    def singular_values(self) -> Array:
        """All singular values, descending, `(..., min(m, n))`, as in `jaxpinv.lstsq`.

        **Cost.** That of singular values without vectors, unless the matrices were factored
        with `method="svd"`.
        """
        return _uses.singular_values(Use(self._stored))

    def log_pdet(self) -> Array:
        """The logarithms of the pseudo-determinants, as `jaxpinv.log_pdet` returns them.

        **Cost.** That of the determinant of an n by n matrix, n being the shorter side,
        unless the matrices were factored with `method="svd"`.
        """
        return _uses.log_pdet(Use(self._stored))

    def __repr__(self) -> str:
        """The shape, where there is one: transformations put anything into leaves."""
        stored = self._stored
        shape = getattr(stored.a, "shape", None)
        return f"Factorization(shape={shape}, dtype={stored.dtype})"

    def _with(
        self, method: str, columns: _Columns | None, damp: ArrayLike | None
    ) -> tuple[Use, bool]:
        """What a method computes of its arguments, checked.

        Also whether it is known that everything is damped.

        Args:
            method: its name.
            columns: name, value and length of what the matrix is applied to, if anything.
            damp: the damping, if any.

        Raises:
            TypeError: if a dtype does not fit.
            ValueError: if a shape does not fit, or a damping is negative.
        """
        function = f"Factorization.{method}"
        stored = self._stored
        batch, n = stored.factors.s.shape[:-1], stored.a.shape[-1]
        damping = (damp, None)
        damped, _ = _damping.check(function, damping, n, batch, _inputs.as_tolerance)
        is_damped = _damping.is_everywhere(damping)
        if columns is None:
            return Use(stored, None, damped), is_damped
        name, value, length = columns
        batch = _damping.batch_shape(batch, damped, None)
        x = _inputs.as_vector_or_columns(function, name, value, length, batch)
        factored = jnp.finfo(stored.a.dtype).dtype
        if jnp.finfo(_tolerances.computed_in(stored.a, x)).dtype != factored:
            raise TypeError(
                f"{function}: expected {name} of no higher precision than {factored}, "
                f"which the matrices were factored in, got dtype {x.dtype}; factorize "
                f"a.astype({x.dtype}) or pass {name}.astype({factored})"
            )
        return Use(stored, x, damped), is_damped
