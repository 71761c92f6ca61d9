"""QR of damped matrices, `[A; D]` with a diagonal `D`, without singular values."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate
from jaxpinv._factorization import halves as by_halves
from jaxpinv._factorization.cholesky_qr import SMALLEST_PIVOT, inverse_square_root
from jaxpinv._factorization.full_rank import CertifiedFactors
from jaxpinv._factorization.triangular import orthonormalizer
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, identity, matmul, transpose
from jaxpinv._shapes import prepend_axes


def augment(a: Array, d: Array) -> Array:
    """The matrices `[A; D]`, `(..., m + n, n)`."""
    return stacked(a, diagonal(d, a))


def diagonal(d: Array, a: Array) -> Array:
    """Diagonal matrices `(..., n, n)` of `d`, in the dtype of `a`, `(..., m, n)`."""
    one = jnp.eye(a.shape[-1], dtype=a.dtype)
    return d[..., None, :].astype(a.dtype) * prepend_axes(one, d.ndim + 1)


def stacked(x: Array, y: Array) -> Array:
    """The matrices `[x; y]`, with their batches broadcast."""
    batch = jnp.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    x, y = (jnp.broadcast_to(z, (*batch, *z.shape[-2:])) for z in (x, y))
    return jnp.concatenate([x, y], axis=-2)


class CertifiedDampedFactors(NamedTuple):
    """Factors of matrices `[A; D]`, and where they are certified.

    Attributes:
        q: `(..., m + n, n)`.
        w: `(..., n, n)`, such that `[A; D] W = Q`.
        x: the damped inverse, `(..., n, m)`.
        p: `(A^H A + D^2)^-1`, `(..., n, n)`.
        certified: `(...)`, bool. Where it is False, the other fields are arbitrary.
    """

    q: Array
    w: Array
    x: Array
    p: Array
    certified: Array


def by_gram(
    a: Array, d: Array, cutoff: Cutoff, *, truncates: bool, halves: int
) -> CertifiedDampedFactors:
    """QR of `[A; D]` by a Cholesky factor of `A^H A + D^2`, made orthonormal.

    Like `cholesky_qr.factor`, but without products of the rows of `D`. If the cutoff is
    zero and `truncates` is False, the certificate needs no norm. From `halves` columns on,
    products are computed by halves.
    """
    gram = by_halves.gram(a, fewest=halves) + diagonal(jnp.square(d), a)
    norm = jnp.sqrt(jnp.real(jnp.trace(gram, axis1=-2, axis2=-1)))
    first = orthonormalizer(gram, halves=halves)
    pivots = 1 / jnp.diagonal(first, axis1=-2, axis2=-1)
    least = SMALLEST_PIVOT * float(jnp.finfo(a.dtype).eps) ** 0.5
    possible = ~certificate.rules_out_full_rank(a, norm, pivots, cutoff, least)

    def orthonormalize(first: Array) -> tuple[Array, ...]:
        q, w, x, p, converged = orthonormalized(a, d, first, upper_from=halves)
        if truncates:
            # Where `W` has converged, its norm is at most that of `longer`. So a value
            # without derivatives need not compute `W`.
            longer = 1.05 * first
            converged = certified(a, norm, longer, cutoff, converged)
        return q, w, x, p, possible & converged

    def give_up(first: Array) -> tuple[Array, ...]:
        return augment(a, d), first, transpose(a), first, possible

    return CertifiedDampedFactors(
        *jax.lax.cond(jnp.any(possible), orthonormalize, give_up, first)
    )


def orthonormalized(
    a: Array, d: Array, first: Array, *, upper_from: int | None = None
) -> tuple[Array, ...]:
    """Corrects a `W` that makes the columns of `[A; D] W` only nearly orthonormal.

    With `upper_from`, `W` is upper triangular, products with so many columns or more are
    computed by halves, and the program may branch on the whole batch.

    Returns:
        The orthonormal columns, `(..., m + n, n)`; the corrected `W`; the first m columns
        of the pseudo-inverse; `(A^H A + D^2)^-1`; whether the first `W` was good enough,
        of batch shape.
    """
    bottom = d[..., :, None].astype(a.dtype) * first
    if upper_from is not None:
        top = by_halves.times_upper(a, first, fewest=upper_from)
        gram = by_halves.gram(top, fewest=upper_from)
        gram = gram + by_halves.gram_of_upper(bottom, fewest=upper_from)
        times_first = partial(by_halves.upper_times, fewest=upper_from)
    else:
        top = matmul(a, first)
        gram = matmul(adjoint(top), top) + matmul(adjoint(bottom), bottom)
        times_first = matmul
    second, converged = inverse_square_root(gram)
    w = matmul(first, second)
    e = gram - identity(gram)

    def in_full(e: Array) -> Array:
        # `W` times the power series of the inverse, to the order of that of the root.
        # `W second` would take one more product. The compiler already has the square.
        square = matmul(e, e)
        inverse = identity(gram) - e + matmul(square, identity(gram) - e + square)
        return times_first(first, inverse)

    def in_short(e: Array) -> Array:
        return first - matmul(first - times_first(first, e), e)

    if upper_from is not None:
        # What the short series leaves out is less than half an eps.
        limit = (jnp.finfo(gram.dtype).eps / 2) ** (1 / 3)
        is_short = jnp.linalg.norm(e, axis=(-2, -1), keepdims=True) < limit

        def mixed(e: Array) -> Array:
            # Each matrix has its own series, so that none depends on its batch.
            return jnp.where(is_short, in_short(e), in_full(e))

        half = jax.lax.cond(jnp.all(is_short), in_short, mixed, e)
    else:
        half = in_full(e)
    x, p = matmul(half, adjoint(top)), times_first(first, adjoint(half))
    return stacked(matmul(top, second), matmul(bottom, second)), w, x, p, converged


def by_rows(
    a: Array,
    d: Array,
    cutoff: Cutoff,
    *,
    gram_schmidt: Callable[[Array, Cutoff], CertifiedFactors],
) -> CertifiedDampedFactors:
    """QR of `[A; D]` by Gram-Schmidt, for matrices of few rows and columns."""
    q, w, x, certified, s, *_ = gram_schmidt(augment(a, d), cutoff)
    assert s is not None
    full_rank = jnp.all(s > 0, axis=-1)
    w = w / jnp.where(s > 0, s, 1)[..., None, :].astype(w.dtype)
    p = matmul(w, adjoint(w))
    return CertifiedDampedFactors(q, w, x[..., : a.shape[-2]], p, certified & full_rank)


def certified(a: Array, norm: Array, w: Array, cutoff: Cutoff, converged: Array) -> Array:
    """Whether `W` converged and nothing is truncated (never at cutoff 0), `(...)`."""
    is_above = certificate.certify_full_rank(a, norm, w, cutoff, converged)
    return converged & ((cutoff.above(norm) == 0) | is_above)
