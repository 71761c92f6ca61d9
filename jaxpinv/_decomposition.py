"""Singular value decompositions, taken once more where LAPACK does not converge.

Of about two in a thousand matrices of low rank in double precision LAPACK's divide and
conquer finds no decomposition, and jaxlib then returns NaN. Of the adjoint it does: rounding
takes another course, and of those that failed none failed again. So these are decomposed
once more if the program may branch. On a GPU that would be a round trip to the host, and
devices that share out a batch would wait for each other.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv import _blocks
from jaxpinv._arrays import adjoint, in_units, is_known

# LAPACK's SMLSIZ: divide and conquer leaves matrices of up to so many columns to QR
# iteration, and a branch is not compiled for nothing. It does so with singular values
# without vectors of any size.
_DIVIDED = 25

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
    may_fail = all(not is_known((k,)) or k > _DIVIDED for k in a.shape[-2:])
    if hermitian:
        second = _svd_for_eigh if may_fail else None
        s, u, v = decomposed(_eigh, second, a, in_blocks=in_blocks)
        return u, s, v
    second = _svd_of_adjoint if may_fail else None
    s, u, vh = decomposed(_svd, second, a, in_blocks=in_blocks)
    return u, s, adjoint(vh)


def values(a: Array, *, in_blocks: bool) -> Array:
    """All singular values of `a`, `(..., m, n)`, descending, without vectors."""
    [s] = decomposed(_values, None, a, in_blocks=in_blocks)
    return s


def of_one_call(a: Array) -> int:
    """How many of the matrices may be decomposed in one call."""
    m, n = a.shape[-2:]
    return _blocks.of_one_call(a, 10 * m * n * min(m, n))


def decomposed(
    first: Decomposition, second: Decomposition | None, a: Array, *, in_blocks: bool
) -> tuple[Array, ...]:
    """What the first way makes of `a`, `(..., m, n)`, and the second where that is NaN.

    With `in_blocks` it is in as many calls as are safe, without it in one, and then there
    is no second way. Matrices of any size are decomposed in their units, and those that
    are not finite as zero.
    """
    second = second if in_blocks else None
    *batch, m, n = a.shape
    if not in_blocks or not is_known(a.shape) or not a.size or math.prod(batch) == 1:
        scaled, scale, _ = in_units(a)
        found = first(scaled)
        if second is not None:
            found = _completed(second, scaled, found)
    else:
        flat = jnp.reshape(a, (-1, m, n))
        parts = _blocks.in_blocks(partial(_in_units, first), of_one_call(flat), flat)
        scale, *found = parts
        if second is not None:
            found = _completed_one_by_one(second, flat, scale, found)
        scale, *found = (jnp.reshape(x, (*batch, *x.shape[1:])) for x in (scale, *found))
    s, *vectors = found
    return s * scale[..., None], *vectors


def _in_units(decompose: Decomposition, a: Array) -> tuple[Array, ...]:
    """The scale of matrices, and the decomposition of what they are in its units."""
    scaled, scale, _ = in_units(a)
    return scale, *decompose(scaled)


def _completed(
    second: Decomposition, a: Array, found: Sequence[Array]
) -> tuple[Array, ...]:
    """`found`, with what the second way makes of matrices that it has no numbers for."""
    failed = _is_nan(found)

    def complete() -> tuple[Array, ...]:
        # Of an exported program with symbolic sizes the batch may be of any length.
        again = second(a)
        if is_known(a.shape):
            return again
        return tuple(
            jnp.where(jnp.expand_dims(failed, range(failed.ndim, y.ndim)), y, x)
            for x, y in zip(found, again, strict=True)
        )

    return jax.lax.cond(jnp.any(failed), complete, lambda: tuple(found))


def _completed_one_by_one(
    second: Decomposition, a: Array, scale: Array, found: Sequence[Array]
) -> tuple[Array, ...]:
    """The same for matrices in one batch axis of more than one, `(B, m, n)`.

    A loop that goes to the matrices in question alone, and so is the branch as well.
    """
    failed = _is_nan(found)
    places = jnp.arange(failed.shape[0], dtype=jnp.int32)

    def last_before(i: Array | int) -> Array:
        return jnp.max(jnp.where(failed & (places < i), places, -1))

    def step(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        i, found = state
        one, unit = (jax.lax.dynamic_index_in_dim(x, i) for x in (a, scale))
        again = second(one / unit[:, None, None].astype(a.dtype))
        placed = (
            jax.lax.dynamic_update_index_in_dim(x, y, i, 0)
            for x, y in zip(found, again, strict=True)
        )
        return last_before(i), tuple(placed)

    start = (last_before(failed.shape[0]), tuple(found))
    return jax.lax.while_loop(lambda state: state[0] >= 0, step, start)[1]


def _is_nan(found: Sequence[Array]) -> Array:
    """Which matrices have no decomposition, `(...)`: then all of it is NaN."""
    return jnp.isnan(jax.lax.index_in_dim(found[0], 0, axis=-1, keepdims=False))


def _svd(a: Array) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition, as `(s, u, v^H)`."""
    u, s, vh = jax.lax.linalg.svd(a, full_matrices=False)
    return s, u, vh


def _eigh(a: Array) -> tuple[Array, Array, Array]:
    """The same of a Hermitian matrix, from its eigenvectors, as `(s, u, v)`.

    `A = V diag(l) V^H` is `U S V^H` with `S = |l|` and `U = V sign(l)`.
    """
    v, eigenvalues = jax.lax.linalg.eigh(a, lower=True, symmetrize_input=False)
    sign = jnp.where(eigenvalues < 0, -1, 1).astype(v.dtype)
    return jnp.abs(eigenvalues), v * sign[..., None, :], v


def _values(a: Array) -> tuple[Array]:
    """Singular values alone."""
    return (jax.lax.linalg.svd(a, full_matrices=False, compute_uv=False),)


# QR iteration, LAPACK's gesvd, has never been seen to fail. But `jax.export` refuses it, for
# jaxlib does not promise to keep it.
def _svd_of_adjoint(a: Array) -> tuple[Array, Array, Array]:
    """The second way of `_svd`."""
    s, v, uh = _svd(adjoint(a))
    return s, adjoint(uh), adjoint(v)


def _svd_for_eigh(a: Array) -> tuple[Array, Array, Array]:
    """The second way of `_eigh`, as `(s, u, v)`.

    There `U` need not be `V sign(l)`, which nothing asks for: where eigenvalues are equal
    but for their signs, singular vectors do not tell them apart.
    """
    s, u, vh = _svd(a)
    return s, u, adjoint(vh)
