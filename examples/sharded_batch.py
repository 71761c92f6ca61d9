r"""Improves a million small matrices at once, on all devices, without communication.

Each matrix is the plan of an experiment: seven measurements, its rows, of six unknowns.
With noise of unit size the least-squares estimates of the unknowns have the total variance
`||pinv(A)||_F^2`, the criterion of A-optimal design. Plan `A0` is changed until another
change costs more than it gains, at the minimum of

    ||pinv(A)||_F^2 + ||A - A0||_F^2 / 2.

In one plan of 1000 the last column repeats the first one, and no change tells these two
unknowns apart. There the pseudo-inverse has rank five, before and after. Singular values up
to a thousandth of the largest are cut in every plan.

The plans are divided over a mesh of devices. A gradient step inside `jax.shard_map` is that
of one device on its own plans: `jaxpinv.pinv` takes singular values only of those that are
not proven to need none, and nothing is sent. The step takes the memory of its argument for
its result. Where it is the compiler that divides the same step, singular values are taken
of all plans. That is measured on a mesh of one device: on two cores jaxlib 0.10.2 can wait
for ever where two devices take singular values of many matrices at the same time.

The minimum is known: it has the singular vectors of `A0`, and each singular value `s0`
becomes the positive root of `s - s0 = 2 / s^3`. That is checked in double precision.

    python examples/sharded_batch.py
    python examples/sharded_batch.py --devices 2 --matrices 100000

prints how many matrices pass in a second, draws what they gained, and exits with status 0
if all is as it should be. A million take 2.3 GB. It computes in single precision.

Source:
    F. Pukelsheim, "Optimal Design of Experiments", SIAM, 2006, chapter 6, for the
    criterion.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray
from sharded_batch_figure import draw
from tqdm import tqdm

import jaxpinv

#: Measurements and unknowns; every how many plans repeat a column; where values are cut.
ROWS, COLUMNS, REPEATED, CUTOFF = 7, 6, 1000, 1e-3

#: The curvature of `1 / s^2 + (s - s0)^2 / 2` at its minimum is between 1 and 4, so that a
#: step leaves at most 0.6 of the distance from it. Plans that are nearly singular have
#: steep gradients: none moves further than the largest step.
STEP, LARGEST_STEP = 0.4, 0.8

#: The compiler gets only so many of the plans, one in, to divide: it takes longer.
SHARE = 10

#: Plans of which the minimum is computed, and how near the steps must come to it.
SAMPLE, REQUIRED = 10_000, 1e-3

#: What rounding may do to a loss: the cutoff bounds the condition.
ROUNDING = 10 * float(np.finfo(np.float32).eps) / CUTOFF

COLLECTIVE = re.compile(r"all-(?:gather|reduce|to-all)|collective-|reduce-scatter")
BATCH = PartitionSpec("batch")


class Run(NamedTuple):
    """What one way to divide a step did.

    Attributes:
        plans: in the end, `(n, ROWS, COLUMNS)`.
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
    """Takes steps with plans and measures them.

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if everything was as good as required, else 1.
    """
    options = _parser().parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    if options.devices:
        # Only before anything asks for the devices.
        jax.config.update("jax_num_cpu_devices", options.devices)
    began = time.perf_counter()
    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), ("batch",))
    one = jax.make_mesh((1,), ("batch",), devices=devices[:1])
    rng = np.random.default_rng(0)
    plans = rng.standard_normal((options.matrices, ROWS, COLUMNS), dtype=np.float32)
    plans[::REPEATED, :, -1] = plans[::REPEATED, :, 0]

    def by_hand(f: Callable) -> Callable:
        return jax.shard_map(f, mesh=mesh, in_specs=BATCH, out_specs=BATCH)

    def by_compiler(f: Callable) -> Callable:
        return f

    local = improve(by_hand, _divided(plans, mesh), options.steps, "in shard_map")
    few = _divided(plans[: len(plans) // SHARE], one)
    divided = improve(by_compiler, few, 2, "divided by the compiler")
    runs = {f"{_many(mesh)}, shard_map": local, f"{_many(one)}, compiler": divided}

    n = min(SAMPLE, len(local.plans))
    found, best = np.asarray(local.plans)[:n], minimum(plans[:n])
    error = np.max(np.abs(found - best))
    same = np.max(np.abs(local.losses[: len(few)] / divided.losses - 1))
    variances = [
        np.sum(np.square(np.linalg.pinv(x, rcond=CUTOFF)), axis=(1, 2))
        for x in (plans[:n], found)
    ]
    path = options.output / "sharded_batch.png"
    draw(path, runs, variances)
    for name, run in runs.items():
        print(
            f"{len(run.plans)} matrices, {name}: "
            f"{run.values_per_second:.3g} pseudo-inverses and {run.steps_per_second:.3g} "
            "gradient steps of a matrix in a second"
        )
    print(
        f"mean loss {local.history[0]:.4g} before, {local.history[-1]:.4g} in the end; "
        f"plans {error:.1e} from the minimum; losses of both ways differ by {same:.1e}"
    )
    checks = {
        "nothing is sent": not local.collectives,
        "steps take the memory of their argument": local.donated and divided.donated,
        f"minimum to {REQUIRED:.0e}": error <= REQUIRED,
        f"both ways agree to {ROUNDING:.0e}": same <= ROUNDING,
    }
    print(f"{time.perf_counter() - began:.0f} seconds, figure in {path}")
    for claim in (claim for claim, holds in checks.items() if not holds):
        print(f"missed: {claim}")
    return 0 if all(checks.values()) else 1


def _many(mesh: Mesh) -> str:
    """The number of devices in words."""
    return "1 device" if mesh.size == 1 else f"{mesh.size} devices"


def _divided(plans: NDArray, mesh: Mesh) -> Array:
    """As many plans as the devices can share evenly, divided over them."""
    count = len(plans) - len(plans) % mesh.size
    return jax.device_put(plans[:count], NamedSharding(mesh, BATCH))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A million matrices on all devices.")
    parser.add_argument("--matrices", type=int, default=1_000_000, help="how many")
    parser.add_argument("--steps", type=int, default=12, help="of gradient descent")
    parser.add_argument("--devices", type=int, help="into how many to divide a CPU")
    parser.add_argument(
        "--output", type=Path, default=Path("figures"), help="folder for the figure"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
