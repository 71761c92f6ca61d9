"""Factorisations without singular values, for matrices that are proven to be uncut.

Each takes a matrix `A`, `(m, n)`, or matrices in one batch axis, `(B, m, n)`, with
`m >= n` and elements of size 1 or so, and finds `W` such that the columns of `A W = Q` are
orthonormal. Then `pinv(A) = W Q^H`.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate as _certificate
from jaxpinv._factorization.certificate import Cutoff
from jaxpinv._factorization.triangular import inverse_of_lu, orthonormaliser
from jaxpinv._factors import may_be_inverse
from jaxpinv._linalg import (
    MANY,
    TINY,
    adjoint,
    frobenius_norm,
    identity,
    is_known,
    matmul,
    transpose,
)

# Elements of a tiny matrix up to which Gram-Schmidt is faster than two Gram matrices. It
# holds the whole matrix in a cache, and its sums over rows are plain ones.
_MOST_ELEMENTS = 512
# In single precision rounding of the Gram matrix leaves pivots of up to 2.1 sqrt(eps) times
# the mean singular value to matrices without full rank, 64 by 16, 200 by 8 and 200 by 40. A
# condition of 1000 leaves 9 of them or more, and with one of 8000 the square root below
# converges in 1 of 2200 cases.
_SMALLEST_PIVOT = 2
# What residuals of inverses may be over eps ||A||_F ||W||_2, and the root of the order over
# this where that is more. Of Gaussian matrices they are half of it; of unitary ones they
# grow like the order, and exceed it where the error exceeds that of an SVD fourfold.
_LOOSE = 4


class Direct(NamedTuple):
    """A factorisation, proven to be that of a matrix without values to cut, or not.

    Attributes:
        q: `(..., m, n)`.
        w: `(..., n, n)`.
        x: the pseudo-inverse, `(..., n, m)`.
        certified: `(...)`, bool. Where it is False the rest is anything.
    """

    q: Array
    w: Array
    x: Array
    certified: Array


def method(a: Array, *, in_blocks: bool) -> Callable[..., Direct] | None:
    """The factorisation for matrices of that shape, or None where there is no gain.

    With `in_blocks` small matrices are inverted by blocks.
    """
    *batch, m, n = a.shape
    if not is_known(a.shape) or not a.size:
        return None
    if n <= TINY:
        # A few of them gain less than a direct way takes to compile.
        if not batch or batch[0] < MANY:
            return None
        return by_gram_schmidt if m * n <= _MOST_ELEMENTS else by_cholesky
    if not may_be_inverse(a.shape):
        return by_cholesky
    return partial(by_lu, in_blocks=in_blocks)


def by_lu(a: Array, cutoff: Cutoff, *, in_blocks: bool) -> Direct:
    """The inverse of square matrices: `Q = I`."""
    # LAPACK stores columns where we store rows: it takes the transpose as that lies there,
    # and leaves those of the factors and of the inverse, so that nothing is copied.
    lu, pivots, _ = jax.lax.linalg.lu(transpose(a))
    diagonal = jnp.diagonal(lu, axis1=-2, axis2=-1)
    norm = frobenius_norm(a)
    possible = ~_certificate.is_hopeless(a, norm, diagonal, cutoff)

    def invert(lu_t: Array) -> tuple[Array, Array]:
        w = transpose(inverse_of_lu(transpose(lu_t), pivots, in_blocks=in_blocks))
        residual, largest = _certificate.probed(a, w)
        accurate = possible & _certificate.leaves_small_residual(a, norm, w, residual)
        proven = _certificate.nothing_is_cut(a, norm, w, cutoff, accurate)
        eps = jnp.finfo(a.dtype).eps
        # Elimination is less accurate than the condition number allows for where that is
        # small: the residual of a unitary matrix grows like its order.
        limit = max(_LOOSE, a.shape[-1] ** 0.5 / _LOOSE) * eps
        is_loose = proven & (residual > limit * norm * largest)
        return _corrected(a, w, is_loose), proven

    w, certified = jax.lax.cond(
        jnp.any(possible), invert, lambda lu_t: (lu_t, possible), transpose(lu)
    )
    q = jnp.where(certified[..., None, None], identity(a), 0)
    return Direct(q, w, w, certified)


def _corrected(a: Array, w: Array, where: Array) -> Array:
    """The inverses `w` of `a` after a step of Newton's method, where that is wanted.

    `W + (I - W A) W` leaves the square of the residual (G. Schulz, Z. Angew. Math. Mech. 13
    (1933) 57-59).
    """

    def step(w: Array) -> Array:
        better = w + matmul(identity(a) - matmul(w, a), w)
        return jnp.where(where[..., None, None], better, w)

    return jax.lax.cond(jnp.any(where), step, lambda w: w, w)


def by_cholesky(a: Array, cutoff: Cutoff) -> Direct:
    """QR by a Cholesky factor of the Gram matrix, made orthonormal, for tall matrices.

    That leaves `Q` orthonormal to eps times the condition squared, which the inverse square
    root of its own Gram matrix mends, as a second Cholesky factor would (Yamamoto,
    Nakatsukasa, Yanagisawa, Fukaya, ETNA 44 (2015) 306-326).
    """
    gram = matmul(adjoint(a), a)
    norm = jnp.sqrt(jnp.real(jnp.trace(gram, axis1=-2, axis2=-1)))
    first = orthonormaliser(gram)
    pivots = 1 / jnp.diagonal(first, axis1=-2, axis2=-1)
    least = _SMALLEST_PIVOT * float(jnp.finfo(a.dtype).eps) ** 0.5
    possible = ~_certificate.is_hopeless(a, norm, pivots, cutoff, least)

    def orthonormalise(first: Array) -> tuple[Array, Array, Array, Array]:
        q = matmul(a, first)
        second, converged = _inverse_square_root(matmul(adjoint(q), q))
        w = matmul(first, second)
        # Of the first Q, so that the second one need not be there for a value alone.
        x = matmul(matmul(w, second), adjoint(q))
        proven = _certificate.nothing_is_cut(a, norm, w, cutoff, possible & converged)
        return matmul(q, second), w, x, proven

    def give_up(first: Array) -> tuple[Array, Array, Array, Array]:
        return a, first, transpose(a), possible

    return Direct(*jax.lax.cond(jnp.any(possible), orthonormalise, give_up, first))


def by_gram_schmidt(a: Array, cutoff: Cutoff) -> Direct:
    """QR by modified Gram-Schmidt, twice, for matrices of few columns."""
    m, n = a.shape[-2:]
    # The batch goes last, so that all arithmetic is that of long vectors. The operations
    # that make the columns of A orthonormal make W of the columns of the identity.
    z = jnp.transpose(jnp.concatenate([a, identity(a)], axis=1), (2, 1, 0))

    def orthonormalise(_, z: Array) -> Array:
        columns = list(z)
        for k in range(n):
            square = _dot(columns[k], columns[k], m)
            columns[k] = columns[k] / jnp.sqrt(square)[None]
            for j in range(k + 1, n):
                overlap = _dot(columns[k], columns[j], m)
                columns[j] = columns[j] - overlap[None] * columns[k]
        return jnp.stack(columns)

    z = jnp.transpose(jax.lax.fori_loop(0, 2, orthonormalise, z), (2, 1, 0))
    q, w = z[:, :m], z[:, m:]
    # In this order, or a matrix that is cut would have all others of its block looked at.
    norm = frobenius_norm(a)
    uncut = _certificate.nothing_is_cut(a, norm, w, cutoff)
    proven = _certificate.is_orthonormalised(a, norm, w, q, uncut)
    return Direct(q, w, matmul(w, adjoint(q)), proven)


def _dot(x: Array, y: Array, rows: int) -> Array:
    """Scalar product of the first rows of two columns, `(rows, B)`: `(B,)`."""
    return jnp.sum(jnp.conj(x[:rows]) * y[:rows], axis=0)


def _inverse_square_root(gram: Array) -> tuple[Array, Array]:
    """`(I + E)^(-1/2)` by its power series, and whether that has converged."""
    one = identity(gram)
    e = gram - one
    square = matmul(e, e)
    tail = 3 / 8 * one - 5 / 16 * e + 35 / 128 * square
    # The first term left out is 63 / 256 E^5.
    limit = (4 * jnp.finfo(gram.dtype).eps) ** 0.2
    converged = jnp.linalg.norm(e, axis=(-2, -1)) < limit
    return one - e / 2 + matmul(square, tail), converged
