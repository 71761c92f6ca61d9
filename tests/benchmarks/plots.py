"""Pictures of the results."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from examples._style import FADED, INK, save
from tests.benchmarks.cases import OPERATIONS
from tests.benchmarks.peers import JNP, REFERENCE, SCALE, TORCH
from tests.benchmarks.report import PINVS, Row, short

COLORS: dict[str, str] = dict(
    zip(
        (REFERENCE, *PINVS, *SCALE),
        "#d1495b #2a6f97 #e09f3e #6a994e #8e6c8a #444444 #777777 #999999 #222222".split(),
        strict=True,
    )
)
MARKERS: dict[str, str] = dict(zip(COLORS, "osD^vPX*_", strict=True))
COLOR_MAP = "RdBu"
#: Widest color of the heat map: eight times as fast or as slow.
LARGEST_LOG_RATIO = 3.0


def draw_all(results: dict[str, Any], folder: Path) -> list[Path]:
    """Writes every picture for which there are results."""
    paths = []
    if results["timings"]:
        times(results["timings"], folder / "times.png")
        heat_map(results["timings"], folder / "ratios.png")
        paths += [folder / "times.png", folder / "ratios.png"]
    if results["accuracy"]:
        accuracy(results["accuracy"], folder / "accuracy.png")
        paths.append(folder / "accuracy.png")
    return paths


def times(timings: Sequence[Row], path: Path) -> None:
    """Time per matrix against size, for square matrices, value and gradient."""
    figure = Figure(figsize=(10, 4.8), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, operation in zip(panels, OPERATIONS[:2], strict=True):
        rows = [
            row
            for row in timings
            if row["operation"] == operation
            and row["dtype"] == "float32"
            and row["rank"] == "full"
            and not row["hermitian"]
            and row["shape"][-1] == row["shape"][-2]
        ]
        for name in COLORS:
            points = sorted(
                (row["shape"][-1], row["seconds"][name] / np.prod(row["shape"][:-2]))
                for row in rows
                if name in row["seconds"]
            )
            if points:
                _line(axes, np.array(points), name)
        _style(axes, f"{operation}, square, float32, full rank")
        axes.set(xscale="log", yscale="log", xlabel="rows and columns")
    panels[0].set_ylabel("seconds per matrix")
    panels[0].legend(fontsize=8, frameon=False)
    save(figure, path)


def heat_map(timings: Sequence[Row], path: Path) -> None:
    """Ratios to `jaxpinv.pinv` over shapes, precisions and operations."""
    rows = [r for r in timings if r["rank"] == "full" and not r["hermitian"]]
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    columns = list(dict.fromkeys((r["operation"], _bits(r)) for r in rows))
    columns.sort(key=lambda c: (OPERATIONS.index(c[0]), c[1]))
    names = [
        name
        for name in (JNP, TORCH)
        if any(name in row["ratios"] or name in row["single"] for row in rows)
    ]
    figure = Figure(
        figsize=(2.2 + 0.78 * len(columns) * len(names), 1.4 + 0.36 * len(sizes)),
        dpi=110,
        layout="constrained",
    )
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    norm = TwoSlopeNorm(0, -LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
    for axes, name in zip(panels, names, strict=True):
        values = np.full((len(sizes), len(columns)), np.nan)
        for row in rows:
            at = sizes.index(row["size"]), columns.index((row["operation"], _bits(row)))
            values[at] = row["ratios"].get(name, {}).get("median", np.nan)
            values[at] = row["single"].get(name, values[at])
        axes.imshow(np.log2(values), norm=norm, cmap=COLOR_MAP, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                dark = abs(np.log2(value)) > 0.65 * LARGEST_LOG_RATIO
                color = "white" if dark else INK
                axes.text(
                    j, i, f"{value:.2f}", ha="center", va="center", color=color, size=8
                )
        labels = [f"{operation}\n{bits} bit" for operation, bits in columns]
        axes.set_xticks(range(len(columns)), labels, size=8)
        axes.set_yticks(range(len(sizes)), sizes, size=8)
        axes.set_title(f"{name} / jaxpinv.pinv", size=9, color=INK)
    bar = figure.colorbar(
        ScalarMappable(norm, COLOR_MAP), ax=panels, ticks=[-3, -2, -1, 0, 1, 2, 3]
    )
    bar.ax.set_yticklabels(["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    bar.set_label("ratio of times; blue: jaxpinv is faster", size=8)
    save(figure, path)


def accuracy(points: Iterable[dict[str, Any]], path: Path) -> None:
    """Errors against the condition number, and against the nearest truncated value."""
    points = list(points)
    orders = list(dict.fromkeys(point["order"] for point in points))
    sweeps = [
        ("condition", "float32", "condition number"),
        ("condition", "float64", "condition number"),
        ("cut", "float64", "largest truncated / smallest kept value"),
    ]
    figure = Figure(figsize=(10, 8.4), dpi=110, layout="constrained")
    grid = figure.subplots(len(sweeps), len(orders), squeeze=False)
    for row, (sweep, dtype, label) in zip(grid, sweeps, strict=True):
        for axes, order in zip(row, orders, strict=True):
            for name in (*PINVS[::-1], REFERENCE):
                found = sorted(
                    (point["x"], max(point["error"], 1e-17))
                    for point in points
                    if (point["sweep"], point["dtype"]) == (sweep, dtype)
                    and (point["order"], point["peer"]) == (order, name)
                )
                if found:
                    _line(axes, np.array(found), name)
            kind = ", truncated" if sweep == "cut" else ""
            _style(axes, f"{order}, {dtype}{kind}")
            axes.set(xscale="log", yscale="log", xlabel=label)
        low = 1e-9 if dtype == "float32" else 1e-18
        for axes in row:
            axes.set_ylim(low, 1e2)
            axes.axhline(1, color=FADED, linewidth=0.8, linestyle=":")
        row[0].set_ylabel("relative error")
    grid[0][0].legend(fontsize=8, frameon=False, loc="upper left")
    save(figure, path)


def _line(axes: Axes, points: np.ndarray, name: str) -> None:
    """One method."""
    reference = name == REFERENCE
    axes.plot(
        *points.T,
        marker=MARKERS[name],
        color=COLORS[name],
        linestyle="--" if name in SCALE else "-",
        linewidth=2.2 if reference else 1.2,
        markersize=5 if reference else 4,
        zorder=3 if reference else 2,
        label=name if name in PINVS or reference else short(name),
    )


def _style(axes: Axes, title: str) -> None:
    """The look of every panel."""
    axes.set_title(title, size=9, loc="left", color=INK)
    axes.grid(color="#e5e9ec", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)


def _bits(row: Row) -> int:
    """Size of a real number of the case."""
    return 32 if row["dtype"] in ("float32", "complex64") else 64
