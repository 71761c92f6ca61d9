"""Singular value decompositions, taken in another way where LAPACK does not converge.

Of about two in a thousand matrices of low rank in double precision LAPACK's divide and
conquer finds no decomposition, and jaxlib then returns NaN. Where a program may branch at
no cost these are decomposed once more, by QR iteration.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv import _blocks
from jaxpinv._arrays import adjoint, in_units, is_known

#: What makes of matrices their singular values, and after these any arrays.
Decomposition = Callable[[Array], tuple[Array, ...]]


def triplets(a: Array, *, hermitian: bool, in_blocks: bool) -> tuple[Array, Array, Array]:
    """Singular triplets `u`, `s`, `v` of `a`, `(..., m, n)`, with `A V = U diag(s)`.

    Args:
        a: the matrices, of zero where they are not finite.
        hermitian: whether the matrices are Hermitian. Then their eigenvectors are `v`, and
            `u` but for signs, unless the decomposition had to be taken once more.
        in_blocks: whether the program may loop over the matrices, and branch on them.
    """
    first = _eigh if hermitian else _svd
    s, u, v = decomposed(first, _svd_by_qr, a, in_blocks=in_blocks)
    return u, s, v


def values(a: Array, *, in_blocks: bool) -> Array:
    """All singular values of `a`, `(..., m, n)`, descending, without vectors."""
    [s] = decomposed(_values, _values_by_qr, a, in_blocks=in_blocks)
    return s


def of_one_call(a: Array) -> int:
    """How many of the matrices may be decomposed in one call."""
    m, n = a.shape[-2:]
    return _blocks.of_one_call(a, 10 * m * n * min(m, n))


def decomposed(
    first: Decomposition, second: Decomposition, a: Array, *, in_blocks: bool
) -> tuple[Array, ...]:
    """What the first way makes of matrices, and the second way where it gives NaN.

    With `in_blocks` it is in as many calls as are safe, without it in one, and then there
    is no second way. Matrices of any size are decomposed in their units, and those that
    are not finite as zero.
    """

    def scaled(a: Array) -> tuple[Array, ...]:
        in_its_units, scale, _ = in_units(a)
        return (scale, *first(in_its_units))

    *batch, m, n = a.shape
    if not in_blocks or not is_known(a.shape) or not a.size or math.prod(batch) == 1:
        scale, *found = scaled(a)
        if in_blocks:
            found = _completed(second, a, scale, found)
    else:
        flat = jnp.reshape(a, (-1, m, n))
        scale, *found = _blocks.in_blocks(scaled, of_one_call(flat), flat)
        found = _completed_one_by_one(second, flat, scale, found)
        scale = jnp.reshape(scale, batch)
        found = [jnp.reshape(x, (*batch, *x.shape[1:])) for x in found]
    s, *vectors = found
    return s * scale[..., None], *vectors


def _completed(
    second: Decomposition, a: Array, scale: Array, found: Sequence[Array]
) -> tuple[Array, ...]:
    """`found`, with what the second way makes of matrices that it has no numbers for."""
    failed = jnp.any(jnp.isnan(found[0]), axis=-1)

    def complete() -> tuple[Array, ...]:
        # The others count as zero: for LAPACK they are little work then, and none of them
        # has an Inf.
        chosen = jnp.where(failed[..., None, None], a, 0)
        again = second(chosen / scale[..., None, None].astype(a.dtype))
        return tuple(
            jnp.where(jnp.expand_dims(failed, range(failed.ndim, y.ndim)), y, x)
            for x, y in zip(found, again, strict=True)
        )

    return jax.lax.cond(jnp.any(failed), complete, lambda: tuple(found))


def _completed_one_by_one(
    second: Decomposition, a: Array, scale: Array, found: Sequence[Array]
) -> tuple[Array, ...]:
    """The same for matrices in one batch axis of more than one, `(B, m, n)`.

    A loop that goes to the matrices in question alone, and which is no branch besides.
    """
    failed = jnp.any(jnp.isnan(found[0]), axis=-1)
    count = failed.shape[0]
    places = jnp.arange(count, dtype=jnp.int32)

    def last_before(i: Array | int) -> Array:
        return jnp.max(jnp.where(failed & (places < i), places, -1))

    def step(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        i, found = state
        some = jax.lax.dynamic_index_in_dim(a, i) / jax.lax.dynamic_index_in_dim(scale, i)[
            ..., None, None
        ].astype(a.dtype)
        placed = (
            jax.lax.dynamic_update_index_in_dim(x, y, i, 0)
            for x, y in zip(found, second(some), strict=True)
        )
        return last_before(i), tuple(placed)

    start = (last_before(count), tuple(found))
    return jax.lax.while_loop(lambda state: state[0] >= 0, step, start)[1]


def _svd(a: Array, **options) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition, as `(s, u, v)`."""
    u, s, vh = jax.lax.linalg.svd(a, full_matrices=False, **options)
    return s, u, adjoint(vh)


def _eigh(a: Array) -> tuple[Array, Array, Array]:
    """Singular value decomposition of a Hermitian matrix, from its eigenvectors.

    `A = V diag(l) V^H` is `U S V^H` with `S = |l|` and `U = V sign(l)`.
    """
    v, eigenvalues = jax.lax.linalg.eigh(a, lower=True, symmetrize_input=False)
    sign = jnp.where(eigenvalues < 0, -1, 1).astype(v.dtype)
    return jnp.abs(eigenvalues), v * sign[..., None, :], v


def _values(a: Array, **options) -> tuple[Array]:
    """Singular values alone."""
    return (jax.lax.linalg.svd(a, full_matrices=False, compute_uv=False, **options),)


# LAPACK's gesvd. It is the second way of `eigh` as well: the factors of any singular value
# decomposition do, and those of a Hermitian matrix need not have `U = V sign(l)`, which
# from singular vectors could not be had where eigenvalues are equal but for their signs.
_by_qr = {"algorithm": jax.lax.linalg.SvdAlgorithm.QR}
_svd_by_qr = partial(_svd, **_by_qr)
_values_by_qr = partial(_values, **_by_qr)
