"""Numerical ranks: whether only rounding is truncated."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.certificate import (
    LEAST_MARGIN,
    PROBES,
    probes,
    rounding_of,
)
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, frobenius_norm, identity, matmul

# Products of two factors of order 500 and rank 250 have a remainder of 7 to 9 eps ||A||_F.
_REMAINDER = 0.5
# The ratio of the largest dropped value to eps times the largest value bounds the error of
# the pseudo-inverse in units of eps times the condition number. QR of such products leaves
# ratios up to 18 at order 200, and up to 0.08 n at orders 500 and 1000. The errors are at
# most 3.6 such units.
_LEAST_DROPPED, _DROPPED, _DROPPED_OF_LARGE = 4, 1.2, 0.1
# The smallest pivot of deficient matrices over n eps times the mean singular value was at
# most 1.7 for orders from 32 to 500.
SUSPICIOUS_PIVOT = 4
# If singular values decay smoothly, some pivots lie between that and the larger of 96 and
# 6 sqrt(n), times eps ||A||_F.
_LEAST_NEARLY, _NEARLY = 96, 6
# The smallest kept singular value is seldom this many times below the last kept pivot.
_CLOSE = 100


def may_be_rounding(a: Array, norm: Array, pivots: Array, cutoff: Cutoff) -> Array:
    """Whether LU factors suggest that only rounding is truncated, of batch shape.

    Then some pivots are rounding, and at most one other is nearly as small or below the
    cutoff: it may be rounding, too. A wrong answer costs only time.
    """
    eps, root = float(jnp.finfo(a.dtype).eps), a.shape[-1] ** 0.5
    size = jnp.abs(pivots)
    is_tiny = ~(size > (SUSPICIOUS_PIVOT * root * eps * norm)[..., None])
    # The largest singular value is at least the norm over this root.
    nearly = max(_LEAST_NEARLY, _NEARLY * root) * eps * norm
    limit = jnp.maximum(nearly, cutoff.above(norm / root))
    others = jnp.sum(~is_tiny & (size <= limit[..., None]), axis=-1, dtype=jnp.int32)
    return jnp.any(is_tiny, axis=-1) & (others <= 1)


def numerical_rank(a: Array, norm: Array, r: Array, cutoff: Cutoff) -> tuple[Array, Array]:
    """Which columns of a pivoted QR factorization are kept, and if that may be certified.

    The rest has to be rounding: its norm is that small and below the cutoff, and no
    truncated singular value of `a` exceeds that norm.

    Args:
        a: `(..., m, n)`, with elements of size 1.
        norm: the Frobenius norm of `a`, of batch shape.
        r: the triangular factor, `(..., n, n)`.
        cutoff: the tolerances.

    Returns:
        `(..., n)`, bool, and `(...)`, bool.
    """
    rows = jnp.sum(jnp.square(jnp.abs(r)), axis=-1)
    # No cumulative sum, because XLA makes a tree of kernels of it.
    is_below = ~jnp.tri(rows.shape[-1], k=-1, dtype=bool)
    below = jnp.sqrt(jnp.sum(jnp.where(is_below, rows[..., None, :], 0), axis=-1))
    eps, root = float(jnp.finfo(a.dtype).eps), a.shape[-1] ** 0.5
    kept = below > max(LEAST_MARGIN, _REMAINDER * root) * eps * norm[..., None]
    rest = jnp.max(jnp.where(kept, 0, below + eps * norm[..., None] / 2), axis=-1)
    both = jnp.stack([r, jnp.where(kept[..., :, None], 0, r)], axis=-3)
    seen = _seen_in_probes(both)
    largest, dropped = seen[..., 0], seen[..., 1]
    allowed = max(_LEAST_DROPPED, _DROPPED * root, _DROPPED_OF_LARGE * root**2)
    is_rounding = dropped <= allowed * eps * largest
    # Some kept value is at most the least of these norms. If it is below this limit, the
    # norm of the inverse is too large for a certificate.
    least = jnp.min(jnp.where(kept, below, jnp.inf), axis=-1)
    limit = cutoff.above(norm) + rounding_of(a, norm)
    is_possible = is_rounding & (rest <= cutoff.above(largest)) & (least > limit)
    is_close = is_possible & (least < _CLOSE * limit)

    def by_inverse(is_possible: Array) -> Array:
        ones = norm[..., None, None].astype(r.dtype) * identity(r)
        inverse = _norm_of_inverse(jnp.where(kept[..., :, None], r, ones))
        # Without the truncated columns, the inverse of a deficient matrix is larger.
        return is_possible & ~(is_close & (inverse * limit > 2))

    return kept, jax.lax.cond(jnp.any(is_close), by_inverse, lambda x: x, is_possible)


def makes_orthonormal(a: Array, norm: Array, w: Array, u: Array, kept: Array) -> Array:
    """Whether `a w` is `u` in the kept columns, to rounding, of batch shape.

    If the residual is too large in any of a few random directions, it is too large. The
    other columns of `w` are zero.
    """
    z = adjoint(probes(a))
    residual = matmul(a, matmul(w, z)) - matmul(u, jnp.where(kept[..., :, None], z, 0))
    return frobenius_norm(residual) <= PROBES**0.5 * rounding_of(a, norm) * frobenius_norm(
        w
    )


def _seen_in_probes(x: Array) -> Array:
    """A lower estimate of the largest singular value of `(..., n, n)`, of batch shape."""
    image = matmul(x, adjoint(probes(x)))
    size = frobenius_norm(image)
    return frobenius_norm(matmul(adjoint(x), image)) / jnp.where(size > 0, size, 1)


def _norm_of_inverse(r: Array) -> Array:
    """An estimate of the Frobenius norm of the inverse of a triangle, of batch shape."""
    z = adjoint(probes(r))
    image = jax.lax.linalg.triangular_solve(r, z, left_side=True, lower=False)
    return frobenius_norm(image) / PROBES**0.5
