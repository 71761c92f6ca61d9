"""Draws errors over factorizations, dampings of the groups, and errors of the folds."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from examples._style import FADED, HEADING, INK, style, titled
from examples.learned_ridge.grid import Searched
from examples.learned_ridge.newton import HIGHEST, LOWEST, Learned
from examples.learned_ridge.ridge import GROUPS

LEARNED, GRID, SINGLE = "#2a9d8f", "#e0a030", "#d1495b"


def draw(
    path: Path, learned: Learned, single: Searched, four: Searched, unseen: NDArray
) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        learned: by Newton's method, for all rows and without each fold.
        single: one damping by `RidgeCV`.
        four: four dampings on a grid.
        unseen: mean squared errors in each fold, learned and with one damping, `(2, k)`.
    """
    title = "Ridge regression with learned dampings  ·  442 diabetes patients"
    figure = titled(title, (14, 4.9), layout="constrained")
    first, second, third = figure.subplots(1, 3, width_ratios=(1.2, 1, 1))
    _search(first, learned, single, four)
    _dampings(second, learned, single)
    _folds(third, unseen)
    figure.savefig(path)


def _search(axes: Axes, learned: Learned, single: Searched, four: Searched) -> None:
    """The least error so far over the number of factorizations."""
    style(axes)
    count = learned.factorizations[0]
    axes.step(
        *_over(four.errors),
        where="post",
        color=GRID,
        linewidth=2,
        label=f"four dampings, grid: {len(four.errors)}",
    )
    axes.plot(
        *_over(learned.errors[:count, 0]),
        "o-",
        color=LEARNED,
        linewidth=2.2,
        markersize=4.5,
        label=f"four dampings, learned: {count}",
    )
    axes.plot(
        *_over(single.errors),
        "D",
        color=SINGLE,
        markersize=8,
        label="one damping, RidgeCV: 1",
    )
    axes.set_xscale("log")
    axes.set_xlabel("factorizations", color=INK, size=11)
    axes.set_ylabel("error of leaving one out [points]", color=INK, size=11)
    axes.set_title("The least error so far", **HEADING)
    axes.legend(loc="upper right", fontsize=10, frameon=False)


def _over(squared: NDArray) -> tuple[NDArray, NDArray]:
    """Numbers of factorizations, and errors from their squares, both `(t,)`."""
    return np.arange(1, len(squared) + 1), np.sqrt(squared)


def _dampings(axes: Axes, learned: Learned, single: Searched) -> None:
    """The dampings of the groups, with all rows and without each fold."""
    style(axes)
    axes.set_yscale("log")
    axes.set_ylim(LOWEST / 1.6, HIGHEST * 1.6)
    places = np.arange(len(GROUPS))
    all_rows, *without = np.exp(learned.end.log_dampings)
    spread = np.linspace(-0.16, 0.16, len(without))
    for shift, values in zip(spread, without, strict=True):
        label = "learned, without a fold" if shift == spread[0] else None
        axes.plot(places + shift, values, "o", color=FADED, markersize=3.5, label=label)
    axes.plot(places, all_rows, "D", color=LEARNED, markersize=9, label="learned, all rows")
    axes.axhline(
        single.dampings[0], color=SINGLE, linewidth=1.6, linestyle="--", label="RidgeCV"
    )
    axes.set_xlim(-0.5, len(GROUPS) - 0.5)
    axes.set_xticks(places, GROUPS)
    axes.set_ylabel("damping of standardized features", color=INK, size=11)
    axes.set_title("A damping for each group", **HEADING)
    axes.legend(loc="upper left", fontsize=10, frameon=False)


def _folds(axes: Axes, unseen: NDArray) -> None:
    """Errors in each fold, learned against one damping."""
    style(axes)
    ours, theirs = np.sqrt(unseen)
    low, high = 0.97 * min(ours.min(), theirs.min()), 1.03 * max(ours.max(), theirs.max())
    axes.plot([low, high], [low, high], color=INK, linewidth=1.1, linestyle="--")
    axes.plot(theirs, ours, "o", color=LEARNED, markersize=7)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.text(
        0.97, 0.04, "below the line: learned is better",
        transform=axes.transAxes, ha="right", color=INK, size=10,
    )  # fmt: skip
    axes.set_xlabel("error with one damping, RidgeCV [points]", color=INK, size=11)
    axes.set_ylabel("error with learned dampings [points]", color=INK, size=11)
    axes.set_title(f"Unseen patients, {len(ours)} folds", **HEADING)
