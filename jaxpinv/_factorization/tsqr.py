"""Singular value decomposition of one tall matrix whose rows lie on many devices.

Every device factors its rows, `A_i = Q_i R_i`. A binary tree of QR factorizations, each of
two triangular factors on top of each other, combines all `R_i` into one `R` (Demmel,
Grigori, Hoemmen, Langou, SIAM J. Sci. Comput. 34 (2012) A206-A239). One device decomposes
`R = W S V^H`, so that all agree on `V` and on the columns of `U` even if singular values
are repeated. `W` goes back down the tree, multiplied by the blocks of its orthogonal
factors: device i receives `M_i`, and `U_i = Q_i M_i`.
"""

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from jaxpinv._factorization import thin_qr
from jaxpinv._factorization.thin_qr import Shorten
from jaxpinv._factors import Triplets
from jaxpinv._linalg import matmul, power_of_two

#: The name of a mesh axis, or several names.
Axis = str | tuple[str, ...]
Decompose = Callable[[Array], Triplets]
#: Steps up the tree: the distance, the pairs of devices, and the orthogonal factors.
Tree = list[tuple[int, list[tuple[int, int]], Array]]


def decompose(
    a: Array,
    mesh: Mesh | AbstractMesh,
    axis: Axis,
    shorten: Shorten,
    of_triangular: Decompose,
) -> Triplets:
    """Thin singular value decomposition `(u, s, v)` of `a`, `(m, n)` with `m >= n`.

    The rows of `a` and `u` are divided over the axis; `s` and `v` are on all devices. A
    matrix that is not finite counts as zero and has `s = nan`. `shorten` factors the rows
    of each device, and `of_triangular` decomposes the triangular factor, `(n, n)`.
    """
    return _compiled(mesh, axis, shorten, of_triangular)(a)


@functools.cache
def _compiled(
    mesh: Mesh | AbstractMesh, axis: Axis, shorten: Shorten, of_triangular: Decompose
):
    """`decompose` as one program: outside of `jit` each operation would be a program."""
    by_rows = P(axis, None)
    mapped = jax.shard_map(
        partial(_decompose, axis=axis, shorten=shorten, of_triangular=of_triangular),
        mesh=mesh,
        in_specs=by_rows,
        out_specs=(by_rows, P(), P()),
    )
    return jax.jit(mapped)


def _decompose(
    rows: Array, *, axis: Axis, shorten: Shorten, of_triangular: Decompose
) -> Triplets:
    """The result of `decompose` on one device, from its rows of the matrix."""
    # LAPACK may loop forever on an Inf: all devices must know if any has one.
    broken = jax.lax.psum(jnp.sum(~jnp.isfinite(rows), dtype=jnp.int32), axis) > 0
    rows = jnp.where(broken, 0, rows)
    scale = power_of_two(jax.lax.pmax(jnp.max(jnp.abs(rows), initial=0), axis))
    product, r = thin_qr.factor(rows / scale.astype(rows.dtype), shorten)
    r, tree = go_up(r, axis)
    is_first = jax.lax.axis_index(axis) == 0
    w, s, v = jax.lax.cond(is_first, of_triangular, _zeros_like_svd, r)
    s, v = jax.lax.psum((s, v), axis)
    w = go_down(w, tree, axis)
    return product(w), jnp.where(broken, jnp.nan, s * scale), v


def go_up(r: Array, axis: Axis) -> tuple[Array, Tree]:
    """The triangular factor of all rows, on the first device, and the tree to go back."""
    count = jax.lax.axis_size(axis)
    # At step k, device i adds what device i + k has gathered, or zeros if there is no such
    # device. Zeros lie below all other rows, and never become their pivots.
    tree = []
    step = 1
    while step < count:
        down = [(i, i + step) for i in range(0, count - step, 2 * step)]
        other = jax.lax.ppermute(r, axis, [(j, i) for i, j in down])
        blocks, r = thin_qr.qr(jnp.concatenate([r, other]))
        tree.append((step, down, blocks))
        step *= 2
    return r, tree


def go_down(w: Array, tree: Tree, axis: Axis) -> Array:
    """`M_i`, the rows for each device, from `W` on the first device and the tree."""
    index = jax.lax.axis_index(axis)
    for step, down, blocks in reversed(tree):
        own, others = jnp.split(blocks, 2)
        received = jax.lax.ppermute(matmul(others, w), axis, down)
        w = jnp.where(index % (2 * step) == 0, matmul(own, w), received)
    return w


def _zeros_like_svd(r: Array) -> Triplets:
    """Zeros with the types of the decomposition of `r`."""
    zeros = 0 * r
    return zeros, jnp.real(jnp.diagonal(zeros)), zeros
