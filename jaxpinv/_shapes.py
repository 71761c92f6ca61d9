"""Shapes of batches of matrices: static or symbolic, with axes in front."""

import jax
from jax import Array


def is_static_shape(shape: tuple) -> bool:
    """Whether all sizes are numbers, not symbols of an exported program."""
    return all(isinstance(size, int) for size in shape)


def prepend_axes(x: Array, rank: int) -> Array:
    """`x` with axes of length one in front, so that it has `rank` axes."""
    return jax.lax.expand_dims(x, range(rank - x.ndim))
