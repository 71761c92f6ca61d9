"""The tasks of the closed-form head: scikit-learn's digits, rotated, mirrored and moved."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from sklearn.datasets import load_digits

#: Digits of a task, and the numbers of pictures of each to train and to test with.
WAY, SHOT, QUERY = 4, 5, 10
#: Difference between field and picture in height and in width, in pixels.
MARGIN = 4
ORIENTATIONS = 8


def pictures() -> tuple[Array, Array]:
    """The digits to train with and those held out, `(digits, pictures, 8, 8)`."""
    data: Any = load_digits()
    x = (data.images / 16).astype(np.float32)
    fewest = np.bincount(data.target).min()
    sorted_by_digit = np.stack([x[data.target == digit][:fewest] for digit in range(10)])
    return jnp.asarray(sorted_by_digit[:6]), jnp.asarray(sorted_by_digit[6:])


def place(key: Array, picture: Array, orientation: Array) -> Array:
    """A picture in one of eight orientations, somewhere in the field."""
    x = jnp.where(orientation & 1, picture.T, picture)
    x = jnp.where(orientation & 2, x[::-1], x)
    x = jnp.where(orientation & 4, x[:, ::-1], x)
    row, column = jax.random.randint(key, (2,), 0, MARGIN + 1)
    field = jnp.zeros((8 + MARGIN, 8 + MARGIN), x.dtype)
    return jax.lax.dynamic_update_slice(field, x, (row, column))


@partial(jax.jit, static_argnums=2)
def task(key: Array, digits: Array, orientations: int) -> tuple[Array, Array]:
    """Pictures to train and to test with, `(4, 5, 12, 12)` and `(4, 10, 12, 12)`."""
    which, turn, move, *draws = jax.random.split(key, 3 + WAY)
    chosen = digits[jax.random.permutation(which, len(digits))[:WAY]]
    drawn = [
        x[jax.random.permutation(draw, x.shape[0])[: SHOT + QUERY]]
        for draw, x in zip(draws, chosen, strict=True)
    ]
    moves = jax.random.split(move, (WAY, SHOT + QUERY))
    turns = jax.random.randint(turn, (WAY,), 0, orientations)
    shots = jax.vmap(jax.vmap(place, (0, 0, None)))(moves, jnp.stack(drawn), turns)
    return shots[:, :SHOT], shots[:, SHOT:]


@partial(jax.jit, static_argnums=(2, 3))
def tasks(key: Array, digits: Array, count: int, orientations: int) -> tuple[Array, Array]:
    """A batch of tasks."""
    keys = jax.random.split(key, count)
    return jax.vmap(lambda key: task(key, digits, orientations))(keys)
