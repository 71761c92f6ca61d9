"""Shapes of batches of matrices, static or symbolic, and places in a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def is_static_shape(shape: tuple) -> bool:
    """Whether all sizes are numbers, not symbols of an exported program."""
    # `all` with a generator takes several times as long, in each eager call.
    for size in shape:
        if not isinstance(size, int):
            return False
    return True


def prepend_axes(x: Array, rank: int) -> Array:
    """`x` with axes of length one in front, so that it has `rank` axes."""
    return jax.lax.expand_dims(x, range(rank - x.ndim))


def like(x: Array, aval: Any) -> Array:
    """`x`, summed over the axes along which an operand of type `aval` was broadcast."""
    stretched = [i for i, n in enumerate(aval.shape) if n != x.shape[i]]
    return jnp.sum(x, axis=stretched, keepdims=True) if stretched else x


def evenly(count: int, most: int, unit: int = 1) -> int:
    """The size of the fewest equal chunks of at most `most`, rounded up to whole units.

    Chunks of the largest size would do up to twice the work, because the last one overlaps
    the one before.
    """
    size = -(-count // -(-count // most))
    return min(most, -(-size // unit) * unit)


def divided(rows: int, most: int) -> tuple[int, int]:
    """Number and length of equal chunks of at most `most` rows, and more than half as many.

    No row is left over if a length allows that, because then no row need be copied.
    """
    most = min(most, rows)
    lengths = range(most, most // 2, -1)

    def cost(length: int) -> tuple[bool, int]:
        count, left = divmod(rows, length)
        # A chunk takes about as long as eight more rows that are left over.
        return left > 0, 8 * count + left

    length = min(lengths, key=cost)
    return rows // length, length


def last_true(x: Array, before: Array | int) -> Array:
    """The last place of `True` in a vector `x` before the place `before`, or -1."""
    places = jax.lax.iota(jnp.int32, x.shape[0])
    return jnp.max(jnp.where(x & (places < before), places, -1), initial=-1)


def without_unit_axes(f: Callable[..., Any], rank: int, *operands: Array) -> Any:
    """`f` of arrays with `rank` batch axes, computed without those of length 1 in all.

    Nested `vmap` leaves such axes, and derivatives of several orders in one program differ
    in them. Without them XLA finds that much of these programs is the same.
    """
    axes = [i for i in range(rank) if all(x.shape[i] == 1 for x in operands)]
    if not axes:
        return f(*operands)
    found = f(*(jax.lax.squeeze(x, axes) for x in operands))
    return jax.tree.map(lambda x: jax.lax.expand_dims(x, axes), found)
