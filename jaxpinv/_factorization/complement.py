"""An orthonormal basis of the orthogonal complement of given columns."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.svd import Calls
from jaxpinv._linalg import matmul


def complement(
    columns: Array, kept: Array, *, calls: Calls, by_qr: bool
) -> tuple[Array, Array]:
    """An orthonormal basis of the complement of the kept columns, and its dimension.

    Args:
        columns: `(..., n, k)` with `k <= n`.
        kept: which columns are kept, `(..., k)`. The kept ones are orthonormal.
        calls: how a batch is divided into calls.
        by_qr: whether to use a QR factorization; if not, singular vectors.

    Returns:
        The basis, `(..., n, n)`, with zero columns beyond the dimension; the dimension,
        `(...)`, int32.
    """
    n = columns.shape[-2]
    # The other columns become zero, so that QR does not reflect them.
    columns, rank = in_front(columns, kept)
    q = _full_q(columns, calls, by_qr)
    place = jax.lax.broadcasted_iota(jnp.int32, (*rank.shape, n), rank.ndim)
    place = place - rank[..., None]
    return _moved(q, place, place >= 0, n), n - rank


def in_front(columns: Array, chosen: Array) -> tuple[Array, Array]:
    """The chosen columns of `(..., n, k)` in front of zeros, and their number."""
    place = jnp.cumsum(chosen, axis=-1, dtype=jnp.int32) - 1
    count = jnp.sum(chosen, axis=-1, dtype=jnp.int32)
    return _moved(columns, place, chosen, columns.shape[-1]), count


def _moved(x: Array, place: Array, chosen: Array, size: int) -> Array:
    """The chosen columns of `(..., n, k)` moved to `place`, `(..., n, size)`, others zero.

    By a product, because a gather along a sharded batch has no type on an explicit mesh.
    """
    places = jax.lax.broadcasted_iota(jnp.int32, (*place.shape, size), place.ndim)
    move = chosen[..., :, None] & (place[..., :, None] == places)
    return matmul(x, move.astype(x.dtype))


def _full_q(a: Array, calls: Calls, by_qr: bool) -> Array:
    """A unitary matrix whose first columns span those of `(..., n, k)`, `(..., n, n)`."""
    if not by_qr:
        # The columns are orthonormal or zero, so left singular vectors serve too.
        return jax.lax.linalg.svd(a, full_matrices=True)[0]
    [q] = calls(lambda a: (jax.lax.linalg.qr(a, full_matrices=True)[0],), a)
    return q
