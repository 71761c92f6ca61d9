r"""Improves a million small matrices at once, on all devices, without communication.

Each matrix is the plan of an experiment: seven measurements, its rows, of six unknowns.
With noise of unit size, the least-squares estimates of the unknowns have the total variance
`||pinv(A)||_F^2`, the criterion of A-optimal design. Plan `A0` is changed until a further
change would cost more than it gains, at the minimum of

    ||pinv(A)||_F^2 + ||A - A0||_F^2 / 2.

In one plan of 1000 the last column equals the first one, and no change distinguishes these
two unknowns. There the pseudo-inverse has rank five, before and after. In every plan,
singular values up to a thousandth of the largest are truncated.

The plans are divided over a mesh of devices. In `jax.shard_map`, each device takes gradient
steps for its own plans: `jaxpinv.pinv` computes singular values only if full rank is not
proven, and nothing is sent. The step reuses the memory of its argument for its result. If
the compiler divides the same step, singular values of all plans are computed. That is
measured on a mesh of one device, because jaxlib 0.10.2 can deadlock on two cores if two
devices compute singular values of many matrices at the same time.

The minimum is known: it has the singular vectors of `A0`, and each singular value `s0`
becomes the positive root of `s - s0 = 2 / s^3`. The example checks this in double
precision.

    python -m examples.sharded_batch
    python -m examples.sharded_batch --devices 2 --matrices 100000

prints how many matrices are processed per second, draws what they gained, and exits with
status 0 if all checks pass. A million matrices take 2.3 GB. It computes in single
precision.

Source:
    F. Pukelsheim, "Optimal Design of Experiments", SIAM, 2006, chapter 6, for the
    criterion.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from numpy.typing import NDArray

from examples import _command
from examples.sharded_batch.figure import draw
from examples.sharded_batch.plans import (
    BATCH,
    COLUMNS,
    CUTOFF,
    REPEATED,
    ROWS,
    improve,
    minimum,
)

#: The compiler divides only one in so many of the plans, since that takes longer.
SHARE = 10

#: Number of plans whose minimum is computed, and the largest distance from it.
SAMPLE, REQUIRED = 10_000, 1e-3

#: What rounding may do to a loss: the cutoff bounds the condition.
ROUNDING = 10 * float(np.finfo(np.float32).eps) / CUTOFF

#: What `--quick` sets.
QUICK = {"matrices": 20_000}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if everything was as good as required, else 1.
    """
    options = _command.parsed(_parser(), QUICK, arguments)
    if options.devices:
        # This must come before the first use of the devices.
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
        f"mean loss {local.history[0]:.4g} before, {local.history[-1]:.4g} after; "
        f"plans {error:.1e} from the minimum; losses of both differ by {same:.1e}"
    )
    checks = {
        "nothing is sent": not local.collectives,
        "steps take the memory of their argument": local.donated and divided.donated,
        f"minimum to {REQUIRED:.0e}": error <= REQUIRED,
        f"both agree to {ROUNDING:.0e}": same <= ROUNDING,
    }
    return _command.verdict(checks, began, path)


def _many(mesh: Mesh) -> str:
    """The number of devices in words."""
    return "1 device" if mesh.size == 1 else f"{mesh.size} devices"


def _divided(plans: NDArray, mesh: Mesh) -> Array:
    """The largest number of plans that the devices can share evenly, on the devices."""
    count = len(plans) - len(plans) % mesh.size
    return jax.device_put(plans[:count], NamedSharding(mesh, BATCH))


def _parser() -> argparse.ArgumentParser:
    parser = _command.parser(__package__, __doc__, QUICK)
    parser.add_argument("--matrices", type=int, default=1_000_000, help="how many")
    parser.add_argument("--steps", type=int, default=12, help="of gradient descent")
    parser.add_argument("--devices", type=int, help="into how many to divide a CPU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
