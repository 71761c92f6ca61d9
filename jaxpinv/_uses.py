"""Factored matrices as they are stored, and their uses, each compiled as one program."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv import _damped, _damping, _solver, _tolerances
from jaxpinv._damped import DampedMatrix
from jaxpinv._eager import compiled
from jaxpinv._factors import Factors
from jaxpinv._filtered import FilteredMatrix, filtered
from jaxpinv._inputs import Inputs
from jaxpinv._platform.plan import is_tiny
from jaxpinv._shapes import prepend_axes
from jaxpinv._solver import FactoredMatrix, Promoted, Strategy


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("a", "rtol", "atol", "factors"),
    meta_fields=("truncates", "is_given", "dtype", "strategy"),
)
@dataclass(frozen=True, eq=False, repr=False)
class Stored:
    """What is stored of factored matrices; all arrays have the whole batch shape.

    Attributes:
        a: the matrices, `(..., m, n)`, in the dtype of the computation.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        factors: the factors of the matrices, or of their adjoints if they are wide.
        truncates: whether the tolerances may truncate more than zeros.
        is_given: whether `rtol` and whether `atol` was given.
        dtype: the dtype of the results.
        strategy: how the matrices were factored.
    """

    a: Array
    rtol: Array
    atol: Array
    factors: Factors
    truncates: bool
    is_given: tuple[bool, bool]
    dtype: np.dtype
    strategy: Strategy


class Use(NamedTuple):
    """Stored matrices, and the arguments of one method.

    Attributes:
        stored: the matrices.
        columns: a vector or matrices `(..., length, k)` to apply them to, if any.
        damp: the damping, of any shape that broadcasts against the batch, if any.
    """

    stored: Stored
    columns: Array | None = None
    damp: Array | None = None

    def matrix(self) -> FactoredMatrix:
        """The factored matrices and the columns, promoted to one rank and dtype."""
        given = self.stored
        columns, dtype = self.columns, given.dtype
        arrays = [given.a, given.factors.u]
        if columns is not None:
            dtype = _tolerances.floating(jnp.result_type(dtype, columns))
            columns = columns[:, None] if columns.ndim == 1 else columns
            arrays.append(columns)
        computed = _tolerances.computed_in(*arrays)
        batch = _damping.batch_shape(given.factors.s.shape[:-1], self.damp, None)
        rank = max(len(batch) + 2, *(x.ndim for x in arrays))
        more = rank - given.a.ndim
        arrays = [prepend_axes(x.astype(computed), rank) for x in arrays]
        if self.damp is not None:
            real = jnp.finfo(computed).dtype
            arrays.append(_damping.of_unknowns(self.damp, None, real, rank - 1))
        a, u, *rest = _solver.varying_alike(arrays, [])
        damping = None if self.damp is None else rest.pop()
        _, s, v, kept, is_inverse = (prepend_axes(x, x.ndim + more) for x in given.factors)
        factors = Factors(u, s, v.astype(computed), kept, is_inverse)
        promoted = Promoted(
            a,
            prepend_axes(given.rtol, rank - 2),
            prepend_axes(given.atol, rank - 2),
            rest[0] if rest else None,
            batch,
            given.truncates,
            dtype,
            damping,
        )
        return FactoredMatrix(promoted, factors, None, given.strategy, is_stored=True)

    def damped(self, *, is_damped: bool) -> FactoredMatrix | FilteredMatrix | DampedMatrix:
        """The factored matrices with the damping, if there is one.

        `is_damped` says that the damping is nowhere zero.
        """
        matrix = self.matrix()
        given = matrix.given
        if given.damping is None:
            return matrix
        has_rtol, has_atol = self.stored.is_given
        strategy = matrix.strategy
        # A tolerance refers to `[A; D]`, and so truncates other values. And it takes less
        # time to factor many tiny matrices than to compute their singular vectors.
        m, n = given.tall()[0].shape[-2:]
        is_cheap = is_tiny(m, n, strategy.tuning) and not strategy.takes_triplets
        if not (has_rtol or has_atol or is_cheap):
            return filtered(matrix, given.damping, is_damped=is_damped)
        strategy = strategy._replace(is_damped=is_damped)
        return _damped.of_promoted(given, strategy, has_rtol=has_rtol, has_scale=False)

    def like_columns(self, x: Array) -> Array:
        """`x`, `(..., length, k)`, as a vector if the columns were given as a vector."""
        is_vector = self.columns is not None and self.columns.ndim == 1
        return x[..., 0] if is_vector else x


def stored(matrix: FactoredMatrix, inputs: Inputs) -> Stored:
    """What to store of factored matrices and of the arguments of `factorize`.

    All leaves get the whole batch shape, so they can be mapped and indexed alike.
    """
    given = matrix.given
    rank = given.a.ndim - 2
    # Divided over a mesh, and varying in `shard_map`, as the factors are.
    rtol, atol = (
        jnp.where(matrix.factors.is_inverse, x, x) for x in (given.rtol, given.atol)
    )
    a, rtol, atol, *factors = (
        jnp.broadcast_to(x, (*given.batch, *x.shape[rank:]))
        for x in (given.a, rtol, atol, *matrix.factors)
    )
    is_given = inputs.rtol is not None, inputs.atol is not None
    return Stored(
        *(a, rtol, atol, Factors(*factors)),
        given.truncates,
        is_given,
        given.dtype,
        matrix.strategy,
    )


@partial(compiled, options=())
def rank(use: Use) -> Array:
    """The ranks. Like the functions below, this is compiled once for every shape."""
    return use.matrix().rank()


@partial(compiled, options=("is_damped",))
def pinv(use: Use, *, is_damped: bool) -> Array:
    """The pseudo-inverses."""
    return use.damped(is_damped=is_damped).pinv()


@partial(compiled, options=("is_damped",))
def solve(use: Use, *, is_damped: bool) -> Array:
    """The minimum-norm solutions, or the damped ones."""
    matrix = use.damped(is_damped=is_damped)
    return use.like_columns(matrix.solve(matrix.columns).astype(matrix.dtype))


@partial(compiled, options=("is_damped",))
def null_projection(use: Use, *, is_damped: bool) -> Array:
    """The projections onto the null spaces."""
    matrix = use.damped(is_damped=is_damped)
    projected = matrix.null_projection(matrix.columns)
    return use.like_columns(projected.astype(matrix.dtype))


@partial(compiled, options=())
def singular_values(use: Use) -> Array:
    """The singular values."""
    return use.matrix().singular_values()


@partial(compiled, options=())
def log_pdet(use: Use) -> Array:
    """The logarithms of pseudo-determinants."""
    return use.matrix().log_pdet()[0]
