"""The look of all figures of the examples."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, FADED = "#22313f", "#7f8c8d"
#: For the title of a panel.
HEADING = {"loc": "left", "size": 12.5, "color": INK}


def titled(title: str, size: tuple[float, float], dpi: int = 110, **options: Any) -> Figure:
    """A figure of that size in inches, with a title at its upper left.

    It needs no display: a `Figure` without pyplot draws with Agg.
    """
    figure = Figure(figsize=size, dpi=dpi, **options)
    figure.suptitle(title, x=0.03, ha="left", size=17, weight="bold", color=INK)
    return figure


def style(axes: Axes) -> None:
    """Gives a panel the common grid, spines and ticks."""
    axes.grid(color="#e5e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FADED)
    axes.tick_params(colors=INK, labelsize=10)
