"""Joint speeds on a line through a singular pose: plain, truncated, damped.

All of them are one formula with three numbers, a `Rule`, so that one `vmap` follows the
line with every rule at once.
"""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

import jaxpinv
from examples.redundant_arm.kinematics import (
    MAX_ACCELERATION,
    MAX_SPEED,
    frames,
    jacobian,
    limit_margin,
    twist_between,
)
from examples.redundant_arm.motion import DIRECTION, SINGULAR

#: The line in meters, the time for it in seconds, and the rate of Franka's controller in
#: hertz. The hand begins and ends at rest, and is half-way in the singular pose.
LENGTH, DURATION, RATE = 0.5, 5.0, 1000

#: The joints at the beginning, chosen by a search in the null space so that they pass the
#: singular pose if nothing is truncated or damped.
START = np.array(
    [0.92286963, 0.53256536, 1.08063361, -2.03370496, -0.4390161, 2.06057533, 0.66894202]
)

#: Per second. The speed that corrects the hand, in meters per second, is limited.
FEEDBACK, LARGEST_CORRECTION = 10.0, 0.05

#: An arm is damped where its manipulability is below this. It is 0.07 at the start.
THRESHOLD = 0.05


class Rule(NamedTuple):
    """How joint speeds are computed.

    Attributes:
        rtol: the cutoff.
        damp: the damping in the singular pose.
        gain: the largest speed of the motion that climbs the manipulability, in radians
            per second.
    """

    rtol: float | Array = 0.0
    damp: float | Array = 0.0
    gain: float | Array = 0.0


RULES = {
    "plain": Rule(),
    "truncated": Rule(rtol=0.02),
    "damped": Rule(damp=0.1),
    "damped, null-space motion": Rule(damp=0.1, gain=0.3),
}


class Line(NamedTuple):
    """What happened on the line, at every instant.

    Attributes:
        q: joint angles, `(t, 7)`.
        speeds: those of the joints, `(t, 7)`, in radians per second.
        manipulability: product of the singular values of the Jacobian, `(t,)`.
        damp: the damping, `(t,)`.
        behind: distance of the hand from its place on the line, `(t,)`, in meters.
        margin: distance from the nearest joint limit, `(t,)`, 1 mid-range and 0 at it.
    """

    q: Array
    speeds: Array
    manipulability: Array
    damp: Array
    behind: Array
    margin: Array


def manipulability(q: Array) -> tuple[Array, Array]:
    """Yoshikawa's manipulability at joint angles `(7,)`, and the gradient of its logarithm.

    Returns:
        The manipulability, a scalar, and the gradient, `(7,)`.
    """

    def log_volume(q: Array) -> tuple[Array, Array]:
        return jaxpinv.log_pdet(jacobian(frames(q)), rtol=0, return_rank=True)

    (log_w, rank), uphill = jax.value_and_grad(log_volume, has_aux=True)(q)
    # A pseudo-determinant leaves out singular values that are zero.
    return jnp.where(rank < 6, 0, jnp.exp(log_w)), uphill


def damping(w: Array, largest: float | Array) -> Array:
    """The damping of Nakamura and Hanafusa: `largest` in a singular pose, 0 far from it.

    They write `J^T (J J^T + k I)^-1` with `k = k_0 (1 - w / w_0)^2` where the
    manipulability `w` is below `w_0`. That `k` is the square of the damping.
    """
    return largest * jnp.maximum(0, 1 - w / THRESHOLD)


def velocity(q: Array, twist: Array, rule: Rule) -> tuple[Array, Array, Array]:
    """Differential inverse kinematics.

    Args:
        q: joint angles, `(7,)`.
        twist: what the hand is to do, `(6,)`.
        rule: how.

    Returns:
        Joint speeds, `(7,)`, the manipulability and the damping.
    """
    j = jacobian(frames(q))
    w, uphill = manipulability(q)
    damp = damping(w, rule.damp)
    # The gradient is as long as the smallest singular value is small.
    secondary = rule.gain * uphill / jnp.maximum(1, jnp.linalg.norm(uphill))
    dq = jaxpinv.lstsq(j, twist, rule.rtol, damp=damp).solution
    dq = dq + jaxpinv.null_projection(j, secondary, rule.rtol, damp=damp)
    return dq, w, damp


def follow(rule: Rule, rate: int) -> Line:
    """Follows the line with one rule, in steps of `1 / rate` seconds."""
    dtype = jnp.zeros(()).dtype
    direction = jnp.asarray(DIRECTION, dtype)
    middle = frames(jnp.asarray(SINGULAR, dtype))[7]

    def step(q: Array, t: Array) -> tuple[Array, Line]:
        phase = jnp.pi * t / DURATION
        wanted = middle.at[:3, 3].add(-LENGTH / 2 * jnp.cos(phase) * direction)
        error = twist_between(frames(q)[7], wanted)
        correction = FEEDBACK * error
        length = jnp.linalg.norm(correction)
        correction = correction / jnp.maximum(1, length / LARGEST_CORRECTION)
        speed = LENGTH / 2 * jnp.pi / DURATION * jnp.sin(phase)
        twist = correction.at[:3].add(speed * direction)
        dq, w, damp = velocity(q, twist, rule)
        behind = jnp.linalg.norm(error[:3])
        return q + dq / rate, Line(q, dq, w, damp, behind, limit_margin(q))

    times = jnp.arange(round(DURATION * rate)).astype(dtype) / rate
    return jax.lax.scan(step, jnp.asarray(START, dtype), times)[1]


@partial(jax.jit, static_argnames="rate")
@partial(jax.vmap, in_axes=(0, None))
def _follow_each(rule: Rule, rate: int) -> Line:
    """Follows the line with every rule, whose numbers are `(k,)`."""
    return follow(rule, rate)


def follow_all(rules: Mapping[str, Rule], rate: int) -> dict[str, Line]:
    """Follows the line with all rules in one program.

    Args:
        rules: the rules by their names.
        rate: control cycles per second.

    Returns:
        What happened, by the same names.
    """
    dtype = jnp.zeros(()).dtype
    stacked = Rule(*jnp.asarray(list(rules.values()), dtype).T)
    lines = jax.device_get(_follow_each(stacked, rate))
    return {name: Line(*(x[k] for x in lines)) for k, name in enumerate(rules)}


class Summary(NamedTuple):
    """The worst that happened on a line.

    Attributes:
        speed: the fastest joint, relative to what the arm allows.
        acceleration: the same for accelerations.
        behind: the largest distance of the hand from its place, in meters.
        behind_at_the_end: that distance at the end.
        manipulability: the least.
        margin: the least distance from a joint limit, 1 mid-range and 0 at it.
    """

    speed: float
    acceleration: float
    behind: float
    behind_at_the_end: float
    manipulability: float
    margin: float


def summary(line: Line, rate: int) -> Summary:
    """The worst that happened on a line, at so many control cycles per second."""
    worst = (
        speeds(line).max(),
        accelerations(line, rate).max(),
        line.behind.max(),
        line.behind[-1],
        line.manipulability.min(),
        line.margin.min(),
    )
    return Summary(*map(float, worst))


def speeds(line: Line) -> NDArray:
    """Speed of the fastest joint, `(t,)`, relative to what the arm allows."""
    return np.max(np.abs(line.speeds) / MAX_SPEED, axis=1)


def accelerations(line: Line, rate: int) -> NDArray:
    """Largest acceleration of a joint, `(t - 1,)`, relative to what the arm allows."""
    changes = rate * np.abs(np.diff(line.speeds, axis=0))
    return np.max(changes / MAX_ACCELERATION, axis=1)
