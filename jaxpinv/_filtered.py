"""Stored matrices with a damping, applied by filtering their singular triplets."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._calculus import augmented
from jaxpinv._calculus.augmented import Augmented, Damped
from jaxpinv._damped_primitives import triplets_p
from jaxpinv._damping import within_range
from jaxpinv._factors import Triplets
from jaxpinv._linalg import (
    adjoint,
    finite_or_zero,
    identity,
    matmul,
    power_of_two,
    with_tangent_of,
)
from jaxpinv._solver import FactoredMatrix, varying_alike


class FilteredMatrix(NamedTuple):
    """Factored matrices, each with one damping for all its unknowns.

    The methods are those of `FactoredMatrix`.

    Attributes:
        matrix: the matrices, factored without a damping, and the columns to apply them to.
        d: the dampings, `(..., 1, 1)`, real.
        is_zero: where the dampings are zero, or None if it is known that none is.
        damped: the matrices, or their adjoints if they are wide, and their dampings, with
            1 in place of a zero damping.
        over: the reciprocal of the unit of `damped`, `(..., 1, 1)`.
        triplets: singular triplets of the matrices in `damped`.
    """

    matrix: FactoredMatrix
    d: Array
    is_zero: Array | None
    damped: Damped
    over: Array
    triplets: Triplets

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the results."""
        return self.matrix.dtype

    @property
    def columns(self) -> Array:
        """The columns to apply the matrices to, `(..., length, k)`."""
        return self.matrix.columns

    def pinv(self) -> Array:
        """The damped inverse, `(..., n, m)`, in the dtype of the results."""
        # The adjoint for tall matrices, which takes only n right-hand sides instead of m.
        x = self._solution(g=identity(self.damped.a)).r * self.over
        x = x if self.matrix.given.is_wide else adjoint(x)
        if self.is_zero is not None:
            plain = self.matrix.pinv().astype(x.dtype)
            x = jnp.where(self.is_zero, self._near_zero(plain), x)
        return x.astype(self.dtype)

    def solve(self, b: Array) -> Array:
        """The damped inverse times `b`, `(..., m, k)`."""
        if self.matrix.given.is_wide:
            x = self._solution(g=b).r * self.over
        else:
            x = self._solution(f=b).x * self.over
        if self.is_zero is None:
            return x
        return jnp.where(self.is_zero, self._near_zero(self.matrix.solve(b)), x)

    def null_projection(self, x: Array) -> Array:
        """`x - A_D^+ A x`, with `x` `(..., n, k)`, in the dtype of the results."""
        if self.matrix.given.is_wide:
            projected = self._solution(f=x).r
        else:
            projected = self._solution(h=x).x * self.damped.d.astype(x.dtype)
        if self.is_zero is not None:
            plain = self.matrix.null_projection(x).astype(x.dtype)
            moved = self.matrix.solve(matmul(self.matrix.given.a, x))
            plain = plain + (moved - self._near_zero(moved))
            projected = jnp.where(self.is_zero, plain, projected)
        return projected.astype(self.dtype)

    def _solution(
        self, f: Array | None = None, h: Array | None = None, g: Array | None = None
    ) -> Augmented:
        """The solution of the augmented system; a right-hand side of None is zero."""
        [given] = [x for x in (f, h, g) if x is not None]
        # Computed from the operands, so that it is divided over devices as they are.
        zero = jnp.zeros_like(self.damped.ratio)
        zero = zero + jnp.sum(jnp.zeros_like(given), axis=-2, keepdims=True)
        m, n = self.damped.a.shape[-2:]
        given = Augmented(
            *(
                jnp.broadcast_to(zero, (*zero.shape[:-2], rows, zero.shape[-1]))
                if x is None
                else zero + x
                for x, rows in ((f, m), (h, n), (g, n))
            )
        )
        return augmented.solution(self.damped, self.triplets, given)

    def _near_zero(self, x: Array) -> Array:
        """The damped solution near a zero damping, from the undamped one, `(..., n, k)`.

        The damped solution is `(I + d^2 X X^H)^-1 X b`, with `X` the pseudo-inverse and
        `X b = x`. At zero damping its value is `x`: only derivatives in `d` are new.
        """
        assert self.is_zero is not None
        d = jnp.where(self.is_zero, self.d, 0).astype(x.dtype)
        x = x + jnp.zeros_like(d)

        def apply(x: Array) -> Array:
            return x + d * self.matrix.solve(self.matrix.solve_adjoint(d * x))

        def same(_, x: Array) -> Array:
            return x

        return jax.lax.custom_linear_solve(apply, x, same, same)


def filtered(matrix: FactoredMatrix, d: Array, *, is_damped: bool) -> FilteredMatrix:
    """Factored matrices with the dampings `d`, `(..., 1)`, real.

    `is_damped` says that no damping is zero.
    """
    tall, *_ = matrix.given.tall()
    fixed = jax.lax.stop_gradient([tall, *matrix.factors[:3]])
    fixed, u, s, v = varying_alike(fixed, [])
    undefined = jnp.any(jnp.isnan(s), axis=-1)[..., None, None]
    strategy = matrix.strategy
    if not strategy.takes_triplets:
        u, s, v = triplets_p.bind(
            *(fixed, u, s, v), hermitian=strategy.hermitian, tuning=strategy.tuning
        )
    # With its tangent, because zeros in place of what is not finite have none.
    a = with_tangent_of(finite_or_zero(tall)[0], tall)
    largest = jnp.max(
        jnp.abs(jax.lax.stop_gradient(a)), axis=(-2, -1), keepdims=True, initial=0
    )
    d = within_range(d[..., None], largest)
    damping = jax.lax.stop_gradient(jnp.abs(d))
    # In units of the damping, because a solution contains 1 over its square where a
    # singular value is zero, and within limits, because it contains 1 as well.
    limits, scale = jnp.finfo(damping.dtype), power_of_two(largest)
    least = jnp.maximum(largest * 2.0 ** (limits.minexp * 2 // 3), limits.tiny)
    unit = power_of_two(jnp.maximum(damping, least))
    over, ratio = (1 / unit).astype(a.dtype), (scale / unit).astype(a.dtype)
    is_zero = None if is_damped else damping < limits.tiny
    usual = d / unit if is_zero is None else jnp.where(is_zero, 1, d / unit)
    usual = jnp.where(undefined | ~jnp.isfinite(d), jnp.nan, usual)
    damped = Damped(a / scale.astype(a.dtype), usual, ratio)
    triplets = u, jnp.where(undefined[..., 0], 0, s) / scale[..., 0], v
    return FilteredMatrix(matrix, d, is_zero, damped, over, triplets)
