"""Factors of a matrix of rows on many devices, which change with it as they should.

The factorisation itself is never differentiated. What leaves this module has the
derivatives of the matrix attached to it.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import tsqr as _tsqr
from jaxpinv._factorization.auto import factors_of
from jaxpinv._factorization.certificate import Cutoff
from jaxpinv._factors import Factors, pseudo_inverse
from jaxpinv._linalg import adjoint, matmul
from jaxpinv._mesh import Placement
from jaxpinv._primitives import pinv_form


def factor(
    place: Placement, a: Array, rtol: Array, atol: Array, *, with_pinv: bool
) -> tuple[Array, ...]:
    """The factors of `a`, `(m, n)` with `m >= n`, and its pseudo-inverse if wanted.

    They stand for those of the primitive `factor`, of one matrix and of two numbers.
    """
    u, s, v = _tsqr.decompose(jax.lax.stop_gradient(a), place.mesh, place.axis)
    # Where the matrix is not finite, neither are the values.
    finite, certified = jnp.ones_like(rtol, bool), jnp.zeros_like(rtol, bool)
    triplets = (_with_tangent(u, a), s, v)
    factors = factors_of(triplets, Cutoff(rtol, atol), finite, certified)
    return (*factors, _pseudo_inverse(factors)) if with_pinv else factors


def singular_values(a: Array, factors: Factors) -> Array:
    """All singular values, descending, differentiable as JAX differentiates its own."""
    u, s, v, *_ = jax.lax.stop_gradient(factors)
    return _triplets(a, u, s, v)[1]


@jax.custom_jvp
def _with_tangent(u: Array, a: Array) -> Array:
    """`u`, on which the tangent of `a` rides, as on that of the primitive `factor`."""
    return u


@_with_tangent.defjvp
def _with_tangent_jvp(primals, tangents):
    return _with_tangent(*primals), tangents[1]


@jax.custom_jvp
def _pseudo_inverse(factors: Factors) -> Array:
    """The pseudo-inverse, with the derivatives of `pinv_form`."""
    return pseudo_inverse(factors)


@_pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    [factors], [directions] = primals, tangents
    dx = pinv_form(factors, [None, directions.u], cuts=True)
    return _pseudo_inverse(factors), dx


@jax.custom_jvp
def _triplets(a: Array, u: Array, s: Array, v: Array) -> tuple[Array, Array, Array]:
    """The singular triplets of `a`, `u` and `v` of no use where `s` is repeated or zero."""
    return u, s, v


@_triplets.defjvp
def _triplets_jvp(primals, tangents):
    u, s, v = triplets = _triplets(*primals)
    # The NaN is a factor of the tangent, so that reverse mode does not lose it.
    e = tangents[0] * jnp.where(jnp.any(jnp.isnan(s)), jnp.nan, 1).astype(u.dtype)
    image = matmul(e, v)
    w = matmul(adjoint(u), image)
    diagonal = jnp.eye(s.shape[0], dtype=bool)
    rows, columns = s[:, None].astype(u.dtype), s[None, :].astype(u.dtype)
    gap = jnp.where(diagonal, 1, (columns - rows) * (columns + rows))
    phase = (w - adjoint(w)) / (2 * columns)
    left = jnp.where(diagonal, phase, (w * columns + rows * adjoint(w)) / gap)
    right = jnp.where(diagonal, 0, (rows * w + adjoint(w) * columns) / gap)
    du = matmul(u, left - w / columns) + image / columns
    return triplets, (du, jnp.real(jnp.diagonal(w)), matmul(v, right))
