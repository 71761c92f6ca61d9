"""Complete orthogonal decompositions of deficient matrices, by QR with column pivoting.

Let `A P = U [R; 0]`, where rows of `R` that are rounding are left out. A second QR
factorization, of `R^H`, gives `R = L V^H` with a triangular `L` that has the condition
number of `A` (G. W. Stewart, SIAM J. Sci. Comput. 20 (1999) 1336-1348).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate, numerical_rank
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, frobenius_norm, identity, matmul, transpose


class Decomposition(NamedTuple):
    """Factors of matrices in which only rounding is truncated.

    Attributes:
        u: `(..., m, n)`, orthonormal columns.
        v: `(..., n, n)`. `A V = U` in the kept columns, and the others are an orthonormal
            basis of the null space of the kept part of `A`.
        x: the pseudo-inverse, `(..., n, m)`.
        kept: `(..., n)`, bool.
        certified: `(...)`, bool. Where it is False, `v`, `x` and `kept` are arbitrary.
        r: `(..., n, n)`, triangular, such that `A P = U R`.
        order: `(..., n)`, the order into which `P` brings the columns.
    """

    u: Array
    v: Array
    x: Array
    kept: Array
    certified: Array
    r: Array
    order: Array


def factor(a: Array, cutoff: Cutoff, *, by_halves: bool) -> Decomposition:
    """The decomposition of `(..., m, n)`, `m >= n`, with elements of size 1.

    `by_halves` is for one matrix: if its rank is at most `n / 2`, the program takes a
    branch with factors of that size.
    """
    n = a.shape[-1]
    u, r, order = jax.lax.linalg.qr(a, full_matrices=False, pivoting=True)
    norm = frobenius_norm(a)
    kept, is_possible = numerical_rank.numerical_rank(a, norm, r, cutoff)
    kept_r = jnp.where(kept[..., :, None], r, 0)
    half = -(-n // 2)
    whole = partial(_by_rows, size=n)

    def by_half(*factors: Array) -> tuple[Array, ...]:
        # What is kept comes first. Should rounding make an exception, no certificate holds.
        is_low = ~jnp.any(kept[..., half : half + 1])
        return jax.lax.cond(is_low, partial(_by_rows, size=half), whole, *factors)

    def give_up(u: Array, r: Array, kept: Array, order: Array) -> tuple[Array, ...]:
        return r, r, adjoint(u)

    decompose = by_half if by_halves else whole
    w, null, x = jax.lax.cond(
        jnp.any(is_possible), decompose, give_up, u, kept_r, kept, order
    )
    accurate = numerical_rank.makes_orthonormal(a, norm, w, u, kept)
    certified = certificate.certify_full_rank(a, norm, w, cutoff, is_possible & accurate)
    # Added only here, so that a value without derivatives does not compute the null space.
    return Decomposition(u, w + null, x, kept, certified, r, order)


def square_factor(r: Array, order: Array) -> Array:
    """`B = R P^H`, `(..., n, n)`, such that `A = U B`."""
    return transpose(_unpermuted(transpose(r), order))


def _by_rows(
    u: Array, r: Array, kept: Array, order: Array, *, size: int
) -> tuple[Array, Array, Array]:
    """Kept and truncated columns of `V`, and the pseudo-inverse.

    Only the first `size` rows of the triangular factor are used: the others are zero.
    """
    rows_h, first = adjoint(r[..., :size, :]), kept[..., :size]
    # QR does not reflect zero columns: the last columns of the full Q are the null space.
    v, l_h = jax.lax.linalg.qr(rows_h, full_matrices=False)
    basis, _ = jax.lax.linalg.qr(rows_h, full_matrices=True)
    w_h = jax.lax.linalg.triangular_solve(
        jnp.where(first[..., None, :], l_h, identity(l_h)),
        jnp.where(first[..., :, None], adjoint(v), 0),
        left_side=True,
        lower=False,
    )
    w = _unpermuted(adjoint(w_h), order)
    x = matmul(w, adjoint(u[..., :size]))
    null = _unpermuted(jnp.where(kept[..., None, :], 0, basis), order)
    w = jnp.pad(w, [*[(0, 0)] * (r.ndim - 1), (0, r.shape[-1] - size)])
    return w, null, x


def _unpermuted(rows: Array, order: Array) -> Array:
    """The rows in the order of the columns of A, before `order` permuted them."""
    shape = (*order.shape, order.shape[-1])
    here = order[..., None, :] == jax.lax.broadcasted_iota(
        order.dtype, shape, order.ndim - 1
    )
    # The inverse permutation, without a sort, which takes longer to compile.
    place = jnp.argmax(here, axis=-1)

    def taken(rows: Array, place: Array) -> Array:
        return rows.at[place].get(mode="promise_in_bounds")

    return (jax.vmap(taken) if rows.ndim > 2 else taken)(rows, place)
