"""Derivatives of singular triplets, and of singular values alone."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._linalg import adjoint, matmul, sum_of_rows


def triplets_of(a: Array, u: Array, s: Array, v: Array) -> list[Array]:
    """Attach derivatives to the singular triplets of `a`, `(..., m, n)` with `m >= n`.

    `u` and `v` have no derivative where a singular value is repeated or zero.
    """
    return triplets_of_p.bind(u, s, v, a)


def _triplets_of_change(results, primals, tangent):
    """The tangents that JAX's own SVD has, which would hand whole batches to LAPACK.

    With `P = U^H E V`, the part of `dU` in the columns of `U` is `F * (P S + S P^H)`, and
    the part of `dV` in the columns of `V` is `F * (S P + P^H S)`, where
    `F_ij = 1 / (s_j^2 - s_i^2)` off the diagonal and 0 on it (J. Townsend, "Differentiating
    the singular value decomposition", 2016). Phases are such that `V^H dV` has a zero
    diagonal.
    """
    u, s, v = results
    e = _undefined_with(s, tangent)
    image = matmul(e, v)
    p = matmul(adjoint(u), image)
    diagonal = jnp.eye(s.shape[-1], dtype=bool)
    rows, columns = (x.astype(u.dtype) for x in (s[..., :, None], s[..., None, :]))
    difference = jnp.where(diagonal, 1, (columns - rows) * (columns + rows))
    f = jnp.where(diagonal, 0, 1 / difference)
    du = matmul(u, f * (p * columns + rows * adjoint(p)))
    if jnp.iscomplexobj(u):
        turn = jnp.where(diagonal, p - adjoint(p), 0) / (2 * columns)
        du = du + matmul(u, turn)
    if u.shape[-2] > u.shape[-1]:
        du = du + (image - matmul(u, p)) / columns
    dv = matmul(v, f * (rows * p + adjoint(p) * columns))
    return [du, _change_of_values(u, image), dv]


triplets_of_p = _rules.attached("triplets_of", 3, 3, _triplets_of_change)


def values_of(decompose: Callable, a: Array, s: Array) -> Array:
    """Attach a derivative to the singular values `s` of `a`, `(..., m, n)` with `m >= n`.

    `s` may have been computed without vectors: `decompose` computes the triplets, which
    only the derivative needs.
    """
    [s] = values_of_p.bind(s, a, decompose=decompose)
    return s


def _values_of_change(results, primals, e, *, decompose):
    _, a = primals
    u, _, v = triplets_of(a, *decompose(a))
    return [_change_of_values(u, matmul(_undefined_with(results[0], e), v))]


values_of_p = _rules.attached("values_of", 1, 1, _values_of_change)


def _undefined_with(s: Array, e: Array) -> Array:
    """The tangent, times NaN where a value is NaN: reverse mode keeps such a factor."""
    undefined = jnp.any(jnp.isnan(s), axis=-1)[..., None, None]
    factor = jnp.where(undefined, jnp.nan, s.dtype.type(1))
    return e * factor.astype(e.dtype)


def _change_of_values(u: Array, image: Array) -> Array:
    """The change `diag(U^H E V)` of singular values, real, from `image = E V`."""
    return sum_of_rows(jnp.real(jnp.conj(u) * image))[..., 0, :]
