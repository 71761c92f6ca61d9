"""What `factorize` returns: factored matrices to keep, with the functions as methods."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxpinv import _inputs, _solver, _tolerances
from jaxpinv._factors import Factors
from jaxpinv._shapes import prepend_axes
from jaxpinv._solver import FactoredMatrix, Promoted, Strategy, compiled


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("_a", "_rtol", "_atol", "_factors"),
    meta_fields=("_truncates", "_dtype", "_strategy"),
)
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
    the leaves, and do not compute with them.
    """

    _a: Array
    _rtol: Array
    _atol: Array
    _factors: Factors
    _truncates: bool
    _dtype: np.dtype
    _strategy: Strategy

    @property
    def rank(self) -> Array:
        """Number of singular values that were kept.

        In JAX's default integer dtype, of batch shape. It is 0 where `pinv` gives NaN.
        """
        return _rank(_Use(self))

    def pinv(self) -> Array:
        """The pseudo-inverses, `(..., n, m)`, as `jaxpinv.pinv` returns them.

        **Cost.** A product of `2 m n^2` flops, n being the shorter side.
        """
        return _pinv(_Use(self))

    def solve(self, b: ArrayLike) -> Array:
        """The solutions of minimum norm, `pinv(a) @ b`, as in `jaxpinv.lstsq`.

        Args:
            b: a vector, `(m,)`, or an array of matrices, `(..., m, k)`, as in
                `jaxpinv.lstsq`. Batch shapes broadcast.

        Returns:
            The solutions, `(..., n)` or `(..., n, k)`, in the dtype that `a` and `b` have
            in common.

        Raises:
            TypeError: if `b` is not numeric, or of a higher precision than the one that the
                matrices were factored in.
            ValueError: if the rows of `a` and `b` are not as many, or the batch shapes do
                not broadcast.

        **Cost.** Products of matrices with vectors, `O(m n k)`.
        """
        return _solve(self._with("solve", "b", b, self._a.shape[-2]))

    def null_projection(self, x: ArrayLike) -> Array:
        """The projections onto the null space, as `jaxpinv.null_projection` returns them.

        Args:
            x: a vector, `(n,)`, or an array of matrices, `(..., n, k)`.

        Returns:
            The projections, in the shape of `x` but for the batch, which broadcasts, and in
            the dtype that `a` and `x` have in common.

        Raises:
            TypeError: as `solve` does, for `x`.
            ValueError: as `solve` does, for the columns of `a`.

        **Cost.** As `solve`.
        """
        return _null_projection(self._with("null_projection", "x", x, self._a.shape[-1]))

    def singular_values(self) -> Array:
        """All singular values, descending, `(..., min(m, n))`, as in `jaxpinv.lstsq`.

        **Cost.** That of singular values without vectors, unless the matrices were factored
        with `method="svd"`.
        """
        return _singular_values(_Use(self))

    def log_pdet(self) -> Array:
        """The logarithms of the pseudo-determinants, as `jaxpinv.log_pdet` returns them.

        **Cost.** That of the determinant of an n by n matrix, n being the shorter side,
        unless the matrices were factored with `method="svd"`.
        """
        return _log_pdet(_Use(self))

    def __repr__(self) -> str:
        """The shape, where there is one: transformations put anything into leaves."""
        shape = getattr(self._a, "shape", None)
        return f"Factorization(shape={shape}, dtype={self._dtype})"

    def _with(self, method: str, name: str, value: ArrayLike, length: int) -> "_Use":
        """What a method computes of an argument, checked.

        Raises:
            TypeError: if its dtype does not fit.
            ValueError: if its shape does not fit.
        """
        function = f"Factorization.{method}"
        batch = self._factors.s.shape[:-1]
        x = _inputs.as_vector_or_columns(function, name, value, length, batch)
        factored = jnp.finfo(self._a.dtype).dtype
        if jnp.finfo(_tolerances.computed_in(self._a, x)).dtype != factored:
            raise TypeError(
                f"{function}: expected {name} of no higher precision than {factored}, "
                f"which the matrices were factored in, got dtype {x.dtype}; factorize "
                f"a.astype({x.dtype}) or pass {name}.astype({factored})"
            )
        return _Use(self, x)


class _Use(NamedTuple):
    """A factorization, and what it is applied to.

    Attributes:
        factorization: what `factorize` returned.
        columns: a vector or `(..., length, k)`, if there is one.
    """

    factorization: Factorization
    columns: Array | None = None

    def matrix(self) -> FactoredMatrix:
        """The factored matrix, of one rank and dtype with what it is applied to."""
        given = self.factorization
        columns, dtype = self.columns, given._dtype
        arrays = [given._a, given._factors.u]
        if columns is not None:
            dtype = _tolerances.floating(jnp.result_type(dtype, columns))
            columns = columns[:, None] if columns.ndim == 1 else columns
            arrays.append(columns)
        computed = _tolerances.computed_in(*arrays)
        rank = max(x.ndim for x in arrays)
        more = rank - given._a.ndim
        batch = given._factors.s.shape[:-1]
        a, u, *rest = _solver.varying_alike(
            [prepend_axes(x.astype(computed), rank) for x in arrays], []
        )
        _, s, v, kept, is_inverse = (prepend_axes(x, x.ndim + more) for x in given._factors)
        factors = Factors(u, s, v.astype(computed), kept, is_inverse)
        promoted = Promoted(
            a,
            prepend_axes(given._rtol, rank - 2),
            prepend_axes(given._atol, rank - 2),
            rest[0] if rest else None,
            batch,
            given._truncates,
            dtype,
        )
        return FactoredMatrix(promoted, factors, None, given._strategy, is_stored=True)

    def like_columns(self, x: Array) -> Array:
        """`x`, `(..., length, k)`, as a vector if that is what was given."""
        is_vector = self.columns is not None and self.columns.ndim == 1
        return x[..., 0] if is_vector else x


def stored(matrix: FactoredMatrix) -> Factorization:
    """What is kept of a factored matrix.

    All leaves get the whole batch shape, so that they may be mapped and indexed alike.
    """
    given = matrix.given
    rank = given.a.ndim - 2
    a, rtol, atol, *factors = (
        jnp.broadcast_to(x, (*given.batch, *x.shape[rank:]))
        for x in (given.a, given.rtol, given.atol, *matrix.factors)
    )
    kept = Factors(*factors)
    return Factorization(a, rtol, atol, kept, given.truncates, given.dtype, matrix.strategy)


@partial(compiled, options=())
def _rank(use: _Use) -> Array:
    """The ranks, compiled once for every shape, as is what follows."""
    return use.matrix().rank()


@partial(compiled, options=())
def _pinv(use: _Use) -> Array:
    """The pseudo-inverses."""
    return use.matrix().pinv()


@partial(compiled, options=())
def _solve(use: _Use) -> Array:
    """The solutions."""
    matrix = use.matrix()
    return use.like_columns(matrix.solve(matrix.columns).astype(matrix.dtype))


@partial(compiled, options=())
def _null_projection(use: _Use) -> Array:
    """The projections."""
    matrix = use.matrix()
    return use.like_columns(matrix.null_projection(matrix.columns))


@partial(compiled, options=())
def _singular_values(use: _Use) -> Array:
    """The singular values."""
    return use.matrix().singular_values()


@partial(compiled, options=())
def _log_pdet(use: _Use) -> Array:
    """The logarithms of pseudo-determinants."""
    return use.matrix().log_pdet()
