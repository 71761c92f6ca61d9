"""Factors of damped matrices, `[A; D]` with a diagonal `D`.

The first m columns of `pinv([A; D])` are `(A^H A + D^2)^-1 A^H` where that inverse exists.
A matrix has one damping, `(..., 1)`, or one for each column, `(..., n)`.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import auto
from jaxpinv._factorization.auto import Decompose, Trial
from jaxpinv._factorization.damped_qr import (
    CertifiedDampedFactors,
    augment,
    orthonormalized,
    stacked,
)
from jaxpinv._factors import (
    Cutoff,
    Factors,
    Triplets,
    inverse_values,
    largest_met,
    truncate,
)
from jaxpinv._linalg import adjoint, finite_or_zero, matmul, pad_rows, power_of_two
from jaxpinv._platform.workarounds import copied_in_branch, replaced_if

#: Attempts to factor scaled matrices, given their dampings and tolerances.
Factor = Callable[[Array, Array, Cutoff], CertifiedDampedFactors]


def factor(
    a: Array,
    d: Array,
    cutoff: Cutoff,
    *,
    decompose: Decompose,
    of_augmented: Decompose,
    attempt: Factor | None,
    trial: Trial | None,
    undamped: Callable[[Array, Cutoff], tuple[Factors, Array]] | None,
) -> tuple[Factors, Array, Array]:
    """Factors of `[A; D]`, the first m columns of its inverse, and `(A^H A + D^2)^-1`.

    The last result is arbitrary where a value is truncated.

    Args:
        a: the matrices, `(..., m, n)`, with `m >= n` if each has one damping.
        d: their dampings, `(..., 1)` or `(..., n)`.
        cutoff: for the singular values of `[A; D]`.
        decompose: computes singular triplets of `a`.
        of_augmented: computes singular triplets of `[A; D]`.
        attempt: the factorization without singular values to try, or None.
        trial: how the attempt goes through a batch.
        undamped: computes factors and pseudo-inverses of matrices whose dampings are all
            zero. None if there are no such matrices, or if the others' factors suit them.
    """
    is_zero = jnp.all(d == 0, axis=-1)
    by_svd = partial(
        triplets, decompose=decompose if d.shape[-1] == 1 else None, augmented=of_augmented
    )
    if trial is None or attempt is None:
        factors, x, p = _refined(a, d, by_svd(a, d), cutoff)
    else:
        (u, s, v, x, p), certified = _solve(
            a, d, cutoff, by_svd, attempt, trial, None if undamped is None else is_zero
        )
        factors = truncate((u, s, v), cutoff, _is_finite(a, d), certified)
        if factors.s.shape[:-1] != x.shape[:-2]:
            x, p = top_inverse(factors, a.shape[-2]), _inverse_gram(factors)
    if undamped is None:
        return factors, x, p

    def replaced(factors: Factors, x: Array, p: Array) -> tuple[Factors, Array, Array]:
        # Damped matrices are not factored here.
        plain = jnp.where(is_zero[..., None, None], a, 0)
        others, y = undamped(plain, cutoff)
        others = others._replace(u=pad_rows(others.u, below=a.shape[-1]))

        def select(x: Array, y: Array) -> Array:
            chosen = jnp.reshape(is_zero, (*is_zero.shape, *[1] * (x.ndim - is_zero.ndim)))
            return jnp.where(chosen, y, x)

        # Even with the identity on top, `U` has n more rows.
        others = others._replace(is_inverse=jnp.zeros_like(others.is_inverse))
        factors = Factors(*map(select, factors, others))
        return factors, select(x, y), select(p, matmul(y, adjoint(y)))

    state = factors, x, p
    shapes = jax.eval_shape(replaced, *state)
    state = jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), state, shapes)
    return replaced_if(jnp.any(is_zero), replaced, state)


def by_triplets(
    a: Array,
    d: Array,
    cutoff: Cutoff,
    augmented: Decompose,
    decompose: Decompose | None = None,
) -> Factors:
    """Factors of `[A; D]` from singular triplets, as `triplets` computes them."""
    found = triplets(a, d, decompose=decompose, augmented=augmented)
    factors, _, _ = _refined(a, d, found, cutoff)
    return factors


def triplets(
    a: Array, d: Array, *, decompose: Decompose | None, augmented: Decompose
) -> Triplets:
    """Singular triplets of `[A; D]`, from those of `a` if all unknowns share a damping."""
    if decompose is not None:
        u, s, v = decompose(a)
        d = jnp.where(jnp.isfinite(d), d, 0)
        both = jnp.hypot(s, d)
        # Where both are zero, the column of `U` does not change.
        divisor = jnp.where(both == 0, 1, both)
        above = jnp.where(both == 0, 1, s / divisor)[..., None, :].astype(u.dtype)
        below = (d / divisor)[..., None, :].astype(u.dtype)
        return stacked(u * above, v * below), both, v
    return augmented(augment(a, d))


def top_inverse(factors: Factors, m: int) -> Array:
    """The first m columns of the pseudo-inverse, `(..., n, m)`."""
    inverse = inverse_values(factors)
    return matmul(factors.v, inverse[..., :, None] * adjoint(factors.u[..., :m, :]))


def _inverse_gram(factors: Factors) -> Array:
    """The inverse of the Gram matrix, `(..., n, n)`, if nothing is truncated."""
    half = factors.v * inverse_values(factors)[..., None, :]
    return matmul(half, adjoint(half))


def unit_of(d: Array, largest: Array, begin: Array) -> Array:
    """The diagonal of `T`: powers of two that scale large dampings to the matrix's size.

    In `[A T; D T]`, large dampings neither raise the cutoff of other unknowns nor swamp
    them with rounding errors. An unknown whose `T` is not 1 is damped, so the null space
    and the solution do not change. The result has the shape of `d`.

    Args:
        d: the dampings, `(..., n)`.
        largest: the largest element of the matrix, of batch shape.
        begin: where large dampings begin, of batch shape, if it is more than `largest`.
    """
    size = power_of_two(jnp.maximum(largest, begin))[..., None]
    is_large = (d > 2 * size) & (largest > 0)[..., None] & jnp.isfinite(d)
    return jnp.where(is_large, size / power_of_two(jnp.where(is_large, d, 1)), 1)


def _refined(
    a: Array, d: Array, found: Triplets, cutoff: Cutoff
) -> tuple[Factors, Array, Array]:
    """Results of `factor` from singular triplets, with the errors of these corrected.

    With a large damping, the errors of triplets are relative to the damping, not to the
    matrix. Matrices with a zero damping or a truncated value are not corrected.
    """
    u, s, v = found
    finite = _is_finite(a, d)
    plain = truncate(found, cutoff, finite)
    x = top_inverse(plain, a.shape[-2])
    scale = power_of_two(jnp.max(jnp.where(jnp.isfinite(s), s, 1), axis=-1, initial=0))
    unit = scale[..., None, None].astype(a.dtype)
    first = v * (inverse_values(plain) * scale[..., None].astype(a.dtype))[..., None, :]
    scaled = finite_or_zero(a)[0] / unit, d / scale[..., None]
    q, w, y, p, converged = orthonormalized(*scaled, first)
    is_better = converged & jnp.all(d > 0, axis=-1) & jnp.all(plain.kept, axis=-1)
    here = is_better[..., None, None]
    u, v = jnp.where(here, q, u), jnp.where(here, w, v)
    s = jnp.where(is_better[..., None], scale[..., None], s)
    factors = truncate((u, s, v), cutoff, finite, is_better)
    p = jnp.where(here, p / unit / unit, _inverse_gram(plain))
    return factors, jnp.where(here, y / unit, x), p


def _is_finite(a: Array, d: Array) -> Array:
    """Whether matrices and dampings are finite, of batch shape."""
    return finite_or_zero(a)[1][..., 0, 0] & jnp.all(jnp.isfinite(d), axis=-1)


def _solve(
    a: Array,
    d: Array,
    cutoff: Cutoff,
    by_svd: Callable[[Array, Array], Triplets],
    attempt: Factor,
    trial: Trial,
    is_zero: Array | None,
) -> tuple[auto.Solution, Array]:
    """Solutions, from singular triplets where not certified, and where they are certified.

    No triplets are computed where `is_zero` is True.
    """
    m = a.shape[-2]
    batch = jnp.broadcast_shapes(a.shape[:-2], d.shape[:-1])
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)

    def flat(x: Array, rank: int) -> Array:
        own = x.shape[x.ndim - rank :]
        return jnp.reshape(jnp.broadcast_to(x, (*batch, *own)), (*shape, *own))

    operands = (
        flat(a, 2),
        flat(d, 1),
        *(flat(largest_met(x, [*batch]), 0) for x in cutoff),
    )

    def try_one(a: Array, d: Array, rtol: Array, atol: Array) -> tuple[Array, ...]:
        return _attempt(attempt, a, d, Cutoff(rtol, atol))

    def solve(a: Array, d: Array, rtol: Array, atol: Array) -> auto.Solution:
        found = by_svd(a, d)
        factors = truncate(found, Cutoff(rtol, atol), _is_finite(a, d))
        return (*found, top_inverse(factors, m), _inverse_gram(factors))

    if shape:
        *found, certified = trial.in_chunks(try_one, *operands)
        skipped = certified if is_zero is None else certified | flat(is_zero, 0)
        found = trial.replace(solve, ~skipped, found, *operands)
    else:
        *found, certified = try_one(*operands)
        skipped = certified if is_zero is None else certified | flat(is_zero, 0)
        a, *others = operands
        a = copied_in_branch(a)
        found = jax.lax.cond(skipped, lambda: tuple(found), lambda: solve(a, *others))
    back = [jnp.reshape(x, (*batch, *x.shape[len(shape) :])) for x in (*found, certified)]
    return tuple(back[:-1]), back[-1]


def _attempt(attempt: Factor, a: Array, d: Array, cutoff: Cutoff) -> tuple[Array, ...]:
    """Solutions without singular values, and where they are certified."""
    finite = _is_finite(a, d)
    a = jnp.where(finite[..., None, None], a, 0)
    d = jnp.where(finite[..., None], d, 1)
    sizes = (jnp.max(jnp.abs(a), axis=(-2, -1), initial=0), jnp.max(d, axis=-1, initial=0))
    scale = power_of_two(jnp.maximum(*sizes))
    unit = scale[..., None, None].astype(a.dtype)
    cutoff = cutoff._replace(atol=cutoff.atol / scale)
    q, w, x, p, certified = attempt(a / unit, d / scale[..., None], cutoff)
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    return q, s, w, x / unit, p / unit / unit, certified & finite
