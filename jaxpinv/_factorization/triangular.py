"""Inverses of triangular factors, a few columns or rows at a time.

A plan says how many: for more, libraries start threads that slow down the next operations.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._linalg import adjoint, identity, matmul


def inverse_at_once(lu: Array, order: Array) -> Array:
    """The inverse of the matrix with these LU factors and this order of rows, at once."""
    n = lu.shape[-1]
    return _columns(lu, order, n, jnp.zeros((), order.dtype))


def order_of(pivots: Array) -> Array:
    """The order into which pivoting brings the rows, `(..., n)`.

    Like `lu_pivots_to_permutation`, in fewer kernels of a CPU. On a GPU that is one kernel.
    """
    places = jax.lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1)

    def swap(k: Array, order: Array) -> Array:
        here, first = (jax.lax.dynamic_slice_in_dim(x, k, 1, -1) for x in (pivots, order))
        there = places == here
        second = jnp.take_along_axis(order, here, axis=-1, mode="promise_in_bounds")
        moved = jnp.where(there, first, order)
        return jnp.where(places == jnp.asarray(k, places.dtype), second, moved)

    # Derived from `pivots`: a loop in `shard_map` must begin with the type it ends with.
    # Unsigned, because a negative index would count from the end.
    count = np.uint32(pivots.shape[-1])
    return jax.lax.fori_loop(np.uint32(0), count, swap, places + 0 * pivots)


def _columns(lu: Array, order: Array, width: int, start: Array) -> Array:
    """The `width` columns of the inverse from `start` on, by substitution."""
    rows = _selected(lu, order, width, start)
    y = jax.lax.linalg.triangular_solve(
        lu, rows, left_side=True, lower=True, unit_diagonal=True
    )
    return jax.lax.linalg.triangular_solve(lu, y, left_side=True, lower=False)


def _selected(lu: Array, order: Array, width: int, start: Array) -> Array:
    """The `width` columns from `start` on of the matrix that puts rows in `order`."""
    shape = (*lu.shape[:-1], width)
    here = start + jax.lax.broadcasted_iota(order.dtype, shape, lu.ndim - 1)
    return (order[..., :, None] == here).astype(lu.dtype)


def inverse_by_columns(lu: Array, order: Array, *, width: int) -> Array:
    """The inverse of the square matrix with these LU factors, in a few column chunks."""
    n = lu.shape[-1]
    starts = jnp.arange(0, n, width, order.dtype)
    found = [_columns(lu, order, width, start) for start in starts]
    return jnp.concatenate(found, axis=-1)[..., :n]


def inverse_by_rows(lu: Array, order: Array, *, width: int) -> Array:
    """The inverse of the square matrix with these LU factors, `width` rows at a time.

    The substitution consists of matrix products.
    """
    n = lu.shape[-1]
    count = -(-n // width)
    more = count * width - n
    # Rows of the identity fill up the last block: they change no other row.
    padding = [(0, 0)] * (lu.ndim - 2)
    lu = jnp.pad(lu, [*padding, (0, more), (0, more)])
    fills_up = jnp.arange(n + more, dtype=jnp.int32) >= n
    lu = jnp.where(fills_up, identity(lu), lu)
    order = jnp.pad(order, [*padding, (0, more)], constant_values=n)
    inner = [slice(k * width, (k + 1) * width) for k in range(count)]
    diagonal = jnp.stack([lu[..., block, block] for block in inner])
    one = identity(diagonal)
    block_of = _block_of(n + more, width)

    def substitute(k: Array, y: Array, inverses: Array, is_known: Array) -> Array:
        known = jnp.where(
            is_known, jax.lax.dynamic_slice_in_dim(lu, k * width, width, -2), 0
        )
        rows = jax.lax.dynamic_slice_in_dim(y, k * width, width, -2) - matmul(known, y)
        rows = matmul(inverses[k], rows)
        return jax.lax.dynamic_update_slice_in_dim(y, rows, k * width, -2)

    lower = jax.lax.linalg.triangular_solve(
        diagonal, one, left_side=True, lower=True, unit_diagonal=True
    )
    upper = jax.lax.linalg.triangular_solve(diagonal, one, left_side=True, lower=False)

    def down(k: Array, y: Array) -> Array:
        k = jnp.asarray(k, jnp.int32)
        return substitute(k, y, lower, block_of < k)

    def up(k: Array, y: Array) -> Array:
        k = count - 1 - jnp.asarray(k, jnp.int32)
        return substitute(k, y, upper, block_of > k)

    y = _selected(lu, order, n, jnp.zeros((), order.dtype))
    y = jax.lax.fori_loop(0, count, up, jax.lax.fori_loop(0, count, down, y))
    return y[..., :n, :]


def _block_of(size: int, width: int) -> Array:
    """The block that each of `size` columns lies in, `(size,)`."""
    return jnp.asarray(np.arange(size) // width, jnp.int32)


def orthonormalizer(gram: Array, *, width: int, halves: int) -> Array:
    """Upper triangular `W` with `W^H G W = I`, the inverse of a Cholesky factor.

    If there are more than `width` columns, it is computed so many at a time: unless the
    matrix is small, LAPACK leaves threads behind that slow down the products that follow.
    More than `2 * halves` columns are first divided into halves.
    """
    n = gram.shape[-1]
    if n <= width:
        return _inverse_of_adjoint(gram)
    if n > 2 * halves:
        return _orthonormalizer_by_halves(gram, width, halves)
    blocks = -(-n // width)
    # Columns of the identity, orthonormal to all others, fill up the last block.
    more = blocks * width - n
    gram = jnp.pad(gram, [*[(0, 0)] * (gram.ndim - 2), (0, more), (0, more)])
    columns = jax.lax.broadcasted_iota(jnp.int32, gram.shape, gram.ndim - 1)
    on_diagonal = columns == jax.lax.broadcasted_iota(jnp.int32, gram.shape, gram.ndim - 2)
    gram = jnp.where(on_diagonal & (columns >= n), 1, gram)
    block_of = _block_of(n + more, width)

    def step(k: Array, w: Array) -> Array:
        k = jnp.asarray(k, jnp.int32)
        start = k * width
        block = jax.lax.dynamic_slice_in_dim(w, start, width, axis=-1)
        image = matmul(gram, block)
        scale = _inverse_of_adjoint(matmul(adjoint(block), image))
        block, image = matmul(block, scale), matmul(image, scale)
        overlap = jnp.where(block_of > k, matmul(adjoint(image), w), 0)
        w = w - matmul(block, overlap)
        return jax.lax.dynamic_update_slice_in_dim(w, block, start, axis=-1)

    # Derived from `gram`: a loop in `shard_map` must begin with the type it ends with.
    start = jnp.where(on_diagonal, 1, 0 * gram)
    return jax.lax.fori_loop(0, blocks, step, start)[..., :n, :n]


def _orthonormalizer_by_halves(gram: Array, width: int, halves: int) -> Array:
    """The result of `orthonormalizer`, where each half takes an eighth of the products.

    `W = [W1, -W1 B W2; 0, W2]`, where `W1` is that of `G1` in `G = [G1, C; C^H, G2]`,
    `B = W1^H C`, and `W2` is that of the Schur complement `G2 - B^H B`.
    """
    half = gram.shape[-1] // 2
    of_half = partial(orthonormalizer, width=width, halves=halves)
    first = of_half(gram[..., :half, :half])
    b = matmul(adjoint(first), gram[..., :half, half:])
    second = of_half(gram[..., half:, half:] - matmul(adjoint(b), b))
    above = -matmul(first, matmul(b, second))
    # Derived from `above`, so that in `shard_map` both vary over the same devices.
    zero = jnp.where(False, adjoint(above), 0)
    columns = jnp.concatenate([first, zero], -2), jnp.concatenate([above, second], -2)
    return jnp.concatenate(columns, axis=-1)


def _inverse_of_adjoint(gram: Array) -> Array:
    """The inverse of `L^H` for the lower Cholesky factor `L`."""
    factor = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
    return adjoint(
        jax.lax.linalg.triangular_solve(factor, identity(gram), left_side=True, lower=True)
    )
