"""Draws the example of a sharded batch: losses, variances, and matrices per second."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from examples._style import HEADING, INK, style, titled

if TYPE_CHECKING:
    from examples.sharded_batch.plans import Run

BEFORE, AFTER = "#d1495b", "#2a9d8f"


def draw(path: Path, runs: Mapping[str, "Run"], variances: Sequence[NDArray]) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        runs: what was measured, by the way to divide; the first one took all steps.
        variances: of some plans, before and after, `(n,)`.
    """
    local, *_ = runs.values()
    title = (
        f"{len(local.plans):,} matrices, 7 by 6  ·  gradient steps without communication"
    )
    figure = titled(title, (16, 5.2))
    sides = {"left": 0.06, "right": 0.98, "bottom": 0.13, "top": 0.8}
    grid = figure.add_gridspec(1, 3, **sides, wspace=0.22)
    _losses(figure.add_subplot(grid[0]), local.history)
    _variances(figure.add_subplot(grid[1]), variances)
    _throughput(figure.add_subplot(grid[2]), runs)
    figure.savefig(path)


def _losses(axes: Axes, history: NDArray) -> None:
    """By how much the mean loss is above the last one, before every step."""
    style(axes)
    excess = history[:-1] - history[-1]
    # Finally only rounding is left, of either sign.
    excess = np.where(excess > 0, excess, np.nan)
    axes.semilogy(excess, "o-", color=AFTER, linewidth=2, markersize=5)
    axes.set_xlabel("steps", color=INK, size=11)
    axes.set_ylabel("mean loss above the last one", color=INK, size=11)
    axes.set_title("Variance and cost of change", **HEADING)


def _variances(axes: Axes, variances: Sequence[NDArray]) -> None:
    """Total variances of the estimates before and after."""
    style(axes)
    lowest, highest = (f(np.concatenate(variances)) for f in (np.min, np.max))
    bins = np.geomspace(lowest, highest, 80)
    for variance, color, name in zip(
        variances, (BEFORE, AFTER), ("before", "after"), strict=True
    ):
        label = f"{name}, median {np.median(variance):.2f}"
        shape = {"bins": bins, "color": color}
        axes.hist(variance, histtype="stepfilled", alpha=0.25, **shape)
        axes.hist(variance, histtype="step", linewidth=2, label=label, **shape)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("$\\|A^+\\|_F^2$", color=INK, size=11)
    axes.set_ylabel("matrices", color=INK, size=11)
    axes.set_title(f"Variance of the estimates, {len(variances[0]):,} plans", **HEADING)
    axes.legend(loc="upper right", fontsize=10.5, frameon=False)


def _throughput(axes: Axes, runs: Mapping[str, "Run"]) -> None:
    """Matrices per second of a value and of a step, for each method of division."""
    style(axes)
    for number, ((name, run), color) in enumerate(
        zip(runs.items(), (AFTER, BEFORE), strict=True)
    ):
        rates = np.array([run.values_per_second, run.steps_per_second]) / 1e6
        places = np.arange(2) + 0.38 * (number - 0.5)
        bars = axes.bar(places, rates, 0.36, color=color, alpha=0.85, label=name)
        axes.bar_label(bars, fmt="%.2f", color=INK, size=10.5, padding=2)
    axes.set_xticks([0, 1], ["pseudo-inverse", "gradient step"])
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_ylabel("million matrices per second", color=INK, size=11)
    axes.set_title("Divided by hand and by the compiler", **HEADING)
    axes.legend(loc="upper right", fontsize=10.5, frameon=False)
