"""Derivatives of singular triplets, and of singular values alone."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import adjoint, matmul, sum_of_rows


@jax.custom_jvp
def triplets_of(a: Array, u: Array, s: Array, v: Array) -> tuple[Array, Array, Array]:
    """The singular triplets of `a`, `(..., m, n)` with `m >= n`, which change with it.

    `u` and `v` have no derivative where a value is repeated or zero.
    """
    return u, s, v


@triplets_of.defjvp
def _triplets_of_jvp(primals, tangents):
    """As JAX differentiates its own, which would hand whole batches to LAPACK.

    With `P = U^H E V` the part of `dU` in the columns of `U` is `F * (P S + S P^H)`, and
    that of `dV` in those of `V` is `F * (S P + P^H S)`. There `F_ij = 1 / (s_j^2 - s_i^2)`
    off the diagonal, and 0 on it (J. Townsend, "Differentiating the singular value
    decomposition", 2016). Phases are such that `V` does not turn.
    """
    u, s, v = triplets_of(*primals)
    e = _undefined_with(s, tangents[0])
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
    return (u, s, v), (du, _change_of_values(u, image), dv)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def values_of(decompose: Callable, a: Array, s: Array) -> Array:
    """The singular values `s` of `a`, `(..., m, n)` with `m >= n`, which change with it.

    They may have been computed without the vectors: `decompose` makes the triplets, which
    are needed for the derivative alone.
    """
    return s


@values_of.defjvp
def _values_of_jvp(decompose, primals, tangents):
    [a, s], [e, _] = primals, tangents
    u, _, v = triplets_of(a, *decompose(jax.lax.stop_gradient(a)))
    ds = _change_of_values(u, matmul(_undefined_with(s, e), v))
    return values_of(decompose, a, s), ds


def _undefined_with(s: Array, e: Array) -> Array:
    """The tangent, or NaN where the values are: as a factor, which reverse mode keeps."""
    undefined = jnp.any(jnp.isnan(s), axis=-1)[..., None, None]
    return e * jnp.where(undefined, jnp.nan, 1).astype(e.dtype)


def _change_of_values(u: Array, image: Array) -> Array:
    """The change `diag(U^H E V)` of singular values, of `E V`, real."""
    return sum_of_rows(jnp.real(jnp.conj(u) * image))[..., 0, :]
