"""Singular value decompositions, repeated if LAPACK does not converge.

LAPACK's divide and conquer fails on a few in a thousand matrices of low rank in double
precision, and jaxlib then returns NaN. For three or nine times the matrix it succeeds,
because rounding errors differ. So these multiples are decomposed if the program may loop.
It may not on a GPU, where that would be a round trip to the host, nor on devices that share
a batch, which would wait for each other.
"""

import itertools
import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.lax.linalg import SvdAlgorithm

from jaxpinv._factorization.thin_qr import Shorten
from jaxpinv._factors import Triplets
from jaxpinv._linalg import adjoint, moderate_scale, transpose
from jaxpinv._shapes import is_static_shape, last_true

# Three times the matrix converged for all 31 that failed. One attempt may not suffice: two
# of 68 transposes of such matrices failed as well.
_ATTEMPTS = 8

#: Returns the singular values of matrices, followed by any other arrays.
Decomposition = Callable[[Array], tuple[Array, ...]]
#: Returns matrices in units in which LAPACK need not scale them, and the units.
Scale = Callable[[Array], tuple[Array, Array]]
#: Applies a decomposition to a batch of matrices, in as many calls as are safe.
Calls = Callable[[Decomposition, Array], tuple[Array, ...]]


def triplets(
    a: Array,
    *,
    hermitian: bool,
    route: str,
    shorten: Shorten,
    calls: Calls,
    retries: bool,
    by_qr_iteration: bool = False,
    is_normalized: bool = False,
) -> Triplets:
    """Singular triplets `u`, `s`, `v` of `a`, `(..., m, n)`, with `A V = U diag(s)`.

    Args:
        a: the matrices. Those that are not finite count as zero.
        hermitian: whether the matrices are Hermitian. Then the columns of `v` are their
            eigenvectors, and those of `u` are the same up to signs.
        route: how matrices that are not Hermitian are decomposed: "svd" by the library,
            "qr, svd" by the library after `shorten`, "qr, eigh" by eigenvectors after it.
        shorten: a QR factorization that leaves shorter matrices.
        calls: how a batch is divided into calls.
        retries: whether to decompose multiples of a matrix whose decomposition is NaN.
        by_qr_iteration: whether the library iterates, and does not divide and conquer.
        is_normalized: whether `normalize_scale` made the matrices, so that they need no
            unit. With `retries`, they get one anyway.
    """
    by_library = partial(_svd, by_qr_iteration=by_qr_iteration)
    decompose = _eigh if hermitian else _decomposition(route, shorten, by_library)
    if is_normalized and not retries:
        s, u, v = calls(decompose, a)
    else:
        s, u, v = decomposed(decompose, a, calls=calls, retries=retries)
    return u, s, v if hermitian else adjoint(v)


def values(
    a: Array,
    *,
    calls: Calls,
    route: str,
    shorten: Shorten,
    by_qr_iteration: bool = False,
    scale: Scale = moderate_scale,
) -> Array:
    """All singular values of `a`, `(..., m, n)`, descending, without vectors.

    `scale` is as in `decomposed`, and all else as in `triplets`.
    """
    decompose = partial(
        _values, route=route, shorten=shorten, by_qr_iteration=by_qr_iteration
    )
    [s] = decomposed(decompose, a, calls=calls, retries=False, scale=scale)
    return s


def decomposed(
    decompose: Decomposition,
    a: Array,
    *,
    calls: Calls,
    retries: bool,
    scale: Scale = moderate_scale,
) -> tuple[Array, ...]:
    """Decompositions of matrices of any scale, `(..., m, n)`, each computed in its unit.

    With `retries`, decompositions of multiples replace those that are NaN. `scale` finds
    the units.
    """
    if retries and is_static_shape(a.shape) and math.prod(a.shape[:-2]) == 1:
        return _until_found(decompose, a)
    unit, *found = calls(partial(_in_units, decompose, scale), a)
    if retries:
        found = _complete(decompose, a, found)
    s, *vectors = found
    return s * unit[..., None], *vectors


