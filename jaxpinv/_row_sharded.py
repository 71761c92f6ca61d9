"""Factors of one matrix whose rows lie on many devices."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AbstractMesh, Mesh

from jaxpinv import _solver
from jaxpinv._calculus import svd_jvp
from jaxpinv._calculus.form import Outer
from jaxpinv._factorization import damped_tsqr, thin_qr, tsqr
from jaxpinv._factors import Cutoff, Factors, Triplets, pseudo_inverse, truncate
from jaxpinv._inputs import Inputs
from jaxpinv._mesh import Placement
from jaxpinv._platform.plan import Plan
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import DEFAULT
from jaxpinv._primitives import (
    attach,
    pinv_form,
    plan_of,
    pseudo_inverse_of,
    shorten_of_plan,
    triplets_of_plan,
)
from jaxpinv._solver import FactoredMatrix, Promoted, Strategy


def factor(
    place: Placement, a: Array, rtol: Array, atol: Array, *, with_pinv: bool
) -> tuple[Array, ...]:
    """The factors of `a`, `(m, n)` with `m >= n`, and its pseudo-inverse if wanted.

    This replaces the primitive `factor` for one matrix, with numbers as tolerances.
    """
    found = _triplets_on(*place, a)
    # A matrix that is not finite needs no mask: its singular values are NaN.
    factors = truncate(found, Cutoff(rtol, atol), finite=jnp.ones_like(rtol, bool))
    return (*factors, pseudo_inverse(factors)) if with_pinv else factors


def strategy(place: Placement, *, with_pinv: bool) -> Strategy:
    """The strategy that factors a matrix where its rows lie."""
    made = partial(factor, place, with_pinv=with_pinv)
    return Strategy(with_pinv=with_pinv, factor=made, caps_default=True)


class DampedRows(NamedTuple):
    """One factored matrix with a damping, its rows on many devices.

    Attributes:
        given: the matrix, its damping, and the columns to apply it to.
        place: where the matrix lies.
        factors: the factors of `[A T; D T]`.
        own: the singular values of `A`, `(n,)`.
        unit: the diagonal of T, `(n,)` or `(1,)`.
    """

    given: Promoted
    place: Placement
    factors: Factors
    own: Array
    unit: Array

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the results."""
        return self.given.dtype

    @property
    def columns(self) -> Array:
        """The columns to apply the matrix to, `(m, k)`."""
        assert self.given.columns is not None
        return self.given.columns

    def pinv(self) -> Array:
        """The damped inverse, `(n, m)`, in the dtype of the results."""
        x = pseudo_inverse_of(self.factors, pseudo_inverse(self.factors), DEFAULT)
        top = damped_tsqr.top_on(self.place.mesh, self.place.axis, x.shape[0])
        return (self._unit() * top(x)).astype(self.dtype)

    def solve(self, b: Array) -> Array:
        """The damped inverse times `b`, `(m, k)`."""
        stack = damped_tsqr.stack_on(self.place.mesh, self.place.axis)
        n = self.given.a.shape[-1]
        slot = Outer(stack(b, jnp.zeros((n, b.shape[1]), b.dtype)), None)
        truncates = self.given.truncates
        return self._unit() * pinv_form(self.factors, [slot], truncates=truncates)

    def rank(self) -> Array:
        """Number of kept singular values of `A`."""
        kept = Cutoff(self.given.rtol, self.given.atol).keeps(self.own)
        return jnp.sum(kept, axis=-1, dtype=int)

    def singular_values(self) -> Array:
        """The singular values of `A`, descending, with derivatives in `A`."""
        mesh, axis = self.place
        decompose = partial(_triplets_on, mesh, axis)
        return svd_jvp.values_of(decompose, self.given.a, self.own)

    def _unit(self) -> Array:
        """The diagonal of T as a column, `(n, 1)`."""
        return self.unit[:, None].astype(self.factors.u.dtype)


def factorize(
    place: Placement, inputs: Inputs, *, with_pinv: bool
) -> FactoredMatrix | DampedRows:
    """The matrix, factored where its rows lie, and the columns to apply it to."""
    chosen = strategy(place, with_pinv=with_pinv)
    if inputs.damp is None:
        return _solver.factorize(inputs, chosen)
    given = _solver.promote(inputs, chosen)
    return _factor_damped(place, given, is_default=inputs.rtol is None)


def singular_values(matrix: FactoredMatrix | DampedRows) -> Array:
    """All singular values, descending, with derivatives in the matrix."""
    if isinstance(matrix, DampedRows):
        return matrix.singular_values()
    triplets = jax.lax.stop_gradient(matrix.factors[:3])
    return svd_jvp.triplets_of(matrix.given.a, *triplets)[1]


def _factor_damped(place: Placement, given: Promoted, *, is_default: bool) -> DampedRows:
    """A matrix with a damping, factored; `is_default` says that no `rtol` was given."""
    a, d, rtol = given.a, given.damping, given.rtol
    assert d is not None
    plain, damping = map(jax.lax.stop_gradient, (a, d))
    is_damped = jnp.all(damping > 0)
    rtol = jnp.where(is_damped, 0, rtol) if is_default else rtol
    # With one damping, or if T would change what is truncated in `[A; D]`, T is 1.
    begin = 2 * given.atol
    if d.shape[-1] == 1:
        begin = jnp.full_like(begin, jnp.inf)
    elif given.truncates:
        begin = jnp.where(is_damped, jnp.inf, begin)
    decompose = damped_tsqr.on(place.mesh, place.axis, shorten, triplets)
    u, s, v, own, unit = decompose(plain, damping, begin)
    found = truncate((u, s, v), Cutoff(rtol, given.atol), jnp.ones_like(is_damped))
    n = a.shape[-1]
    stack = damped_tsqr.stack_on(place.mesh, place.axis)
    below = jnp.broadcast_to((d * unit)[:, None], (n, n)) * jnp.eye(n, dtype=d.dtype)
    whole = stack(a * unit[None, :].astype(a.dtype), below.astype(a.dtype))
    return DampedRows(given, place, attach(found, whole), own, unit)


def _triplets_on(mesh: Mesh | AbstractMesh, axis: tsqr.Axis, a: Array) -> Triplets:
    """Singular triplets of the matrix `a`, `(m, n)`, without its damping."""
    return tsqr.decompose(jax.lax.stop_gradient(a), mesh, axis, shorten, triplets)


def shorten(rows: Array) -> tuple[thin_qr.Product, Array]:
    """A QR factorization of the rows on one device that makes them shorter."""
    return shorten_of_plan(_plan(rows))(rows)


def triplets(r: Array) -> Triplets:
    """Singular triplets of the triangular factor, `(n, n)`, computed on one device."""
    return triplets_of_plan(_plan(r), hermitian=False)(r)


def _plan(a: Array) -> Plan:
    """The plan for a matrix on one device."""
    # A loop adds no wait: devices wait for each other only before and after it.
    target = Target(is_cpu=True, is_whole=True)
    return plan_of(a.shape, a, target, "svd")
