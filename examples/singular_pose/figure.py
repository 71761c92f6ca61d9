"""Draws joint speeds, joint accelerations, tracking errors and manipulabilities."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from examples._style import HEADING, INK, style, titled
from examples.singular_pose.motion import (
    DURATION,
    THRESHOLD,
    Line,
    accelerations,
    speeds,
)

#: Colors that differ in lightness as well, and line styles.
LOOKS = {
    "plain": {"color": "#d1495b", "linewidth": 1.6},
    "truncated": {"color": "#e0a030", "linewidth": 1.8},
    "damped": {"color": "#2a9d8f", "linewidth": 2.4},
    "damped, null-space motion": {
        "color": "#12263a",
        "linewidth": 2.2,
        "linestyle": (0, (5, 1.5)),
    },
}
#: Accelerations are drawn as the largest within so many seconds, since they alternate.
WINDOW = 0.02


def draw(path: Path, lines: Mapping[str, Line], rate: int) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        lines: what happened on the line, by the name of the rule.
        rate: control cycles per second.
    """
    title = "Franka Emika Panda  ·  through a singular pose"
    figure = titled(title, (13, 8.2), layout="constrained")
    (first, second), (third, fourth) = figure.subplots(2, 2)
    width = round(WINDOW * rate)
    panels = (
        (
            first,
            "Joint speed",
            "fastest joint [% of its speed limit]",
            {name: 100 * speeds(line) for name, line in lines.items()},
        ),
        (
            second,
            "Joint acceleration",
            f"largest within {1e3 * WINDOW:.0f} ms [% of its limit]",
            {
                name: 100 * _largest(accelerations(line, rate), width)
                for name, line in lines.items()
            },
        ),
        (
            third,
            "Tracking error",
            "hand from its place on the line [mm]",
            {name: 1e3 * line.behind for name, line in lines.items()},
        ),
        (
            fourth,
            "How far the arm is from a singular pose",
            r"manipulability $\sqrt{\det J J^T}$",
            {name: line.manipulability for name, line in lines.items()},
        ),
    )
    for axes, heading, label, curves in panels:
        style(axes)
        for name, curve in curves.items():
            times = np.linspace(0, DURATION, len(curve))
            axes.plot(times, curve, label=name, **LOOKS[name])
        axes.set_xlim(0, DURATION)
        axes.set_xlabel("time [s]", color=INK, size=11)
        axes.set_ylabel(label, color=INK, size=11)
        axes.set_title(heading, **HEADING)
    for axes in (first, second):
        axes.set_yscale("log")
        _limit(axes, 100, "limit of the arm", above=True)
    first.set_ylim(bottom=3)
    third.legend(loc="upper left", fontsize=10.5, frameon=False)
    third.set_ylim(bottom=0)
    fourth.set_ylim(bottom=0)
    _limit(fourth, THRESHOLD, "damped below", above=False)
    figure.savefig(path)


def _limit(axes: Axes, value: float, text: str, above: bool) -> None:
    """A dashed line across a panel, with its name."""
    axes.axhline(value, color=INK, linewidth=1.1, linestyle="--")
    axes.annotate(
        text,
        (DURATION, value),
        xytext=(-4, 4 if above else -13),
        textcoords="offset points",
        ha="right",
        color=INK,
        size=10,
    )


def _largest(values: NDArray, width: int) -> NDArray:
    """The largest of every `width` values, `(t / width,)`."""
    whole = len(values) // width * width
    return values[:whole].reshape(-1, width).max(axis=1)
