"""Draws the beamforming example: sum rates, what close users cost, and beams."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from examples._style import HEADING, INK, style, titled
from examples.beamforming.model import ANTENNAS, APERTURE, COINCIDE, CUTOFF, Paths, Service

COLORS = ("#7f8c8d", "#d1495b", "#e9a23b", "#2a6f97", "#2a9d8f")
USER_COLORS = ("#2a6f97", "#d1495b", "#2a9d8f", "#b8860b")


def draw(
    path: Path,
    waves: Paths,
    services: Mapping[str, Service],
    best: NDArray,
    history: NDArray,
) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        waves: the channels.
        services: of all stations, by the name of the array; the last one has moved, the
            third one has antennas at half a wavelength.
        best: where the antennas have moved to, `(stations, antennas)`.
        history: mean sum rates while they did.
    """
    title = "Zero-forcing with a pseudo-inverse  ·  antennas move to where it costs least"
    figure = titled(title, (16, 9.5))
    sides = {"left": 0.05, "right": 0.98, "bottom": 0.065, "top": 0.89}
    grid = figure.add_gridspec(2, 3, **sides, wspace=0.22, hspace=0.34)
    _distributions(figure.add_subplot(grid[0, 0]), services)
    _separations(figure.add_subplot(grid[1, 0]), waves, services)
    _history(figure.add_subplot(grid[1, 1:]), services, history)
    _, _, dense, _, moved = services.values()
    apart = np.arange(len(best)) % COINCIDE > 0
    station = int(np.argmax(np.where(apart, moved.rate - dense.rate, -np.inf)))
    arrays = {"half a wavelength": np.arange(ANTENNAS) / 2, "moved": best[station]}
    for column, (name, x) in enumerate(arrays.items(), start=1):
        service = dense if column == 1 else moved
        axes = figure.add_subplot(grid[0, column])
        text = f"One station, {name}: {service.rate[station]:.1f} bit/s/Hz"
        _beams(axes, x, Paths(*(wave[station] for wave in waves)))
        axes.set_title(text, **HEADING)
    figure.savefig(path)


def _distributions(axes: Axes, services: Mapping[str, Service]) -> None:
    """Share of stations below a sum rate."""
    style(axes)
    for (name, service), color in zip(services.items(), COLORS, strict=True):
        rates = np.sort(service.rate)
        share = 100 * np.arange(1, rates.size + 1) / rates.size
        axes.plot(rates, share, color=color, linewidth=2, label=name)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 155)
    axes.set_yticks(range(0, 101, 20))
    axes.set_xlabel("sum rate [bit/s/Hz]", color=INK, size=11)
    axes.set_ylabel("stations below [%]", color=INK, size=11)
    axes.set_title("Sum rates of all stations", **HEADING)
    axes.legend(loc="upper left", fontsize=9, framealpha=0.85, edgecolor="none")


def _separations(axes: Axes, waves: Paths, services: Mapping[str, Service]) -> None:
    """Sum rates over the smallest difference of two users' sines."""
    style(axes)
    sines = np.sort(np.asarray(waves.sines)[..., 0], axis=1)
    closest = np.diff(sines, axis=1).min(axis=1)
    apart = closest > 0
    (*_, dense, _, moved), chosen = services.values(), (COLORS[2], COLORS[4])
    for service, color, name in zip(
        (dense, moved), chosen, ("half a wavelength", "moved"), strict=True
    ):
        axes.semilogx(
            closest[apart],
            service.rate[apart],
            ".",
            color=color,
            markersize=3,
            alpha=0.5,
            label=name,
        )
    axes.set_xlim(1e-3, 0.6)
    axes.set_xlabel("closest two users, difference of sines", color=INK, size=11)
    axes.set_ylabel("sum rate [bit/s/Hz]", color=INK, size=11)
    axes.set_title("What close users cost", **HEADING)
    axes.legend(loc="lower right", fontsize=10, frameon=False, markerscale=4)


def _beams(axes: Axes, x: NDArray, waves: Paths) -> None:
    """What a station radiates for each user in all directions, and where antennas are."""
    style(axes)
    sines, gains = (np.asarray(wave) for wave in waves)
    phase = 2 * np.pi * sines[..., None] * x
    h = np.sum(gains[..., None] * np.exp(1j * phase), axis=1)
    w = np.linalg.pinv(h, rcond=CUTOFF)
    degrees = np.linspace(-75, 75, 1501)
    field = np.exp(2j * np.pi * np.sin(np.deg2rad(degrees))[:, None] * x) @ w
    power = 20 * np.log10(np.abs(field) / np.linalg.norm(w) + 1e-6)
    for user, color in enumerate(USER_COLORS):
        axes.plot(degrees, power[:, user], color=color, linewidth=1.6)
        place = float(np.rad2deg(np.arcsin(sines[user, 0])))
        axes.axvline(place, ymax=0.88, color=color, linewidth=1.3, linestyle="--")
    axes.plot(150 * x / APERTURE - 75, np.full_like(x, 13), "v", color=INK, markersize=7)
    axes.set_xlim(-78, 78)
    axes.set_ylim(-40, 16)
    axes.set_xlabel("angle [°], users dashed; antennas above", color=INK, size=11)
    axes.set_ylabel("radiated for each user [dB]", color=INK, size=11)


def _history(axes: Axes, services: Mapping[str, Service], history: NDArray) -> None:
    """Mean sum rate over the steps, with those of the fixed arrays."""
    style(axes)
    axes.plot(history, color=COLORS[-1], linewidth=2.4)
    for (name, service), color in zip(services.items(), COLORS[:-1], strict=False):
        rate = float(service.rate.mean())
        axes.axhline(rate, color=color, linewidth=1.5, linestyle="--")
        place = (len(history) - 1, rate)
        axes.annotate(name, place, ha="right", va="bottom", color=color, size=10.5)
    axes.set_xlabel("steps of Adam", color=INK, size=11)
    axes.set_ylabel("mean sum rate [bit/s/Hz]", color=INK, size=11)
    axes.set_title("While the antennas move", **HEADING)
