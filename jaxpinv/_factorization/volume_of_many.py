"""Log-volumes of many small matrices, by modified Gram-Schmidt.

The batch goes last, so that all arithmetic is on long vectors. Random rows `Z` below the
columns of `A` take part in all steps but count in no inner product. So the columns of `A`
become those of `Q` and the rows below `Z R^-1`, whose norm bounds the smallest singular
value, as in `jaxpinv._factorization.volume`. Nothing grows as in elimination: `A = Q R` up
to rounding for every matrix, if not for the computed `Q` (A. Bjorck, "Solving linear least
squares problems by Gram-Schmidt orthogonalization", BIT 7 (1967) 1-21).
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.certificate import rounding_of
from jaxpinv._factorization.gram_schmidt import Isolate, batch_last, squared, total
from jaxpinv._factorization.volume import FEW, gaussian, least_norm, normalize_if_extreme
from jaxpinv._factors import Cutoff


def by_gram_schmidt(
    a: Array, cutoff: Cutoff, *, isolate: Isolate
) -> tuple[Array, Array, Array]:
    """Norms of the orthogonalized columns of a batch of tall matrices, `(..., m, n)`.

    Returns:
        As `volume.by_lu`, with the norms for pivots.
    """
    m = a.shape[-2]
    a, scale, finite, norm = normalize_if_extreme(a)
    # An odd number of rows keeps the size from being a power of two, with which a
    # transposition reads places that compete for the same lines of a cache.
    count = FEW + (m + FEW + 1) % 2
    x = isolate(jnp.concatenate([a, gaussian(a, count)], axis=-2))
    squares, below = _orthogonalized(isolate(batch_last(x)), m, isolate)
    limit = cutoff._replace(atol=cutoff.atol / scale).above(norm) + rounding_of(a, norm)
    found = finite & (jnp.sqrt(below) * limit < least_norm(count))
    return jnp.moveaxis(jnp.sqrt(squares), 0, -1), scale, found


def _orthogonalized(x: Array, m: int, isolate: Isolate) -> tuple[Array, Array]:
    """Squared norms of columns in the first m rows, `(n, ...)`, and below, `(...)`.

    The columns, `(m + k, n, ...)`, are orthogonalized in the first m rows. What is below
    each is over its norm.
    """
    _, n, *batch = x.shape
    order = jnp.expand_dims(jnp.arange(n), range(1, 1 + len(batch)))

    def step(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, squares, below = carry
        q = isolate(jax.lax.dynamic_index_in_dim(x, k, axis=1, keepdims=False))
        parts = squared(q)
        square = isolate(total(parts[:m]))
        overlap = total(jnp.conj(q[i])[None] * x[i] for i in range(m))
        # If nothing is left of a column, the rest is NaN, and nothing is certified.
        off = isolate(jnp.where(order > k, overlap / square[None].astype(x.dtype), 0))
        x = x - off[None] * q[:, None]
        below = below + total(parts[m:]) / square
        return x, jax.lax.dynamic_update_index_in_dim(squares, square, k, 0), below

    start = (x, 0 * jnp.real(x[0]), 0 * jnp.real(x[0, 0]))
    _, squares, below = jax.lax.fori_loop(0, n, step, start)
    return squares, below
