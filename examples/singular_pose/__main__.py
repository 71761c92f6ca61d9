r"""Moves an arm with seven joints through a singular pose, by a damped inverse.

Near a singular pose the Jacobian `J` of the hand has a small singular value, and the joint
speeds `pinv(J) twist` grow without bound. A cutoff truncates that value: the speeds jump
where it crosses the cutoff, back and forth. Damping bounds them without a jump,

    dq = J^T (J J^T + damp^2 I)^-1 twist,

and the hand falls behind by millimeters instead. So that it is exact elsewhere, the damping
depends on the manipulability `w`, the product of the singular values, and is zero above a
threshold `w_0` (Nakamura and Hanafusa; Chiaverini has the smallest singular value and its
threshold in place of both):

    damp = damp_0 (1 - w / w_0)    where w < w_0.

The redundant joint can do better. A motion in the null space, which the hand does not feel,
climbs the gradient of `jaxpinv.log_pdet`, the logarithm of `w`, and keeps the arm away from
the singular pose.

The hand of a Franka Emika Panda follows a straight line with four rules, in one program:
`vmap` over the rules, and `scan` over the control cycles.

    python -m examples.singular_pose

prints joint speeds, joint accelerations and tracking errors, draws them, and exits with
status 0 if all checks pass. It computes in single precision.

Source:
    Y. Nakamura and H. Hanafusa, "Inverse kinematic solutions with singularity robustness
    for robot manipulator control", J. Dyn. Syst. Meas. Control 108 (1986) 163-171;
    S. Chiaverini, "Singularity-robust task-priority redundancy resolution for real-time
    kinematic control of robot manipulators", IEEE Trans. Robot. Autom. 13 (1997) 398-410;
    T. Yoshikawa, "Manipulability of robotic mechanisms", Int. J. Robotics Research 4 (1985)
    3-9.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from tqdm import tqdm

from examples import _command
from examples.singular_pose.figure import draw
from examples.singular_pose.motion import RATE, RULES, follow_all, summary

#: The damped arm stays below this share of what its joints may do. Measured: 0.22.
ALLOWED = 0.5

#: How far the hand may be behind, in meters, on the way and at the end. Measured, damped:
#: 6.5 mm and 0.02 mm.
BEHIND, BEHIND_AT_THE_END = 8e-3, 1e-4

#: What `--quick` sets.
QUICK = {"rate": 250}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if everything is as claimed, else 1.
    """
    options = _command.parsed(_parser(), QUICK, arguments)
    began = time.perf_counter()

    path = options.output / "singular_pose.png"
    with tqdm(total=2, leave=False) as bar:
        bar.set_description(f"the line, {options.rate} cycles per second")
        lines = follow_all(RULES, options.rate)
        bar.update()
        bar.set_description("drawing")
        draw(path, lines, options.rate)
        bar.update()

    found = {name: summary(line, options.rate) for name, line in lines.items()}
    for name, s in found.items():
        print(
            f"{name + ':':<26} joint speed {100 * s.speed:5.0f}% and acceleration "
            f"{100 * s.acceleration:7.0f}% of the limit, hand behind by at most "
            f"{1e3 * s.behind:5.2f} mm and finally by {1e3 * s.behind_at_the_end:.2f} mm, "
            f"manipulability at least {s.manipulability:.4f}"
        )
    plain, truncated, damped, with_motion = found.values()
    checks = {
        "plain: joints beyond three times their speed limits": plain.speed > 3,
        "truncated: joints beyond ten times their accelerations": (
            truncated.acceleration > 10
        ),
        f"damped: speeds and accelerations below {ALLOWED:.0%} of the limits": (
            max(damped.speed, damped.acceleration) < ALLOWED
        ),
        f"damped: hand behind by at most {1e3 * BEHIND:.0f} mm": damped.behind < BEHIND,
        "damped: hand finally on the line": damped.behind_at_the_end < BEHIND_AT_THE_END,
        "null-space motion: twice the manipulability": (
            with_motion.manipulability > 2 * damped.manipulability
        ),
        "null-space motion: hand less than half as far behind": (
            with_motion.behind < damped.behind / 2
        ),
        "joints within their ranges": min(s.margin for s in found.values()) > 0,
    }
    return _command.verdict(checks, began, path)


def _parser() -> argparse.ArgumentParser:
    parser = _command.parser(__package__, __doc__, QUICK)
    parser.add_argument("--rate", type=int, default=RATE, help="control cycles per second")
    return parser


if __name__ == "__main__":
    sys.exit(main())
