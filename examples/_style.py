"""The look of all figures of the examples."""

import io
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

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


def save(figure: Figure, path: Path, **texts: str) -> None:
    """Writes a PNG of 256 colors, a third as large as one of all colors.

    Args:
        figure: what to write.
        path: the file.
        texts: what to store in the file besides the picture, by name.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    with Image.open(drawn) as image:
        few_colors = image.convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
    few_colors.save(path, optimize=True, pnginfo=info)
