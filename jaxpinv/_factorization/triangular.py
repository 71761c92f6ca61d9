"""Inverses of triangular factors, in blocks for which no library starts threads.

OpenBLAS takes one thread for a triangular solve of less than 1024 elements. Threads that it
starts spin for milliseconds and slow down whatever comes next: with one core to share, a
solve for a matrix of order 100 that takes 0.2 ms on one thread takes 16 on two.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import adjoint, identity, matmul

_ONE_THREAD = 1024
_COLUMNS = 24
# Rows of a block of substitution: of 8 to 31 the fastest for most orders from 64 to 300.
_ROWS = 16
# Up to the first order by columns, up to the second by rows. By rows 500 matrices of order
# 48 take 41 ms instead of 38, but 100 of order 64 take 11 instead of 15, 100 of order 100
# take 34 instead of 44, 10 of order 200 take 12 instead of 29. All columns at once take 10
# ms on one thread instead of 6 for 3 of order 300, but 24 instead of 30 for 2 of order 500.
_BY_COLUMNS, _BY_ROWS = 48, 300


def inverse_of_lu(lu: Array, pivots: Array, *, in_blocks: bool) -> Array:
    """The inverse of the square matrix that has these LU factors."""
    n = lu.shape[-1]
    order = jax.lax.linalg.lu_pivots_to_permutation(pivots, n)
    if not in_blocks or n > _BY_ROWS:
        return _columns(lu, order, n, jnp.zeros((), order.dtype))
    return _by_columns(lu, order) if n <= _BY_COLUMNS else _by_rows(lu, order)


def _columns(lu: Array, order: Array, width: int, start: Array) -> Array:
    """Some columns of the inverse, by substitution."""
    rows = _selected(lu, order, width, start)
    y = jax.lax.linalg.triangular_solve(
        lu, rows, left_side=True, lower=True, unit_diagonal=True
    )
    return jax.lax.linalg.triangular_solve(lu, y, left_side=True, lower=False)


def _selected(lu: Array, order: Array, width: int, start: Array) -> Array:
    """So many columns of the matrix that puts rows in order."""
    shape = (*lu.shape[:-1], width)
    here = start + jax.lax.broadcasted_iota(order.dtype, shape, lu.ndim - 1)
    return (order[..., :, None] == here).astype(lu.dtype)


def _by_columns(lu: Array, order: Array) -> Array:
    """The inverse by blocks of columns, all alike."""
    n = lu.shape[-1]
    blocks = -(-n // max(1, (_ONE_THREAD - 1) // n))
    width = -(-n // blocks)
    starts = jnp.arange(0, n, width, order.dtype)
    found = jax.lax.map(lambda start: _columns(lu, order, width, start), starts)
    return jnp.reshape(jnp.moveaxis(found, 0, -2), (*lu.shape[:-1], -1))[..., :n]


def _by_rows(lu: Array, order: Array) -> Array:
    """The inverse by substitution of blocks of rows, in products of matrices."""
    n = lu.shape[-1]
    count = -(-n // _ROWS)
    more = count * _ROWS - n
    # Rows of the identity fill up the last block: they change no other.
    padding = [(0, 0)] * (lu.ndim - 2)
    lu = jnp.pad(lu, [*padding, (0, more), (0, more)])
    fills_up = jnp.arange(n + more, dtype=jnp.int32) >= n
    lu = jnp.where(fills_up, identity(lu), lu)
    order = jnp.pad(order, [*padding, (0, more)], constant_values=n)
    inner = [slice(k * _ROWS, (k + 1) * _ROWS) for k in range(count)]
    diagonal = jnp.stack([lu[..., block, block] for block in inner])
    one = identity(diagonal)
    block_of = jnp.arange(n + more, dtype=jnp.int32) // _ROWS

    def substitute(k: Array, y: Array, inverses: Array, is_known: Array) -> Array:
        known = jnp.where(
            is_known, jax.lax.dynamic_slice_in_dim(lu, k * _ROWS, _ROWS, -2), 0
        )
        rows = jax.lax.dynamic_slice_in_dim(y, k * _ROWS, _ROWS, -2) - matmul(known, y)
        rows = matmul(inverses[k], rows)
        return jax.lax.dynamic_update_slice_in_dim(y, rows, k * _ROWS, -2)

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


def orthonormaliser(gram: Array) -> Array:
    """Upper triangular `W` with `W^H G W = I`, the inverse of a Cholesky factor.

    By blocks of columns: LAPACK leaves threads behind that spin for milliseconds and slow
    the products down that follow, unless the matrix is small. Two calls for a 64 by 64
    matrix make the rest for a 20000 by 64 matrix take twice as long.
    """
    n = gram.shape[-1]
    if n <= _COLUMNS:
        return _inverse_of_adjoint(gram)
    blocks = -(-n // _COLUMNS)
    # Columns of the identity, which is orthonormal to all others, fill up the last block.
    more = blocks * _COLUMNS - n
    gram = jnp.pad(gram, [*[(0, 0)] * (gram.ndim - 2), (0, more), (0, more)])
    columns = jax.lax.broadcasted_iota(jnp.int32, gram.shape, gram.ndim - 1)
    on_diagonal = columns == jax.lax.broadcasted_iota(jnp.int32, gram.shape, gram.ndim - 2)
    gram = jnp.where(on_diagonal & (columns >= n), 1, gram)
    block_of = columns[..., :_COLUMNS, :] // _COLUMNS

    def step(k: Array, w: Array) -> Array:
        k = jnp.asarray(k, jnp.int32)
        start = k * _COLUMNS
        block = jax.lax.dynamic_slice_in_dim(w, start, _COLUMNS, axis=-1)
        image = matmul(gram, block)
        scale = _inverse_of_adjoint(matmul(adjoint(block), image))
        block, image = matmul(block, scale), matmul(image, scale)
        overlap = jnp.where(block_of > k, matmul(adjoint(image), w), 0)
        w = w - matmul(block, overlap)
        return jax.lax.dynamic_update_slice_in_dim(w, block, start, axis=-1)

    # Made of the argument, for a loop in `shard_map` wants to begin as it ends.
    start = jnp.where(on_diagonal, 1, 0 * gram)
    return jax.lax.fori_loop(0, blocks, step, start)[..., :n, :n]


def _inverse_of_adjoint(gram: Array) -> Array:
    """The inverse of `L^H` for the lower Cholesky factor `L`."""
    factor = jax.lax.linalg.cholesky(gram, symmetrize_input=False)
    return adjoint(
        jax.lax.linalg.triangular_solve(factor, identity(gram), left_side=True, lower=True)
    )
