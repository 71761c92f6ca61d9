"""A formula where it holds, and another for the rest of a batch."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization.auto import Trial
from jaxpinv._platform.workarounds import copied_in_branch

#: Computes results from the same operands as the other formula.
Formula = Callable[..., tuple[Array, ...]]
#: Arrays, each with its number of axes after the batch.
Operands = tuple[tuple[Array, int], ...]


def where_holds(
    holds: Array | None, usual: Formula, general: Formula, operands: Operands, trial: Trial
) -> tuple[Array, ...]:
    """Results of `usual` where it holds, of `general` elsewhere, each matrix on its own.

    Args:
        holds: where `usual` holds, of batch shape. None if its last result says that.
        usual: a formula that takes chunks of all operands.
        general: the formula for the matrices that are left, from the same operands.
        operands: matrices first. Their batch axes broadcast.
        trial: how both go through a batch.
    """
    batch = jnp.broadcast_shapes(*(x.shape[: x.ndim - rank] for x, rank in operands))
    count = math.prod(batch)
    arrays = flattened(batch, *operands)
    if holds is not None:
        holds = jnp.broadcast_to(flattened(batch, (holds, 0))[0], count)

    def whole(f: Formula, *some: Array) -> tuple[Array, ...]:
        size = max(x.shape[0] for x in some)
        return tuple(jnp.broadcast_to(x, (size, *x.shape[1:])) for x in f(*some))

    if count == 1:
        found = whole(usual, *arrays)
        found = jax.lax.cond(
            found[-1][0] if holds is None else holds[0],
            lambda: found,
            lambda: whole(general, copied_in_branch(arrays[0]), *arrays[1:]),
        )
    else:
        found = trial.in_chunks(partial(whole, usual), *arrays)
        # An operand of length one belongs to every matrix.
        own = [x for x in arrays if x.shape[0] == count]

        def general_of(*some: Array) -> tuple[Array, ...]:
            chosen = iter(some)
            row = (next(chosen) if x.shape[0] == count else x for x in arrays)
            return whole(general, *row)

        holds = found[-1] if holds is None else holds
        found = trial.replace(general_of, ~holds, found, *own)
    return tuple(jnp.reshape(x, (*batch, *x.shape[1:])) for x in found)


def flattened(batch: tuple, *operands: tuple[Array, int]) -> list[Array]:
    """Arrays with a single batch axis, of length one for those without a batch."""

    def flat(x: Array, rank: int) -> Array:
        own = x.shape[x.ndim - rank :]
        if math.prod(x.shape[: x.ndim - rank]) != 1:
            x = jnp.broadcast_to(x, (*batch, *own))
        return jnp.reshape(x, (-1, *own))

    return [flat(*operand) for operand in operands]
