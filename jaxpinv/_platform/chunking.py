"""Loops over chunks of a batch. A plan sets chunk sizes; None means the whole batch."""

import functools
import math
import operator
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._shapes import evenly

#: A function of arrays that have a batch axis.
Map = Callable[..., tuple[Array, ...]]


def in_chunks(
    f: Map, size: int | None, *operands: Array, axis: int = 0
) -> tuple[Array, ...]:
    """Apply `f` to arrays of one precision, one chunk of `size` at a time.

    Chunks are taken along `axis`. An array of length one there belongs to every chunk.
    """
    count = max(x.shape[axis] for x in operands)
    if size is None or size >= count:
        return f(*operands)

    # Traced once, for the shapes below and for the loop.
    @partial(jax.jit, inline=True)
    def some(begin: Array) -> tuple[Array, ...]:
        return f(
            *(
                jax.lax.dynamic_slice_in_dim(x, begin, size, axis)
                if x.shape[axis] == count
                else x
                for x in operands
            )
        )

    def step(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        # A slice that would go beyond the end begins earlier, so that the last chunk
        # overlaps the one before and no array need be padded and trimmed.
        begin, found = state
        found = tuple(
            jax.lax.dynamic_update_slice_in_dim(x, y, begin, axis)
            for x, y in zip(found, some(begin), strict=True)
        )
        return begin + size, found

    # Unsigned, because a negative one would count from the end.
    begin = jnp.zeros((), jnp.uint32)
    shapes = jax.eval_shape(some, begin)
    # Made of the operands: a loop in `shard_map` must begin with the type it ends with.
    # Operands that are not numbers vary over no more devices than those that are.
    numbers = (x for x in operands if jnp.issubdtype(x.dtype, jnp.inexact))
    zero = functools.reduce(operator.add, (jnp.real(x.ravel()[0]) * 0.0 for x in numbers))
    start = tuple(
        jnp.broadcast_to(
            jnp.where(False, zero, 0).astype(x.dtype),
            (*x.shape[:axis], count, *x.shape[axis + 1 :]),
        )
        for x in shapes
    )
    return jax.lax.while_loop(lambda state: state[0] < count, step, (begin, start))[1]


def in_calls(size: int | None, f: Map, a: Array) -> tuple[Array, ...]:
    """Apply `f` to matrices, `(..., m, n)`, `size` at a time.

    If `size` is None, the batch is not reshaped, because it may be divided over devices.
    """
    *batch, m, n = a.shape
    if size is None or math.prod(batch) == 1:
        return f(a)
    found = in_chunks(f, size, jnp.reshape(a, (-1, m, n)))
    return tuple(jnp.reshape(x, (*batch, *x.shape[1:])) for x in found)


def along_batch(f: Callable[..., Array], chunk: int, rank: int, *operands: Array) -> Array:
    """Apply `f` to arrays whose first `rank` axes broadcast against each other.

    Chunks are taken along the longest of these axes, with about `chunk` elements of the
    first array, matrices `(..., m, n)`, in each.
    """
    batch = jnp.broadcast_shapes(*(x.shape[:rank] for x in operands))
    axis = max(range(rank), key=lambda i: batch[i])
    others = math.prod(batch) // batch[axis]
    size = max(1, chunk // math.prod(operands[0].shape[rank:]) // others)
    size = evenly(batch[axis], size)
    [found] = in_chunks(lambda *x: (f(*x),), size, *operands, axis=axis)
    return found


def while_most(
    f: Callable[..., Array], size: int | None, share: int, *operands: Array
) -> Array:
    """Numbers that `f` finds for a batch, chunk by chunk, or -1 where it finds none.

    The loop stops after the first chunk in which at most one in `share` has a number, and
    leaves -1 beyond. If `size` is None, the whole batch, of any axes, is one chunk.
    """
    count = operands[0].shape[0]
    if size is None:
        return f(*operands)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        begin, _, found = state
        some = f(*(jax.lax.dynamic_slice_in_dim(x, begin, size) for x in operands))
        found = jax.lax.dynamic_update_slice_in_dim(found, some, begin, 0)
        return begin + size, jnp.sum(some >= 0, dtype=jnp.int32) * share > size, found

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        begin, promising, _ = state
        return promising & (begin < count)

    # Made of the arguments: a loop in `shard_map` must begin with the type it ends with.
    firsts = (jnp.real(jnp.reshape(x, (count, -1))[:, 0]) for x in operands)
    none = jnp.isnan(functools.reduce(operator.add, (0 * x for x in firsts))) & False
    none = none.astype(jnp.int32) - 1
    begin = jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(goes_on, step, (begin, none[0] < 0, none))[2]
