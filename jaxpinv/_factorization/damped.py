"""Factors of `[A; D]`, `D` diagonal: those of damped matrices.

The first m columns of `pinv([A; D])` are `(A^H A + D^2)^-1 A^H` where that inverse exists.
All dampings of a matrix are one number or many, `(..., 1)` or `(..., n)`.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import auto, certificate
from jaxpinv._factorization.auto import Decompose, Trial
from jaxpinv._factorization.cholesky_qr import SMALLEST_PIVOT, inverse_square_root
from jaxpinv._factorization.full_rank import Attempt
from jaxpinv._factorization.triangular import orthonormalizer
from jaxpinv._factors import (
    Cutoff,
    Factors,
    Triplets,
    inverse_values,
    largest_met,
    truncate,
)
from jaxpinv._linalg import (
    adjoint,
    finite_or_zero,
    identity,
    matmul,
    power_of_two,
    transpose,
)
from jaxpinv._shapes import prepend_axes

#: Makes an attempt of scaled matrices, their dampings and tolerances.
Factor = Callable[[Array, Array, Cutoff], Attempt]


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
) -> tuple[Factors, Array]:
    """Factors of `[A; D]`, `(..., m + n, n)`, and the first m columns of its inverse.

    Args:
        a: the matrices, `(..., m, n)`, `m >= n` if they have one damping each.
        d: their dampings, `(..., 1)` or `(..., n)`.
        cutoff: of singular values of `[A; D]`.
        decompose: makes singular triplets of `a`.
        of_augmented: the same of `[A; D]`.
        attempt: a factorization without singular values, if one is to be tried.
        trial: how that goes through a batch.
        undamped: makes factors and pseudo-inverses of matrices whose dampings are all
            zero, if there may be such matrices and the others would not do for them.
    """
    is_zero = jnp.all(d == 0, axis=-1)
    by_svd = partial(
        triplets, decompose=decompose if d.shape[-1] == 1 else None, augmented=of_augmented
    )
    if trial is None or attempt is None:
        factors, x = _refined(a, d, by_svd(a, d), cutoff)
    else:
        (u, s, v, x), certified = _solve(
            a, d, cutoff, by_svd, attempt, trial, None if undamped is None else is_zero
        )
        factors = truncate((u, s, v), cutoff, _is_finite(a, d), certified)
        if factors.s.shape[:-1] != x.shape[:-2]:
            x = top_inverse(factors, a.shape[-2])
    if undamped is None:
        return factors, x

    def replaced(factors: Factors, x: Array) -> tuple[Factors, Array]:
        # Damped matrices are not factored here.
        plain = jnp.where(is_zero[..., None, None], a, 0)
        others, y = undamped(plain, cutoff)
        n = a.shape[-1]
        padding = [*[(0, 0)] * (a.ndim - 2), (0, n), (0, 0)]
        others = others._replace(u=jnp.pad(others.u, padding))

        def select(x: Array, y: Array) -> Array:
            chosen = jnp.reshape(is_zero, (*is_zero.shape, *[1] * (x.ndim - is_zero.ndim)))
            return jnp.where(chosen, y, x)

        # `U` is longer than the identity that it may have on top.
        others = others._replace(is_inverse=jnp.zeros_like(others.is_inverse))
        return Factors(*map(select, factors, others)), select(x, y)

    shapes = jax.eval_shape(replaced, factors, x)
    factors, x = jax.tree.map(
        lambda x, y: jnp.broadcast_to(x, y.shape), (factors, x), shapes
    )
    return jax.lax.cond(jnp.any(is_zero), replaced, lambda *same: same, factors, x)


def triplets(
    a: Array, d: Array, *, decompose: Decompose | None, augmented: Decompose
) -> Triplets:
    """Singular triplets of `[A; D]`, of those of `a` if all unknowns have one damping."""
    if decompose is not None:
        u, s, v = decompose(a)
        d = jnp.where(jnp.isfinite(d), d, 0)
        both = jnp.hypot(s, d)
        # Where both are zero the column of `U` stays what it is.
        divisor = jnp.where(both == 0, 1, both)
        above = jnp.where(both == 0, 1, s / divisor)[..., None, :].astype(u.dtype)
        below = (d / divisor)[..., None, :].astype(u.dtype)
        return stacked(u * above, v * below), both, v
    return augmented(augment(a, d))


def top_inverse(factors: Factors, m: int) -> Array:
    """The first m columns of the pseudo-inverse, `(..., n, m)`."""
    inverse = inverse_values(factors)
    return matmul(factors.v, inverse[..., :, None] * adjoint(factors.u[..., :m, :]))


def augment(a: Array, d: Array) -> Array:
    """The matrices `[A; D]`, `(..., m + n, n)`."""
    return stacked(a, _diagonal(d, a))


def _diagonal(d: Array, a: Array) -> Array:
    """Diagonal matrices of as many columns as `a` has, in its dtype."""
    one = jnp.eye(a.shape[-1], dtype=a.dtype)
    return d[..., None, :].astype(a.dtype) * prepend_axes(one, d.ndim + 1)


def unit_of(d: Array, largest: Array, begin: Array) -> Array:
    """Powers of two that make large dampings about as large as the matrix, as `d`.

    In `[A T; D T]` they neither raise the cutoff of other unknowns nor drown their
    rounding. Where T is not 1 the unknown is damped, so that null space and solution remain
    what they are.

    Args:
        d: the dampings, `(..., n)`.
        largest: the largest element of the matrix, of batch shape.
        begin: from where on dampings are large, of batch shape, if that is more.
    """
    size = power_of_two(jnp.maximum(largest, begin))[..., None]
    is_large = (d > 2 * size) & (largest > 0)[..., None] & jnp.isfinite(d)
    return jnp.where(is_large, size / power_of_two(jnp.where(is_large, d, 1)), 1)


def stacked(x: Array, y: Array) -> Array:
    """Matrices on top of others, their batches broadcast."""
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (jnp.broadcast_to(z, (*batch, *z.shape[-2:])) for z in (x, y))
    return jnp.concatenate([x, y], axis=-2)


def by_gram(a: Array, d: Array, cutoff: Cutoff, *, truncates: bool) -> Attempt:
    """By a Cholesky factor of `A^H A + D^2`, made orthonormal.

    As `cholesky_qr.factor`, without the products of the rows of `D`. If the cutoff is zero
    and `truncates` is False, no norm is needed.
    """
    gram = matmul(adjoint(a), a) + _diagonal(jnp.square(d), a)
    norm = jnp.sqrt(jnp.real(jnp.trace(gram, axis1=-2, axis2=-1)))
    first = orthonormalizer(gram, width=gram.shape[-1])
    pivots = 1 / jnp.diagonal(first, axis1=-2, axis2=-1)
    least = SMALLEST_PIVOT * float(jnp.finfo(a.dtype).eps) ** 0.5
    possible = ~certificate.rules_out_full_rank(a, norm, pivots, cutoff, least)

    def orthonormalize(first: Array) -> tuple[Array, ...]:
        q, w, x, converged = orthonormalized(a, d, first)
        if truncates:
            # Where it has converged `W` is no longer than this, and `W` itself need not be
            # there for a value.
            longer = 1.05 * first
            converged = _certified(a, norm, longer, cutoff, converged)
        return q, w, x, possible & converged

    def give_up(first: Array) -> tuple[Array, ...]:
        return augment(a, d), first, transpose(a), possible

    return Attempt(*jax.lax.cond(jnp.any(possible), orthonormalize, give_up, first))


def orthonormalized(a: Array, d: Array, first: Array) -> tuple[Array, ...]:
    """Of `W` such that the columns of `[A; D] W` are nearly orthonormal, a better one.

    Returns:
        These columns, `(..., m + n, n)`, `W`, the first m columns of the pseudo-inverse,
        and whether `W` was good enough, of batch shape.
    """
    top, bottom = matmul(a, first), d[..., :, None].astype(a.dtype) * first
    gram = matmul(adjoint(top), top) + matmul(adjoint(bottom), bottom)
    second, converged = inverse_square_root(gram)
    w = matmul(first, second)
    # The power series of the inverse, as far as that of the root: of two products, where
    # `W second` would take one more. The compiler has the square already.
    e = gram - identity(gram)
    square = matmul(e, e)
    inverse = identity(gram) - e + matmul(square, identity(gram) - e + square)
    x = matmul(matmul(first, inverse), adjoint(top))
    return stacked(matmul(top, second), matmul(bottom, second)), w, x, converged


def by_rows(
    a: Array, d: Array, cutoff: Cutoff, *, gram_schmidt: Callable[[Array, Cutoff], Attempt]
) -> Attempt:
    """By Gram-Schmidt, for matrices of few rows and columns."""
    q, w, x, certified, s, _ = gram_schmidt(augment(a, d), cutoff)
    assert s is not None
    full_rank = jnp.all(s > 0, axis=-1)
    w = w / jnp.where(s > 0, s, 1)[..., None, :].astype(w.dtype)
    return Attempt(q, w, x[..., : a.shape[-2]], certified & full_rank)


def _refined(a: Array, d: Array, found: Triplets, cutoff: Cutoff) -> tuple[Factors, Array]:
    """Factors and inverse from singular triplets, with the errors of these taken away.

    Those of large dampings are relative to the damping, and not to the matrix. What is not
    damped stays as it is.
    """
    u, s, v = found
    finite = _is_finite(a, d)
    plain = truncate(found, cutoff, finite)
    x = top_inverse(plain, a.shape[-2])
    scale = power_of_two(jnp.max(jnp.where(jnp.isfinite(s), s, 1), axis=-1, initial=0))
    unit = scale[..., None, None].astype(a.dtype)
    first = v * (inverse_values(plain) * scale[..., None].astype(a.dtype))[..., None, :]
    scaled = finite_or_zero(a)[0] / unit, d / scale[..., None]
    q, w, y, converged = orthonormalized(*scaled, first)
    is_better = converged & jnp.all(d > 0, axis=-1) & jnp.all(plain.kept, axis=-1)
    here = is_better[..., None, None]
    u, v = jnp.where(here, q, u), jnp.where(here, w, v)
    s = jnp.where(is_better[..., None], scale[..., None], s)
    factors = truncate((u, s, v), cutoff, finite, is_better)
    return factors, jnp.where(here, y / unit, x)


def _certified(a: Array, norm: Array, w: Array, cutoff: Cutoff, converged: Array) -> Array:
    """Whether nothing is truncated, of batch shape: without a cutoff nothing is."""
    is_above = certificate.certify_full_rank(a, norm, w, cutoff, converged)
    return converged & ((cutoff.above(norm) == 0) | is_above)


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
    """Solutions, by singular triplets where not certified, and where they are.

    Nothing is done for what `is_zero` chooses.
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
        return (*found, top_inverse(factors, m))

    if shape:
        *found, certified = trial.in_chunks(try_one, *operands)
        skipped = certified if is_zero is None else certified | flat(is_zero, 0)
        found = trial.replace(solve, ~skipped, found, *operands)
    else:
        *found, certified = try_one(*operands)
        skipped = certified if is_zero is None else certified | flat(is_zero, 0)
        found = jax.lax.cond(skipped, lambda: tuple(found), lambda: solve(*operands))
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
    q, w, x, certified, *_ = attempt(a / unit, d / scale[..., None], cutoff)
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    return q, s, w, x / unit, certified & finite
