"""The factorisation behind everything: direct where that is proven to do, else an SVD."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import lu as _direct
from jaxpinv._factorization import svd as _decomposition
from jaxpinv._factorization.certificate import Cutoff, largest_met
from jaxpinv._factors import Factors, may_be_inverse, pseudo_inverse
from jaxpinv._linalg import finite_or_zero, in_units
from jaxpinv._platform import chunking as _blocks

# On a GPU, where blocks gain nothing, matrices without a proof are at least not all
# decomposed when few of them are.
_SHARES = 8

#: `u`, `s`, `v` of `Factors`.
Triplets = tuple[Array, ...]
#: The same, and the pseudo-inverse.
Solution = tuple[Array, ...]


def factor(
    a: Array, rtol: Array, atol: Array, *, hermitian: bool, direct: bool, in_blocks: bool
) -> tuple[Factors, Array]:
    """Factors and pseudo-inverse of `a`, `(..., m, n)` with `m >= n`.

    Args:
        a: the matrices.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        hermitian: whether the matrices are Hermitian.
        direct: whether to look for matrices that need no singular values.
        in_blocks: whether many matrices go through in blocks, as caches and the threads of
            LAPACK like it, and those that it fails on once more.
    """
    decompose = partial(_decomposition.triplets, hermitian=hermitian, in_blocks=in_blocks)
    cutoff = Cutoff(rtol, atol)
    finite = finite_or_zero(a)[1][..., 0, 0]
    found = _where_proven(decompose, a, cutoff, in_blocks=in_blocks) if direct else None
    if found is None:
        triplets, x = decompose(a), None
        certified = jnp.zeros_like(finite)
    else:
        (*triplets, x), certified = found
    factors = factors_of(tuple(triplets), cutoff, finite, certified)
    if x is None or factors.s.shape[:-1] != finite.shape:
        x = pseudo_inverse(factors)
    return factors, x


def factors_of(
    triplets: Triplets, cutoff: Cutoff, finite: Array, certified: Array
) -> Factors:
    """The factors that triplets and a cutoff make, where the matrix was finite, `(...)`.

    Of certified matrices everything is kept, and the triplets need not be singular ones.
    """
    u, s, v = triplets
    # A largest value beyond all numbers would cut all others: the result would be zero.
    overflows = ~jnp.all(jnp.isfinite(s), axis=-1)
    undefined = ~finite | overflows | jnp.isnan(cutoff.rtol) | jnp.isnan(cutoff.atol)
    kept = cutoff.keeps(s) | (certified | undefined)[..., None]
    s = jnp.where(undefined[..., None], jnp.nan, s)
    return Factors(u, s, v, kept, certified & may_be_inverse(u.shape))


def _where_proven(
    decompose: Callable, a: Array, cutoff: Cutoff, *, in_blocks: bool
) -> tuple[Solution, Array] | None:
    """Solutions of `a`, directly where certified and else by values, or None."""
    *batch, m, n = a.shape
    # One matrix has no batch axis: its decomposition in a loop would not depend on the
    # counter, and the compiler would move it out of the loop.
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)
    flat = jnp.reshape(a, (*shape, m, n))
    method = _direct.method(flat, in_blocks=in_blocks)
    if method is None:
        return None
    cutoff = Cutoff(*(jnp.reshape(largest_met(x, batch), shape) for x in cutoff))
    problems = (flat, *cutoff)

    def solve(a: Array, rtol: Array, atol: Array) -> Solution:
        return _solved(decompose, a, Cutoff(rtol, atol))

    if not shape:
        *found, certified = _attempt(method, *problems)
        found = jax.lax.cond(certified, lambda: tuple(found), lambda: solve(*problems))
    else:
        size, rest = flat.shape[0], -(-flat.shape[0] // _SHARES)
        if in_blocks:
            size = rest = _blocks.of_cache(flat)
            rest = min(rest, _decomposition.of_one_call(flat))
            if method is not _direct.by_gram_schmidt:
                size = min(size, _blocks.of_one_call(flat, n**3))
        *found, certified = _blocks.in_blocks(partial(_attempt, method), size, *problems)
        found = _blocks.replace(solve, rest, ~certified, found, *problems)
    back = [jnp.reshape(x, (*batch, *x.shape[len(shape) :])) for x in (*found, certified)]
    return tuple(back[:-1]), back[-1]


def _attempt(
    method: Callable[..., _direct.Direct], a: Array, rtol: Array, atol: Array
) -> tuple[Array, ...]:
    """Direct solutions, and where they are proven to be right."""
    scaled, scale, finite = in_units(a)
    q, w, x, certified = method(scaled, Cutoff(rtol, atol / scale))
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    x = x / scale[..., None, None].astype(a.dtype)
    return q, s, w, x, certified & finite


def _solved(decompose: Callable, a: Array, cutoff: Cutoff) -> Solution:
    """The solution that singular triplets give."""
    triplets, finite = decompose(a), finite_or_zero(a)[1][..., 0, 0]
    factors = factors_of(triplets, cutoff, finite, jnp.zeros_like(finite))
    return (*triplets, pseudo_inverse(factors))
