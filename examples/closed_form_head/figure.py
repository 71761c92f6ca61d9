"""Draws the example of a closed-form head: a task, accuracies, and training curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples._style import FADED, HEADING, INK, titled

COLORS = ("#7f8c8d", "#e9a23b", "#d1495b", "#2a9d8f")


def draw(
    path: Path,
    names: Sequence[str],
    reached: NDArray,
    histories: NDArray,
    interval: int,
    steps: int,
    shown: tuple[NDArray, NDArray],
) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        names: of the four kinds of features.
        reached: accuracies, `(seeds, 4)`.
        histories: accuracies on the way, of the last two kinds, `(seeds, 2, times)`.
        interval: steps between two of these, but for the last.
        steps: how many in all.
        shown: pictures of a task, to train and to test with.
    """
    title = "Features learned through a least-squares head  ·  digits never seen before"
    figure = titled(title, (16, 5.5))
    grid = figure.add_gridspec(1, 3, left=0.03, right=0.98, bottom=0.12, top=0.82)

    axes = figure.add_subplot(grid[0])
    rows = np.concatenate([shown[0], shown[1][:, :3]], axis=1)
    padded = np.pad(rows, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=1)
    axes.imshow(np.block([list(row) for row in padded]), cmap="bone_r")
    axes.axvline(5 * padded.shape[-1] - 0.5, color=COLORS[2])
    axes.set_axis_off()
    axes.set_title("A task: five of each to train with, then to classify", **HEADING)

    axes = figure.add_subplot(grid[1])
    times = np.append(np.arange(histories.shape[2] - 1) * interval, steps)
    for kind, color in ((0, COLORS[2]), (1, COLORS[3])):
        axes.plot(times, histories[:, kind].T, color=color, lw=0.8, alpha=0.6)
        mean = histories[:, kind].mean(axis=0)
        axes.plot(times, mean, color=color, lw=2.5, label=f"trained with {names[kind + 2]}")
    axes.legend(frameon=False, loc="lower right")
    axes.set(xlabel="steps", ylabel="named correctly")
    axes.set_title("Held-out digits while the features learn", **HEADING)

    axes = figure.add_subplot(grid[2])
    axes.bar(names, reached.mean(axis=0), color=COLORS, width=0.65)
    for place in range(len(names)):
        axes.plot(np.full(len(reached), place), reached[:, place], ".", color=INK)
    axes.axhline(1 / len(names), color=FADED, lw=1, ls="--")
    axes.set(ylim=(0, 1), ylabel="named correctly")
    axes.tick_params(axis="x", labelsize=9)
    axes.set_title("The same head on four features, chance dashed", **HEADING)
    for axes in figure.axes[1:]:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
