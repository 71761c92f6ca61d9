"""Checks gradients of the beamforming example against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from examples.beamforming.model import (
    COINCIDE,
    USERS,
    Paths,
    Service,
    loss,
    value_and_gradient,
    zero_forcing,
)

#: Step of the central differences, in logarithms of gaps.
DIFFERENCE = 1e-5


def by_jnp(h: Array, rtol: Array) -> tuple[Array, Array]:
    """The precoder of `zero_forcing` from `jnp.linalg.pinv`."""
    return jnp.linalg.pinv(h, rtol=rtol), jnp.asarray(len(h))


@jax.jit
@jax.vmap
def value(theta: Array, waves: Paths) -> tuple[Array, Service]:
    """Minus the sum rates of all stations, and their services."""
    return loss(theta, waves, zero_forcing)


def gradient_errors(theta: Array, waves: Paths) -> dict[str, float]:
    """Errors of gradients in single precision, against differences in double.

    Each is the root mean square error over stations of slopes in a random direction,
    relative to the root mean square of the differences. Stations whose rank changes
    between the two ends of the difference are left out.
    """
    direction = np.random.default_rng(0).standard_normal(theta.shape)
    (_, service), ours = value_and_gradient(theta, waves, zero_forcing)
    theirs = value_and_gradient(theta, waves, by_jnp)[1]
    with jax.enable_x64(True):
        exact = Paths(waves.sines.astype(float), waves.gains.astype(complex))
        start = np.asarray(theta, float)
        ends = [jnp.asarray(start + h * direction) for h in (DIFFERENCE, -DIFFERENCE)]
        (above, at_end), (below, at_start) = (value(x, exact) for x in ends)
        differences = np.asarray(above - below) / (2 * DIFFERENCE)
    rank = np.asarray(service.rank)
    steady = (rank == np.asarray(at_start.rank)) & (rank == np.asarray(at_end.rank))
    apart = np.arange(len(rank)) % COINCIDE > 0

    def error(gradient: Array, chosen: NDArray) -> float:
        slopes = np.sum(np.asarray(gradient) * direction, axis=1)
        errors = (slopes - differences)[chosen & steady]
        return float(np.linalg.norm(errors) / np.linalg.norm(differences[chosen & steady]))

    truncated = apart & (rank < USERS)
    return {
        "of all stations": error(ours, steady),
        "where users coincide": error(ours, ~apart),
        "where more is truncated": error(ours, truncated),
        "where more is truncated, jnp.linalg.pinv": error(theirs, truncated),
    }
