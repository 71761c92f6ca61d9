"""Draws the example of a sharded batch: losses, variances, and matrices per second."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sharded_batch import Run

INK, FADED = "#22313f", "#7f8c8d"
BEFORE, AFTER = "#d1495b", "#2a9d8f"
HEADING = {"loc": "left", "size": 12.5, "color": INK}


def draw(path: Path, runs: Mapping[str, "Run"], variances: Sequence[NDArray]) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        runs: what was measured, by the way to divide; the first one took all steps.
        variances: of some plans, before and after, `(n,)`.
    """
    # A Figure without pyplot draws with Agg, wherever the script runs.
    figure = Figure(figsize=(16, 5.2), dpi=110)
    local, *_ = runs.values()
    title = (
        f"{len(local.plans):,} matrices, 7 by 6  ·  gradient steps without communication"
    )
    figure.suptitle(title, x=0.03, ha="left", size=17, weight="bold", color=INK)
    sides = {"left": 0.06, "right": 0.98, "bottom": 0.13, "top": 0.8}
    grid = figure.add_gridspec(1, 3, **sides, wspace=0.22)
    _losses(figure.add_subplot(grid[0]), local.history)
    _variances(figure.add_subplot(grid[1]), variances)
    _throughput(figure.add_subplot(grid[2]), runs)
    figure.savefig(path)


def _losses(axes: Axes, history: NDArray) -> None:
    """By how much the mean loss is above the last one, before every step."""
    _style(axes)
    excess = history[:-1] - history[-1]
    # What is left in the end is rounding, of either sign.
    excess = np.where(excess > 0, excess, np.nan)
    axes.semilogy(excess, "o-", color=AFTER, linewidth=2, markersize=5)
    axes.set_xlabel("steps", color=INK, size=11)
    axes.set_ylabel("mean loss above the last one", color=INK, size=11)
    axes.set_title("Variance and cost of change", **HEADING)


def _variances(axes: Axes, variances: Sequence[NDArray]) -> None:
    """Total variances of the estimates before and after."""
    _style(axes)
    lowest, highest = (f(np.concatenate(variances)) for f in (np.min, np.max))
    bins = np.geomspace(lowest, highest, 80)
    for variance, colour, name in zip(
        variances, (BEFORE, AFTER), ("before", "after"), strict=True
    ):
        label = f"{name}, median {np.median(variance):.2f}"
        shape = {"bins": bins, "color": colour}
        axes.hist(variance, histtype="stepfilled", alpha=0.25, **shape)
        axes.hist(variance, histtype="step", linewidth=2, label=label, **shape)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("$\\|A^+\\|_F^2$", color=INK, size=11)
    axes.set_ylabel("matrices", color=INK, size=11)
    axes.set_title(f"Variance of the estimates, {len(variances[0]):,} plans", **HEADING)
    axes.legend(loc="upper right", fontsize=10.5, frameon=False)


def _throughput(axes: Axes, runs: Mapping[str, "Run"]) -> None:
    """Matrices per second of a value and of a step, for each way to divide."""
    _style(axes)
    for number, ((name, run), colour) in enumerate(
        zip(runs.items(), (AFTER, BEFORE), strict=True)
    ):
        rates = np.array([run.values_per_second, run.steps_per_second]) / 1e6
        places = np.arange(2) + 0.38 * (number - 0.5)
        bars = axes.bar(places, rates, 0.36, color=colour, alpha=0.85, label=name)
        axes.bar_label(bars, fmt="%.2f", color=INK, size=10.5, padding=2)
    axes.set_xticks([0, 1], ["pseudo-inverse", "gradient step"])
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_ylabel("million matrices per second", color=INK, size=11)
    axes.set_title("Divided by hand and by the compiler", **HEADING)
    axes.legend(loc="upper right", fontsize=10.5, frameon=False)


def _style(axes: Axes) -> None:
    axes.grid(color="#e5e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FADED)
    axes.tick_params(colors=INK, labelsize=10)
