"""QR factorizations of tall matrices, a chunk of rows at a time if there are many.

LAPACK sums over the rows of a matrix term by term, so its errors grow with their number:
those of equal terms, as in an intercept column, all have the same sign. A chunk of rows is
short. The triangular factors of all chunks, on top of each other, are a shorter matrix `B`
with `A = Q B`, and if it is still long, it is shortened again (Demmel, Grigori, Hoemmen,
Langou, SIAM J. Sci. Comput. 34 (2012) A206-A239).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import matmul
from jaxpinv._shapes import divided, is_static_shape

#: A product with a matrix of orthonormal columns, as a function of the second factor.
Product = Callable[[Array], Array]
#: Finds `Q`, as a function, and `B` of `A = Q B`, shorter unless `A` is square.
Shorten = Callable[[Array], tuple[Product, Array]]


def qr(a: Array) -> tuple[Array, Array]:
    """The thin QR factorization of `a`, `(..., m, n)`."""
    q, r = jax.lax.linalg.qr(a, full_matrices=False)
    return q, r


def shorten(
    a: Array, *, rows: int | None, calls: Callable[..., tuple[Array, ...]]
) -> tuple[Product, Array]:
    """`Q`, as a function, and `B` of `A = Q B`, `(..., m, n)`, with `m >= n`.

    `B` is the triangular factor, or those of several chunks of `A` on top of each other.

    Args:
        a: the matrices.
        rows: most rows in a chunk, several times as many as columns. If None, there is one
            chunk.
        calls: how a batch of chunks is divided into calls.
    """
    *batch, m, n = a.shape
    if rows is None or not _is_long(m, rows):
        q, b = qr(a)
        return lambda w: matmul(q, w), b
    count, length = divided(m, rows)
    whole, left = jnp.split(a, [count * length], axis=-2)
    q, r = calls(qr, jnp.reshape(whole, (*batch, count, length, n)))
    # The few rows that are left over stay as they are.
    rows_of_all = [jnp.reshape(r, (*batch, count * n, n)), left]
    above, b = lambda w: w, jnp.concatenate(rows_of_all, axis=-2)
    if _is_long(b.shape[-2], rows):
        above, b = shorten(b, rows=rows, calls=calls)

    def product(w: Array) -> Array:
        k = w.shape[-1]
        parts, left = jnp.split(above(w), [count * n], axis=-2)
        found = matmul(q, jnp.reshape(parts, (*batch, count, n, k)))
        found = jnp.reshape(found, (*batch, count * length, k))
        # XLA would repeat the product for each row of a pseudo-inverse made of it.
        return jax.lax.optimization_barrier(jnp.concatenate([found, left], axis=-2))

    return product, b


def factor(a: Array, shorten: Shorten) -> tuple[Product, Array]:
    """`Q`, as a function, and the triangular factor `R` of `A = Q R`, `(..., m, n)`."""
    product, b = shorten(a)
    if b.shape[-2] <= b.shape[-1]:
        return product, b
    q, r = qr(b)
    return lambda w: product(matmul(q, w)), r


def _is_long(m: int, rows: int) -> bool:
    """Whether m rows are more than one chunk."""
    return is_static_shape((m,)) and m > rows
