"""Log-volumes without the pseudo-inverse, where a certificate proves full rank.

Random directions bound singular values. Let `Z`, of k rows, have independent standard
Gaussian elements. Then `||Z v||^2` follows the chi-squared distribution for every unit
vector `v`, and is less than a `q^2` only with a tiny probability. If `Y A = Z + R`, the
last right singular vector gives `s_n ||Y|| >= q - ||R||`, whatever the errors of `Y` are.
So a solution for k right-hand sides serves instead of the inverse (as in J. D. Dixon,
"Estimating extremal eigenvalues and condition numbers of matrices", SIAM J. Numer. Anal. 20
(1983) 812-814).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._factorization.certificate import rounding_of
from jaxpinv._factorization.halves import gram as gram_of
from jaxpinv._factorization.triangular import order_of
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import (
    adjoint,
    frobenius_norm,
    identity,
    matmul,
    normalize_scale,
    transpose,
)

# A matrix without full rank passes with this probability, over directions that nobody
# chose to suit it.
_RISK = 1e-13
# Fewer directions take less time but give weaker bounds: off by a factor of about 57 with
# 8 directions, 10 with 16 and 4 with 32.
FEW, _MANY = 16, 32
# Fewest columns for many directions, each of which costs more for a square matrix.
_LARGE, _LARGE_SQUARE = 64, 128
_SEED = (1955, 51, 407)
# Pairs of products with a matrix and its adjoint, to bound its largest singular value.
_PAIRS = 4


def log_of_product(x: Array, scale: Array) -> Array:
    """The sum of `log |scale x|` over the last axis of `x`, `(..., n)`, of batch shape.

    Scales are powers of two, `(...)`. Logarithms of products lose no digits where the sum
    is small, as a sum of logarithms of both would, but products may leave the range.
    """
    x, scale = jnp.abs(x), scale[..., None]
    product = x * scale
    in_range = (product >= jnp.finfo(x.dtype).tiny) & (product < jnp.inf)
    logs = jnp.log(jnp.where(in_range, product, x))
    return jnp.sum(jnp.where(in_range, logs, logs + jnp.log(scale)), axis=-1)


def by_lu(a: Array, cutoff: Cutoff, *, sharply: bool) -> tuple[Array, Array, Array]:
    """Pivots of square matrices, `(..., n, n)`, by LU with partial pivoting.

    With `sharply`, certificates are sharpened by products with the matrix.

    Returns:
        The pivots over a scale, `(..., n)`; the scale, `(...)`, a power of two; whether it
        is certified that nothing is truncated, `(...)`.
    """
    n = a.shape[-1]
    a, scale, finite, norm = normalize_if_extreme(a)
    cutoff = cutoff._replace(atol=cutoff.atol / scale)
    z, least = _directions(a, _LARGE_SQUARE)
    # LAPACK stores columns where we store rows, so nothing is transposed. Directions are
    # more columns, to which elimination applies the permutation and `L^-1`.
    both = transpose(jnp.concatenate([a, z], axis=-2))
    eliminated, swaps, _ = jax.lax.linalg.lu(both)
    lu = eliminated[..., :n]
    pivots = jnp.diagonal(lu, axis1=-2, axis2=-1)
    y = transpose(
        jax.lax.linalg.triangular_solve(
            lu, eliminated[..., n:], left_side=True, lower=False
        )
    )
    residual = frobenius_norm(matmul(y, a) - z)
    rounding = rounding_of(a, norm)
    size = frobenius_norm(y)
    # LU with partial pivoting guarantees nothing: Wilkinson's matrices grow by 2^n.
    possible = finite & (residual <= rounding * size)
    # No smallest singular value is above the norm of `Z` over that of `Y`. A guess of the
    # former is enough, because a wrong answer costs only time.
    at_least = cutoff.above(norm / n**0.5) + rounding
    possible = possible & (size * at_least <= (z.shape[-2] * n) ** 0.5)
    limit = cutoff.above(norm) + rounding
    found = possible & (size * limit + residual < least)
    if not sharply:
        return pivots, scale, found

    def sharpen(found: Array) -> Array:
        def goes_on(state: tuple[Array, ...]) -> Array:
            pairs, _, _, found = state
            return (pairs <= _PAIRS) & ~jnp.all(found | ~possible)

        def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
            pairs, x, _, found = state
            x = unit * product(product(x, adjoint(a)), a)
            # The norm of `Z (A^H A)^p` is at least `q s_1^2p`. Few directions are enough,
            # because only the root of `q` counts.
            largest = 1.01 * (frobenius_norm(x) / least_norm(FEW)) ** (0.5 / pairs)
            limit = cutoff.above(norm * jnp.minimum(largest, 1)) + rounding
            found = found | (possible & (size * limit + residual < least))
            return pairs + 1, x, limit, found

        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        unit = jnp.square(1 / norm)[..., None, None].astype(a.dtype)
        start = (jnp.ones((), norm.dtype), gaussian(a, FEW) + 0 * unit, limit, found)
        _, _, sharp, found = jax.lax.while_loop(goes_on, step, start)

        def again(found: Array) -> Array:
            # `W A^H = Y + R2` and `V A = W + R3` give `s_n^3 ||V|| + s_n^2 ||R3|| +
            # s_n ||R2|| >= q - ||R||`.
            order = order_of(swaps)
            solve = partial(jax.lax.linalg.triangular_solve, lu, left_side=False)
            upper = partial(solve, lower=False)
            lower = partial(solve, lower=True, unit_diagonal=True)
            w = jnp.conj(lower(upper(jnp.conj(y))))
            v = upper(lower(w, transpose_a=True), transpose_a=True)
            w = _permuted(w, jnp.argsort(order, axis=-1))
            # The residuals are computed, and off by rounding times the other factor.
            of_w, of_v = frobenius_norm(w), frobenius_norm(v)
            second = frobenius_norm(matmul(w, adjoint(a)) - y) + rounding * of_w
            third = frobenius_norm(matmul(v, a) - w) + rounding * of_v
            reached = sharp * (sharp * of_v + third) + second
            return found | (possible & (sharp * reached + residual < least))

        return jax.lax.cond(jnp.all(found | ~possible), lambda found: found, again, found)

    found = jax.lax.cond(jnp.all(found | ~possible), lambda found: found, sharpen, found)
    return pivots, scale, found


def by_gram(a: Array, cutoff: Cutoff, *, halves: int) -> tuple[Array, Array, Array]:
    """Pivots of tall matrices, `(..., m, n)`, by a Cholesky factor of the Gram matrix.

    Unless the matrix is well-conditioned, the Gram matrix loses digits. Then the Gram
    matrix of `A L^-H` corrects them, as in `cholesky_qr.factor`. From `halves` columns on,
    Gram matrices are computed by halves.

    Returns:
        As `by_lu`.
    """
    n = a.shape[-1]
    gram, scale, finite = _scaled_gram(a, halves)
    cutoff = cutoff._replace(atol=cutoff.atol / scale)
    norm = jnp.sqrt(jnp.real(jnp.trace(gram, axis1=-2, axis2=-1)))
    factor = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
    z, least = _directions(a, _LARGE)
    over = partial(
        jax.lax.linalg.triangular_solve,
        factor,
        lower=True,
        transpose_a=True,
        conjugate_a=True,
    )
    size = frobenius_norm(over(z))
    # The norm of `L^-1`, estimated from the directions, over that for orthonormal columns
    # of the same norm. Rounding of the Gram matrix changes the log-volume by this squared
    # times n eps / 2 at most, that of a backward stable factorization by this times n eps.
    excess = size * norm / (n * z.shape[-2] ** 0.5)
    eps, smallest = float(jnp.finfo(a.dtype).eps), least / size
    exceeds = jnp.square(smallest) > jnp.square(cutoff.above(norm)) + 4 * eps * norm**2
    found = finite & (jnp.square(excess) <= 8) & exceeds

    def correct(pivots: Array, found: Array) -> tuple[Array, Array]:
        # LAPACK stores columns where we store rows, so `A^T` is not copied.
        scaled = a / scale[..., None, None].astype(a.dtype)
        q = transpose(
            jax.lax.linalg.triangular_solve(
                jnp.conj(factor), transpose(scaled), left_side=True, lower=True
            )
        )
        gram = matmul(adjoint(q), q)
        off = frobenius_norm(gram - identity(gram))
        second = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
        # The smallest singular value of `q` is at least the square root of 1 / 2.
        limit = cutoff.above(norm) + rounding_of(a, norm)
        better = finite & (off <= 0.5) & (0.7 * smallest > limit)
        better_pivots = pivots * jnp.diagonal(second, axis1=-2, axis2=-1)
        return jnp.where(found[..., None], pivots, better_pivots), found | better

    pivots = jnp.diagonal(factor, axis1=-2, axis2=-1)
    pivots, found = jax.lax.cond(jnp.all(found), lambda *same: same, correct, pivots, found)
    return pivots, scale, found


def _scaled_gram(a: Array, halves: int) -> tuple[Array, Array, Array]:
    """Gram matrices of matrices over their scale; the scale; and which are finite.

    If no square can leave the range, the scale is 1, and no scaled copy is made.
    """

    def scaled(_: Array) -> tuple[Array, Array, Array]:
        unit, scale, finite = normalize_scale(a)
        return gram_of(unit, fewest=halves), scale, finite

    def same(gram: Array) -> tuple[Array, Array, Array]:
        return gram, jnp.ones_like(trace), in_range

    gram = gram_of(a, fewest=halves)
    trace = jnp.real(jnp.trace(gram, axis1=-2, axis2=-1))
    # Squares that underflow are less than eps times a trace in these limits.
    limit = 2.0 ** (jnp.finfo(a.dtype).maxexp // 4)
    in_range = (trace > 1 / limit) & (trace < limit)
    return jax.lax.cond(jnp.all(in_range), same, scaled, gram)


def normalize_if_extreme(a: Array) -> tuple[Array, Array, Array, Array]:
    """What `normalize_scale` returns, and norms.

    Where no power that certificates take can leave the range, the scale is 1.
    """

    def scaled(norm: Array) -> tuple[Array, Array, Array, Array]:
        _, scale, finite = normalize_scale(a)
        scale = jnp.where(is_moderate, 1, scale)
        unit = scale[..., None, None].astype(a.dtype)
        of_scale = jnp.where(finite[..., None, None], a, 0) / unit
        # Bits of a norm must not depend on the rest of the batch.
        norm = jnp.where(is_moderate, norm, frobenius_norm(of_scale))
        return of_scale, scale, finite, norm

    def same(norm: Array) -> tuple[Array, Array, Array, Array]:
        return a, jnp.ones_like(norm), is_moderate, norm

    norm = frobenius_norm(a)
    limit = 2.0 ** (jnp.finfo(a.dtype).maxexp // 8)
    is_moderate = (norm > 1 / limit) & (norm < limit)
    return jax.lax.cond(jnp.all(is_moderate), same, scaled, norm)


def _directions(a: Array, large: int) -> tuple[Array, float]:
    """Random directions, `(..., k, n)`, and the least norm `q` of their products."""
    count = FEW if a.shape[-1] < large else _MANY
    return gaussian(a, count), least_norm(count)


def gaussian(a: Array, count: int) -> Array:
    """So many random directions, `(..., count, n)`, in the batch and dtype of `a`."""
    n = a.shape[-1]
    z = np.random.default_rng(_SEED).standard_normal((count, n))
    return jnp.broadcast_to(jnp.asarray(z, a.dtype), (*a.shape[:-2], count, n))


def least_norm(count: int) -> float:
    """The least norm `q` of products of so many random directions with a unit vector."""
    # The probability of less than q^2 is at most (q^2 / 2)^(k/2) / gamma(k/2 + 1).
    return math.sqrt(2 * (_RISK * math.gamma(count / 2 + 1)) ** (2 / count))


def _permuted(x: Array, order: Array) -> Array:
    """The columns of `x`, `(..., k, n)`, in an order, `(..., n)`."""
    return jnp.take_along_axis(x, order[..., None, :], axis=-1)
