"""Which singular values are kept, from singular values without vectors."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv import _blocks, _direct
from jaxpinv._arrays import TINY, in_units, is_known, largest_of_columns, transpose
from jaxpinv._certificate import Cutoff

# LAPACK takes the values of a longer matrix from its triangular factor, but is slower than
# a factorization by `jax.lax.linalg.qr` before it.
_LONG = 2
# Gram-Schmidt takes about a tenth of the time of the singular values if the matrices are
# not longer, so that an attempt pays if it proves more than a tenth of them.
_SHORT, _SHARE = 64, 8
# The first chunk may prove nothing. Of so many chunks its time does not count.
_CHUNKS = 8


def kept_values(
    a: Array, rtol: Array, atol: Array, *, direct: bool, in_blocks: bool
) -> Array:
    """Which singular values of `a`, `(..., m, n)`, are above the cutoff, `(..., n)`.

    Of a matrix that is not finite, or has a NaN tolerance, none is.

    Args:
        a: the matrices, `m >= n`.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        direct: whether to look for matrices of full rank without singular values.
        in_blocks: whether the program may loop over the matrices.
    """
    scaled, scale, finite = in_units(a)
    cutoff = Cutoff(rtol, atol)
    *batch, m, n = a.shape
    if not in_blocks or not is_known(a.shape) or not a.size or math.prod(batch) == 1:
        s, full = _values(scaled, may_reduce=in_blocks), jnp.zeros_like(finite)
    else:
        flat = jnp.reshape(scaled, (-1, m, n))
        met = Cutoff(*(_largest_met(x, batch) for x in (rtol, atol / scale)))
        s, full = _of_batch(flat, met, direct=direct)
        s, full = jnp.reshape(s, (*batch, n)), jnp.reshape(full, batch)
    s = s * scale[..., None]
    largest = largest_of_columns(s[..., None])[..., 0, 0]
    kept = (s > cutoff.above(largest)[..., None]) | full[..., None]
    # Not even what is proven for the largest tolerance, for a maximum may pass over a NaN.
    defined = ~jnp.isnan(rtol) & ~jnp.isnan(atol)
    return kept & defined[..., None]


def _of_batch(a: Array, cutoff: Cutoff, *, direct: bool) -> tuple[Array, Array]:
    """Singular values of `a`, `(B, m, n)`, and which matrices are proven of full rank.

    The values of those are zero.
    """
    count, m, n = a.shape
    size, chunk = _of_one_call(a), _blocks.of_cache(a)
    if not direct or n > TINY or m > _SHORT or count < _CHUNKS * chunk:
        [s] = _blocks.in_blocks(lambda a: (_values(a),), size, a)
        return s, jnp.isnan(s[:, 0])
    full = _proven_in_chunks(a, cutoff, chunk)
    s = 0 * jnp.real(a[:, 0])
    [s] = _blocks.replace(lambda a: (_values(a),), min(chunk, size), ~full, [s], a)
    return s, full


def _proven_in_chunks(a: Array, cutoff: Cutoff, chunk: int) -> Array:
    """Which of `(B, m, n)` are proven to be of full rank, `(B,)`.

    It stops after the first chunk in which few are.
    """

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        begin, _, full = state
        some = [jax.lax.dynamic_slice_in_dim(x, begin, chunk) for x in (a, *cutoff)]
        proven = _direct.by_gram_schmidt(some[0], Cutoff(*some[1:])).certified
        full = jax.lax.dynamic_update_slice_in_dim(full, proven, begin, 0)
        return begin + chunk, jnp.sum(proven, dtype=jnp.int32) * _SHARE > chunk, full

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        begin, promising, _ = state
        return promising & (begin < a.shape[0])

    # Made of the arguments, since a loop in `shard_map` must begin as it ends.
    none = jnp.isnan(jnp.real(a[:, 0, 0]) * 0 + 0 * cutoff.rtol + 0 * cutoff.atol) & False
    begin = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(goes_on, step, (begin, ~none[0], none))[2]


def _values(a: Array, *, may_reduce: bool = True) -> Array:
    """All singular values, `(..., n)`, of triangular factors if that may be."""
    m, n = a.shape[-2:]
    # JAX cannot lower a QR factorization where the type says how a batch is divided.
    if may_reduce and is_known((m, n)) and m >= _LONG * n:
        _, a = jax.lax.linalg.qr(a, full_matrices=False)
    elif m == n:
        # LAPACK stores columns where we store rows: it takes the transpose as that is.
        a = transpose(a)
    return jax.lax.linalg.svd(a, full_matrices=False, compute_uv=False)


def _of_one_call(a: Array) -> int:
    """How many of the matrices LAPACK may be given at a time."""
    m, n = a.shape[-2:]
    is_long = m >= _LONG * n
    flops = max(10 * n**3, 2 * m * n**2) if is_long else 10 * m * n**2
    return _blocks.of_one_call(a, flops)


def _largest_met(tolerance: Array, batch: list) -> Array:
    """The largest tolerance that each matrix of a batch meets, in one axis."""
    more = [i for i, n in enumerate(batch) if n == 1 != tolerance.shape[i]]
    largest = jnp.max(tolerance, axis=more, keepdims=True, initial=0)
    return jnp.ravel(jnp.broadcast_to(largest, batch))
