"""The derivative of damped inverses if every unknown has a known damping.

`X = (A^H A + D^2)^-1 A^H` and `P = (A^H A + D^2)^-1` suffice for their own derivatives
along `E` in `A`:

    dX = P E^H (I - A X) - X E X,
    dP = -X E P - (X E P)^H

So JAX derives all higher derivatives from these two formulas.
"""

import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._linalg import adjoint, matmul


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
    # In this order dX takes four products of `2 m n^2` flops: `A X` is never formed.
    first, second = matmul(p, adjoint(e)), matmul(x, e)
    dx = first - matmul(matmul(first, a) + second, x)
    dp = matmul(second, p)
    dp = -dp - adjoint(dp)
    return [jnp.broadcast_to(dx, x.shape), jnp.broadcast_to(dp, p.shape)]


inverse_of_p = _rules.attached("damped_inverse_of", 2, 2, _inverse_of_change)
