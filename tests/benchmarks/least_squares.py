"""The gradient of `sum(lstsq(a, b).solution ** 2)`: as a whole, and its derivative part.

The derivative part is the backward pass alone, with the factorization behind it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import jaxpinv
from tests.benchmarks import timing
from tests.benchmarks.cases import INPUTS

REFERENCE = "jaxpinv.lstsq"
#: The reference a second time: its ratio is the calibration.
TWIN = "A/A"
SHAPES = ((1000, 1000), (20_000, 64), (20_000, 6, 7))
QUICK_SHAPES = ((2_000, 6, 7),)
WHOLE, BACKWARD = PARTS = ("gradient", "derivative part")

Solve = Callable[[jax.Array, jax.Array], jax.Array]


def _lstsq(a: jax.Array, b: jax.Array) -> jax.Array:
    return jaxpinv.lstsq(a, b).solution


def _pinv(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(jaxpinv.pinv(a), b, precision="highest")


def _jnp_pinv(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(jnp.linalg.pinv(a), b, precision="highest")


def _jnp(a: jax.Array, b: jax.Array) -> jax.Array:
    def solve(a, b):
        return jnp.linalg.lstsq(a, b)[0]

    return solve(a, b) if a.ndim == 2 else jax.vmap(solve)(a, b)


METHODS: dict[str, Solve] = {
    REFERENCE: _lstsq,
    "jaxpinv.pinv @ b": _pinv,
    "jnp.linalg.pinv @ b": _jnp_pinv,
    "jnp.linalg.lstsq": _jnp,
}


def measure(*, quick: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """One row for each shape and part: ratios of times to those of `jaxpinv.lstsq`."""
    for shape in QUICK_SHAPES if quick else SHAPES:
        rng = np.random.default_rng(0)
        inputs = [rng.standard_normal(shape).astype(np.float32) for _ in range(INPUTS)]
        b = rng.standard_normal((*shape[:-1], 1)).astype(np.float32)
        for part in PARTS:
            calls = {
                name: _prepare(solve, inputs, b, part) for name, solve in METHODS.items()
            }
            calls[TWIN] = calls[REFERENCE]
            times = timing.rounds(calls, seconds=seconds)
            ratios = {
                name: timing.ratio(values, times[REFERENCE]).median
                for name, values in times.items()
            }
            yield {"shape": list(shape), "part": part, "ratios": ratios}
        jax.clear_caches()


def _prepare(solve: Solve, inputs: list[NDArray], b: NDArray, part: str) -> timing.Method:
    """A call that returns when the gradient with respect to the matrix is there."""
    right = jnp.asarray(b)
    arrays = [jnp.asarray(a) for a in inputs]
    if part == WHOLE:
        run = jax.jit(jax.grad(lambda a: jnp.sum(solve(a, right) ** 2)))
        compiled = run.lower(arrays[0]).compile()
        arguments: list[tuple] = [(a,) for a in arrays]
    else:
        # The residuals in a pullback are arguments: else they would be constants of the
        # program. Only the leaves of the pullbacks differ, not what they compute.
        linear = [jax.vjp(lambda a: solve(a, right), a) for a in arrays]
        tree = jax.tree.structure(linear[0][1])
        arguments = [(jax.tree.leaves(pullback), 2 * x) for x, pullback in linear]
        run = jax.jit(lambda leaves, ct: jax.tree.unflatten(tree, leaves)(ct))
        compiled = run.lower(*arguments[0]).compile()
    jax.block_until_ready(arguments)

    def call(index: int) -> object:
        return jax.block_until_ready(compiled(*arguments[index % len(arguments)]))

    return call
