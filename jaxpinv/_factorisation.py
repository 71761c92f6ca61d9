"""The factorisation behind everything: direct where that is proven to do, else an SVD."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv import _direct
from jaxpinv._arrays import adjoint, finite_or_zero, is_known, power_of_two
from jaxpinv._certificate import Cutoff
from jaxpinv._factors import Factors, may_be_inverse, pseudo_inverse

# Elements of the small matrices that go through at a time, so that they stay in a cache: of
# the sizes from 2^13 to 2^20 the fastest for 100000 3 by 3 and 20000 7 by 6 matrices.
_BLOCK = 1 << 13
# Where blocks gain nothing, matrices without a proof are at least not all decomposed when
# few of them are.
_SHARES = 8

# LAPACK calls for many matrices share them out among the threads of jaxlib before 0.12, and
# wait for the others on such a thread themselves: when all of them wait, they do for ever.
# Calls of so many flops, as jaxlib counts them, it leaves to one thread.
_MAY_WAIT_FOR_EVER = jax.__version_info__ < (0, 12)
_ON_ONE_THREAD = 200_000

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
        in_blocks: whether many matrices go through in blocks, as a cache likes it.
    """
    a, finite = finite_or_zero(a)
    finite = finite[..., 0, 0]
    decompose = partial(_scaled, _eigh if hermitian else _svd)
    cutoff = Cutoff(rtol, atol)
    found = _where_proven(decompose, a, cutoff, in_blocks=in_blocks) if direct else None
    if found is None:
        u, s, v = _decomposed(decompose, a, in_blocks=in_blocks)
        x, certified = None, jnp.zeros_like(finite)
    else:
        (u, s, v, x), certified = found
    factors = factors_of((u, s, v), cutoff, finite, certified)
    undefined = jnp.isnan(factors.s[..., :1])
    if x is None or undefined.shape[:-1] != finite.shape:
        return factors, pseudo_inverse(factors)
    return factors, jnp.where(undefined[..., None], jnp.nan, x)


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
    kept = _kept(s, cutoff) | (certified | undefined)[..., None]
    s = jnp.where(undefined[..., None], jnp.nan, s)
    return Factors(u, s, v, kept, certified & may_be_inverse(u.shape))


