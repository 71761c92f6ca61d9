"""Certificates that the cutoff truncates no singular value, or only rounding.

If `A W = Q` with orthonormal `Q`, the smallest singular value of `A` is at least
`1 / ||W||_2`. So nothing is truncated if `||W|| max(atol, rtol * upper) < 1` for a norm
`||W|| >= ||W||_2` and an `upper` that is at least the largest singular value.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, frobenius_norm, identity, matmul

# Rounding leaves `||A W - Q||_F` at eps ||A||_F ||W||_F times 0.1 sqrt(n) for LU, measured
# on random, graded, Kahan and Vandermonde matrices for n from 9 to 500, and times 0.2 for
# two Cholesky factorizations. Twice that is allowed, but at least eight times eps.
LEAST_MARGIN, _MARGIN = 8, 0.25
# Four steps of power iteration give the largest singular value of a Gaussian matrix to
# within about a tenth.
_POWER_STEPS, _POWER_FACTOR = 4, 1.15
# With probability 4e-5, a residual of rank one looks ten times too small in all four
# directions.
PROBES = 4
# A seed that users do not pick: probes equal to rows of their matrix would prove nothing.
_SEED = (1955, 51, 406)

# If a matrix is a product rounded once, Gram-Schmidt leaves a remainder of up to 2.3 eps
# ||A||_F. Dropping it changes the pseudo-inverse by that times the condition number.
_TINY_REMAINDER = 3


def smallest_pivot(pivots: Array) -> Array:
    """The smallest absolute value, or zero if one is NaN, of batch shape."""
    # A minimum may ignore a NaN.
    size = jnp.abs(pivots)
    return jnp.min(jnp.where(size >= 0, size, 0), axis=-1)


def rules_out_full_rank(
    a: Array, norm: Array, pivots: Array, cutoff: Cutoff, least: float = 0
) -> Array:
    """Whether a triangular factor shows that a value may be truncated, of batch shape.

    The smallest singular value is at most the smallest pivot times `sqrt(n)`. A pivot of at
    most `least` times the mean singular value also rules out full rank. A wrong answer
    costs only time.
    """
    n = a.shape[-1]
    at_least = norm / n**0.5
    limit = cutoff.above(at_least) + rounding_of(a, norm) / n**0.5 + least * at_least
    return ~(smallest_pivot(pivots) > limit)


def certify_full_rank(
    a: Array,
    norm: Array,
    w: Array,
    cutoff: Cutoff,
    possible: Array | bool = True,
    *,
    sharply: bool = False,
    gram: Array | None = None,
) -> Array:
    """Whether it is proven that no singular value of `a` is truncated, of batch shape.

    Args:
        a: `(..., m, n)`, with elements of size 1.
        norm: the Frobenius norm of `a`, of batch shape.
        w: `(..., n, n)`, such that the columns of `a w` are orthonormal to rounding.
        cutoff: the tolerances.
        possible: of batch shape. Where it is False, so is the result.
        sharply: whether to try sharper norms, which take products of n by n matrices.
        gram: the Gram matrix of `a`, `(..., n, n)`, if it is known.
    """
    rounding = rounding_of(a, norm)
    found = possible & (frobenius_norm(w) * (cutoff.above(norm) + rounding) < 1)
    if not sharply:
        return found

    def by_sharper_norms(found: Array) -> Array:
        if gram is None:
            lower = _largest(a, norm)
        else:
            lower = jnp.sqrt(_largest(gram, frobenius_norm(gram)))
        # If even these lower bounds fail, so will the proof.
        at_least = _largest(w, frobenius_norm(w))
        open_ = possible & ~found & (at_least * (cutoff.above(lower) + rounding) < 1)
        return jax.lax.cond(
            jnp.any(open_),
            lambda: found | (open_ & _by_products(a, w, cutoff, lower, rounding, gram)),
            lambda: found,
        )

    return jax.lax.cond(
        jnp.any(possible & ~found), by_sharper_norms, lambda found: found, found
    )


def certify_rank(
    norm: Array, w_norm: Array, remainder: Array, rank: Array, cutoff: Cutoff, n: int
) -> Array:
    """Whether it is proven which singular values of a matrix are kept, of batch shape.

    Let `A W = U` with orthonormal `U`, and `A N = R` with an orthonormal basis `N` of the
    orthogonal complement of `W`. Then `A - R N^H` has the rank of `W`, its smallest nonzero
    singular value is `1 / ||W||_2`, and its singular values differ from those of `A` by at
    most `||R||`. If nothing is truncated, this is the same as `certify_full_rank`.

    Args:
        norm: the Frobenius norm of `A`, which has elements of size 1.
        w_norm: the Frobenius norm of `W`.
        remainder: the Frobenius norm of `R`.
        rank: the number of columns of `W`.
        cutoff: the tolerances.
        n: the number of columns of `A`.
    """
    eps = jnp.finfo(norm.dtype).eps
    kept = w_norm * (cutoff.above(norm) + LEAST_MARGIN * eps * norm + remainder) < 1
    # The largest of `rank` singular values is at least their root mean square.
    largest = norm / jnp.sqrt(jnp.maximum(rank, 1))
    limit = jnp.minimum(cutoff.above(largest), _TINY_REMAINDER * eps * norm)
    # A remainder of zero proves nothing, because its squares may have underflowed.
    return kept & ((rank == n) | (remainder + eps * norm / 2 <= limit))


def largest_remainder(norm: Array) -> Array:
    """The largest remainder that counts as rounding at this norm, of batch shape."""
    return _TINY_REMAINDER * jnp.finfo(norm.dtype).eps * norm


def probed(a: Array, w: Array) -> tuple[Array, Array]:
    """Estimates of `||W A - I||_F` and of `||W||_2`, of batch shape, for square `a`.

    Both use a few random directions. The second estimate is a lower bound.
    """
    directions = probes(a)
    image = matmul(directions, w)
    residual = frobenius_norm(matmul(image, a) - directions) / PROBES**0.5
    return residual, frobenius_norm(matmul(image, adjoint(w))) / frobenius_norm(image)


def probes(a: Array, count: int = PROBES) -> Array:
    """A few random directions, `(..., count, n)`."""
    n = a.shape[-1]
    directions = np.random.default_rng(_SEED).standard_normal((count, n))
    return jnp.broadcast_to(jnp.asarray(directions, a.dtype), (*a.shape[:-2], count, n))


def leaves_small_residual(a: Array, norm: Array, w: Array, residual: Array) -> Array:
    """Whether `w a` is the identity to rounding, of batch shape, for square `a`.

    LU with partial pivoting guarantees nothing: Wilkinson's matrices grow by 2^n. If the
    residual is too large in any of a few random directions, it is certainly too large. A
    small residual of `w a`, like one of `a w`, makes `1 / ||w||` a lower bound on the
    smallest singular value.
    """
    return residual <= rounding_of(a, norm) * frobenius_norm(w)


def rounding_of(a: Array, norm: Array) -> Array:
    """Bound on `||A W - Q||_F / ||W||_F`, of batch shape, where `norm` is that of `A`."""
    margin = max(LEAST_MARGIN, _MARGIN * a.shape[-1] ** 0.5)
    return margin * jnp.finfo(a.dtype).eps * norm


def _by_products(
    a: Array,
    w: Array,
    cutoff: Cutoff,
    lower: Array,
    rounding: Array,
    gram: Array | None = None,
) -> Array:
    """Whether sharper norms prove that nothing is truncated, of batch shape.

    The spectral norm of `A` is guessed and then checked, because the singular values of `A`
    are alike. Few singular values of `W` are large, so its Schatten norm of order 4 is
    close to the largest one.
    """
    upper = _POWER_FACTOR * lower
    at_most = cutoff.above(upper) + rounding
    is_small = jax.lax.cond(
        jnp.any(frobenius_norm(w) * at_most >= 1),
        lambda: jnp.minimum(frobenius_norm(w), _schatten_norm(w)) * at_most < 1,
        lambda: frobenius_norm(w) * at_most < 1,
    )
    return is_small & _is_below(a, upper, gram)


def _is_below(x: Array, bound: Array, gram: Array | None = None) -> Array:
    """Whether the spectral norm is proven to be below a bound, of batch shape.

    The norm is below `bound` if and only if `bound^2 I - X^H X` is positive definite.
    """
    if gram is None:
        top, below = _lower_gram(x)
        # Cholesky does not read the upper triangle.
        right = below.shape[-1] - top.shape[-1]
        top = jnp.pad(top, [*[(0, 0)] * (top.ndim - 1), (0, right)])
        gram = jnp.concatenate([top, below], axis=-2)
    # The product and the factorization each round by up to n eps, and n eps < 0.01.
    square = 0.98 * jnp.square(bound)[..., None, None].astype(x.dtype)
    gap = square * identity(x) - gram
    factor = jax.lax.linalg.cholesky(gap, symmetrize_input=False)
    return jnp.all(jnp.isfinite(factor), axis=(-2, -1))


def _schatten_norm(x: Array) -> Array:
    """The Schatten norm of order 4, `||X^H X||_F^(1/2)`, of batch shape."""
    top, below = _lower_gram(x)
    corner = below[..., : top.shape[-1]]
    parts = [frobenius_norm(top), frobenius_norm(below), frobenius_norm(corner)]
    return sum(jnp.square(part) for part in parts) ** 0.25


def _lower_gram(x: Array) -> tuple[Array, Array]:
    """The upper left block of `X^H X`, and the lower half of its rows."""
    half = x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    return matmul(adjoint(left), left), matmul(adjoint(right), x)


def _largest(x: Array, norm: Array) -> Array:
    """A lower estimate of the largest singular value, of batch shape.

    Division by the Frobenius norm, `norm`, keeps all powers of the matrix in range. The
    products are plain ones, because an estimate needs no short sums. They have two columns,
    because XLA then calls a library; for a single column it would compile a kernel.
    """
    x = x / norm[..., None, None].astype(x.dtype)
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    # Not all equal, because the columns of centered data add up to zero.
    weights = np.linspace(1, 2, 2 * x.shape[-2]).reshape(-1, 2)
    weights = jnp.asarray(weights, x.dtype)
    z = product(adjoint(x), jnp.broadcast_to(weights, (*x.shape[:-1], 2)))
    for _ in range(_POWER_STEPS):
        z = product(adjoint(x), product(x, z))
    return norm * frobenius_norm(product(x, z)) / frobenius_norm(z)
