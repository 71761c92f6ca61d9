"""Which singular values are kept, from singular values without vectors."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import lu as _direct
from jaxpinv._factorization.certificate import Cutoff, largest_met
from jaxpinv._factorization.svd import values, values_of_one_call
from jaxpinv._linalg import TINY, in_units, is_known
from jaxpinv._platform import chunking as _blocks

# Gram-Schmidt takes about a tenth of the time of the singular values if the matrices are
# not longer, so that an attempt pays if it proves more than a tenth of them.
_MOST_ROWS, _SHARE = 64, 8
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
    scaled, scale, _ = in_units(a)
    cutoff = Cutoff(rtol, atol)
    *batch, m, n = a.shape
    may_try = direct and in_blocks and is_known(a.shape) and a.size
    chunk = _blocks.of_cache(a) if may_try and n <= TINY and m <= _MOST_ROWS else None
    if chunk is not None and math.prod(batch) >= _CHUNKS * chunk:
        met = (jnp.ravel(largest_met(x, batch)) for x in (rtol, atol / scale))
        s, full = _of_batch(jnp.reshape(scaled, (-1, m, n)), Cutoff(*met), chunk)
        s, full = jnp.reshape(s, (*batch, n)) * scale[..., None], jnp.reshape(full, batch)
    else:
        s = values(a, in_blocks=in_blocks)
        full = jnp.zeros(s.shape[:-1], bool)
    # Not even what is proven for the largest tolerance, for a maximum may pass over a NaN.
    defined = ~jnp.isnan(rtol) & ~jnp.isnan(atol)
    return (cutoff.keeps(s) | full[..., None]) & defined[..., None]


def _of_batch(a: Array, cutoff: Cutoff, chunk: int) -> tuple[Array, Array]:
    """Singular values of `a`, `(B, m, n)`, and which matrices are proven of full rank.

    The values of those are zero.
    """
    full = _proven_in_chunks(a, cutoff, chunk)
    [s] = _blocks.replace(
        lambda a: (values(a, in_blocks=True),),
        min(chunk, values_of_one_call(a)),
        ~full,
        [0 * jnp.real(a[:, 0])],
        a,
    )
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
