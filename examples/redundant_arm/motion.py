"""The two experiments of the redundant arm: reaching, and a line through a singular pose.

Both take their joint velocities from `velocity`, differential inverse kinematics.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

import jaxpinv
from examples.redundant_arm.kinematics import (
    HALF_RANGE,
    MIDDLE,
    READY,
    frames,
    jacobian,
    limit_cost,
    limit_margin,
    twist_between,
)

#: A target is reached within these, in meters and radians, and within the joint limits.
POSITION_LIMIT, ANGLE_LIMIT = 1e-3, np.deg2rad(0.1)

#: Steps of a trial, and steps between two updates of the progress bar. No joint moves
#: further than the largest step, in radians, because the Jacobian is local.
STEPS, STEPS_AT_ONCE, LARGEST_STEP = 40, 5, 0.3

#: The first round starts from the ready pose. In the others the targets that were missed
#: share as many random starts as there are targets.
ROUNDS = 3

#: Null-space motion, per step. With a fifth of it, 4% fewer arms arrive.
REACH_GAIN = 0.5

#: Targets at the edge of the workspace need small singular values, and only the final pose
#: counts: with ten times this cutoff, 14% fewer arms arrive.
REACH_RTOL = 0.003

#: The shoulder is singular where joint 2 is straight and joint 3 at a right angle: no joint
#: moves the forearm along itself.
SINGULAR = np.array([0, 0, np.pi / 2, -2, 0, 1.8, 0])

#: The line through that pose, from before it to after it, in meters and meters per second.
#: The period in seconds is that of Franka's controller.
DIRECTION = np.array([0.8, 0, 0.6])
BEFORE, AFTER, SPEED, PERIOD = 0.2, 0.3, 0.1, 1e-3

#: The joints at the beginning of the line, chosen so that they pass the singular pose if
#: nothing is truncated. Found by following the line backwards from that pose, then by a
#: search in the null space.
LINE_START = np.array(
    [0.774442, 0.442625, 1.160049, -2.063377, -0.371172, 2.021666, 0.565722]
)

#: Per second. The speed that corrects the hand, in meters per second, is limited.
LINE_GAIN, FEEDBACK, LARGEST_CORRECTION = 0.3, 10.0, 0.05

#: The line and its correction are 0.15 m/s. Over the smallest singular value that is kept
#: whole, 0.075, that is 2 rad/s: the limit of the joints is 2.175 rad/s.
LINE_RTOL = 0.04


class Reach(NamedTuple):
    """How arms reached for `n` targets.

    Attributes:
        first: joint angles in the first round, `(STEPS + 1, n, 7)`.
        reached_in_time: the targets reached in it after every step, `(STEPS + 1, n)`.
        reached: the targets reached after every round, `(ROUNDS, n)`.
    """

    first: NDArray
    reached_in_time: NDArray
    reached: NDArray


class Line(NamedTuple):
    """What happened on the line, at every instant.

    Attributes:
        q: joint angles, `(t, 7)`.
        speeds: those of the joints, `(t, 7)`, in radians per second.
        smallest: the smallest singular value of the Jacobian, `(t,)`.
        behind: distance of the hand from its place on the line, `(t,)`, in meters.
    """

    q: Array
    speeds: Array
    smallest: Array
    behind: Array


def velocity(
    q: Array, chain: Array, twist: Array, rtol: Array, gain: Array
) -> tuple[Array, Array]:
    """Differential inverse kinematics.

    A cutoff makes the velocity jump where a singular value crosses it, and the arm can be
    held there by jumps to and fro. So the velocities of two cutoffs are blended while the
    smallest singular value is between them: it fades out from `rtol` to half of it.

    Args:
        q: joint angles, `(7,)`.
        chain: their `frames`.
        twist: that of the hand, `(6,)`.
        rtol: above which singular values count in full.
        gain: factor of the null-space motion.

    Returns:
        The joint velocities, `(7,)`, and the singular values of the Jacobian, `(6,)`.
    """
    j = jacobian(chain)
    away = -gain * jax.grad(limit_cost)(q)

    def motion(rtol: Array) -> Array:
        moving = jaxpinv.lstsq(j, twist, rtol).solution
        return moving + jaxpinv.null_projection(j, away, rtol)

    values = jaxpinv.lstsq(j, twist).singular_values
    cutoff = rtol * values[0]
    # With a cutoff of zero nothing fades, and there must be no division by it.
    tiny = jnp.finfo(cutoff.dtype).tiny
    share = jnp.clip((2 * values[-1] - cutoff) / jnp.maximum(cutoff, tiny), 0, 1)
    return share * motion(rtol / 2) + (1 - share) * motion(rtol), values


def arrived(q: Array, target: Array) -> Array:
    """Whether a target, `(4, 4)`, is reached within the joint limits, a scalar."""
    twist = twist_between(frames(q)[7], target)
    near = jnp.linalg.norm(twist[:3]) < POSITION_LIMIT
    aligned = jnp.linalg.norm(twist[3:]) < ANGLE_LIMIT
    return near & aligned & (limit_margin(q) >= 0)


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None), out_axes=1)
def approach(q: Array, target: Array, gain: Array) -> tuple[Array, Array]:
    """Some steps of all arms: joint angles and arrivals after each, the steps in front."""

    def step(q: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        chain = frames(q)
        twist = twist_between(chain[7], target)
        dq = velocity(q, chain, twist, jnp.asarray(REACH_RTOL, q.dtype), gain)[0]
        q = q + dq / jnp.maximum(1, jnp.max(jnp.abs(dq)) / LARGEST_STEP)
        return q, (q, arrived(q, target))

    return jax.lax.scan(step, q, length=STEPS_AT_ONCE)[1]


def reach(targets: Array, gain: float, key: Array, report: Callable[[], object]) -> Reach:
    """Reaches for all targets at once, and again for those that were missed.

    Every round has the same shape, so that nothing compiles again.

    Args:
        targets: poses of the hand, `(n, 4, 4)`.
        gain: factor of the null-space motion.
        key: of the random starts.
        report: called after every few steps.

    Returns:
        What was reached.
    """
    n, dtype = len(targets), targets.dtype
    middle, half_range = (jnp.asarray(x, dtype)[None] for x in (MIDDLE, HALF_RANGE))

    def attempt(q: Array, targets: Array) -> tuple[NDArray, NDArray]:
        angles, arrivals = [np.asarray(q)[None]], [np.zeros((1, n), bool)]
        for _ in range(STEPS // STEPS_AT_ONCE):
            some, there = approach(q, targets, jnp.asarray(gain, dtype))
            angles.append(np.asarray(some))
            arrivals.append(np.asarray(there))
            q = some[-1]
            report()
        return np.concatenate(angles), np.concatenate(arrivals)

    first, in_time = attempt(jnp.tile(jnp.asarray(READY, dtype), (n, 1)), targets)
    reached = [in_time[-1]]
    for round_key in jax.random.split(key, ROUNDS - 1):
        done = reached[-1].copy()
        missed = np.resize(np.arange(n) if done.all() else np.flatnonzero(~done), n)
        # From the inner half of the range more arms arrive than from all of it.
        spread = jax.random.uniform(round_key, (n, 7), dtype, minval=-0.5, maxval=0.5)
        _, there = attempt(middle + spread * half_range, targets[missed])
        done[missed[there[-1]]] = True
        reached.append(done)
    return Reach(first, in_time, np.stack(reached))


@jax.jit
def follow_line(rtol: Array) -> Line:
    """Follows the line through the singular pose with a cutoff."""
    dtype = rtol.dtype
    pose = frames(jnp.asarray(SINGULAR, dtype))[7]
    direction = jnp.asarray(DIRECTION, dtype)

    def step(q: Array, t: Array) -> tuple[Array, Line]:
        chain = frames(q)
        wanted = pose.at[:3, 3].add((SPEED * t - BEFORE) * direction)
        error = twist_between(chain[7], wanted)
        correction = FEEDBACK * error
        length = jnp.linalg.norm(correction)
        correction = correction / jnp.maximum(1, length / LARGEST_CORRECTION)
        twist = correction.at[:3].add(SPEED * direction)
        dq, singular_values = velocity(q, chain, twist, rtol, jnp.asarray(LINE_GAIN, dtype))
        behind = jnp.linalg.norm(error[:3])
        return q + PERIOD * dq, Line(q, dq, singular_values[-1], behind)

    times = jnp.arange(round((BEFORE + AFTER) / SPEED / PERIOD)).astype(dtype) * PERIOD
    return jax.lax.scan(step, jnp.asarray(LINE_START, dtype), times)[1]