def _where_proven(
    decompose: Callable, a: Array, cutoff: Cutoff, *, in_blocks: bool
) -> tuple[Solution, Array] | None:
    """Solutions of finite `a`, directly where certified and else by values, or None."""
    *batch, m, n = a.shape
    # One matrix has no batch axis: its decomposition in a loop would not depend on the
    # counter, and the compiler would move it out of the loop.
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)
    flat = jnp.reshape(a, (*shape, m, n))
    method = _direct.method(flat, few_columns=in_blocks)
    if method is None:
        return None
    attempt = partial(_attempt, method)
    cutoff = Cutoff(*(jnp.reshape(_largest_met(x, batch), shape) for x in cutoff))
    if not shape:
        *found, certified = attempt(flat, *cutoff)
        found = jax.lax.cond(
            certified, lambda: tuple(found), lambda: _solved(decompose(flat), cutoff)
        )
    else:
        size = flat.shape[0]
        lanes, rest = size, -(-size // _SHARES)
        if in_blocks:
            of_cache = max(1, _BLOCK // (m * n))
            rest = min(of_cache, _decompositions_at_a_time(flat))
            calls_lapack = method is not _direct.by_gram_schmidt
            lanes = min(of_cache, _at_a_time(flat, n**3)) if calls_lapack else of_cache
        *found, certified = _by_blocks(attempt, lanes, flat, *cutoff)
        found = _with_the_rest(decompose, rest, flat, cutoff, tuple(found), certified)
    back = [jnp.reshape(x, (*batch, *x.shape[len(shape) :])) for x in (*found, certified)]
    return tuple(back[:-1]), back[-1]


def _decomposed(decompose: Callable, a: Array, *, in_blocks: bool) -> Triplets:
    """The decompositions of a batch, in as many calls as are safe."""
    *batch, m, n = a.shape
    if not in_blocks or not is_known(a.shape) or not a.size or math.prod(batch) == 1:
        return decompose(a)
    flat = jnp.reshape(a, (-1, m, n))
    triplets = _by_blocks(decompose, _decompositions_at_a_time(flat), flat)
    return tuple(jnp.reshape(x, (*batch, *x.shape[1:])) for x in triplets)


def _attempt(
    method: Callable[..., _direct.Direct], a: Array, rtol: Array, atol: Array
) -> tuple[Array, ...]:
    """Direct solutions, and where they are proven to be right."""
    scale, wide = _scale(a)
    q, w, x, certified = method(a / wide, Cutoff(rtol, atol / scale))
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    return q, s, w, x / wide, certified


def _solved(triplets: Triplets, cutoff: Cutoff) -> Solution:
    """The solution that singular triplets give."""
    u, s, v = triplets
    factors = Factors(u, s, v, _kept(s, cutoff), jnp.zeros_like(cutoff.rtol, bool))
    return u, s, v, pseudo_inverse(factors)


def _at_a_time(a: Array, flops: int) -> int:
    """How many matrices LAPACK may be given in one call, of so many flops for each."""
    flops *= 3 if jnp.iscomplexobj(a) else 1
    return max(1, _ON_ONE_THREAD // flops) if _MAY_WAIT_FOR_EVER else a.shape[0]


def _decompositions_at_a_time(a: Array) -> int:
    """The same for singular values and vectors."""
    m, n = a.shape[-2:]
    return _at_a_time(a, 10 * m * n * n)


def _by_blocks(f: Callable, lanes: int, *operands: Array) -> tuple[Array, ...]:
    """What `f` makes of arrays of one batch axis, one block of matrices after the other."""
    size = operands[0].shape[0]
    if lanes >= size:
        return f(*operands)
    blocks = -(-size // lanes)

    def cut(x: Array) -> Array:
        padding = [(0, blocks * lanes - size), *[(0, 0)] * (x.ndim - 1)]
        return jnp.reshape(jnp.pad(x, padding), (blocks, lanes, *x.shape[1:]))

    found = jax.lax.map(lambda block: f(*block), tuple(map(cut, operands)))
    return tuple(jnp.reshape(x, (-1, *x.shape[2:]))[:size] for x in found)


def _with_the_rest(
    decompose: Callable,
    lanes: int,
    a: Array,
    cutoff: Cutoff,
    found: Solution,
    certified: Array,
) -> Solution:
    """What was found for the certified matrices, and the others by values, in blocks."""
    size = a.shape[0]
    lanes = min(size, lanes)
    count = jnp.sum(~certified, dtype=jnp.int32)

    def complete(found: Solution) -> Solution:
        # The product with one makes it vary over devices, in `shard_map`, as that does.
        order = jnp.argsort(certified).astype(jnp.int32)
        order = order * jnp.ones_like(certified, jnp.int32)

        def step(state):
            begin, found = state
            places = jnp.minimum(begin, size - lanes) + jnp.arange(lanes, dtype=jnp.int32)
            # Certified ones fill up the last block, and are dropped.
            k = jnp.where(places < count, order[places], size)
            block, *tolerances = (x.at[k].get(mode="clip") for x in (a, *cutoff))
            some = _solved(decompose(block), Cutoff(*tolerances))
            placed = (
                x.at[k].set(y, mode="drop") for x, y in zip(found, some, strict=True)
            )
            return begin + lanes, tuple(placed)

        state = (jnp.zeros_like(count), found)
        return jax.lax.while_loop(lambda state: state[0] < count, step, state)[1]

    return jax.lax.cond(count > 0, complete, lambda found: found, found)


def _kept(s: Array, cutoff: Cutoff) -> Array:
    """Which singular values are above the cutoff, `(..., n)`."""
    return s > cutoff.above(jnp.max(s, axis=-1, initial=0))[..., None]


def _largest_met(tolerance: Array, batch: list) -> Array:
    """The largest tolerance that each matrix of a batch meets."""
    more = [i for i, n in enumerate(batch) if n == 1 != tolerance.shape[i]]
    largest = jnp.max(tolerance, axis=more, keepdims=True, initial=0)
    return jnp.broadcast_to(largest, batch)


def _scale(a: Array) -> tuple[Array, Array]:
    """A number of the size of each matrix, `(...)`, and the same as `(..., 1, 1)`.

    It is a power of two, to divide by which is exact: no square overflows or vanishes then.
    """
    scale = power_of_two(jnp.max(jnp.abs(a), axis=(-2, -1), initial=0))
    return scale, scale[..., None, None].astype(a.dtype)


def _scaled(decompose: Callable, a: Array) -> Triplets:
    """Singular triplets of matrices of any size.

    LAPACK scales by itself, but to no avail where denormal numbers count as zero: then it
    makes NaN of them.
    """
    scale, wide = _scale(a)
    u, s, v = decompose(a / wide)
    return u, s * scale[..., None], v


def _svd(a: Array) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition, as `(u, s, v)`."""
    u, s, vh = jax.lax.linalg.svd(a, full_matrices=False)
    return u, s, adjoint(vh)


def _eigh(a: Array) -> tuple[Array, Array, Array]:
    """Singular value decomposition of a Hermitian matrix, from its eigenvectors.

    `A = V diag(l) V^H` is `U S V^H` with `S = |l|` and `U = V sign(l)`.
    """
    v, eigenvalues = jax.lax.linalg.eigh(a, lower=True, symmetrize_input=False)
    sign = jnp.where(eigenvalues < 0, -1, 1).astype(v.dtype)
    return v * sign[..., None, :], jnp.abs(eigenvalues), v
