"""QR by Cholesky factors of Gram matrices, for tall matrices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate
from jaxpinv._factorization.full_rank import CertifiedFactors
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, identity, matmul, transpose

# In single precision, matrices without full rank (64 by 16, 200 by 8, 200 by 40) have
# pivots of up to 2.1 sqrt(eps) times the mean singular value, from rounding of the Gram
# matrix. A condition number of 1000 leaves pivots of 9 or more in that unit. With one of
# 8000, the square root below converges in 1 of 2200 cases.
SMALLEST_PIVOT = 2
# With `gives_up_early`: pivots of matrices without full rank are seldom above this.
_SUSPICIOUS_PIVOT = 8


def factor(
    a: Array,
    cutoff: Cutoff,
    *,
    orthonormalizer: Callable[[Array], Array],
    sharply: bool,
    gives_up_early: bool,
) -> CertifiedFactors:
    """QR by a Cholesky factor of the Gram matrix, made orthonormal, for tall matrices.

    The first `Q` is orthonormal to eps times the squared condition number. The inverse
    square root of its own Gram matrix corrects that, as a second Cholesky factor would
    (Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, ETNA 44 (2015) 306-326).
    `orthonormalizer` inverts the adjoint of a Cholesky factor, as that of `triangular`
    does. With `gives_up_early`, a suspicious pivot is enough to give up, because another
    factorization is tried next.
    """
    gram = matmul(adjoint(a), a)
    norm = jnp.sqrt(jnp.real(jnp.trace(gram, axis1=-2, axis2=-1)))
    first = orthonormalizer(gram)
    pivots = 1 / jnp.diagonal(first, axis1=-2, axis2=-1)
    smallest = _SUSPICIOUS_PIVOT if gives_up_early else SMALLEST_PIVOT
    least = smallest * float(jnp.finfo(a.dtype).eps) ** 0.5
    possible = ~certificate.rules_out_full_rank(a, norm, pivots, cutoff, least)

    def orthonormalize(first: Array) -> tuple[Array, Array, Array, Array]:
        q = matmul(a, first)
        second, converged = inverse_square_root(matmul(adjoint(q), q))
        w = matmul(first, second)
        # From the first Q, so that a value without derivatives does not need the second.
        x = matmul(matmul(w, second), adjoint(q))
        certified = certificate.certify_full_rank(
            a, norm, w, cutoff, possible & converged, sharply=sharply, gram=gram
        )
        return matmul(q, second), w, x, certified

    def give_up(first: Array) -> tuple[Array, Array, Array, Array]:
        return a, first, transpose(a), possible

    return CertifiedFactors(
        *jax.lax.cond(jnp.any(possible), orthonormalize, give_up, first)
    )


def inverse_square_root(gram: Array) -> tuple[Array, Array]:
    """`G^(-1/2)` by the power series in `E = G - I`, and whether it has converged."""
    one = identity(gram)
    e = gram - one
    square = matmul(e, e)
    tail = 3 / 8 * one - 5 / 16 * e + 35 / 128 * square
    # The first term left out is 63 / 256 E^5.
    limit = (4 * jnp.finfo(gram.dtype).eps) ** 0.2
    converged = jnp.linalg.norm(e, axis=(-2, -1)) < limit
    return one - e / 2 + matmul(square, tail), converged
