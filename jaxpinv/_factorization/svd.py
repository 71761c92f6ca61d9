"""Singular value decompositions, taken once more where LAPACK does not converge.

Of some matrices in a thousand, of low rank in double precision, LAPACK's divide and conquer
finds no decomposition, and jaxlib then returns NaN. Of three times the matrix it does, for
rounding takes another course, or of nine times. So these are decomposed once more, if the
program may loop: on a GPU that would be a round trip to the host, and devices that share
out a batch would wait for each other.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import Triplets
from jaxpinv._linalg import adjoint, normalize_scale, transpose
from jaxpinv._shapes import is_static_shape

# Three times the matrix converged for all of 31 that failed. One attempt need not do: of
# 68 transposes of such matrices two failed as well.
_ATTEMPTS = 8

#: What makes of matrices their singular values, and after these any arrays.
Decomposition = Callable[[Array], tuple[Array, ...]]
#: What applies a decomposition to a batch of matrices, in as many calls as are safe.
Calls = Callable[[Decomposition, Array], tuple[Array, ...]]


def triplets(a: Array, *, hermitian: bool, calls: Calls, retries: bool) -> Triplets:
    """Singular triplets `u`, `s`, `v` of `a`, `(..., m, n)`, with `A V = U diag(s)`.

    Args:
        a: the matrices. Those that are not finite count as zero.
        hermitian: whether the matrices are Hermitian. Then `v` are their eigenvectors, and
            so is `u`, but for signs.
        calls: how a batch is decomposed.
        retries: whether multiples of a matrix are decomposed where that gives NaN.
    """
    decompose = _eigh if hermitian else _svd
    s, u, v = decomposed(decompose, a, calls=calls, retries=retries)
    return u, s, v if hermitian else adjoint(v)


def values(a: Array, *, calls: Calls, of_triangular: bool) -> Array:
    """All singular values of `a`, `(..., m, n)`, descending, without vectors.

    With `of_triangular` they are those of its triangular factor.
    """
    decompose = partial(_values, of_triangular=of_triangular)
    [s] = decomposed(decompose, a, calls=calls, retries=False)
    return s


def decomposed(
    decompose: Decomposition, a: Array, *, calls: Calls, retries: bool
) -> tuple[Array, ...]:
    """Decompositions of matrices of any size, `(..., m, n)`, each in units of its scale.

    With `retries` those of multiples take the place of what is NaN.
    """
    if retries and is_static_shape(a.shape) and math.prod(a.shape[:-2]) == 1:
        return _until_found(decompose, a)
    scale, *found = calls(partial(_in_units, decompose), a)
    if retries:
        found = _complete(decompose, a, scale, found)
    s, *vectors = found
    return s * scale[..., None], *vectors


def _until_found(decompose: Decomposition, a: Array) -> tuple[Array, ...]:
    """The same for one matrix, of multiples until one is found.

    The loop takes the first one too, so that the program holds one decomposition.
    """
    scaled, scale, _ = normalize_scale(a)

    def attempt(factor: Array) -> tuple[Array, ...]:
        return decompose(scaled * factor[..., None, None].astype(a.dtype))

    def goes_on(state: tuple[Array, tuple[Array, ...]]) -> Array:
        factor, (s, *_) = state
        # A failed decomposition is NaN everywhere, like the initial value.
        return jnp.all(jnp.isnan(s[..., 0]) & (factor <= 3**_ATTEMPTS))

    def step(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        factor, _ = state
        return 3 * factor, attempt(factor)

    # Made of the argument, for in `shard_map` it varies as that does.
    undefined = jnp.nan * jnp.ravel(scale)[0]
    start = tuple(
        jnp.broadcast_to(undefined, x.shape).astype(x.dtype)
        for x in jax.eval_shape(attempt, scale)
    )
    after, (s, *vectors) = jax.lax.while_loop(goes_on, step, (1 + 0 * scale, start))
    return s / (after / 3)[..., None] * scale[..., None], *vectors


def _in_units(decompose: Decomposition, a: Array) -> tuple[Array, ...]:
    """The scale of matrices, and the decomposition of what they are in its units."""
    scaled, scale, _ = normalize_scale(a)
    return scale, *decompose(scaled)


def _complete(
    decompose: Decomposition, a: Array, scale: Array, found: list[Array]
) -> list[Array]:
    """`found`, with what multiples of matrices, `(..., m, n)`, give where it is NaN.

    They are taken one after the other, and each in units of its scale.
    """
    batch = a.shape[:-2]
    a, scale, *found = (
        jnp.reshape(x, (-1, *x.shape[len(batch) :])) for x in (a, scale, *found)
    )
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
    return [jnp.reshape(x, (*batch, *x.shape[1:])) for x in found]


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


def _values(a: Array, *, of_triangular: bool) -> tuple[Array]:
    """Singular values alone, those of the triangular factor if wanted."""
    if of_triangular:
        _, a = jax.lax.linalg.qr(a, full_matrices=False)
    elif a.shape[-2] == a.shape[-1]:
        # LAPACK stores columns where we store rows: it takes the transpose as that is.
        a = transpose(a)
    return (jax.lax.linalg.svd(a, full_matrices=False, compute_uv=False),)
