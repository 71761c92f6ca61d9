"""Kinematics of the Franka Emika Panda, an arm of seven joints, from its published table.

Source:
    Franka Control Interface documentation, "Control parameters specifications": the table
    of Denavit-Hartenberg parameters and the joint space limits of the Panda. The table
    follows the convention of J. J. Craig, "Introduction to Robotics: Mechanics and
    Control", 3rd ed. (2005), section 3.4.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

#: A row for every joint and one for the flange: a and d in meters, alpha in radians.
DENAVIT_HARTENBERG = np.array(
    [
        [0, 0.333, 0],
        [0, 0, -np.pi / 2],
        [0, 0.316, np.pi / 2],
        [0.0825, 0, np.pi / 2],
        [-0.0825, 0.384, -np.pi / 2],
        [0, 0, np.pi / 2],
        [0.088, 0, np.pi / 2],
        [0, 0.107, 0],
    ]
)

#: Joint angles in radians, and their first and second derivatives in seconds.
LOWER = np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973])
UPPER = np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973])
MAX_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
MAX_ACCELERATION = np.array([15, 7.5, 10, 12.5, 15, 20, 20])
MIDDLE, HALF_RANGE = (UPPER + LOWER) / 2, (UPPER - LOWER) / 2

#: Where the examples of Franka's `libfranka` begin.
READY = np.array([0, -np.pi / 4, 0, -3 * np.pi / 4, 0, np.pi / 2, np.pi / 4])


def frames(q: Array) -> Array:
    """Poses of the seven joints and the flange, the hand, `(8, 4, 4)`, at `q`, `(7,)`."""
    angles = jnp.append(q, jnp.zeros_like(q, shape=1))
    links = jax.vmap(_link)(jnp.asarray(DENAVIT_HARTENBERG, q.dtype), angles)
    chain = [links[0]]
    for link in links[1:]:
        chain.append(_product(chain[-1], link))
    return jnp.stack(chain)


def jacobian(chain: Array) -> Array:
    """Geometric Jacobian of the hand, `(6, 7)`: linear velocities above angular ones."""
    axes, origins, hand = chain[:7, :3, 2], chain[:7, :3, 3], chain[7, :3, 3]
    return jnp.concatenate([jnp.cross(axes, hand[None] - origins), axes], axis=1).T


def twist_between(pose: Array, target: Array) -> Array:
    """The twist from one pose to another, `(6,)`: translation above rotation vector."""
    turn = _product(target[:3, :3], pose[:3, :3].T)
    skew = (turn - turn.T) / 2
    axis = jnp.stack([skew[2, 1], skew[0, 2], skew[1, 0]])
    square = jnp.sum(axis**2)
    # Masked before the root, whose derivative at zero is infinite.
    turns = square > 0
    sine = jnp.sqrt(jnp.where(turns, square, 1))
    angle = jnp.arctan2(jnp.where(turns, sine, 0), (jnp.trace(turn) - 1) / 2)
    rotation = jnp.where(turns, angle / sine, 1) * axis
    return jnp.concatenate([target[:3, 3] - pose[:3, 3], rotation])


def limit_margin(q: Array) -> Array:
    """Distance from the nearest limit, a scalar: 1 mid-range, 0 at it, negative beyond."""
    return 1 - jnp.max(jnp.abs(_relative(q)))


def limit_cost(q: Array) -> Array:
    """What null-space motion reduces, a scalar: flat mid-range and steep at the limits.

    Liegeois takes squares. The sixth power leaves fewer arms beyond their limits, and from
    the eighth on fewer arms settle.
    """
    return jnp.sum(_relative(q) ** 6) / 6


def _relative(q: Array) -> Array:
    """Joint angles, `(7,)`, from -1 at the lower limit to 1 at the upper one."""
    return (q - jnp.asarray(MIDDLE, q.dtype)) / jnp.asarray(HALF_RANGE, q.dtype)


def _link(row: Array, angle: Array) -> Array:
    """Pose of a frame in the one before, `(4, 4)`, from a row of the table, `(3,)`."""
    a, d, alpha = row
    c, s, ca, sa = jnp.cos(angle), jnp.sin(angle), jnp.cos(alpha), jnp.sin(alpha)
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    return jnp.array(
        [
            [c, -s, zero, a],
            [s * ca, c * ca, -sa, -d * sa],
            [s * sa, c * sa, ca, d * ca],
            [zero, zero, zero, one],
        ]
    )


def _product(a: Array, b: Array) -> Array:
    """Matrix product, `(k, k)`, as a sum: batches of `@` take a CPU ten times as long."""
    return jnp.sum(a[:, :, None] * b[None, :, :], axis=1)
