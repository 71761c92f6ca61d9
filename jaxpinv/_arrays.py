"""Products and adjoints of batches of matrices, as every other room uses them."""

import jax
import jax.numpy as jnp
from jax import Array


def matmul(x: Array, y: Array) -> Array:
    """Product of the last two axes, in the full precision of the dtype.

    The default precision is TF32 on GPU and bfloat16 on TPU, or whatever
    `jax.default_matmul_precision` says: neither may leak into a derivative.
    """
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def transpose(x: Array) -> Array:
    """Swap of the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def adjoint(x: Array) -> Array:
    """Conjugate transpose of the last two axes."""
    return jnp.conj(transpose(x))


@jax.custom_jvp
def mirror_lower(a: Array) -> Array:
    """Hermitian matrix of the lower triangle, which alone is read.

    Its derivative is the Hermitian part of the whole tangent: so gradients are Hermitian.
    """
    n = a.shape[-1]
    below = jnp.tri(n, k=-1, dtype=bool)
    diagonal = jnp.eye(n, dtype=bool)
    real = jnp.real(a).astype(a.dtype)
    return jnp.select([below, diagonal], [a, real], adjoint(a))


@mirror_lower.defjvp
def _mirror_lower_jvp(primals, tangents):
    [a], [e] = primals, tangents
    return mirror_lower(a), (e + adjoint(e)) / 2
