"""Complete orthogonal decompositions by QR with column pivoting, of deficient matrices.

With `A P = U [R11 R12; 0 R22]`, where `R22` is rounding, and `T = R11^-1 R12` the columns
of `P [-T; I]` span the null space of the rest, and those of `P [I T]^H` what is orthogonal
to it. Pivoting keeps `T` small, so that Gram matrices of these lose nothing.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, frobenius_norm, identity, matmul


class Decomposition(NamedTuple):
    """Factors of matrices of which no more than rounding is truncated.

    Attributes:
        u: `(..., m, n)`, orthonormal columns.
        v: `(..., n, n)`. `A V = U` in the kept columns, and the others are an orthonormal
            basis of the null space of what is kept.
        x: the pseudo-inverse, `(..., n, m)`.
        kept: `(..., n)`, bool.
        certified: `(...)`, bool. Where it is False the rest is anything.
    """

    u: Array
    v: Array
    x: Array
    kept: Array
    certified: Array


def factor(a: Array, cutoff: Cutoff, *, by_halves: bool, sharply: bool) -> Decomposition:
    """The decomposition of `(..., m, n)`, `m >= n`, of elements of size 1.

    `by_halves` is for one matrix: the program then branches on whether its rank is at most
    `n / 2`, and takes matrices of that size. `sharply` is for the certificate.
    """
    n = a.shape[-1]
    u, r, order = jax.lax.linalg.qr(a, full_matrices=False, pivoting=True)
    norm = frobenius_norm(a)
    kept, is_rounding = certificate.numerical_rank(a, norm, r, cutoff)
    r = jnp.where(kept[..., :, None], r, 0)
    half = -(-n // 2)
    if by_halves:
        is_low = ~jnp.any(kept[..., half:])
        by_corange = partial(_by_corange, size=half)
        by_null_space = partial(_by_null_space, size=half)
        v, x = jax.lax.cond(is_low, by_corange, by_null_space, u, r, kept, order)
    else:
        v, x = _by_null_space(u, r, kept, order, size=n)
    possible = is_rounding & certificate.is_decomposition(a, norm, u, v, kept)
    w = jnp.where(kept[..., None, :], v, 0)
    certified = certificate.certify_full_rank(a, norm, w, cutoff, possible, sharply=sharply)
    return Decomposition(u, v, x, kept, certified)


def _by_null_space(
    u: Array, r: Array, kept: Array, order: Array, *, size: int
) -> tuple[Array, Array]:
    """`V` and the pseudo-inverse, of `size` columns of which all others are kept."""
    one, begin = identity(r), r.shape[-1] - size
    dropped = ~kept[..., None, begin:]
    w = _solve(_filled(r, kept), one)
    t = matmul(w, jnp.where(dropped, r[..., begin:], 0))
    null = jnp.where(dropped, one[..., begin:] - t, 0)
    factor = _cholesky(matmul(adjoint(null), null), kept[..., begin:])
    null_h = _solve(factor, adjoint(null), lower=True)
    w = jnp.where(kept[..., :, None] & kept[..., None, :], w, 0)
    w = w - matmul(adjoint(null_h), matmul(null_h, w))
    null = jnp.pad(adjoint(null_h), [*[(0, 0)] * (r.ndim - 1), (begin, 0)])
    v = _unpermuted(jnp.where(kept[..., None, :], w, null), order)
    return v, matmul(jnp.where(kept[..., None, :], v, 0), adjoint(u))


def _by_corange(
    u: Array, r: Array, kept: Array, order: Array, *, size: int
) -> tuple[Array, Array]:
    """`V` and the pseudo-inverse, of `size` columns of which all others are truncated.

    With `[I T] = C V_r^H` it is `A P = U_r R11 C V_r^H`. `V_r = [V1; V2]`, of which `V1` is
    triangular, is completed to a unitary matrix by the columns of

        [0; I] - [I + V1; V2] (I + V1^H)^-1 V2^H.
    """
    one, first = identity(r), kept[..., :size]
    r11 = _filled(r[..., :size, :size], first)
    both = _solve(r11, r[..., :size, :])
    both = jnp.where(
        kept[..., None, :], jnp.where(first[..., :, None], one[..., :size, :], 0), both
    )
    factor = _cholesky(matmul(both, adjoint(both)), ~first)
    v_h = _solve(factor, both, lower=True)
    w_h = _solve(r11, _solve(factor, v_h, lower=True, of_adjoint=True), of_adjoint=True)
    # The upper rows, which are those of V1.
    top = jnp.where(first[..., None, :], one[..., :size], 0)
    turn = identity(r11) + jnp.where(first[..., None, :], v_h[..., :size], 0)
    null = one - matmul(adjoint(v_h) + top, _solve(turn, v_h, lower=True))
    w = jnp.pad(adjoint(w_h), [*[(0, 0)] * (r.ndim - 1), (0, r.shape[-1] - size)])
    v = _unpermuted(jnp.where(kept[..., None, :], w, null), order)
    w = jnp.where(first[..., None, :], v[..., :size], 0)
    return v, matmul(w, adjoint(u[..., :size]))


def _filled(r: Array, kept: Array) -> Array:
    """The kept columns of a triangular matrix, and for the others those of the identity."""
    return jnp.where(kept[..., None, :], r, identity(r))


def _cholesky(gram: Array, empty: Array) -> Array:
    """The lower Cholesky factor of matrices, some rows and columns of which are empty."""
    gram = gram + jnp.where(empty[..., None, :], identity(gram), 0)
    return jax.lax.linalg.cholesky(gram, symmetrize_input=False)


def _solve(
    factor: Array, x: Array, *, lower: bool = False, of_adjoint: bool = False
) -> Array:
    """The inverse of a triangular matrix, or of its adjoint, times `x`."""
    return jax.lax.linalg.triangular_solve(
        factor,
        x,
        left_side=True,
        lower=lower,
        transpose_a=of_adjoint,
        conjugate_a=of_adjoint,
    )


def _unpermuted(rows: Array, order: Array) -> Array:
    """Rows in the order of the columns of A, where `order` made that of the given ones."""
    here = order[..., None, :] == jnp.arange(order.shape[-1], dtype=order.dtype)[:, None]
    # Its inverse, without a sort, which takes longer to compile.
    place = jnp.argmax(here, axis=-1)

    def taken(rows: Array, place: Array) -> Array:
        return rows.at[place].get(mode="promise_in_bounds")

    return (jax.vmap(taken) if rows.ndim > 2 else taken)(rows, place)
