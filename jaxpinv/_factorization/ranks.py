"""Which singular values are kept, from singular values without vectors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import Cutoff, largest_met
from jaxpinv._linalg import normalize_scale

#: Ranks of matrices, `(..., m, n)`, given tolerances, or -1 where none is certified.
Certify = Callable[..., Array]


def kept_values(
    a: Array,
    rtol: Array,
    atol: Array,
    *,
    values: Callable[[Array], Array],
    certify: Certify | None = None,
    replace: Callable[..., tuple[Array, ...]] | None = None,
    flattens: bool = True,
) -> Array:
    """Which singular values of `a`, `(..., m, n)`, are above the cutoff, `(..., n)`.

    If a matrix is not finite or has a NaN tolerance, none of its values is kept.

    Args:
        a: the matrices, `m >= n`.
        rtol: relative tolerances, `(...)`.
        atol: absolute tolerances, `(...)`.
        values: computes the singular values of matrices.
        certify: finds ranks, which is tried before the singular values, or None.
        replace: computes values for the chosen matrices of a batch only, with `certify`.
        flattens: whether batch axes are merged into one for `certify`.
    """
    cutoff = Cutoff(rtol, atol)
    if certify is None or replace is None:
        kept = cutoff.keeps(values(a))
    else:
        shape = (-1,) if flattens else a.shape[:-2]
        s, rank = _values_unless_certified(a, cutoff, shape, values, certify, replace)
        first = jax.lax.broadcasted_iota(jnp.int32, s.shape, s.ndim - 1) < rank[..., None]
        kept = jnp.where(rank[..., None] < 0, cutoff.keeps(s), first)
    # Certified values are not exempt: the largest tolerance may have ignored a NaN.
    return kept & ~cutoff.is_undefined()[..., None]


def _values_unless_certified(
    a: Array,
    cutoff: Cutoff,
    shape: tuple,
    values: Callable[[Array], Array],
    certify: Certify,
    replace: Callable[..., tuple[Array, ...]],
) -> tuple[Array, Array]:
    """Singular values, `(..., n)`, and ranks, `(...)`, which are -1 unless certified.

    The values are zero where a rank is certified. `shape` is that of the batch meanwhile.
    """
    scaled, scale, _ = normalize_scale(a)
    *batch, m, n = a.shape
    met = [largest_met(x, batch) for x in (cutoff.rtol, cutoff.atol / scale)]
    flat = jnp.reshape(scaled, (*shape, m, n))
    rank = certify(flat, *(jnp.reshape(x, shape) for x in met))
    shapes = [x.shape for x in cutoff]
    if jnp.broadcast_shapes(tuple(batch), *shapes) != tuple(batch):
        # A value truncated at the largest tolerance may be kept at another.
        rank = jnp.where(rank == n, n, -1)
    [s] = replace(lambda a: (values(a),), rank < 0, [0 * jnp.real(flat[..., 0, :])], flat)
    return jnp.reshape(s, (*batch, n)) * scale[..., None], jnp.reshape(rank, batch)
