"""Products with triangular or Hermitian results or factors, by halves of the columns.

For fewer columns than `fewest`, joining the halves would take as long as the zeros save.
"""

import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import adjoint, matmul


def times_upper(x: Array, upper: Array, *, fewest: int) -> Array:
    """The product of `x`, `(..., m, n)`, with `(..., n, n)`, without most of its zeros."""
    half = upper.shape[-1] // 2
    if upper.shape[-1] < fewest:
        return matmul(x, upper)
    left = matmul(x[..., :half], upper[..., :half, :half])
    return jnp.concatenate([left, matmul(x, upper[..., half:])], axis=-1)


def upper_times(upper: Array, x: Array, *, fewest: int) -> Array:
    """The product of `(..., n, n)` with `x`, `(..., n, k)`, without most of its zeros."""
    half = upper.shape[-1] // 2
    if upper.shape[-1] < fewest:
        return matmul(upper, x)
    below = matmul(upper[..., half:, half:], x[..., half:, :])
    return jnp.concatenate([matmul(upper[..., :half, :], x), below], axis=-2)


def gram_of_upper(upper: Array, *, fewest: int) -> Array:
    """The Gram matrix of `upper`, `(..., n, n)`, without most of its zeros."""
    half = upper.shape[-1] // 2
    if upper.shape[-1] < fewest:
        return matmul(adjoint(upper), upper)
    above = matmul(adjoint(upper[..., :half, :half]), upper[..., :half, :])
    right = upper[..., half:]
    below = jnp.concatenate(
        [adjoint(above[..., half:]), matmul(adjoint(right), right)], axis=-1
    )
    return jnp.concatenate([above, below], axis=-2)


def gram(x: Array, *, fewest: int) -> Array:
    """The Gram matrix `X^H X`, `(..., n, n)`, without most of its upper triangle."""
    half = x.shape[-1] // 2
    if x.shape[-1] < fewest:
        return matmul(adjoint(x), x)
    left, right = x[..., :half], x[..., half:]
    below = matmul(adjoint(right), x)
    above = jnp.concatenate(
        [matmul(adjoint(left), left), adjoint(below[..., :half])], axis=-1
    )
    return jnp.concatenate([above, below], axis=-2)
