"""Inverses of triangular factors."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._linalg import adjoint, identity, matmul


def inverse(lu: Array, order: Array) -> Array:
    """The inverse of the matrix with these LU factors and this order of rows."""
    columns = jax.lax.broadcasted_iota(order.dtype, lu.shape, lu.ndim - 1)
    rows = (order[..., :, None] == columns).astype(lu.dtype)
    y = jax.lax.linalg.triangular_solve(
        lu, rows, left_side=True, lower=True, unit_diagonal=True
    )
    return jax.lax.linalg.triangular_solve(lu, y, left_side=True, lower=False)


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


def orthonormalizer(gram: Array, *, halves: int) -> Array:
    """Upper triangular `W` with `W^H G W = I`, the inverse of a Cholesky factor.

    More than `2 * halves` columns are divided into halves, of which each takes an eighth of
    the products: `W = [W1, -W1 B W2; 0, W2]`, where `W1` is that of `G1` in
    `G = [G1, C; C^H, G2]`, `B = W1^H C`, and `W2` is that of the Schur complement
    `G2 - B^H B`.
    """
    n = gram.shape[-1]
    if n <= 2 * halves:
        return _inverse_of_adjoint(gram)
    half = n // 2
    first = orthonormalizer(gram[..., :half, :half], halves=halves)
    b = matmul(adjoint(first), gram[..., :half, half:])
    second = orthonormalizer(gram[..., half:, half:] - matmul(adjoint(b), b), halves=halves)
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
