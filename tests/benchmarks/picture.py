"""The picture at the head of the README: what the error of a derivative grows with.

    python -m tests.benchmarks.picture

measures as `accuracy` does, against differences in 50 digits, and writes one picture of two
panels: against the condition number, of full rank, and against the largest truncated value.
PyTorch is left out if it is not installed.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples._style import FADED, INK, save
from tests.benchmarks import accuracy, peers, plots
from tests.benchmarks.accuracy import ORDERS, Point

#: Of one point, each with another matrix and direction.
SEEDS = 7
PANELS = (
    ("condition", "float32", "condition number", "Full rank, float32"),
    ("cut", "float64", "largest truncated / smallest kept value", "Truncated, float64"),
)
STYLES = dict(zip(ORDERS[1:], ("-", "--"), strict=True))
NAMES = (peers.TORCH, peers.JNP, peers.REFERENCE)
#: Broad below and narrow above: on the right the lines of two methods are one.
WIDTHS = dict(zip(NAMES, (4.0, 1.6, 2.0), strict=True))


def measured(*, quick: bool) -> list[Point]:
    """Median errors of the first and second derivative."""
    found, _ = peers.available("cpu")
    compared = [peer for peer in found if peer.name in NAMES]
    shown = {(sweep, dtype) for sweep, dtype, *_ in PANELS}
    points = [
        point
        for problem in accuracy.problems(quick=quick)
        if (problem.sweep, problem.dtype) in shown
        for point in accuracy.measure(compared, problem, 1 if quick else SEEDS)
    ]
    return [point for point in points if point.order in STYLES]


def draw(points: Iterable[Point], path: Path) -> None:
    """Writes the picture."""
    points = list(points)
    figure = Figure(figsize=(9.5, 4), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for axes, (sweep, dtype, label, title) in zip(panels, PANELS, strict=True):
        chosen = [p for p in points if (p.sweep, p.dtype) == (sweep, dtype)]
        _panel(axes, chosen)
        axes.set_title(title, size=10, loc="left", color=INK)
        axes.set(xscale="log", yscale="log", xlabel=label)
        axes.set_ylim(1e-8 if dtype == "float32" else 1e-16, 1e3)
    panels[0].set_ylabel("relative error")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    save(figure, path)


def _panel(axes: Axes, points: list[Point]) -> None:
    """One line for each method and order."""
    for name in NAMES:
        for order, style in STYLES.items():
            line = sorted(
                (p.x, max(p.error, 1e-17))
                for p in points
                if (p.peer, p.order) == (name, order)
            )
            if line:
                axes.plot(
                    *np.array(line).T,
                    linestyle=style,
                    marker=plots.MARKERS[name],
                    linewidth=WIDTHS[name],
                    markersize=3 + 1.5 * WIDTHS[name],
                    color=plots.COLORS[name],
                    label=f"{name}, {order}",
                )
    axes.axhline(1, color=FADED, linewidth=0.8, linestyle=":")
    axes.grid(color="#e5e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)


def main() -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser()
    folder = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=folder / "gradient_error.png")
    parser.add_argument(
        "--quick", action="store_true", help="fewer points, one matrix each"
    )
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    points = measured(quick=arguments.quick)
    for p in points:
        print(f"{p.sweep:9} {p.dtype} {p.x:8.1e} {p.order:17} {p.peer:18} {p.error:.1e}")
    draw(points, arguments.output)


if __name__ == "__main__":
    main()
