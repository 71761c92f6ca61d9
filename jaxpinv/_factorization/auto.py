"""The factorization behind everything: without singular values where that is certified."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.full_rank import FullRank
from jaxpinv._factors import (
    Cutoff,
    Factors,
    Triplets,
    largest_met,
    pseudo_inverse,
    truncate,
)
from jaxpinv._linalg import finite_or_zero, normalize_scale

Decompose = Callable[[Array], Triplets]
#: `u`, `s`, `v` of `Factors`, and the pseudo-inverse.
Solution = tuple[Array, ...]


class Trial(NamedTuple):
    """How a factorization without singular values is tried.

    Attributes:
        full_rank: that factorization.
        in_chunks: applies a function to a batch, `(f, *operands)`.
        replace: puts what a function makes of chosen matrices of a batch in their places,
            `(f, chosen, found, *operands)`.
        flattens: whether a batch is to have one axis.
    """

    full_rank: FullRank
    in_chunks: Callable[..., tuple[Array, ...]]
    replace: Callable[..., tuple[Array, ...]]
    flattens: bool = True


def factor(
    a: Array, rtol: Array, atol: Array, *, decompose: Decompose, trial: Trial | None
) -> tuple[Factors, Array]:
    """Factors and pseudo-inverse of `a`, `(..., m, n)` with `m >= n`.

    Args:
        a: the matrices.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        decompose: makes singular triplets of matrices.
        trial: how to look for matrices that need none, if that is to be done.
    """
    cutoff = Cutoff(rtol, atol)
    finite = finite_or_zero(a)[1][..., 0, 0]
    if trial is None:
        factors = truncate(decompose(a), cutoff, finite)
        return factors, pseudo_inverse(factors)
    # A matrix with several tolerances has several pseudo-inverses. What is truncated for
    # the largest one need not be for the others.
    if jnp.broadcast_shapes(finite.shape, rtol.shape, atol.shape) != finite.shape:
        trial = trial._replace(full_rank=trial.full_rank.of_full_rank())
    (u, s, v, x), certified = _solve(a, cutoff, decompose, trial)
    is_inverse = certified if trial.full_rank.is_inverse else None
    factors = truncate((u, s, v), cutoff, finite, certified, is_inverse)
    return factors, x if factors.s.shape[:-1] == finite.shape else pseudo_inverse(factors)


def _solve(
    a: Array, cutoff: Cutoff, decompose: Decompose, trial: Trial
) -> tuple[Solution, Array]:
    """Solutions of `a`, by singular triplets where not certified, and where they are."""
    *batch, m, n = a.shape
    # One matrix has no batch axis: its decomposition in a loop would not depend on the
    # counter, and the compiler would move it out of the loop.
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)
    shape = shape if trial.flattens else (*batch,)
    flat = jnp.reshape(a, (*shape, m, n))
    problems = (flat, *(jnp.reshape(largest_met(x, batch), shape) for x in cutoff))

    def attempt(a: Array, rtol: Array, atol: Array) -> tuple[Array, ...]:
        return _attempt(trial.full_rank, a, Cutoff(rtol, atol))

    def solve(a: Array, rtol: Array, atol: Array) -> Solution:
        triplets, finite = decompose(a), finite_or_zero(a)[1][..., 0, 0]
        factors = truncate(triplets, Cutoff(rtol, atol), finite)
        return (*triplets, pseudo_inverse(factors))

    if shape:
        *found, certified = trial.in_chunks(attempt, *problems)
        found = trial.replace(solve, ~certified, found, *problems)
    else:
        *found, certified = attempt(*problems)
        found = jax.lax.cond(certified, lambda: tuple(found), lambda: solve(*problems))
    back = [jnp.reshape(x, (*batch, *x.shape[len(shape) :])) for x in (*found, certified)]
    return tuple(back[:-1]), back[-1]


def _attempt(full_rank: FullRank, a: Array, cutoff: Cutoff) -> tuple[Array, ...]:
    """Solutions without singular values, and where they are certified."""
    if full_rank.takes_any_size:
        q, w, x, certified, s = full_rank.factor(a, cutoff)
        assert s is not None
        return q, s, w, x, certified
    scaled, scale, finite = normalize_scale(a)
    q, w, x, certified, _ = full_rank.factor(
        scaled, cutoff._replace(atol=cutoff.atol / scale)
    )
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    x = x / scale[..., None, None].astype(a.dtype)
    return q, s, w, x, certified & finite
