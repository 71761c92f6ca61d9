"""The residuals of a factorisation, and what value and derivatives need of them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import TINY, adjoint, is_known, largest_of_columns, matmul
from jaxpinv._platform.chunking import Ways, of_cache, replace


class Factors(NamedTuple):
    """What a factorisation of `A`, `(..., m, n)` with `m >= n`, hands on.

    The contract is `A V = U diag(s)` and `pinv(A) = V diag(kept / s) U^H`. The
    columns of `U` are orthonormal. `V` is unitary or, where everything is kept, just
    invertible: `A = Q R` gives the factors `(Q, 1, R^-1, True)`, and a square matrix
    `(I, 1, A^-1, True)`. A matrix that is not finite, or has a NaN tolerance, has `s = nan`
    and everything kept: from there value and derivatives become NaN by themselves.

    Attributes:
        u: `(..., m, n)`.
        s: `(..., n)`, real, in any order.
        v: `(..., n, n)`.
        kept: `(..., n)`, bool. False where the cutoff sets a singular value to zero.
        is_inverse: `(...)`, bool. Whether `U` is the identity.
    """

    u: Array
    s: Array
    v: Array
    kept: Array
    is_inverse: Array


def pseudo_inverse(factors: Factors) -> Array:
    """The pseudo-inverse `V diag(kept / s) U^H`, `(..., n, m)`."""
    inverse = inverse_values(factors)
    return matmul(factors.v, inverse[..., :, None] * adjoint(factors.u))


def may_be_inverse(shape: tuple) -> bool:
    """Whether matrices of that shape may have the factors `(I, 1, A^-1, True)`."""
    return is_known(shape) and shape[-2] == shape[-1] > TINY


def unless_identity(
    factors: Factors, product: Callable[[Array, Array], Array], x: Array, ways: Ways
) -> Array:
    """A product of `U` with `x`, which is `x` itself where `U` is the identity."""
    u, *_, is_inverse = factors
    if not ways.may_branch or not may_be_inverse(u.shape):
        return product(u, x)
    if not ways.in_blocks or u.shape != x.shape or u.ndim == 2:
        return jax.lax.cond(jnp.all(is_inverse), lambda u, x: x, product, u, x)
    # The few matrices of a batch that are not proven would make all others pay: so 2000
    # gradients of 32 by 32 take 36 ms instead of 40, and 100 of 100 by 100 take 18, not 23.
    # If none is proven the products for 2000 of 32 by 32 in float64 take 18 ms instead of
    # 11, next to hundreds for their singular values.
    flat, found = (jnp.reshape(y, (-1, *y.shape[-2:])) for y in (u, x))
    [found] = replace(
        lambda u, x: (product(u, x),),
        of_cache(flat),
        ~is_inverse.ravel(),
        [found],
        flat,
        found,
    )
    return jnp.reshape(found, x.shape)


def inverse_values(factors: Factors) -> Array:
    """The values `1 / s` where kept and 0 elsewhere, `(..., n)`, in the dtype of `u`."""
    # Masked before the division, so that no Inf is made that a mask must hide.
    inverse = jnp.where(factors.kept, 1 / jnp.where(factors.kept, factors.s, 1), 0)
    return inverse.astype(factors.u.dtype)


def largest_value(factors: Factors) -> Array:
    """The largest singular value, or 1 if that is 0, `(..., 1, 1)`, in the dtype of `u`."""
    largest = largest_of_columns(factors.s[..., :, None])
    return jnp.where(largest == 0, 1, largest).astype(factors.u.dtype)


def off_range(factors: Factors, x: Array) -> Array:
    """The projection of `x`, `(..., m, k)`, off the kept range of the matrix."""
    u = factors.u
    everything = _all_kept(factors) & (u.shape[-2] == u.shape[-1])
    return _without(everything, u, factors.kept, x)


def off_corange(factors: Factors, x: Array) -> Array:
    """The projection of `x`, `(..., n, k)`, off the kept range of the adjoint."""
    # V need not be unitary where everything is kept: but then nothing is off its range.
    return _without(_all_kept(factors), factors.v, factors.kept, x)


def _without(everything: Array, vectors: Array, kept: Array, x: Array) -> Array:
    """`x` without its part in the span of the kept columns, which may be everything."""
    within = jnp.where(kept[..., :, None], matmul(adjoint(vectors), x), 0)
    # Nothing of a column that is not finite is NaN.
    nothing = 0 * jnp.sum(x, axis=-2, keepdims=True)
    return jnp.where(everything, nothing, x - matmul(vectors, within))


def _all_kept(factors: Factors) -> Array:
    """Whether nothing is cut, `(..., 1, 1)`."""
    return jnp.all(factors.kept, axis=-1)[..., None, None]
