"""Damped matrices: `[A; D]`, factored once for all uses of the damped inverse of `A`."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._calculus import damped, svd_jvp
from jaxpinv._calculus.form import Outer
from jaxpinv._damped_primitives import damped_factor_p, top_inverse_of, values_p
from jaxpinv._damped_solution import solution
from jaxpinv._damping import within_range
from jaxpinv._factorization.damped import unit_of
from jaxpinv._factorization.damped_qr import augment
from jaxpinv._factors import Cutoff, Factors, off_corange, off_range
from jaxpinv._inputs import Inputs
from jaxpinv._linalg import (
    adjoint,
    finite_or_zero,
    largest_element,
    matmul,
    normalize_scale,
    pad_rows,
    with_tangent_of,
)
from jaxpinv._primitives import attach, kept_p, pinv_form
from jaxpinv._solver import Promoted, Strategy, promote


class DampedMatrix(NamedTuple):
    """Factored matrices with a damping.

    The methods are those of `FactoredMatrix`.

    Attributes:
        given: the matrices, their damping, and the columns to apply them to.
        factors: the factors of `[B; D T]`, where B is `A T` or, if `_by_adjoint`, `A^H`.
        damping: the diagonal of `D T`, `(..., n)` or `(..., 1)`.
        cutoff: for the singular values of `[B; D T]`.
        unit: the diagonal of T, `(..., n)` or `(..., 1)`.
        x: the pseudo-inverse of `[B; D T]`, without its last columns, those of `D T`.
        p: `(B^H B + D^2 T^2)^-1`, where no value is truncated.
        changing: B, in which derivatives are taken.
        strategy: how the matrices were factored.
    """

    given: Promoted
    factors: Factors
    damping: Array
    cutoff: Cutoff
    unit: Array
    x: Array
    p: Array
    changing: Array
    strategy: Strategy

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the results."""
        return self.given.dtype

    @property
    def columns(self) -> Array:
        """The columns to apply the matrices to, `(..., length, k)`."""
        assert self.given.columns is not None
        return self.given.columns

    def pinv(self) -> Array:
        """The damped inverse, `(..., n, m)`, in the dtype of the results."""
        x = self._inverse()
        x = adjoint(x) if _by_adjoint(self.given) else x * self._unit()
        return x.astype(self.dtype)

    def solve(self, b: Array) -> Array:
        """The damped inverse times `b`, `(..., m, k)`."""
        m, n = self.changing.shape[-2:]
        if m >= n and not self.given.truncates:
            return self._few(b)
        if not _by_adjoint(self.given):
            return self._solve(pad_rows(b, below=self.given.a.shape[-1]))
        found = self._form(Outer(None, jnp.conj(b)))
        n = self.given.a.shape[-1]
        return jnp.conj(jax.lax.slice_in_dim(found, 0, n, axis=-2))

    def null_projection(self, x: Array) -> Array:
        """`x - A_D^+ A x`, with `x` `(..., n, k)`."""
        formula = x - self.solve(matmul(self.given.a, x))
        m, n = self.given.a.shape[-2:]
        undefined = jnp.any(jnp.isnan(self.factors.s), axis=-1)[..., None, None]
        if _by_adjoint(self.given):
            # The projection onto the null space of [A, D], at the unknowns of A.
            exact = off_range(self.factors, pad_rows(x, below=m))
            exact = jax.lax.slice_in_dim(exact, 0, n, axis=-2)
            return with_tangent_of(jnp.where(undefined, jnp.nan, exact), formula)
        # The part due to the damping, without a difference of nearly equal numbers.
        assert self.given.damping is not None
        d = self.given.damping[..., :, None].astype(x.dtype)
        lower = self._solve(pad_rows(d * x, above=m))
        if self.strategy.is_damped and not self.given.truncates:
            return lower
        unit = self._unit()
        exact = unit * off_corange(self.factors, x / unit) + lower
        return with_tangent_of(jnp.where(undefined, jnp.nan, exact), formula)

    def singular_values(self) -> Array:
        """All singular values of `A`, `(..., min(m, n))`, descending."""
        tall, *_ = self.given.tall()
        tuning = self.strategy.tuning
        finite, is_finite = finite_or_zero(tall)
        s = values_p.bind(finite, method=self.strategy.method, tuning=tuning)
        s = jnp.where(is_finite[..., 0], s, jnp.nan)
        s = svd_jvp.values_of(self.strategy.triplets, tall, s)
        return self._in_batch(s.astype(jnp.finfo(self.dtype).dtype), 1)

    def rank(self) -> Array:
        """Number of kept singular values of `A`, in the default integer dtype."""
        method, tuning = self.strategy.method, self.strategy.tuning
        kept = kept_p.bind(*self.given.tall(), method=method, tuning=tuning)
        return self._in_batch(jnp.sum(kept, axis=-1, dtype=int), 0)

    def _inverse(self) -> Array:
        """The damped inverse of B."""
        # `P` is as large as `1 / d^2` where a wide matrix has a null space, and its product
        # with `I - A X`, as small as `d^2`, loses digits.
        is_wide = self.given.is_wide and not _by_adjoint(self.given)
        if self.given.truncates or not self.strategy.is_damped or is_wide:
            return top_inverse_of(
                *(self.x, self.p, self.changing, self.damping, self.cutoff, self.factors),
                method=self.strategy.method,
                tuning=self.strategy.tuning,
            )
        # `[A; D]` has full rank, so derivatives do not need `U`.
        return damped.inverse_of(self.x, self.p, self.changing)

    def _unit(self) -> Array:
        """The diagonal of T as a column, `(..., n, 1)`."""
        return self.unit[..., :, None].astype(self.factors.u.dtype)

    def _few(self, b: Array) -> Array:
        """The damped inverse times `b`, for a tall `B`, without forming an inverse."""
        # Squares of matrices of size 1 neither overflow nor underflow.
        _, scale, _ = normalize_scale(jax.lax.stop_gradient(self.changing))
        unit = scale[..., None, None].astype(b.dtype)
        of = partial(
            solution,
            # XLA would scale the matrix anew for each product.
            a=jax.lax.optimization_barrier(self.changing / unit),
            d=self.damping / scale[..., None],
            cutoff=self.cutoff._replace(atol=self.cutoff.atol / scale),
            factors=self.factors._replace(s=self.factors.s / scale[..., None]),
            # Without tolerances, the cutoff is zero where every unknown is damped.
            may_truncate=not self.strategy.is_damped,
            method=self.strategy.method,
            tuning=self.strategy.tuning,
        )
        if _by_adjoint(self.given):
            return jnp.conj(of(jnp.conj(b), slot="left")) / unit
        return self._unit() * of(b, slot="right") / unit

    def _form(self, slot: Outer) -> Array:
        """The pseudo-inverse of `[B; D T]` times a matrix, on the side that `slot` says."""
        return pinv_form(
            self.factors,
            [slot],
            truncates=self.given.truncates,
            tuning=self.strategy.tuning,
        )

    def _solve(self, b: Array) -> Array:
        """`T pinv([A; D] T) b`, with `b` `(..., m + n, k)`."""
        return self._unit() * self._form(Outer(b, None))

    def _in_batch(self, x: Array, rank: int) -> Array:
        """`x`, broadcast to the whole batch shape, with its last `rank` axes unchanged."""
        own = x.shape[x.ndim - rank :]
        x = jax.lax.squeeze(x, range(x.ndim - rank - len(self.given.batch)))
        return jnp.broadcast_to(x, (*self.given.batch, *own))


