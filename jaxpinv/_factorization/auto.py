"""The factorization behind everything: without singular values where that is certified."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.full_rank import FullRank
from jaxpinv._factorization.pivoted_qr import Decomposition
from jaxpinv._factors import (
    Cutoff,
    Factors,
    Triplets,
    largest_met,
    pseudo_inverse,
    truncate,
)
from jaxpinv._linalg import finite_or_zero, normalize_scale, transpose

#: What truncates rounding alone, if that is certified, of matrices and tolerances.
Deficient = Callable[[Array, Cutoff], Decomposition]
Decompose = Callable[[Array], Triplets]
#: `u`, `s`, `v` of `Factors`, the pseudo-inverse, and where they are certified.
Solution = tuple[Array, ...]


class Trial(NamedTuple):
    """How a factorization without singular values is tried.

    Attributes:
        full_rank: that factorization.
        in_chunks: applies a function to a batch, `(f, *operands)`.
        replace: puts what a function makes of chosen matrices of a batch in their places,
            `(f, chosen, found, *operands)`.
        flattens: whether batch axes are merged into one.
        deficient: the factorization that is tried of what is not of full rank, if any.
    """

    full_rank: FullRank
    in_chunks: Callable[..., tuple[Array, ...]]
    replace: Callable[..., tuple[Array, ...]]
    flattens: bool = True
    deficient: Deficient | None = None


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
    # A matrix with several tolerances has several pseudo-inverses. What none of them
    # truncates is certified for all, but not what one of them does.
    shapes = (x.shape for x in (finite, *cutoff))
    if jnp.broadcast_shapes(*shapes) != finite.shape:
        full_rank = trial.full_rank.of_full_rank()
        trial = trial._replace(full_rank=full_rank, deficient=None)
    u, s, v, x, full_rank, certified = _solve(a, cutoff, decompose, trial)
    is_inverse = full_rank if trial.full_rank.is_inverse else None
    factors = truncate((u, s, v), cutoff, finite, certified, is_inverse)
    return factors, x if factors.s.shape[:-1] == finite.shape else pseudo_inverse(factors)


def _solve(
    a: Array, cutoff: Cutoff, decompose: Decompose, trial: Trial
) -> tuple[Array, ...]:
    """Solutions of `a`, where they are certified for full rank, and where at all."""
    *batch, m, n = a.shape
    # One matrix has no batch axis: its decomposition in a loop would not depend on the
    # counter, and the compiler would move it out of the loop.
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)
    shape = shape if trial.flattens else (*batch,)
    flat = jnp.reshape(a, (*shape, m, n))
    tolerances = Cutoff(*(jnp.reshape(largest_met(x, batch), shape) for x in cutoff))
    problems = (flat, *tolerances)

    def attempt(a: Array, rtol: Array, atol: Array) -> tuple[Array, ...]:
        return _attempt(trial.full_rank, a, Cutoff(rtol, atol))

    def solve(a: Array, rtol: Array, atol: Array, may_be_rounding: Array) -> Solution:
        cutoff = Cutoff(rtol, atol)
        if trial.deficient is None:
            return _by_triplets(decompose, a, cutoff)
        found = jax.lax.cond(
            jnp.any(may_be_rounding),
            partial(_by_decomposition, trial.deficient),
            _not_certified,
            *(a, cutoff),
        )
        certified = found[-1]

        def complete(found: Solution) -> Solution:
            # What is certified stays, whatever else there is.
            others = _by_triplets(decompose, a, cutoff)
            return tuple(
                jnp.where(jnp.expand_dims(certified, range(len(shape), x.ndim)), x, y)
                for x, y in zip(found, others, strict=True)
            )

        return jax.lax.cond(jnp.all(certified), lambda found: found, complete, found)

    if shape:
        *found, full_rank, rest = trial.in_chunks(attempt, *problems)
        if trial.deficient is None:
            # Nothing else is certified.
            replaced = trial.replace(
                lambda *x: solve(*x)[:-1], ~full_rank, found, *problems, rest
            )
            found = [*replaced, full_rank]
        else:
            found = trial.replace(solve, ~full_rank, [*found, full_rank], *problems, rest)
    else:
        *found, full_rank, rest = attempt(*problems)
        found = jax.lax.cond(
            full_rank, lambda: (*found, full_rank), lambda: solve(flat, *tolerances, rest)
        )
    return tuple(
        jnp.reshape(x, (*batch, *x.shape[len(shape) :]))
        for x in (*found[:-1], full_rank, found[-1])
    )


def _attempt(full_rank: FullRank, a: Array, cutoff: Cutoff) -> tuple[Array, ...]:
    """Solutions without singular values, and where else rounding may be truncated."""
    if full_rank.takes_any_size:
        q, w, x, certified, s, _ = full_rank.factor(a, cutoff)
        assert s is not None
        return q, s, w, x, certified, ~certified
    scaled, scale, finite = normalize_scale(a)
    q, w, x, certified, _, may_be_rounding = full_rank.factor(
        scaled, cutoff._replace(atol=cutoff.atol / scale)
    )
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    x = x / scale[..., None, None].astype(a.dtype)
    certified = certified & finite
    rest = ~certified if may_be_rounding is None else may_be_rounding
    return q, s, w, x, certified, rest


def _by_decomposition(deficient: Deficient, a: Array, cutoff: Cutoff) -> Solution:
    """The same where rounding may be truncated."""
    scaled, scale, finite = normalize_scale(a)
    u, v, x, kept, certified = deficient(scaled, cutoff._replace(atol=cutoff.atol / scale))
    s = jnp.where(kept, scale[..., None], 0)
    x = x / scale[..., None, None].astype(a.dtype)
    return u, s, v, x, certified & finite


def _not_certified(a: Array, _: Cutoff) -> Solution:
    """Anything of the same shapes, made of `a`, of which nothing is certified."""
    # In `shard_map` it varies as the matrices do.
    nowhere = finite_or_zero(a)[1][..., 0, 0] & False
    return a, jnp.real(a[..., 0, :]), a[..., : a.shape[-1], :], transpose(a), nowhere


def _by_triplets(decompose: Decompose, a: Array, cutoff: Cutoff) -> Solution:
    """The same from singular triplets, which need no certificate."""
    triplets, finite = decompose(a), finite_or_zero(a)[1][..., 0, 0]
    factors = truncate(triplets, cutoff, finite)
    return *triplets, pseudo_inverse(factors), finite & False
