"""The inverse of square matrices by LU factors with partial pivoting."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate, numerical_rank, triangular
from jaxpinv._factorization.full_rank import CertifiedFactors
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import frobenius_norm, identity, matmul, transpose

# Residuals of inverses over eps ||A||_F ||W||_2 may be up to this, or up to the square root
# of the order over this if that is more. For Gaussian matrices they are half of the limit.
# For unitary ones they grow like the order, and exceed the limit where the error is more
# than four times that of an SVD.
_LOOSE = 4


def factor(
    a: Array,
    cutoff: Cutoff,
    *,
    swaps_rows: bool,
    sharply: bool,
    gives_up_early: bool,
) -> CertifiedFactors:
    """The inverses of square matrices, for which `Q = I`.

    The order of the rows comes from swapping rows, if `swaps_rows`, or from the library.
    `sharply` is for the certificate.
    With `gives_up_early`, a suspicious pivot is enough to give up, because another
    factorization is tried next.
    """
    # LAPACK stores columns where we store rows. Given the transpose, it returns the
    # transposes of the factors and of the inverse, and nothing is copied.
    lu, pivots, order = jax.lax.linalg.lu(transpose(a))
    order = triangular.order_of(pivots) if swaps_rows else order
    diagonal = jnp.diagonal(lu, axis1=-2, axis2=-1)
    norm = frobenius_norm(a)
    eps = float(jnp.finfo(a.dtype).eps)
    least = numerical_rank.SUSPICIOUS_PIVOT * a.shape[-1] * eps if gives_up_early else 0
    possible = ~certificate.rules_out_full_rank(a, norm, diagonal, cutoff, least)

    def inverse(lu_t: Array) -> tuple[Array, Array]:
        w = transpose(triangular.inverse(transpose(lu_t), order))
        residual, largest = certificate.probed(a, w)
        accurate = possible & certificate.leaves_small_residual(a, norm, w, residual)
        certified = certificate.certify_full_rank(
            a, norm, w, cutoff, accurate, sharply=sharply
        )
        # For well-conditioned matrices, elimination loses more digits than the condition
        # number explains: the residual of a unitary matrix grows like its order.
        limit = max(_LOOSE, a.shape[-1] ** 0.5 / _LOOSE) * eps
        is_loose = certified & (residual > limit * norm * largest)
        return _corrected(a, w, is_loose), certified

    w, certified = jax.lax.cond(
        jnp.any(possible), inverse, lambda lu_t: (lu_t, possible), transpose(lu)
    )
    q = jnp.where(certified[..., None, None], identity(a), 0)
    may_be_rounding = numerical_rank.may_be_rounding(a, norm, diagonal, cutoff)
    return CertifiedFactors(q, w, w, certified, may_be_rounding=may_be_rounding)


def _corrected(a: Array, w: Array, where: Array) -> Array:
    """The inverses `w` of `a`, improved by a step of Newton's method where `where` is True.

    `W + (I - W A) W` squares the residual (G. Schulz, Z. Angew. Math. Mech. 13 (1933)
    57-59).
    """

    def step(w: Array) -> Array:
        better = w + matmul(identity(a) - matmul(w, a), w)
        return jnp.where(where[..., None, None], better, w)

    return jax.lax.cond(jnp.any(where), step, lambda w: w, w)
