"""The model of the beamforming example: channels, arrays of antennas, and sum rates.

Functions are those of one station. The last two are those of all.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpinv

#: Users and antennas of a station; lengths in wavelengths.
USERS, ANTENNAS, APERTURE, LEAST_GAP = 4, 8, 10.0, 0.5

#: Users stand within 60 degrees of broadside. Three scattered waves, 10 degrees around the
#: line of sight, together have a tenth of its power.
SECTOR, SCATTERED, SPREAD, RICIAN = np.pi / 3, 3, np.pi / 18, 10.0

#: Power of all signals over that of noise; one station in so many has coinciding users.
SNR, COINCIDE = 100.0, 32

#: Of 0, 0.05, 0.1, 0.2 and 0.3 the one with the highest sum rate at half a wavelength.
CUTOFF = 0.1


#: Makes a precoder and the rank of a channel, `(users, antennas)`, for a cutoff.
Precoder = Callable[[Array, Array], tuple[Array, Array]]


class Paths(NamedTuple):
    """Plane waves between stations and users.

    Attributes:
        sines: of their angles to broadside, `(..., users, waves)`.
        gains: complex, of the same shape.
    """

    sines: Array
    gains: Array


class Service(NamedTuple):
    """What the users of a station receive.

    Attributes:
        rate: the sum rate, `()`.
        rank: of the channel, above the cutoff, `()`.
        leak: largest element of `|H W - I|`, `()`.
    """

    rate: Array
    rank: Array
    leak: Array


def paths(rng: np.random.Generator, stations: int) -> Paths:
    """Random users of all stations, in single precision."""
    shape = (stations, USERS, SCATTERED)
    sight = rng.uniform(-SECTOR, SECTOR, (stations, USERS, 1))
    around = sight + SPREAD * rng.standard_normal(shape)
    direct = RICIAN**0.5 * np.exp(1j * rng.uniform(-np.pi, np.pi, sight.shape))
    scattered = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    scattered = scattered / (2 * SCATTERED) ** 0.5
    sines = np.sin(np.concatenate([sight, around], axis=-1))
    gains = np.concatenate([direct, scattered], axis=-1) / (RICIAN + 1) ** 0.5
    for x in (sines, gains):
        x[::COINCIDE, 1] = x[::COINCIDE, 0]
    return Paths(jnp.asarray(sines, jnp.float32), jnp.asarray(gains, jnp.complex64))


def channel(x: Array, waves: Paths) -> Array:
    """Channel of a station, `(users, antennas)`, with antennas at `x`, in wavelengths."""
    phase = 2 * np.pi * waves.sines[..., None] * x[None, None, :]
    return jnp.sum(
        waves.gains[..., None] * jax.lax.complex(jnp.cos(phase), jnp.sin(phase)), 1
    )


def positions(theta: Array) -> Array:
    """Antennas, `(antennas,)`, in order and apart, for any `theta`, `(antennas + 1,)`.

    The free length of the aperture is shared out among the gaps and both ends.
    """
    free = APERTURE - LEAST_GAP * (ANTENNAS - 1)
    ends = jnp.cumsum(free * jax.nn.softmax(theta)[:-1])
    return ends + LEAST_GAP * jnp.arange(ANTENNAS, dtype=theta.dtype)


def zero_forcing(h: Array, rtol: Array) -> tuple[Array, Array]:
    """Precoder without interference between users, `(antennas, users)`, and the rank."""
    return jaxpinv.pinv(h, rtol, return_rank=True)


def matched_filter(h: Array, rtol: Array) -> tuple[Array, Array]:
    """Precoder that serves each user as if it were alone; nothing is truncated."""
    return jnp.conj(h.T), jnp.asarray(USERS)


def serve(x: Array, waves: Paths, rtol: Array, precoder: Precoder) -> Service:
    """Service of a station with antennas at `x`, `(antennas,)`."""
    h = channel(x, waves)
    w, rank = precoder(h, rtol)
    g = h @ w
    received = jnp.square(jnp.abs(g)) * SNR / jnp.sum(jnp.square(jnp.abs(w)))
    signal = jnp.diagonal(received)
    rates = jnp.log2(1 + signal / (1 + jnp.sum(received, axis=1) - signal))
    leak = jnp.max(jnp.abs(g - jnp.eye(USERS, dtype=g.dtype)))
    return Service(jnp.sum(rates), rank, leak)


def loss(theta: Array, waves: Paths, precoder: Precoder) -> tuple[Array, Service]:
    """Minus the sum rate of a station, and its service."""
    service = serve(positions(theta), waves, jnp.asarray(CUTOFF, theta.dtype), precoder)
    return -service.rate, service


@partial(jax.jit, static_argnames="precoder")
@partial(jax.vmap, in_axes=(0, 0, None))
def value_and_gradient(
    theta: Array, waves: Paths, precoder: Precoder
) -> tuple[tuple[Array, Service], Array]:
    """Minus the sum rates of all stations, their services, and the gradient."""
    return jax.value_and_grad(loss, has_aux=True)(theta, waves, precoder)


@partial(jax.jit, static_argnames="precoder")
@partial(jax.vmap, in_axes=(0, 0, None, None))
def served(x: Array, waves: Paths, rtol: Array, precoder: Precoder) -> Service:
    """Services of all stations, with antennas at `x`, `(stations, antennas)`."""
    return serve(x, waves, rtol, precoder)
