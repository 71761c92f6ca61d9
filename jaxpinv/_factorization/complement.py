"""An orthonormal basis of what is orthogonal to given columns."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.svd import Calls
from jaxpinv._linalg import matmul


def complement(
    columns: Array, kept: Array, *, calls: Calls, by_qr: bool
) -> tuple[Array, Array]:
    """An orthonormal basis of what is orthogonal to the kept columns, and its dimension.

    Args:
        columns: `(..., n, k)` with `k <= n`.
        kept: which of them, `(..., k)`. These are orthonormal.
        calls: how a batch is factored.
        by_qr: whether by a QR factorization, or else by singular vectors.

    Returns:
        `(..., n, n)`, the columns beyond the dimension being zero, and that, int32.
    """
    n = columns.shape[-2]
    # The others are zero, so that QR does not reflect them.
    columns, rank = in_front(columns, kept)
    q = _full_q(columns, calls, by_qr)
    place = jax.lax.broadcasted_iota(jnp.int32, (*rank.shape, n), rank.ndim)
    place = place - rank[..., None]
    return _moved(q, place, place >= 0, n), n - rank


def in_front(columns: Array, chosen: Array) -> tuple[Array, Array]:
    """The chosen columns of `(..., n, k)` in front of zeros, and how many they are."""
    place = jnp.cumsum(chosen, axis=-1, dtype=jnp.int32) - 1
    count = jnp.sum(chosen, axis=-1, dtype=jnp.int32)
    return _moved(columns, place, chosen, columns.shape[-1]), count


def _moved(x: Array, place: Array, chosen: Array, size: int) -> Array:
    """The chosen columns of `(..., n, k)` at their places, `(..., n, size)`, others zero.

    A product, since a gather along a sharded batch has no type on an explicit mesh.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, (*place.shape, size), place.ndim)
    move = chosen[..., :, None] & (place[..., :, None] == places)
    return matmul(x, move.astype(x.dtype))


def _full_q(a: Array, calls: Calls, by_qr: bool) -> Array:
    """A unitary matrix whose first columns span those of `(..., n, k)`, `(..., n, n)`."""
    if not by_qr:
        # Of orthonormal columns and zeros the left singular vectors do as well.
        return jax.lax.linalg.svd(a, full_matrices=True)[0]
    [q] = calls(lambda a: (jax.lax.linalg.qr(a, full_matrices=True)[0],), a)
    return q
