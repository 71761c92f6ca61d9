r"""Moves an arm with seven joints by the pseudo-inverse of its Jacobian.

The hand has six degrees of freedom and the arm has seven, so that joint velocities `dq`
move the hand by `J dq` with one to spare. Differential inverse kinematics is

    dq = pinv(J) twist - (I - pinv(J) J) gain * gradient of a cost.

The first term is the shortest motion that gives the hand its twist. The second is a motion
in the null space: it does not move the hand, and it keeps the joints away from their
limits. The first term is `jaxpinv.lstsq`, the second `jaxpinv.null_projection`. The arm is
a Franka Emika Panda.

There are two experiments. In the first, thousands of arms in one `vmap` reach for thousands
of poses, with null-space motion and without. In the second, the hand follows a straight
line through a pose in which the Jacobian loses rank. There the cutoff `rtol` keeps the
joints slow: it truncates a direction in which the hand can hardly move, and the hand falls
behind by millimeters instead.

    python -m examples.redundant_arm
    python -m examples.redundant_arm --targets 256

prints how many poses were reached and how fast the joints were, draws both, and exits with
status 0 if all checks pass. It computes in single precision.

Source:
    A. Liegeois, "Automatic supervisory control of the configuration and behavior of
    multibody mechanisms", IEEE Trans. Syst. Man Cybern. 7 (1977) 868-871.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from examples import _command
from examples.redundant_arm.figure import draw
from examples.redundant_arm.kinematics import LOWER, MAX_SPEED, UPPER, frames
from examples.redundant_arm.motion import (
    LINE_RTOL,
    POSITION_LIMIT,
    REACH_GAIN,
    ROUNDS,
    STEPS,
    STEPS_AT_ONCE,
    Line,
    Reach,
    follow_line,
    reach,
)

#: Measured with 4096 targets: 0.68 in the first round and 0.56 without null-space motion,
#: 0.99 after three. Four standard deviations of 256 targets are 0.12 and 0.025.
REQUIRED_FIRST, REQUIRED_IN_THE_END = 0.56, 0.965

#: What `--quick` sets.
QUICK = {"targets": 256}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if everything was as good as required, else 1.
    """
    options = _command.parsed(_parser(), QUICK, arguments)
    began = time.perf_counter()

    dtype = jnp.zeros(()).dtype
    lower, upper = jnp.asarray(LOWER, dtype), jnp.asarray(UPPER, dtype)
    target_key, start_key = jax.random.split(jax.random.key(0))
    shape = (options.targets, 7)
    # Poses of random joints within the limits: every target can be reached.
    joints = jax.random.uniform(target_key, shape, dtype, minval=lower, maxval=upper)
    targets = jax.jit(jax.vmap(lambda q: frames(q)[7]))(joints)

    runs: list[Reach] = []
    total = 2 * ROUNDS * STEPS // STEPS_AT_ONCE
    with tqdm(total=total, unit_scale=STEPS_AT_ONCE, unit="step", leave=False) as bar:
        for name, gain in (("without", 0.0), ("with", REACH_GAIN)):
            bar.set_description(f"{options.targets} arms, {name} null-space motion")
            runs.append(reach(targets, gain, start_key, bar.update))
        bar.set_description("the line")
        truncated, full = (
            jax.device_get(follow_line(jnp.asarray(rtol, dtype))) for rtol in (LINE_RTOL, 0)
        )
        bar.set_description("drawing")
        without, with_null = runs
        path = options.output / "redundant_arm.png"
        draw(path, with_null, without, truncated, full)

    for name, run in (("without", without), ("with", with_null)):
        rates = ", ".join(f"{100 * rate:.1f}%" for rate in run.reached.mean(axis=1))
        starts = ", ".join(
            f"{done.size / max(1, np.sum(~done)):.0f}" for done in run.reached[:-1]
        )
        print(
            f"{name} null-space motion, reached after each round: {rates} "
            f"(random starts per target missed before: {starts})"
        )
    for name, line in (("truncated", truncated), ("not truncated", full)):
        print(
            f"singular pose, {name}: smallest singular value {line.smallest.min():.4f}, "
            f"fastest joint {np.abs(line.speeds).max():.2f} rad/s, "
            f"{_fastest(line):.1f} times as fast as allowed, "
            f"hand behind by {1e3 * line.behind.max():.1f} mm, "
            f"finally by {1e3 * line.behind[-1]:.2f} mm"
        )
    first, last = with_null.reached[0].mean(), with_null.reached[-1].mean()
    checks = {
        f"first round reaches {REQUIRED_FIRST:.0%}": first >= REQUIRED_FIRST,
        f"{ROUNDS} rounds reach {REQUIRED_IN_THE_END:.0%}": last >= REQUIRED_IN_THE_END,
        "null-space motion reaches more": first > without.reached[0].mean(),
        "joints within their speed limits, truncated": _fastest(truncated) < 1,
        "joints beyond them, not truncated": _fastest(full) > 3,
        "hand finally on the line": truncated.behind[-1] < POSITION_LIMIT,
    }
    return _command.verdict(checks, began, path)


def _fastest(line: Line) -> float:
    """The largest joint speed, relative to what the arm allows."""
    return float(np.max(np.abs(line.speeds) / MAX_SPEED))


def _parser() -> argparse.ArgumentParser:
    parser = _command.parser(__package__, __doc__, QUICK)
    parser.add_argument("--targets", type=int, default=4096, help="how many poses")
    return parser


if __name__ == "__main__":
    sys.exit(main())
