"""The derivative of damped inverses where every unknown is damped.

`X = (A^H A + D^2)^-1 A^H` and `P = (A^H A + D^2)^-1` are closed under differentiation:

    dX = P E^H (I - A X) - X E X - P d(D^2) X,
    dP = -X E P - (X E P)^H - P d(D^2) P

along `E` in `A`. So JAX makes higher derivatives of these.
"""

import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._linalg import adjoint, matmul


def inverse_of(x: Array, p: Array, a: Array, d: Array) -> Array:
    """The damped inverse `x` of `a`, `(..., m, n)`, which changes with it and with `d`.

    Args:
        x: its value, `(..., n, m)`.
        p: the value of `P`, `(..., n, n)`.
        a: the matrices.
        d: the dampings, `(..., n)` or `(..., 1)`.
    """
    x, _ = inverse_of_p.bind(x, p, a, d)
    return x


def _inverse_of_change(results, primals, tangents):
    x, p = results
    _, _, a, d = primals
    e, dd = tangents
    changes = []
    if e is not None:
        # Of four products of `2 m n^2` flops: `A X` is never formed.
        first, second = matmul(p, adjoint(e)), matmul(x, e)
        dx = first - matmul(matmul(first, a) + second, x)
        dp = matmul(second, p)
        changes.append((dx, -dp - adjoint(dp)))
    if dd is not None:
        square = (2 * d * dd)[..., :, None].astype(x.dtype)
        changes.append((-matmul(p, square * x), -matmul(p, square * p)))
    dx, dp = (sum(terms[1:], terms[0]) for terms in zip(*changes, strict=True))
    return [jnp.broadcast_to(dx, x.shape), jnp.broadcast_to(dp, p.shape)]


inverse_of_p = _rules.attached("damped_inverse_of", 2, (2, 3), _inverse_of_change)
