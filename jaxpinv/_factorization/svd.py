"""Singular value decompositions, taken once more where LAPACK does not converge.

Of some matrices in a thousand, of low rank in double precision, LAPACK's divide and conquer
finds no decomposition, and jaxlib then returns NaN. Of three times the matrix it does, for
rounding takes another course, or of nine times. So these are decomposed once more, if the
program may loop: on a GPU that would be a round trip to the host, and devices that share
out a batch would wait for each other.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import adjoint, in_units, is_known, transpose
from jaxpinv._platform import chunking as _blocks

# LAPACK's SMLSIZ: divide and conquer leaves matrices of up to so many columns to QR
# iteration, which has not been seen to fail, and the loop would be compiled for nothing.
# Singular values without vectors come from QR iteration whatever the size. By name it can
# be had with vectors as well, but `jax.export` refuses that call (gesvd).
_DIVIDED = 25
# LAPACK takes the values of a longer matrix from its triangular factor, but is slower than
# `jax.lax.linalg.qr` before it.
_LONG = 2
# Three times the matrix converged for all of 31 that failed. One attempt need not do: of
# 68 transposes of such matrices two failed as well.
_ATTEMPTS = 8

#: What makes of matrices their singular values, and after these any arrays.
Decomposition = Callable[[Array], tuple[Array, ...]]


def triplets(a: Array, *, hermitian: bool, in_blocks: bool) -> tuple[Array, Array, Array]:
    """Singular triplets `u`, `s`, `v` of `a`, `(..., m, n)`, with `A V = U diag(s)`.

    Args:
        a: the matrices. Those that are not finite count as zero.
        hermitian: whether the matrices are Hermitian. Then `v` are their eigenvectors, and
            so is `u`, but for signs.
        in_blocks: whether the program may loop over the matrices.
    """
    may_fail = all(not is_known((k,)) or k > _DIVIDED for k in a.shape[-2:])
    again = in_blocks and may_fail
    if hermitian:
        s, u, v = decomposed(_eigh, a, in_blocks=in_blocks, again=again)
        return u, s, v
    s, u, vh = decomposed(_svd, a, in_blocks=in_blocks, again=again)
    return u, s, adjoint(vh)


def values(a: Array, *, in_blocks: bool) -> Array:
    """All singular values of `a`, `(..., m, n)`, descending, without vectors."""
    # JAX cannot lower a QR factorization where the type says how a batch is divided.
    take = partial(_values, of_factor=in_blocks and _is_long(a))
    [s] = decomposed(
        take, a, in_blocks=in_blocks, again=False, of_one_call=values_of_one_call
    )
    return s


def of_one_call(a: Array) -> int:
    """How many of the matrices may be decomposed in one call."""
    m, n = a.shape[-2:]
    return _blocks.of_one_call(a, 10 * m * n * min(m, n))


def values_of_one_call(a: Array) -> int:
    """How many of the matrices may be left to LAPACK in one call for values alone."""
    if not _is_long(a):
        return of_one_call(a)
    m, n = a.shape[-2:]
    return _blocks.of_one_call(a, max(10 * n**3, 2 * m * n**2))


def decomposed(
    decompose: Decomposition,
    a: Array,
    *,
    in_blocks: bool,
    again: bool,
    of_one_call: Callable[[Array], int] = of_one_call,
) -> tuple[Array, ...]:
    """Decompositions of matrices of any size, `(..., m, n)`, each in its units.

    Args:
        decompose: makes NaN of a matrix that it fails on.
        a: the matrices. Those that are not finite count as zero.
        in_blocks: whether to do so in as many calls as are safe, instead of in one.
        again: whether to decompose multiples of a matrix if that gives NaN.
        of_one_call: how many of the matrices are safe in one call.
    """
    *batch, m, n = a.shape
    parts, flat = partial(_in_units, decompose), a
    if again or (in_blocks and is_known(a.shape) and a.size):
        flat = jnp.reshape(a, (-1, m, n))
    if in_blocks and is_known(a.shape) and a.size:
        scale, *found = _blocks.in_blocks(parts, of_one_call(flat), flat)
    else:
        scale, *found = parts(flat)
    if again:
        found = _complete(decompose, flat, scale, found)
    scale, s, *vectors = (
        jnp.reshape(x, (*batch, *x.shape[flat.ndim - 2 :])) for x in (scale, *found)
    )
    return s * scale[..., None], *vectors


def _in_units(decompose: Decomposition, a: Array) -> tuple[Array, ...]:
    """The scale of matrices, and the decomposition of what they are in its units."""
    scaled, scale, _ = in_units(a)
    return scale, *decompose(scaled)


def _complete(
    decompose: Decomposition, a: Array, scale: Array, found: list[Array]
) -> list[Array]:
    """`found`, with what multiples of matrices give where it is NaN.

    The matrices, `(B, m, n)`, are taken one after the other, and each in its units.
    """
    # A decomposition that fails leaves NaN everywhere.
    failed = jnp.isnan(jax.lax.index_in_dim(found[0], 0, axis=-1, keepdims=False))
    places = jax.lax.iota(jnp.int32, failed.shape[0])

    def last_before(i: Array | int) -> Array:
        return jnp.max(jnp.where(failed & (places < i), places, -1), initial=-1)

    def step(state: tuple[Array, Array, list[Array]]) -> tuple[Array, Array, list[Array]]:
        i, factor, found = state
        one, unit = (jax.lax.dynamic_index_in_dim(x, i) for x in (a, scale))
        # In this order, or what is far from 1 overflows on the way.
        scaled = one / unit[:, None, None].astype(a.dtype)
        s, *vectors = decompose(scaled * factor.astype(a.dtype))
        placed = [
            jax.lax.dynamic_update_index_in_dim(x, y, i, 0)
            for x, y in zip(found, (s / factor, *vectors), strict=True)
        ]
        is_done = ~jnp.isnan(s[0, 0]) | (factor >= 3**_ATTEMPTS)
        i = jnp.where(is_done, last_before(i), i)
        return i, jnp.where(is_done, 3, 3 * factor), placed

    # Made of the arguments, for in `shard_map` it varies as they do.
    last = last_before(places.shape[0])
    factor = (3 + 0 * last).astype(scale.dtype)
    *_, found = jax.lax.while_loop(lambda state: state[0] >= 0, step, (last, factor, found))
    return found


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


def _values(a: Array, *, of_factor: bool) -> tuple[Array]:
    """Singular values alone, those of the triangular factor if wanted."""
    if of_factor:
        _, a = jax.lax.linalg.qr(a, full_matrices=False)
    elif a.shape[-2] == a.shape[-1]:
        # LAPACK stores columns where we store rows: it takes the transpose as that is.
        a = transpose(a)
    return (jax.lax.linalg.svd(a, full_matrices=False, compute_uv=False),)


def _is_long(a: Array) -> bool:
    """Whether values are taken of the triangular factor."""
    m, n = a.shape[-2:]
    return is_known((m, n)) and m >= _LONG * n
