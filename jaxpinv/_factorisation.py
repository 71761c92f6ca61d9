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
# Up to one matrix in so many, singular values are taken of one after the other. With a half
# of the batch that still takes 85 ms instead of 116 for 20000 7 by 6 matrices, 200 instead
# of 340 for 2000 32 by 32 and 93 instead of 135 for 2000 64 by 16, on two cores.
_ONE_IN = 2

# LAPACK calls for many matrices share them out among the threads of jaxlib before 0.12, and
# wait for the others on such a thread themselves: when all of them wait, they do for ever.
_MAY_WAIT_FOR_EVER = jax.__version_info__ < (0, 12)

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
        singly = in_blocks and _MAY_WAIT_FOR_EVER
        u, s, v = (partial(_one_at_a_time, decompose) if singly else decompose)(a)
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
        found, certified = attempt(flat, cutoff)
        found = jax.lax.cond(
            certified, lambda: found, lambda: _solved(decompose(flat), cutoff)
        )
    else:
        in_turn = _by_blocks if method is _direct.by_gram_schmidt else _one_by_one
        found, certified = (in_turn if in_blocks else _at_once)(attempt, flat, cutoff)
        singly = in_blocks and _MAY_WAIT_FOR_EVER
        found = _with_the_rest(decompose, flat, cutoff, found, certified, singly=singly)
    back = [jnp.reshape(x, (*batch, *x.shape[len(shape) :])) for x in (*found, certified)]
    return tuple(back[:-1]), back[-1]


def _one_at_a_time(decompose: Callable, a: Array) -> Triplets:
    """The decompositions of a batch, one after the other."""
    *batch, m, n = a.shape
    if not is_known(a.shape) or not a.size or math.prod(batch) == 1:
        return decompose(a)
    triplets = jax.lax.map(decompose, jnp.reshape(a, (-1, m, n)))
    return tuple(jnp.reshape(x, (*batch, *x.shape[1:])) for x in triplets)


def _attempt(
    method: Callable[..., _direct.Direct], a: Array, cutoff: Cutoff
) -> tuple[Solution, Array]:
    """Direct solutions, and where they are proven to be right."""
    scale, wide = _scale(a)
    q, w, x, certified = method(a / wide, Cutoff(cutoff.rtol, cutoff.atol / scale))
    s = jnp.broadcast_to(scale[..., None], (*scale.shape, a.shape[-1]))
    return (q, s, w, x / wide), certified


def _solved(triplets: Triplets, cutoff: Cutoff) -> Solution:
    """The solution that singular triplets give."""
    u, s, v = triplets
    factors = Factors(u, s, v, _kept(s, cutoff), jnp.zeros_like(cutoff.rtol, bool))
    return u, s, v, pseudo_inverse(factors)


def _at_once(attempt: Callable, a: Array, cutoff: Cutoff) -> tuple[Solution, Array]:
    """What `attempt` finds for all matrices."""
    return attempt(a, cutoff)


def _one_by_one(attempt: Callable, a: Array, cutoff: Cutoff) -> tuple[Solution, Array]:
    """What `attempt` finds, for one matrix after the other: see `_MAY_WAIT_FOR_EVER`."""
    return jax.lax.map(lambda one: attempt(*one), (a, cutoff))


def _by_blocks(attempt: Callable, a: Array, cutoff: Cutoff) -> tuple[Solution, Array]:
    """What `attempt` finds, one block of matrices after the other."""
    size, m, n = a.shape
    lanes = min(size, max(1, _BLOCK // (m * n)))
    blocks = -(-size // lanes)

    def cut(x: Array) -> Array:
        padding = [(0, blocks * lanes - size), *[(0, 0)] * (x.ndim - 1)]
        return jnp.reshape(jnp.pad(x, padding), (blocks, lanes, *x.shape[1:]))

    found = jax.lax.map(lambda block: attempt(*block), (cut(a), Cutoff(*map(cut, cutoff))))
    return jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:]))[:size], found)


def _with_the_rest(
    decompose: Callable,
    a: Array,
    cutoff: Cutoff,
    found: Solution,
    certified: Array,
    *,
    singly: bool,
) -> Solution:
    """What was found for the certified matrices of a batch, and the others by values."""
    count = jnp.sum(~certified, dtype=jnp.int32)

    def where_certified(x: Array, y: Array) -> Array:
        shape = (*certified.shape, *[1] * (x.ndim - 1))
        return jnp.where(jnp.reshape(certified, shape), x, y)

    def one_by_one(triplets: Triplets) -> Triplets:
        # The product with one makes it vary over devices, in `shard_map`, as that does.
        order = jnp.argsort(certified).astype(jnp.int32)
        order = order * jnp.ones_like(certified, jnp.int32)

        def step(state):
            i, triplets = state
            k = order[i]
            one = decompose(a[k])
            return i + 1, tuple(x.at[k].set(y) for x, y in zip(triplets, one, strict=True))

        state = (jnp.zeros_like(count), triplets)
        return jax.lax.while_loop(lambda state: state[0] < count, step, state)[1]

    def all_at_once(triplets: Triplets) -> Triplets:
        return tuple(map(where_certified, triplets, decompose(a)))

    def complete(found: Solution) -> Solution:
        *triplets, x = found
        if singly:
            triplets = one_by_one(tuple(triplets))
        else:
            few = count <= a.shape[0] // _ONE_IN
            triplets = jax.lax.cond(few, one_by_one, all_at_once, tuple(triplets))
        # For the whole batch, so that a result does not depend on the number of others.
        *_, y = _solved(triplets, cutoff)
        return (*triplets, where_certified(x, y))

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
