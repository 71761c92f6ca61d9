"""The plans: their loss, a gradient step, how steps are taken, and the minimum."""

import re
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec
from numpy.typing import NDArray
from tqdm import tqdm

import jaxpinv

#: Measurements and unknowns; one plan in so many repeats a column; the relative cutoff.
ROWS, COLUMNS, REPEATED, CUTOFF = 7, 6, 1000, 1e-3

#: The curvature of `1 / s^2 + (s - s0)^2 / 2` at its minimum is between 1 and 4, so that a
#: step leaves at most 0.6 of the distance from it. Plans that are nearly singular have
#: steep gradients: no plan moves further than the largest step.
STEP, LARGEST_STEP = 0.4, 0.8

COLLECTIVE = re.compile(r"all-(?:gather|reduce|to-all)|collective-|reduce-scatter")
BATCH = PartitionSpec("batch")


class Run(NamedTuple):
    """What one method of division did.

    Attributes:
        plans: after all steps, `(n, ROWS, COLUMNS)`.
        losses: of all plans before the first step, `(n,)`.
        history: mean losses before every step.
        values_per_second: pseudo-inverses.
        steps_per_second: gradient steps of one matrix.
        collectives: in the text of the compiled step.
        donated: whether all steps took the memory of their argument.
    """

    plans: Array
    losses: NDArray
    history: NDArray
    values_per_second: float
    steps_per_second: float
    collectives: list[str]
    donated: bool


def loss(a: Array, a0: Array) -> Array:
    """Variance of the estimates and cost of the change, a scalar."""
    variance = jnp.sum(jnp.square(jaxpinv.pinv(a, CUTOFF)))
    return variance + jnp.sum(jnp.square(a - a0)) / 2


def step(a: Array, a0: Array) -> tuple[Array, Array]:
    """Plans after a step, `(n, ROWS, COLUMNS)`, and their losses before, `(n,)`."""
    losses, gradients = jax.vmap(jax.value_and_grad(loss))(a, a0)
    moves = STEP * gradients
    lengths = jnp.linalg.norm(moves, axis=(1, 2), keepdims=True)
    return a - moves / jnp.maximum(1, lengths / LARGEST_STEP), losses


def value(a: Array) -> Array:
    """Pseudo-inverses, `(n, COLUMNS, ROWS)`."""
    return jaxpinv.pinv(a, CUTOFF)


def improve(
    divide: Callable[[Callable], Callable], start: Array, steps: int, name: str
) -> Run:
    """Takes gradient steps and measures them.

    Args:
        divide: what makes a function one for plans that are divided over devices.
        start: the plans, divided.
        steps: how many.
        name: of the way, for the progress bar.

    Returns:
        What came of it.
    """
    a, history, step_seconds, donated = start.copy(), [], [], True
    first = np.zeros(0)
    with tqdm(
        range(steps), f"{len(start)} matrices, {name}", unit="step", leave=False
    ) as bar:
        compiled_value = jax.jit(divide(value)).lower(start).compile()
        compiled_step = jax.jit(divide(step), donate_argnums=0).lower(a, start).compile()
        value_seconds = []
        for _ in range(3):
            began = time.perf_counter()
            compiled_value(start).block_until_ready()
            value_seconds.append(time.perf_counter() - began)
        for _ in bar:
            before, began = a, time.perf_counter()
            a, losses = compiled_step(before, start)
            # To the host: a mean over devices would be communication.
            losses = np.asarray(jax.block_until_ready(losses))
            step_seconds.append(time.perf_counter() - began)
            first = first if history else losses
            history.append(float(losses.mean(dtype=float)))
            donated = donated and before.is_deleted()
            rate = len(start) / step_seconds[-1]
            bar.set_postfix_str(f"loss {history[-1]:.4f}, {rate:.3g}/s", refresh=False)
    return Run(
        plans=a,
        losses=first,
        history=np.array(history),
        values_per_second=len(start) / min(value_seconds),
        steps_per_second=len(start) / min(step_seconds),
        collectives=COLLECTIVE.findall(compiled_step.as_text() or ""),
        donated=donated,
    )


def minimum(a0: NDArray) -> NDArray:
    """The plans of least loss, `(n, ROWS, COLUMNS)`, in double precision."""
    u, s0, vh = np.linalg.svd(a0.astype(float), full_matrices=False)
    kept = s0 > CUTOFF * s0[:, :1]
    # Newton's method for the positive root of s^4 - s0 s^3 - 2, from above.
    s = s0 + 2**0.25
    for _ in range(50):
        s = s - (s**4 - s0 * s**3 - 2) / (4 * s**3 - 3 * s0 * s**2)
    return (u * np.where(kept, s, s0)[:, None]) @ vh
