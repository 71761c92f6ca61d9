"""Logarithms of absolute determinants, real, for the volume of a matrix."""

import jax
import jax.numpy as jnp
from jax import Array


def by_lu(a: Array) -> Array:
    """`log |det a|`, `(...)`, of `(..., n, n)`, by LU with partial pivoting."""
    lu, *_ = jax.lax.linalg.lu(a)
    return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lu, axis1=-2, axis2=-1))), axis=-1)


def by_gram_schmidt(a: Array) -> Array:
    """`log |det a|`, `(...)`, of `(..., n, n)` with few columns, by modified Gram-Schmidt.

    The batch goes last, so that all arithmetic is on long vectors.
    """
    columns = list(jnp.moveaxis(a, (-1, -2), (0, 1)))
    logs = []
    for k in range(len(columns)):
        norm = jnp.sqrt(jnp.real(_dot(columns[k], columns[k])))
        logs.append(jnp.log(norm))
        unit = columns[k] / norm.astype(a.dtype)[None]
        for j in range(k + 1, len(columns)):
            columns[j] = columns[j] - _dot(unit, columns[j])[None] * unit
    return jnp.sum(jnp.stack(logs), axis=0)


def _dot(x: Array, y: Array) -> Array:
    """Inner products, `(...)`, of columns, `(n, ...)`."""
    return jnp.sum(jnp.conj(x) * y, axis=0)