def _until_found(decompose: Decomposition, a: Array) -> tuple[Array, ...]:
    """The decomposition of one matrix, or of the first of its multiples that is not NaN.

    The loop includes the first attempt, so the program holds one decomposition. The results
    are rows of one array, because each array would take a kernel of its own: the vectors,
    one row of singular values, and one row with the factor of the multiple.
    """
    scaled, unit = moderate_scale(a)
    shapes = [x.shape for x in jax.eval_shape(decompose, scaled)[1:]]
    rows = [shape[-2] for shape in shapes]

    def goes_on(found: Array) -> Array:
        s, factor = (jnp.real(found[..., -i, 0]) for i in (2, 1))
        # A failed decomposition is NaN everywhere, like the initial value.
        return jnp.all(jnp.isnan(s) & ~(factor >= 3**_ATTEMPTS))

    def step(found: Array) -> Array:
        factor = jnp.real(found[..., -1:, :])
        factor = jnp.where(jnp.isnan(factor), 1, 3 * factor)
        s, *vectors = decompose(scaled * factor.astype(a.dtype))
        last = (x.astype(a.dtype) for x in (s[..., None, :] / factor, factor))
        return jnp.concatenate([*vectors, *last], axis=-2)

    # Derived from `a`, so that in `shard_map` it varies over the same devices.
    start = (jnp.nan * unit)[..., None, None].astype(a.dtype)
    start = jnp.broadcast_to(start, (*a.shape[:-2], sum(rows) + 2, a.shape[-1]))
    *vectors, s, _ = jnp.split(
        jax.lax.while_loop(goes_on, step, start),
        list(itertools.accumulate([*rows, 1])),
        axis=-2,
    )
    return jnp.real(s[..., 0, :]) * unit[..., None], *vectors


def _in_units(decompose: Decomposition, scale: Scale, a: Array) -> tuple[Array, ...]:
    """The units of matrices, `(...)`, and decompositions of the matrices in these units."""
    scaled, unit = scale(a)
    return unit, *decompose(scaled)


def _complete(decompose: Decomposition, a: Array, found: list[Array]) -> list[Array]:
    """`found`, with NaN replaced by decompositions of multiples of `a`, `(..., m, n)`.

    Matrices are decomposed one after the other, each in its unit.
    """
    batch = a.shape[:-2]
    a, *found = (jnp.reshape(x, (-1, *x.shape[len(batch) :])) for x in (a, *found))
    # A failed decomposition is NaN everywhere.
    failed = jnp.isnan(jax.lax.index_in_dim(found[0], 0, axis=-1, keepdims=False))

    def step(state: tuple[Array, Array, list[Array]]) -> tuple[Array, Array, list[Array]]:
        i, factor, found = state
        scaled, _ = moderate_scale(jax.lax.dynamic_index_in_dim(a, i))
        s, *vectors = decompose(scaled * factor.astype(a.dtype))
        placed = [
            jax.lax.dynamic_update_index_in_dim(x, y, i, 0)
            for x, y in zip(found, (s / factor, *vectors), strict=True)
        ]
        is_done = ~jnp.isnan(s[0, 0]) | (factor >= 3**_ATTEMPTS)
        i = jnp.where(is_done, last_true(failed, i), i)
        return i, jnp.where(is_done, 3, 3 * factor), placed

    # Derived from the arguments, so that in `shard_map` it varies over the same devices.
    last = last_true(failed, failed.shape[0])
    factor = (3 + 0 * last).astype(found[0].dtype)
    *_, found = jax.lax.while_loop(lambda state: state[0] >= 0, step, (last, factor, found))
    return [jnp.reshape(x, (*batch, *x.shape[1:])) for x in found]


def _svd(a: Array, *, by_qr_iteration: bool = False) -> tuple[Array, Array, Array]:
    """Thin singular value decomposition, as `(s, u, v^H)`."""
    algorithm = _algorithm(by_qr_iteration)
    u, s, vh = jax.lax.linalg.svd(a, full_matrices=False, algorithm=algorithm)
    return s, u, vh


