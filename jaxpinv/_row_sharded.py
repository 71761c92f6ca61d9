"""Factors of one matrix whose rows lie on many devices."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._calculus import svd_jvp
from jaxpinv._factorization import svd, tsqr
from jaxpinv._factors import Cutoff, Factors, Triplets, pseudo_inverse, truncate
from jaxpinv._mesh import Placement
from jaxpinv._platform import chunking
from jaxpinv._platform import plan as plans
from jaxpinv._platform.target import Target


def factor(
    place: Placement, a: Array, rtol: Array, atol: Array, *, with_pinv: bool
) -> tuple[Array, ...]:
    """The factors of `a`, `(m, n)` with `m >= n`, and its pseudo-inverse if wanted.

    They stand for those of the primitive `factor`, of one matrix and of two numbers.
    """
    found = tsqr.decompose(jax.lax.stop_gradient(a), place.mesh, place.axis, triplets)
    # Where the matrix is not finite, neither are the values.
    factors = truncate(found, Cutoff(rtol, atol), finite=jnp.ones_like(rtol, bool))
    return (*factors, pseudo_inverse(factors)) if with_pinv else factors


def singular_values(a: Array, factors: Factors) -> Array:
    """All singular values, descending, of a matrix that has these factors."""
    return svd_jvp.triplets_of(a, *jax.lax.stop_gradient(factors[:3]))[1]


def triplets(r: Array) -> Triplets:
    """Singular triplets of the triangular factor, `(n, n)`, which one device takes."""
    # In a branch of one device, for which all others wait: so a loop adds no wait anywhere.
    target = Target(is_cpu=True, is_whole=True)
    plan = plans.factorization(
        r.shape, target, is_complex=jnp.iscomplexobj(r), method="svd"
    )
    calls = partial(chunking.in_calls, plan.svd_call)
    return svd.triplets(r, hermitian=False, calls=calls, retries=plan.retries)
