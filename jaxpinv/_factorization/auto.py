"""The main factorization: without singular values where a certificate allows that."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.full_rank import FullRank
from jaxpinv._factorization.pivoted_qr import Decomposition, square_factor
from jaxpinv._factors import (
    Cutoff,
    Factors,
    Triplets,
    largest_met,
    pseudo_inverse,
    truncate,
)
from jaxpinv._linalg import finite_or_zero, matmul, normalize_scale, transpose

#: Decomposes matrices, given tolerances. Certified where only rounding is truncated.
RankRevealing = Callable[[Array, Cutoff], Decomposition]
#: Computes singular triplets. Takes the option `is_normalized` of `svd.triplets`.
Decompose = Callable[..., Triplets]
#: What `normalize_scale` does.
Normalize = Callable[[Array], tuple[Array, Array, Array]]
#: `u`, `s`, `v` of `Factors`, the pseudo-inverse, and where they are certified. Where a
#: matrix is not finite, `s` is NaN.
Solution = tuple[Array, ...]


class Trial(NamedTuple):
    """How a factorization without singular values is tried.

    Attributes:
        full_rank: the factorization.
        in_chunks: applies a function to a batch, `(f, *operands)`.
        replace: puts the results of a function of the chosen matrices of a batch into
            `found`, `(f, chosen, found, *operands)`.
        flattens: whether batch axes are merged into one.
        rank_revealing: the factorization to try for matrices not of full rank, or None.
        packs: whether the factors of a matrix are replaced as one array, and
            pseudo-inverses are computed afterwards. Not with `rank_revealing`.
    """

    full_rank: FullRank
    in_chunks: Callable[..., tuple[Array, ...]]
    replace: Callable[..., tuple[Array, ...]]
    flattens: bool = True
    rank_revealing: RankRevealing | None = None
    packs: bool = False


def factor(
    a: Array, rtol: Array, atol: Array, *, decompose: Decompose, trial: Trial | None
) -> tuple[Factors, Array]:
    """Factors and pseudo-inverse of `a`, `(..., m, n)` with `m >= n`.

    Args:
        a: the matrices.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        decompose: computes singular triplets of matrices.
        trial: how to find matrices that need no triplets. With None, all get triplets.
    """
    cutoff, batch = Cutoff(rtol, atol), a.shape[:-2]
    if trial is None:
        factors = truncate(decompose(a), cutoff, finite_or_zero(a)[1][..., 0, 0])
        return factors, pseudo_inverse(factors)
    # A matrix with several tolerances has several pseudo-inverses. A certificate of full
    # rank at the largest tolerance holds for all of them, one of a lower rank does not.
    if jnp.broadcast_shapes(batch, *(x.shape for x in cutoff)) != batch:
        full_rank = trial.full_rank.of_full_rank()
        trial = trial._replace(full_rank=full_rank, rank_revealing=None)
    u, s, v, x, full_rank, certified = _solve(a, cutoff, decompose, trial)
    is_inverse = full_rank if trial.full_rank.is_inverse else None
    # Where a matrix is not finite, `s` is NaN already.
    anywhere = jnp.ones_like(certified)
    factors = truncate((u, s, v), cutoff, anywhere, certified, is_inverse)
    is_final = factors.s.shape[:-1] == batch and not trial.packs
    return factors, x if is_final else pseudo_inverse(factors)


def _solve(
    a: Array, cutoff: Cutoff, decompose: Decompose, trial: Trial
) -> tuple[Array, ...]:
    """Solutions, and whether each is certified: to have full rank, and at all."""
    *batch, m, n = a.shape
    rank_revealing, takes_any_size = trial.rank_revealing, trial.full_rank.takes_any_size
    assert rank_revealing is None or not (trial.packs or takes_any_size)
    # A single matrix gets no batch axis: its decomposition in a loop would not depend on
    # the counter, so the compiler would move it out of the loop.
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)
    shape = shape if trial.flattens else (*batch,)
    flat = jnp.reshape(a, (*shape, m, n))
    tolerances = Cutoff(*(jnp.reshape(largest_met(x, batch), shape) for x in cutoff))
    problems = (flat, *tolerances)

    # A single matrix is normalized once, outside of branches.
    is_once = not shape and not takes_any_size
    normalized = normalize_scale(flat) if is_once else None

    def normalize(a: Array) -> tuple[Array, Array, Array]:
        return normalize_scale(a) if normalized is None else normalized

    def attempt(a: Array, rtol: Array, atol: Array) -> tuple[Array, ...]:
        return _by_full_rank(trial.full_rank, a, Cutoff(rtol, atol), normalize)

    def solve(a: Array, rtol: Array, atol: Array, learned: Array) -> Solution:
        cutoff = Cutoff(rtol, atol)
        if rank_revealing is None:
            largest = learned if takes_any_size else None
            return _by_triplets(decompose, a, cutoff, largest)
        may_be_rounding = learned
        try_any_rank = partial(_by_rank_revealing, rank_revealing, normalize, decompose)
        if m > n:
            found, by_triplets = try_any_rank(a, cutoff)
        else:
            by_triplets = partial(_by_triplets, decompose, a, cutoff)
            found = jax.lax.cond(
                jnp.any(may_be_rounding),
                lambda *x: try_any_rank(*x)[0],
                _not_certified,
                *(a, cutoff),
            )
        # Alone, a matrix that does not seem to be deficient would not have been tried.
        certified = found[-1] & may_be_rounding

        def complete(found: Solution) -> Solution:
            # Certified solutions stay, so that none depends on the rest of its batch.
            others = by_triplets()
            return tuple(
                jnp.where(jnp.expand_dims(certified, range(len(shape), x.ndim)), x, y)
                for x, y in zip(found, others, strict=True)
            )

        found = (*found[:-1], certified)
        return jax.lax.cond(jnp.all(certified), lambda found: found, complete, found)

    if shape:
        *found, full_rank, learned = trial.in_chunks(attempt, *problems)
        if trial.packs:
            u, s, v, x = found
            [packed] = trial.replace(
                lambda *x: (_packed(*solve(*x)),),
                *(~full_rank, [_packed(u, s, v)], *problems, learned),
            )
            found = [*_unpacked(packed, m), x, full_rank]
        elif rank_revealing is None:
            # Only full rank is certified.
            replaced = trial.replace(
                lambda *x: solve(*x)[:-1], ~full_rank, found, *problems, learned
            )
            found = [*replaced, full_rank]
        else:
            found = trial.replace(
                solve, ~full_rank, [*found, full_rank], *problems, learned
            )
    else:
        *found, full_rank, learned = attempt(*problems)
        found = jax.lax.cond(
            full_rank,
            lambda: (*found, full_rank),
            lambda: solve(flat, *tolerances, learned),
        )
    return tuple(
        jnp.reshape(x, (*batch, *x.shape[len(shape) :]))
        for x in (*found[:-1], full_rank, found[-1])
    )


def _packed(u: Array, s: Array, v: Array, *_: Array) -> Array:
    """Factors as one array, `(..., m + n + 1, n)`."""
    return jnp.concatenate([u, v, s[..., None, :].astype(u.dtype)], axis=-2)


def _unpacked(packed: Array, m: int) -> tuple[Array, Array, Array]:
    """The factors in an array made by `_packed`."""
    u, v, s = jnp.split(packed, [m, packed.shape[-2] - 1], axis=-2)
    return u, jnp.real(s[..., 0, :]), v


def _by_full_rank(
    full_rank: FullRank, a: Array, cutoff: Cutoff, normalize: Normalize
) -> tuple[Array, ...]:
    """Solutions without singular values, and what the factorization learned.

    That is the largest elements of the matrices, if it takes any size, or else where no
    more than rounding may be truncated.
    """
    if full_rank.takes_any_size:
        q, w, x, certified, s, _, largest = full_rank.factor(a, cutoff)
        assert s is not None
        assert largest is not None
        return q, s, w, x, certified, largest
    scaled, scale, finite = normalize(a)
    q, w, x, certified, _, may_be_rounding, _ = full_rank.factor(
        scaled, cutoff._replace(atol=cutoff.atol / scale)
    )
    s = jnp.where(finite, scale, jnp.nan)[..., None]
    s = jnp.broadcast_to(s, (*scale.shape, a.shape[-1]))
    x = x / scale[..., None, None].astype(a.dtype)
    certified = certified & finite
    if may_be_rounding is None:
        may_be_rounding = ~certified
    return q, s, w, x, certified, may_be_rounding


def _by_rank_revealing(
    factor: RankRevealing,
    normalize: Normalize,
    decompose: Decompose,
    a: Array,
    cutoff: Cutoff,
) -> tuple[Solution, Callable[[], Solution]]:
    """Solutions by that factorization, certified where only rounding is truncated.

    Also a function that returns solutions from singular triplets. These come from the
    square factor, because LAPACK, too, begins with a QR factorization of a tall matrix.
    """
    scaled, scale, finite = normalize(a)
    found = factor(scaled, cutoff._replace(atol=cutoff.atol / scale))
    s = jnp.where(found.kept, scale[..., None], 0)
    x = found.x / scale[..., None, None].astype(a.dtype)

    def by_triplets() -> Solution:
        left, s, v = decompose(square_factor(found.r, found.order))
        u, s = matmul(found.u, left), s * scale[..., None]
        return _of_triplets((u, s, v), cutoff, finite)

    return (found.u, s, found.v, x, found.certified & finite), by_triplets


def _not_certified(a: Array, _: Cutoff) -> Solution:
    """Placeholders with the shapes of solutions, certified nowhere."""
    # Derived from `a`, so that in `shard_map` they vary over the same devices.
    nowhere = finite_or_zero(a)[1][..., 0, 0] & False
    return a, jnp.real(a[..., 0, :]), a[..., : a.shape[-1], :], transpose(a), nowhere


def _by_triplets(
    decompose: Decompose, a: Array, cutoff: Cutoff, largest: Array | None = None
) -> Solution:
    """Solutions from singular triplets, which need no certificate.

    `largest` is what `largest_element` finds, if it is known.
    """
    if largest is None:
        (u, s, v), finite = decompose(a), finite_or_zero(a)[1][..., 0, 0]
    else:
        scaled, scale, finite = normalize_scale(a, largest)
        u, s, v = decompose(scaled, is_normalized=True)
        s = s * scale[..., None]
    return _of_triplets((u, s, v), cutoff, finite)


def _of_triplets(triplets: Triplets, cutoff: Cutoff, finite: Array) -> Solution:
    """Solutions from singular triplets, NaN where a matrix is not finite."""
    u, s, v = triplets
    factors = truncate(triplets, cutoff, finite)
    s = jnp.where(finite[..., None], s, jnp.nan)
    return u, s, v, pseudo_inverse(factors), finite & False
