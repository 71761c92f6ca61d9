"""What `factorize` returns: stored matrices, with the public functions as methods."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpinv import _damping, _inputs, _tolerances, _uses
from jaxpinv._uses import Stored, Use

#: Name, value and length of the columns.
_Columns = tuple[str, ArrayLike, int]


@partial(jax.tree_util.register_dataclass, data_fields=("_stored",), meta_fields=())
@dataclass(frozen=True, eq=False, repr=False)
class Factorization:
    r"""Matrices, factored once for many uses: what `factorize` returns.

    An opaque pytree. Functions transformed by `jax.jit`, `jax.vmap`, `jax.lax.scan` and
    others can take or return it, a loop can carry it, and it can be donated. Its methods
    return the same results as the functions of the same names, with all derivatives in the
    factored matrices. Its leaves have the batch shape as leading axes; use `jax.tree.map`
    to index or stack them.

    **Differentiability.** The results of the methods are differentiable in the argument `a`
    of `factorize`, like those of the functions, even if the factorization is made inside a
    `jit`, a `scan` or a differentiated function and used outside it. Do not differentiate
    the leaves, and do not compute with them. With a damping, values and derivatives exist
    at every matrix, also derivatives in the damping: see `jaxpinv.pinv`.

    **Cost of dampings.** For each damping, a method multiplies vectors by singular vectors.
    If the matrices were factored by singular values, as with `method="svd"`, the singular
    vectors are stored. If not, the method computes them once for all dampings of a
    `jax.vmap` or a batch shape; for a loop over dampings, choose `method="svd"`. In two
    cases a method costs as much as the function with `damp`: if a tolerance was given,
    because it refers to `[A; D]`; and, without `method="svd"`, if a side is at most 8 and a
    matrix has at most 768 elements, because a batch of such matrices takes less time to
    factor than to decompose.
    """

    _stored: Stored

    @property
    def rank(self) -> Array:
        """Number of kept singular values, of batch shape, in JAX's default integer dtype.

        It is 0 where `pinv` gives NaN.
        """
        return _uses.rank(Use(self._stored))

    def pinv(self, *, damp: ArrayLike | None = None) -> Array:
        """The pseudo-inverses, `(..., n, m)`, as `jaxpinv.pinv` returns them.

        Args:
            damp: as in `solve`.

        Raises:
            TypeError: if `damp` is not real.
            ValueError: if `damp` is negative and not traced, or does not broadcast.

        **Cost.** A product of `2 m n^2` flops, n being the shorter side. Each damping takes
        six such products, and eight of `2 n^3` flops: see `Factorization`.
        """
        use, is_damped = self._with("pinv", None, damp)
        return _uses.pinv(use, is_damped=is_damped)

    def solve(self, b: ArrayLike, *, damp: ArrayLike | None = None) -> Array:
        """The solutions of minimum norm, `pinv(a) @ b`, as in `jaxpinv.lstsq`.

        Args:
            b: a vector, `(m,)`, or an array of matrices, `(..., m, k)`, as in
                `jaxpinv.lstsq`. Batch shapes broadcast.
            damp: a damping of all unknowns, as in `jaxpinv.lstsq`: a nonnegative number or
                array that broadcasts against the batch shape, traced or not. There is no
                `damp_scale`, because the singular vectors of `A` only serve dampings that
                are the same for all unknowns. For unequal dampings, scale the columns of
                `A` before factoring if no damping is zero, or use `jaxpinv.lstsq`.

        Returns:
            The solutions, `(..., n)` or `(..., n, k)`, in the common dtype of `a` and `b`.

        Raises:
            TypeError: if `b` is not numeric, or its precision is higher than the one in
                which the matrices were factored, or `damp` is not real.
            ValueError: if `a` and `b` differ in the number of rows, the batch shapes do not
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
            Regularization by filter factors: P. C. Hansen, "Rank-Deficient and Discrete
            Ill-Posed Problems", SIAM 1998, section 4.2. The refinement: A. Bjorck,
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
            The projections, in the shape of `x` with its batch axes broadcast, and in the
            common dtype of `a` and `x`.

        Raises:
            TypeError: as `solve` does, for `x`.
            ValueError: as `solve` does, for the columns of `a` and the rows of `x`.

        **Cost.** As `solve`.
        """
        columns = ("x", x, self._stored.a.shape[-1])
        use, is_damped = self._with("null_projection", columns, damp)
        return _uses.null_projection(use, is_damped=is_damped)

    def singular_values(self) -> Array:
        """All singular values, descending, `(..., min(m, n))`, as in `jaxpinv.lstsq`.

        **Cost.** That of singular values without vectors. If the matrices were factored
        with `method="svd"`, only that of sorting.
        """
        return _uses.singular_values(Use(self._stored))

    def log_pdet(self) -> Array:
        """The logarithms of the pseudo-determinants, as `jaxpinv.log_pdet` returns them.

        **Cost.** That of the determinant of an n by n matrix, n being the shorter side. If
        the matrices were factored with `method="svd"`, only that of a sum.
        """
        return _uses.log_pdet(Use(self._stored))

    def __repr__(self) -> str:
        """Shape and dtype, without a shape if a transformation replaced the leaves."""
        stored = self._stored
        shape = getattr(stored.a, "shape", None)
        return f"Factorization(shape={shape}, dtype={stored.dtype})"

    def _with(
        self, method: str, columns: _Columns | None, damp: ArrayLike | None
    ) -> tuple[Use, bool]:
        """The checked arguments of a method, and whether every unknown is surely damped.

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
