"""Which singular values are kept, from singular values without vectors."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import Cutoff, largest_met
from jaxpinv._linalg import normalize_scale

#: Which of matrices, `(B, m, n)`, are certified to be of full rank: of these and a cutoff.
Certify = Callable[..., Array]


def kept_values(
    a: Array,
    rtol: Array,
    atol: Array,
    *,
    values: Callable[[Array], Array],
    certify: Certify | None = None,
    replace: Callable[..., tuple[Array, ...]] | None = None,
) -> Array:
    """Which singular values of `a`, `(..., m, n)`, are above the cutoff, `(..., n)`.

    Of a matrix that is not finite, or has a NaN tolerance, none is.

    Args:
        a: the matrices, `m >= n`.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        values: makes singular values of matrices.
        certify: what is tried before, if anything.
        replace: puts values in the places of chosen matrices of a batch, if that is tried.
    """
    cutoff = Cutoff(rtol, atol)
    if certify is None or replace is None:
        s = values(a)
        full = jnp.zeros(s.shape[:-1], bool)
    else:
        s, full = _values_unless_certified(a, cutoff, values, certify, replace)
    # Not even what is certified for the largest tolerance: a maximum may pass over a NaN.
    defined = ~cutoff.is_undefined()
    return (cutoff.keeps(s) | full[..., None]) & defined[..., None]


def _values_unless_certified(
    a: Array,
    cutoff: Cutoff,
    values: Callable[[Array], Array],
    certify: Certify,
    replace: Callable[..., tuple[Array, ...]],
) -> tuple[Array, Array]:
    """Singular values, `(..., n)`, and which matrices are certified, whose values are 0."""
    scaled, scale, _ = normalize_scale(a)
    *batch, m, n = a.shape
    met = [largest_met(x, batch) for x in (cutoff.rtol, cutoff.atol / scale)]
    flat = jnp.reshape(scaled, (-1, m, n))
    full = certify(flat, *map(jnp.ravel, met))
    [s] = replace(lambda a: (values(a),), ~full, [0 * jnp.real(flat[:, 0])], flat)
    return jnp.reshape(s, (*batch, n)) * scale[..., None], jnp.reshape(full, batch)
