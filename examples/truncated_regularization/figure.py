"""Draws photographs through several shutters, the shutters, and how they were learned."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from examples._style import FADED, HEADING, INK, style, titled

EXACT, USUAL = "#2a9d8f", "#d1495b"


def draw(
    path: Path,
    pictures: Mapping[str, NDArray],
    errors: Mapping[str, NDArray],
    shutters: Mapping[str, NDArray],
) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        pictures: gray pictures by title, with lines as columns.
        errors: of the "exact" gradient and the "usual" one, `(starts, steps + 1)`.
        shutters: the share of light in every slot, `(slots,)`, by name.
    """
    title = "A shutter learned through a truncated pseudo-inverse"
    figure = titled(title, (13, 6.6), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1.25))
    above, below = (figure.add_subfigure(grid[row, 0]) for row in range(2))
    shade = {"cmap": "gray", "vmin": -0.5, "vmax": 0.5, "interpolation": "nearest"}
    panels = above.subplots(
        1, len(pictures), width_ratios=[len(p) for p in pictures.values()]
    )
    for axes, (name, picture) in zip(panels, pictures.items(), strict=True):
        axes.imshow(picture.T, **shade)
        axes.set_title(name, **HEADING)
        axes.set_axis_off()

    left, right = below.subplots(1, 2)
    colors = {"exact": EXACT, "usual": USUAL}
    for name, curves in errors.items():
        for start, curve in enumerate(curves):
            label = f"{name} gradient" if start == 0 else None
            left.plot(curve, color=colors[name], linewidth=1.4, label=label)
    left.set_xlabel("step", color=INK)
    left.set_ylabel("expected error, training lines", color=INK)
    left.set_title("One error, two gradients, several starts", **HEADING)
    left.legend(frameon=False)
    style(left)

    width = 0.8 / len(shutters)
    for place, (name, shutter) in enumerate(shutters.items()):
        x = np.arange(len(shutter)) + (place - (len(shutters) - 1) / 2) * width
        right.bar(x, shutter, width, color=colors.get(name, FADED), label=name)
    right.set_xlabel("slot of time", color=INK)
    right.set_ylabel("share of light", color=INK)
    right.set_title("The shutter from the first start", **HEADING)
    right.set_ylim(0, 1.25)
    right.legend(frameon=False, ncols=len(shutters), loc="upper left")
    style(right)
    figure.savefig(path)
