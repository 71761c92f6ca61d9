"""Moves the hand of a planar arm of four joints to a target, by least squares.

    python -m examples.inverse_kinematics

Each step solves `J dq = error` for the shortest joint motion `dq`, and adds a null-space
motion that straightens the joints and leaves the hand where it is.
"""

import jax
import jax.numpy as jnp

import jaxpinv
from examples import _command


def hand(q):
    """Position of the hand, `(2,)`, for joint angles `q`, `(4,)`; each link is 1 long."""
    angles = jnp.cumsum(q)
    return jnp.stack([jnp.sum(jnp.cos(angles)), jnp.sum(jnp.sin(angles))])


@jax.jit
def step(q, target):
    """Joint angles after one step."""
    jacobian = jax.jacobian(hand)(q)
    move = jaxpinv.lstsq(jacobian, target - hand(q)).solution
    return q + move + jaxpinv.null_projection(jacobian, -0.2 * q)


def main() -> int:
    """Prints the distance from the target; the exit status is 0 if it was reached."""
    q, target = jnp.array([0.1, 0.2, 0.3, 0.4]), jnp.array([1.0, 2.5])
    for count in range(20):
        q = step(q, target)
        print(f"step {count:2}: {jnp.linalg.norm(target - hand(q)):.6f} from the target")
    return 0 if jnp.linalg.norm(target - hand(q)) < 1e-5 else 1


if __name__ == "__main__":
    _command.without_options(__package__, __doc__)
    raise SystemExit(main())
