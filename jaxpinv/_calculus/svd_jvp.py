"""The field `singular_values` of `lstsq`, and its derivatives."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import adjoint, finite_or_zero, matmul, sum_of_rows
from jaxpinv._primitives import factor_p, singular_values_p
from jaxpinv._solver import Problem


def singular_values(problem: Problem, *, are_known: bool) -> Array:
    """All singular values, descending, with their derivatives."""
    s = jax.lax.stop_gradient(problem.factors.s)
    if are_known:
        s = jnp.sort(s, axis=-1, descending=True)
    else:
        undefined = jnp.any(jnp.isnan(s), axis=-1, keepdims=True)
        a, _ = finite_or_zero(jax.lax.stop_gradient(problem.a))
        s = jnp.where(undefined, jnp.nan, singular_values_p.bind(a))
    return _known_singular_values(problem.a, s)


@jax.custom_jvp
def _known_singular_values(a: Array, s: Array) -> Array:
    """The singular values `s` of `a`."""
    return s


@_known_singular_values.defjvp
def _known_singular_values_jvp(primals, tangents):
    [a, s], [e, _] = primals, tangents
    guarded, _ = finite_or_zero(a)
    is_wide = a.shape[-2] < a.shape[-1]
    u, _, v = _singular_triplets(adjoint(guarded) if is_wide else guarded)
    image = matmul(adjoint(e) if is_wide else e, v)
    ds = sum_of_rows(jnp.real(jnp.conj(u) * image))[..., 0, :]
    # The NaN is a factor of the tangent, so that reverse mode does not lose it.
    return _known_singular_values(a, s), ds * jnp.where(jnp.isnan(s), jnp.nan, 1)


@jax.custom_jvp
def _singular_triplets(a: Array) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition of `(..., m, n)`, `m >= n`, as `(u, s, v)`."""
    zero = jnp.zeros((1,) * (a.ndim - 2), jnp.finfo(a.dtype).dtype)
    triplets = factor_p.bind(a, zero, zero, hermitian=False, direct=False, with_pinv=False)
    return tuple(triplets[:3])


@_singular_triplets.defjvp
def _singular_triplets_jvp(primals, tangents):
    """As JAX differentiates its own, which would hand whole batches to LAPACK.

    With `P = U^H E V` the part of `dU` in the columns of `U` is `F * (P S + S P^H)`, and
    that of `dV` in those of `V` is `F * (S P + P^H S)`. There `F_ij = 1 / (s_j^2 - s_i^2)`
    off the diagonal, and 0 on it (J. Townsend, "Differentiating the singular value
    decomposition", 2016). Phases are such that `V` does not turn.
    """
    [a], [e] = primals, tangents
    u, s, v = _singular_triplets(a)
    image = matmul(e, v)
    p = matmul(adjoint(u), image)
    diagonal = jnp.eye(s.shape[-1], dtype=bool)
    rows, columns = (x.astype(a.dtype) for x in (s[..., :, None], s[..., None, :]))
    difference = jnp.where(diagonal, 1, (columns - rows) * (columns + rows))
    f = jnp.where(diagonal, 0, 1 / difference)
    du = matmul(u, f * (p * columns + rows * adjoint(p)))
    if jnp.iscomplexobj(a):
        turn = jnp.where(diagonal, p - adjoint(p), 0) / (2 * columns)
        du = du + matmul(u, turn)
    if a.shape[-2] > a.shape[-1]:
        du = du + (image - matmul(u, p)) / columns
    dv = matmul(v, f * (rows * p + adjoint(p) * columns))
    ds = jnp.real(jnp.diagonal(p, axis1=-2, axis2=-1))
    return (u, s, v), (du, ds, dv)
