"""The derivative of damped inverses if every unknown is damped.

`X = (A^H A + D^2)^-1 A^H` and `P = (A^H A + D^2)^-1` suffice for their own derivatives
along `E` in `A`:

    dX = P E^H (I - A X) - X E X,
    dP = -X E P - (X E P)^H

So JAX derives all higher derivatives from these two formulas. If `D` changes by `C`, too,
`dX` has one more term, `-2 P D C X`.
"""

import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._linalg import adjoint, matmul, transpose


def inverse_of(x: Array, p: Array, a: Array) -> Array:
    """Attach a derivative to the damped inverse `x` of `a`, `(..., m, n)`.

    Args:
        x: the damped inverse, `(..., n, m)`.
        p: `P`, `(..., n, n)`.
        a: the matrices.
    """
    x, _ = inverse_of_p.bind(x, p, a)
    return x


def _inverse_of_change(results, primals, e):
    x, p = results
    _, _, a = primals
    image = matmul(x, e)
    dx, dp = change(x, p, a, e, image), matmul(image, p)
    dp = -dp - adjoint(dp)
    return [jnp.broadcast_to(dx, x.shape), jnp.broadcast_to(dp, p.shape)]


inverse_of_p = _rules.attached("damped_inverse_of", 2, 2, _inverse_of_change)


def change(x: Array, p: Array, a: Array, e: Array, image: Array) -> Array:
    """`dX` along `e`, `(..., n, m)`. `image` is `X E`, plus `2 P D C` if `D` changes."""
    # In this order dX takes four products of `2 m n^2` flops: `A X` is never formed.
    first = matmul(p, adjoint(e))
    return first - matmul(matmul(first, a) + image, x)


def gradient(x: Array, p: Array, a: Array, k: Array) -> tuple[Array, Array]:
    """The gradient of `Re trace(k dX)`, with `k` `(..., m, n)`.

    Returns:
        The gradients in the matrix, `(..., m, n)`, and in the diagonal of `2 D C`,
        `(..., 1, n)`, both without conjugation.
    """
    image = matmul(x, k)
    of_e = jnp.conj(matmul(k - matmul(a, image), p)) - transpose(matmul(image, x))
    # The diagonal of `image p`.
    return of_e, -jnp.sum(transpose(image) * p, axis=-2, keepdims=True)
