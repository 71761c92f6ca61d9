r"""Moves the antennas of thousands of base stations by the gradient of a pseudo-inverse.

A base station with `N` antennas in a line serves `K` users at once. With the channel `H`, K
by N, and the precoder `W = pinv(H)`, each user hears only its own signal, since `H W = I`.
This is zero-forcing. It costs power if two users are close in angle: then `H` is nearly
singular and `W` is large. The sum rate of all users is

    sum over k of log2(1 + power |G_kk|^2 / (1 + power sum over j != k of |G_kj|^2))

bits per second and hertz, with `G = H W` and `power = SNR / ||W||_F^2`. The antennas of a
station can move within an aperture of ten wavelengths and stay at least half a wavelength
apart. The best positions depend on the users. The gradient of the sum rate through
`jaxpinv.pinv` finds them.

The cutoff drops directions that cost too much power: two users that no beam separates
hear each other, and the others keep their power. At one of 32 stations two users even have
the same position, so two rows of `H` are equal. The gradient is exact even if the cutoff
truncates nonzero singular values. The example checks it against finite differences
in double precision.

Channels are sums of a few plane waves: the line of sight, and scattered waves within a few
degrees of it.

    python -m examples.beamforming
    python -m examples.beamforming --stations 256 --steps 40

prints sum rates for three placements of the antennas, draws them, and exits with status 0
if all checks pass. It computes in single precision.

Source:
    A. Wiesel, Y. C. Eldar, S. Shamai, "Zero-forcing precoding and generalized inverses",
    IEEE Trans. Signal Process. 56 (2008) 4409-4418, for the precoder; L. Zhu, W. Ma,
    B. Ning, R. Zhang, "Movable-antenna enhanced multiuser communication via antenna
    position optimization", arXiv 2302.06978 (2024), for the channel.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray
from tqdm import tqdm

from examples import _command
from examples.beamforming.check import gradient_errors
from examples.beamforming.figure import draw
from examples.beamforming.model import (
    ANTENNAS,
    APERTURE,
    COINCIDE,
    CUTOFF,
    USERS,
    Paths,
    matched_filter,
    paths,
    positions,
    served,
    value_and_gradient,
    zero_forcing,
)

#: Step size of the optimizer, in logarithms of gaps.
LEARNING_RATE = 0.1

#: Rounding error allowed in `H W = I`. The condition is at most the inverse of the cutoff.
LEAK_LIMIT = 10 * float(np.finfo(np.float32).eps) / CUTOFF

#: Error allowed for the gradient in single precision, against differences in double.
#: Measured: 4e-5, and 0.16 for `jnp.linalg.pinv`.
GRADIENT_LIMIT = 2e-4

#: In bits per second and hertz. Measured: 3.7 with 4096 stations and 60 steps.
REQUIRED_GAIN = 2.0

#: What `--quick` sets.
QUICK = {"stations": 256, "steps": 20}


def optimize(theta: Array, waves: Paths, steps: int) -> tuple[Array, NDArray]:
    """Moves the antennas of all stations along the gradient.

    Args:
        theta: where they start, `(stations, antennas + 1)`, as `positions` takes it.
        waves: the channels.
        steps: how many.

    Returns:
        Where they end, in the same form, and the mean sum rate before every step.
    """
    optimizer = optax.adam(LEARNING_RATE)

    @jax.jit
    def move(
        theta: Array, state: optax.OptState, gradient: Array
    ) -> tuple[Array, optax.OptState]:
        change, state = optimizer.update(gradient, state)
        return jnp.asarray(optax.apply_updates(theta, change)), state

    state, history = optimizer.init(theta), []
    settings = {"unit": "step", "leave": False}
    with tqdm(range(steps), f"{len(theta)} stations, antennas move", **settings) as bar:
        for _ in bar:
            (losses, _), gradient = value_and_gradient(theta, waves, zero_forcing)
            theta, state = move(theta, state, gradient)
            history.append(-float(jnp.mean(losses)))
            bar.set_postfix_str(f"{history[-1]:.2f} bit/s/Hz", refresh=False)
    return theta, np.array(history)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the example.

    Args:
        arguments: the command line, by default that of the process.

    Returns:
        The exit status: 0 if everything was as good as required, else 1.
    """
    options = _command.parsed(_parser(), QUICK, arguments)
    began = time.perf_counter()
    waves = paths(np.random.default_rng(0), options.stations)
    start = jnp.zeros((options.stations, ANTENNAS + 1), jnp.float32)
    errors = gradient_errors(start, waves)
    moved, history = optimize(start, waves, options.steps)
    dense = np.arange(ANTENNAS, dtype=np.float32) / 2
    sparse = np.linspace(0, APERTURE, ANTENNAS, dtype=np.float32)
    zero, truncated = np.float32(0), np.float32(CUTOFF)
    best = jax.device_get(jax.jit(jax.vmap(positions))(moved))
    runs = {
        "half a wavelength, matched filter": (dense, truncated, matched_filter),
        "half a wavelength, nothing truncated": (dense, zero, zero_forcing),
        "half a wavelength": (dense, truncated, zero_forcing),
        "evenly over the aperture": (sparse, truncated, zero_forcing),
        "moved": (best, truncated, zero_forcing),
    }
    services = {}
    for name, (x, rtol, precoder) in runs.items():
        everywhere = np.broadcast_to(x, best.shape)
        services[name] = jax.device_get(served(everywhere, waves, rtol, precoder))
        rates = services[name].rate
        low = np.percentile(rates, 1)
        print(f"{name:35}{rates.mean():6.2f} bit/s/Hz, all but 1% above {low:5.2f}")
    for name, error in errors.items():
        print(f"error of the gradient {name}: {error:.1e}")
    (_, _), gradient = value_and_gradient(moved, waves, zero_forcing)
    path = options.output / "beamforming.png"
    draw(path, waves, services, best, history)

    *_, dense_run, sparse_run, moved_run = services.values()
    leak = max(np.max(run.leak[run.rank == USERS]) for run in (dense_run, moved_run))
    print(f"largest leak to another user: {leak:.1e}")
    limited = list(errors.values())[:-1]
    checks = {
        f"no leak above {LEAK_LIMIT:.0e}": leak <= LEAK_LIMIT,
        "coinciding users truncated": np.all(moved_run.rank[::COINCIDE] < USERS),
        "finite gradient": bool(jnp.all(jnp.isfinite(gradient))),
        f"gradient to {GRADIENT_LIMIT:.0e}": max(limited) <= GRADIENT_LIMIT,
        f"{REQUIRED_GAIN} bit/s/Hz more than evenly spread": moved_run.rate.mean()
        > sparse_run.rate.mean() + REQUIRED_GAIN,
    }
    return _command.verdict(checks, began, path)


def _parser() -> argparse.ArgumentParser:
    parser = _command.parser(__package__, __doc__, QUICK)
    parser.add_argument("--stations", type=int, default=4096, help="how many")
    parser.add_argument("--steps", type=int, default=60, help="of the optimizer")
    return parser


if __name__ == "__main__":
    sys.exit(main())
