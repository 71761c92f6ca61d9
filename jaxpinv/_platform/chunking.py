"""Loops over blocks of the matrices of a batch, as caches and LAPACK like them."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import is_known

#: A function of arrays that have a batch axis.
Map = Callable[..., tuple[Array, ...]]

# Elements of the matrices that go through at a time, so that they stay in a cache: of the
# sizes from 2^13 to 2^20 the fastest for 100000 3 by 3 and 20000 7 by 6 matrices.
_OF_CACHE = 1 << 13
# Hessian-vector products of batches of fewer elements gain nothing by blocks on two cores:
# 30 of 1000 by 16 take 8.0 ms instead of 6.3, but 20 of 200 by 200 take 52 instead of 63.
_BEYOND_CACHES = 1 << 19

# LAPACK calls for many matrices share them out among the threads of jaxlib before 0.12, and
# wait for the others on such a thread themselves: when all of them wait, they do for ever.
# The fewest matrices of so many flops, as jaxlib counts them, it leaves to one thread.
_MAY_WAIT_FOR_EVER = jax.__version_info__ < (0, 12)
_ON_ONE_THREAD = 200_000


class Ways(NamedTuple):
    """How a program may go through a batch.

    Attributes:
        may_branch: whether the whole of it may be asked what its matrices have in common.
        in_blocks: whether it may be taken apart, as caches like it.
    """

    may_branch: bool
    in_blocks: bool


def of_cache(a: Array) -> int:
    """How many of the matrices fit into a cache."""
    m, n = a.shape[-2:]
    return max(1, _OF_CACHE // (m * n))


def of_one_call(a: Array, flops: int) -> int:
    """How many of the matrices LAPACK may be given at a time, of so many flops for each."""
    flops *= 3 if jnp.iscomplexobj(a) else 1
    return -(-_ON_ONE_THREAD // flops) if _MAY_WAIT_FOR_EVER else a.shape[0]


def in_blocks(f: Map, size: int, *operands: Array, axis: int = 0) -> tuple[Array, ...]:
    """What `f` makes of arrays of one precision, one block of that size after the other.

    The blocks are along one axis. What has length one there belongs to every block.
    """
    count = max(x.shape[axis] for x in operands)
    if size >= count:
        return f(*operands)

    def some(begin: Array) -> tuple[Array, ...]:
        return f(
            *(
                jax.lax.dynamic_slice_in_dim(x, begin, size, axis)
                if x.shape[axis] == count
                else x
                for x in operands
            )
        )

    def step(i: Array, found: tuple[Array, ...]) -> tuple[Array, ...]:
        # A slice that would go beyond the end begins earlier, so that the last block
        # overlaps the one before and no array need be padded and cut.
        begin = jnp.asarray(i, jnp.int32) * size
        return tuple(
            jax.lax.dynamic_update_slice_in_dim(x, y, begin, axis)
            for x, y in zip(found, some(begin), strict=True)
        )

    shapes = jax.eval_shape(some, 0)
    # Made of the operands, for a loop in `shard_map` wants to begin as it ends. What is no
    # number varies over no more devices than the numbers that it goes with.
    numbers = (x for x in operands if jnp.issubdtype(x.dtype, jnp.inexact))
    zero = functools.reduce(operator.add, (jnp.real(x.ravel()[0]) * 0.0 for x in numbers))
    start = tuple(
        jnp.broadcast_to(
            jnp.where(False, zero, 0).astype(x.dtype),
            (*x.shape[:axis], count, *x.shape[axis + 1 :]),
        )
        for x in shapes
    )
    return jax.lax.fori_loop(0, -(-count // size), step, start)


def along_batch(f: Callable[..., Array], rank: int, *operands: Array) -> Array:
    """What `f` makes of arrays whose first axes, so many, broadcast against each other.

    It goes along the longest of them, in blocks that fit into a cache, unless all of it is
    not much larger. The first array is of matrices, `(..., m, n)`.
    """
    matrices, *_ = operands
    if not all(is_known(x.shape) for x in operands):
        return f(*operands)
    batch = jnp.broadcast_shapes(*(x.shape[:rank] for x in operands))
    elements = math.prod(batch) * math.prod(matrices.shape[rank:])
    if elements < _BEYOND_CACHES or not rank or not elements:
        return f(*operands)
    axis = max(range(rank), key=lambda i: batch[i])
    others = math.prod(batch) // batch[axis]
    size = max(1, of_cache(matrices) // others)
    [found] = in_blocks(lambda *x: (f(*x),), size, *operands, axis=axis)
    return found


def replace(
    f: Map, size: int, chosen: Array, found: Sequence[Array], *operands: Array
) -> tuple[Array, ...]:
    """`found`, with what `f` makes of the chosen ones of a batch in their places.

    They are taken in blocks of that size, which does not depend on how many they are, and
    so neither does the result for one of them.
    """
    batch = chosen.shape[0]
    size = min(size, batch)
    count = jnp.sum(chosen, dtype=jnp.int32)

    def complete(found: tuple[Array, ...]) -> tuple[Array, ...]:
        # The places of the chosen ones in front. What fills up the last block is beyond the
        # batch, and is dropped. Of 100000 a sort takes 1.3 ms, and this 0.5. Made of the
        # argument, for in `shard_map` it varies as that does.
        rank = jnp.cumsum(chosen, dtype=jnp.int32)
        beyond = 0 * rank + batch
        order = beyond.at[jnp.where(chosen, rank - 1, batch)].set(
            jnp.arange(batch, dtype=jnp.int32), mode="drop"
        )

        def step(state):
            begin, found = state
            k = jax.lax.dynamic_slice_in_dim(order, begin, size)
            some = f(*(x.at[k].get(mode="clip") for x in operands))
            placed = (x.at[k].set(y, mode="drop") for x, y in zip(found, some, strict=True))
            return begin + size, tuple(placed)

        state = (jnp.zeros_like(count), found)
        return jax.lax.while_loop(lambda state: state[0] < count, step, state)[1]

    return jax.lax.cond(count > 0, complete, lambda found: found, tuple(found))
