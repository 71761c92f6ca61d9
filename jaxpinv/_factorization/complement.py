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
        columns: `(..., n, k)` with `k <= n`, orthonormal unless n are kept.
        kept: which of them, `(..., k)`.
        calls: how a batch is factored.
        by_qr: whether by a QR factorization, or else by singular vectors.

    Returns:
        `(..., n, n)`, the columns beyond the dimension being zero, and that, int32.
    """
    n, k = columns.shape[-2:]
    # The kept columns come first. The others are zero, so that QR does not reflect them.
    front = jnp.cumsum(kept, axis=-1, dtype=jnp.int32)
    q = _full_q(_moved(columns, front - 1, kept, k), calls, by_qr)
    rank = jnp.sum(kept, axis=-1, keepdims=True, dtype=jnp.int32)
    place = jax.lax.broadcasted_iota(jnp.int32, (*rank.shape[:-1], n), rank.ndim - 1) - rank
    return _moved(q, place, place >= 0, n), n - rank[..., 0]


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