def factorize(inputs: Inputs, strategy: Strategy) -> DampedMatrix:
    """The arguments of a public function, one of them a damping, factored."""
    given = promote(inputs, strategy)
    return of_promoted(
        given,
        strategy,
        has_rtol=inputs.rtol is not None,
        has_scale=inputs.damp_scale is not None,
    )


def of_promoted(
    given: Promoted, strategy: Strategy, *, has_rtol: bool, has_scale: bool
) -> DampedMatrix:
    """Promoted arguments, factored, given whether the caller passed `rtol` and a scale."""
    a = given.a
    assert given.damping is not None
    largest = largest_element(jax.lax.stop_gradient(a))
    d = within_range(given.damping, largest[..., None])
    given = given._replace(damping=d)
    rtol, atol = given.rtol, given.atol
    if not has_rtol:
        # If every unknown is damped, no singular value of `[A; D]` is near zero.
        is_damped = jnp.all(jax.lax.stop_gradient(d) > 0, axis=-1)
        rtol = jnp.zeros_like(rtol) if strategy.is_damped else jnp.where(is_damped, 0, rtol)
    unit = jnp.ones_like(d[..., :1])
    if has_scale and not (strategy.is_damped and given.truncates):
        damping = jax.lax.stop_gradient(d)
        unit = unit_of(damping, largest, 2 * atol)
        if given.truncates:
            is_damped = jnp.all(damping > 0, axis=-1, keepdims=True)
            unit = jnp.where(is_damped, 1, unit)
    b = adjoint(a) if _by_adjoint(given) else a * unit[..., None, :].astype(a.dtype)
    d = d * unit
    *found, x, p = damped_factor_p.bind(
        *map(jax.lax.stop_gradient, (b, d, rtol, atol)),
        everywhere=strategy.is_damped and not given.truncates,
        hermitian=strategy.hermitian,
        method=strategy.method,
        tuning=strategy.tuning,
    )
    factors = attach(Factors(*found), augment(b, d))
    cutoff = Cutoff(rtol, atol)
    return DampedMatrix(given, factors, d, cutoff, unit, x, p, b, strategy)


def _by_adjoint(given: Promoted) -> bool:
    """Whether the adjoints are factored: for wide matrices with one damping each."""
    assert given.damping is not None
    return given.is_wide and given.damping.shape[-1] == 1
