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
_FEW, _MANY, _LARGE = 16, 32, 64
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
    a, scale, finite = normalize_scale(a)
    cutoff = cutoff._replace(atol=cutoff.atol / scale)
    # LAPACK stores columns where we store rows, so nothing is copied: A^T = P^T L U.
    lu, swaps, _ = jax.lax.linalg.lu(transpose(a))
    order = order_of(swaps)
    pivots = jnp.diagonal(lu, axis1=-2, axis2=-1)
    norm = frobenius_norm(a)
    z, least = _directions(a)
    solve = partial(jax.lax.linalg.triangular_solve, lu, left_side=False)
    upper = partial(solve, lower=False)
    lower = partial(solve, lower=True, unit_diagonal=True)

    # With its columns in another order, `z` is as random, so it need not be permuted.
    def solve_transposed(z: Array) -> Array:
        return upper(lower(z, transpose_a=True), transpose_a=True)

    y = solve_transposed(z)
    residual = frobenius_norm(_permuted(matmul(y, a), order) - z)
    rounding = rounding_of(a, norm)
    size = frobenius_norm(y)
    # LU with partial pivoting guarantees nothing: Wilkinson's matrices grow by 2^n.
    possible = finite & (residual <= rounding * size)
    limit = cutoff.above(norm) + rounding
    found = possible & (size * limit + residual < least)
    if not sharply:
        return pivots, scale, found

    def sharpen(found: Array) -> Array:
        limit = cutoff.above(_largest(a, norm)) + rounding
        found = found | (possible & (size * limit + residual < least))

        def again(found: Array) -> Array:
            # `W A^H = Y + R2` and `V A = W + R3` give `s_n^3 ||V|| + s_n^2 ||R3|| +
            # s_n ||R2|| >= q - ||R||`.
            w = jnp.conj(lower(upper(jnp.conj(y))))
            w = _permuted(w, jnp.argsort(order, axis=-1))
            v = solve_transposed(_permuted(w, order))
            # The residuals are computed, and off by rounding times the other factor.
            of_w, of_v = frobenius_norm(w), frobenius_norm(v)
            second = frobenius_norm(matmul(w, adjoint(a)) - y) + rounding * of_w
            third = frobenius_norm(matmul(v, a) - w) + rounding * of_v
            reached = limit * (limit * of_v + third) + second
            return found | (possible & (limit * reached + residual < least))

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
    z, least = _directions(a)
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
    # times n eps / 2 at most.
    excess = size * norm / (n * z.shape[-2] ** 0.5)
    eps, smallest = float(jnp.finfo(a.dtype).eps), least / size
    exceeds = jnp.square(smallest) > jnp.square(cutoff.above(norm)) + 4 * eps * norm**2
    found = finite & (jnp.square(excess) <= 2) & exceeds

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


def _directions(a: Array) -> tuple[Array, float]:
    """Random directions, `(..., k, n)`, and the least norm `q` of their products."""
    count = _FEW if a.shape[-1] < _LARGE else _MANY
    return _gaussian(a, count), _least(count)


def _gaussian(a: Array, count: int) -> Array:
    """So many random directions, `(..., count, n)`, in the batch and dtype of `a`."""
    n = a.shape[-1]
    z = np.random.default_rng(_SEED).standard_normal((count, n))
    return jnp.broadcast_to(jnp.asarray(z, a.dtype), (*a.shape[:-2], count, n))


def _least(count: int) -> float:
    """The least norm `q` of products of so many random directions with a unit vector."""
    # The probability of less than q^2 is at most (q^2 / 2)^(k/2) / gamma(k/2 + 1).
    return math.sqrt(2 * (_RISK * math.gamma(count / 2 + 1)) ** (2 / count))


def _largest(a: Array, norm: Array) -> Array:
    """An upper bound on the largest singular value, `(...)`.

    The norm of `Z (A^H A)^p` is at least `q` times its power, for directions `Z`. Few are
    enough, because only the root of `q` counts.
    """
    product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    unit = jnp.square(1 / norm)[..., None, None].astype(a.dtype)

    # A loop, because XLA would fuse all products into one that takes longer.
    def step(_: Array, z: Array) -> Array:
        return unit * product(product(z, adjoint(a)), a)

    z = jax.lax.fori_loop(0, _PAIRS, step, _gaussian(a, _FEW) + 0 * unit)
    bound = 1.01 * (frobenius_norm(z) / _least(_FEW)) ** (0.5 / _PAIRS)
    return norm * jnp.minimum(bound, 1)


def _permuted(x: Array, order: Array) -> Array:
    """The columns of `x`, `(..., k, n)`, in an order, `(..., n)`."""
    return jnp.take_along_axis(x, order[..., None, :], axis=-1)
