"""The table, the picture and the limits of `tests.benchmarks.shapes`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

METHODS: tuple[str, ...] = ("direct", "svd", "jnp")
DIRECT, SVD, JNP = METHODS
DTYPES = ("float32", "float64", "complex64", "complex128")
LIMIT = 4.0


class Cell(NamedTuple):
    """The worst errors of one result over `eps * cond`, each relative to its size."""

    dtype: str
    batch: int
    rows: int
    columns: int
    kind: str
    quantity: str
    method: str
    norm: float
    largest: float

    @property
    def place(self) -> tuple:
        """What tells it from others of its method."""
        return self[: Cell._fields.index("method")]


def violations(cells: Sequence[Cell]) -> list[str]:
    """Cells of "direct" beyond the limit, the worst first, with what `method="svd"` has."""
    by_svd = {cell.place: cell for cell in cells if cell.method == SVD}
    found = []
    for cell in cells:
        if cell.method != DIRECT:
            continue
        for measure in ("norm", "largest"):
            error, allowed = getattr(cell, measure), 0.0
            if cell.place in by_svd:
                allowed = getattr(by_svd[cell.place], measure)
            # Not "greater": an error that is not a number is one.
            if not error <= LIMIT * max(1.0, allowed):
                label = " ".join(map(str, cell.place))
                found.append((error, f"{error:.3g} (svd {allowed:.2g}) {measure}: {label}"))
    return [line for _, line in sorted(found, reverse=True)]


def table(cells: Sequence[Cell]) -> str:
    """Worst norms over rows, batches and kinds, by both ways and by jnp, in Markdown."""
    quantities = list(dict.fromkeys(cell.quantity for cell in cells))
    lines = [
        f"| dtype | columns | {' | '.join(quantities)} |",
        f"| --- | ---: |{' ---: |' * len(quantities)}",
    ]
    for dtype, n in dict.fromkeys((cell.dtype, cell.columns) for cell in cells):
        row = []
        for quantity in quantities:
            worst = dict.fromkeys(METHODS, 0.0)
            for cell in cells:
                if (cell.dtype, cell.columns, cell.quantity) == (dtype, n, quantity):
                    worst[cell.method] = max(worst[cell.method], cell.norm)
            row.append(" / ".join(f"{x:.2g}" for x in worst.values()))
        lines.append(f"| {dtype} | {n} | {' | '.join(row)} |")
    return "\n".join(lines)


def draw(cells: Sequence[Cell], path: Path) -> None:
    """The worst error of each dtype and method against rows, a panel for each width."""
    widths = sorted({cell.columns for cell in cells})
    across = min(4, len(widths))
    down = -(-len(widths) // across)
    figure = Figure(figsize=(4 * across, 3 * down), dpi=110, layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    styles = dict(zip(DTYPES, ("-", "--", "-.", ":"), strict=True))
    colors = dict(zip(METHODS, ("#d1495b", "#2a6f97", "#e09f3e"), strict=True))
    for axes, n in zip(panels, widths, strict=False):
        for dtype, style in styles.items():
            for method, color in colors.items():
                worst: dict[int, float] = {}
                for cell in cells:
                    if (cell.columns, cell.dtype, cell.method) == (n, dtype, method):
                        worst[cell.rows] = max(worst.get(cell.rows, 0), cell.norm)
                rows = sorted(worst)
                axes.loglog(
                    rows,
                    [max(worst[m], 1e-3) for m in rows],
                    style,
                    color=color,
                    marker=".",
                    label=f"{method}, {dtype}",
                )
        axes.axhline(LIMIT, color="#7f8c8d", linewidth=0.8)
        axes.set_title(f"{n} columns")
    figure.supxlabel("rows")
    figure.supylabel("error / (eps cond)")
    panels[0].legend(fontsize=6)
    figure.savefig(path)
