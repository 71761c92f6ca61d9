"""Factors of `[A; D]` where the rows of `A` lie on many devices, and `D` is on all.

The tree of `tsqr` makes the triangular factor `R` of `A` alone. The device that decomposes
`R` also decomposes `[R; D]`, so the devices send no more than without a damping. In
`[A; D]` every device has n more rows: those of `D` on the first device, zeros on the
others.
"""

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P

from jaxpinv._factorization import damped, thin_qr
from jaxpinv._factorization.thin_qr import Shorten
from jaxpinv._factorization.tsqr import Axis, Decompose, go_down, go_up
from jaxpinv._linalg import matmul, power_of_two


@functools.cache
def on(
    mesh: Mesh | AbstractMesh, axis: Axis, shorten: Shorten, of_triangular: Decompose
) -> Callable:
    """A function for triplets of `[A T; D T]`, values of `A`, and the diagonal of `T`.

    Its arguments are a matrix, the damping, `(n,)` or `(1,)`, and `begin`. `T` reduces
    dampings that are larger than both `begin` and the matrix to about the larger of the
    two. `U` has `m + p n` rows for p devices.
    """
    by_rows = P(axis, None)
    mapped = jax.shard_map(
        partial(_decompose, axis=axis, shorten=shorten, of_triangular=of_triangular),
        mesh=mesh,
        in_specs=(by_rows, P(), P()),
        out_specs=(by_rows, P(), P(), P(), P()),
    )
    return jax.jit(mapped)


@functools.cache
def stack_on(mesh: Mesh | AbstractMesh, axis: Axis) -> Callable:
    """Appends n rows, which all devices have, on the first one, and zeros on the others."""
    by_rows = P(axis, None)
    return jax.shard_map(
        partial(_stacked, axis=axis), mesh=mesh, in_specs=(by_rows, P()), out_specs=by_rows
    )


@functools.cache
def top_on(mesh: Mesh | AbstractMesh, axis: Axis, n: int) -> Callable:
    """A function that drops the last n columns on each device."""
    by_columns = P(None, axis)
    return jax.shard_map(
        lambda x: x[:, : x.shape[1] - n],
        mesh=mesh,
        in_specs=by_columns,
        out_specs=by_columns,
    )


def _stacked(rows: Array, below: Array, *, axis: Axis) -> Array:
    """The result of `stack_on` on one device."""
    is_first = jax.lax.axis_index(axis) == 0
    return jnp.concatenate([rows, jnp.where(is_first, below, 0)])


def _decompose(
    rows: Array,
    d: Array,
    begin: Array,
    *,
    axis: Axis,
    shorten: Shorten,
    of_triangular: Decompose,
) -> tuple[Array, ...]:
    """The results of `on` on one device, from its rows of the matrix."""
    # As in `tsqr`: LAPACK must not see an Inf.
    broken = jax.lax.psum(jnp.sum(~jnp.isfinite(rows), dtype=jnp.int32), axis) > 0
    rows, defined = jnp.where(broken, 0, rows), jnp.all(jnp.isfinite(d))
    d = jnp.where(defined, d, 0)
    largest = jax.lax.pmax(jnp.max(jnp.abs(rows), initial=0), axis)
    unit = damped.unit_of(d, largest, begin)
    scale = power_of_two(jnp.maximum(largest, jnp.max(d * unit)))
    rows, below = rows / scale.astype(rows.dtype), d * unit / scale
    product, r = thin_qr.factor(rows, shorten)
    r, tree = go_up(r, axis)
    take = partial(_of_triangular, of_triangular=of_triangular)
    is_first = jax.lax.axis_index(axis) == 0
    w, lower, s, own, v = jax.lax.cond(is_first, take, _zeros, r, below, unit)
    s, own, v = jax.lax.psum((s, own, v), axis)
    w = go_down(w, tree, axis)
    top = product(w)
    # With a large damping, `top` is tiny and has lost its digits beside `lower`.
    divisor = jnp.where(s == 0, 1, s)[None, :].astype(rows.dtype)
    again = matmul(rows * unit[None, :].astype(rows.dtype), v) / divisor
    top = jnp.where(2 * jnp.min(below) > jnp.max(s), again, top)
    own = own * jnp.where(broken, jnp.nan, scale)
    s = s * jnp.where(broken | ~defined, jnp.nan, scale)
    return jnp.concatenate([top, lower]), s, v, own, unit


def _of_triangular(
    r: Array, d: Array, unit: Array, *, of_triangular: Decompose
) -> tuple[Array, ...]:
    """Triplets of `[R T; D T]`, with `U` in two parts, and the singular values of `R`."""
    found = of_triangular(r)
    plain = damped.triplets(r, d[:1], decompose=lambda _: found, augmented=of_triangular)
    if d.shape[0] > 1:
        moved = r * unit[None, :].astype(r.dtype)
        other = damped.triplets(moved, d, decompose=None, augmented=of_triangular)
        is_zero = jnp.all(d == 0)
        plain = tuple(jnp.where(is_zero, x, y) for x, y in zip(plain, other, strict=True))
    u, s, v = plain
    w, lower = jnp.split(u, 2)
    return w, lower, s, found[1], v


def _zeros(r: Array, d: Array, unit: Array) -> tuple[Array, ...]:
    """Zeros with the types of the results of `_of_triangular`."""
    zeros = 0 * r
    s = jnp.real(jnp.diagonal(zeros))
    return zeros, zeros, s, s, zeros