def _algorithm(by_qr_iteration: bool) -> SvdAlgorithm | None:
    """How the library decomposes matrices, or None for its default."""
    return SvdAlgorithm.QR if by_qr_iteration else None


def _eigh(a: Array) -> tuple[Array, Array, Array]:
    """Singular triplets of a Hermitian matrix from its eigenvectors, as `(s, u, v)`.

    `A = V diag(l) V^H` is `U S V^H` with `S = |l|` and `U = V sign(l)`.
    """
    v, eigenvalues = jax.lax.linalg.eigh(a, lower=True, symmetrize_input=False)
    sign = jnp.where(eigenvalues < 0, -1, 1).astype(v.dtype)
    return jnp.abs(eigenvalues), v * sign[..., None, :], v


def _svd_by_eigenvectors(a: Array) -> tuple[Array, Array, Array]:
    """Singular value decomposition of square matrices, from eigenvectors.

    The Hermitian matrix `[0 A; A^H 0]` has eigenvalues `s` and `-s`, with eigenvectors
    `[u; v]` and `[u; -v]` (C. Jordan, J. Math. Pures Appl. 19 (1874) 35-54). So `s` is as
    accurate as the matrix itself, which eigenvalues of `A^H A` are not. Rounding mixes the
    two eigenvectors of a small `s`: each half keeps its direction, but not its length. If
    `s` is zero, it does not even keep its direction. A QR factorization of the halves, in
    descending order of `s`, makes them orthonormal.
    """
    n = a.shape[-1]
    zero = jnp.zeros_like(a)
    both = jnp.concatenate(
        [jnp.concatenate(x, axis=-1) for x in ((zero, a), (adjoint(a), zero))], axis=-2
    )
    vectors, s = jax.lax.linalg.eigh(both, lower=True, symmetrize_input=False)
    vectors, s = vectors[..., :, : n - 1 : -1], jnp.maximum(s[..., : n - 1 : -1], 0)
    u, v = (_orthonormal(x) for x in (vectors[..., :n, :], vectors[..., n:, :]))
    return s, u, adjoint(v)


def _orthonormal(x: Array) -> Array:
    """Orthonormal columns `(..., n, n)` near those of `x`, which are nearly orthogonal."""
    q, r = jax.lax.linalg.qr(x, full_matrices=False)
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    sign = jnp.where(diagonal == 0, 1, jax.lax.sign(diagonal))
    return q * sign[..., None, :]


def _decomposition(
    route: str, shorten: Shorten, by_library: Decomposition = _svd
) -> Decomposition:
    """The thin singular value decomposition of tall matrices, as `(s, u, v^H)`."""
    if route == "svd":
        return by_library
    of_short = _svd_by_eigenvectors if route == "qr, eigh" else by_library
    return partial(_svd_of_shorter, shorten=shorten, of_short=of_short)


def _svd_of_shorter(
    a: Array, *, shorten: Shorten, of_short: Decomposition
) -> tuple[Array, ...]:
    """Singular value decomposition of `(..., m, n)`, by that of a shorter matrix."""
    if a.shape[-2] == a.shape[-1]:
        return of_short(a)
    product, b = shorten(a)
    s, u, vh = of_short(b)
    return s, product(u), vh


def _values(
    a: Array, *, route: str, shorten: Shorten, by_qr_iteration: bool
) -> tuple[Array]:
    """Singular values of `(..., m, n)` alone, `(..., min(m, n))`."""
    if route == "qr, eigh":
        is_wide = a.shape[-2] < a.shape[-1]
        return (_decomposition(route, shorten)(transpose(a) if is_wide else a)[0],)
    if route == "qr, svd":
        _, a = shorten(a)
    elif a.shape[-2] == a.shape[-1]:
        # LAPACK stores columns where we store rows: the transpose needs no copy.
        a = transpose(a)
    algorithm = _algorithm(by_qr_iteration)
    s = jax.lax.linalg.svd(a, full_matrices=False, compute_uv=False, algorithm=algorithm)
    return (s,)
