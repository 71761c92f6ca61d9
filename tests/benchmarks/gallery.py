"""Errors of known matrices, next to rational arithmetic, as a histogram.

    python -m tests.benchmarks.gallery --output benchmark-results

prints and draws how many errors of value and first derivative there are of each size, in
units of eps times the condition, and names the worst. `numpy.linalg.pinv` stands next to
them for the value.
"""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import jaxpinv
from tests.comparison import C
from tests.rational_oracle import GALLERY, SHAPES, Error, error, exact

DTYPES = {"float32": np.float32, "float64": np.float64}
METHODS = ("auto", "svd", "numpy")
QUANTITIES = ("value", "derivative")
#: Powers of two: below the first one counts as that.
EDGES = 2.0 ** np.arange(-8, 6)
WIDTH = 48


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description="Errors of known matrices.")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    errors = list(measure())
    for quantity in QUANTITIES:
        for dtype in DTYPES:
            print("\n".join(text(errors, quantity, dtype)))
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "gallery.png"
    draw(errors, path)
    print(f"wrote {path}")
    return 0


def measure() -> Iterator[Error]:
    """Errors of every method for all matrices whose rank the precision can tell."""
    for name in tqdm(GALLERY, disable=None):
        for shape in SHAPES:
            for dtype in DTYPES.values():
                if exact(name, SHAPES[shape], dtype).is_regular():
                    for method in METHODS:
                        yield error(name, shape, dtype, method, _found)


def _found(a, e, rtol, method: str) -> tuple:
    """Value, derivative and rank by one method. NumPy has only the first."""
    if method == "numpy":
        x = np.linalg.pinv(a, rcond=rtol)
        return x, None, np.linalg.matrix_rank(a, rtol=rtol)
    return _by_jaxpinv(a, e, rtol, method)


@partial(jax.jit, static_argnames="method")
def _by_jaxpinv(a, e, rtol, method):
    """The same by the library."""

    def f(a):
        return jaxpinv.pinv(a, rtol, method=method, return_rank=True)

    return jax.jvp(f, (a,), (e,), has_aux=True)


def select(errors: Sequence[Error], quantity: str, dtype: str, method: str) -> np.ndarray:
    """The errors of one kind; none of the derivative by NumPy."""
    found = [getattr(e, quantity) for e in errors if (e.dtype, e.method) == (dtype, method)]
    return np.array([x for x in found if not np.isnan(x)])


def counts(values: np.ndarray) -> np.ndarray:
    """Number of values up to each edge and above the one before."""
    at = np.searchsorted(EDGES, values)
    return np.bincount(at, minlength=len(EDGES) + 1)


def text(errors: Sequence[Error], quantity: str, dtype: str) -> list[str]:
    """The histogram of each method, and its worst case."""
    lines = []
    for method in METHODS:
        values = select(errors, quantity, dtype, method)
        if not len(values):
            continue
        of_one = [e for e in errors if (e.dtype, e.method) == (dtype, method)]
        worst = max(of_one, key=lambda e: getattr(e, quantity))
        lines += [
            "",
            f"{quantity}, {dtype}, {method}: {len(values)} matrices, median "
            f"{np.median(values):.2g}, worst {np.max(values):.3g} "
            f"({worst.name}, {worst.shape}, condition "
            f"{exact(worst.name, SHAPES[worst.shape], DTYPES[dtype]).condition:.2g})",
        ]
        found = counts(values)
        labels = [f"<= {edge:.2g}" for edge in EDGES] + [f"> {EDGES[-1]:g}"]
        for label, count in zip(labels, found, strict=True):
            if count:
                bar = "#" * -(-count * WIDTH // found.max())
                lines.append(f"{label:>14} {count:4d} {bar}")
    return lines


def draw(errors: Sequence[Error], path: Path) -> None:
    """The same as a picture."""
    figure = Figure(figsize=(9, 5.6), dpi=110, layout="constrained")
    grid = figure.subplots(len(QUANTITIES), len(DTYPES), sharex=True, squeeze=False)
    at = np.arange(len(EDGES) + 1)
    colors = dict(zip(METHODS, ("#d1495b", "#2a6f97", "#8e6c8a"), strict=True))
    for row, quantity in zip(grid, QUANTITIES, strict=True):
        for axes, dtype in zip(row, DTYPES, strict=True):
            for i, method in enumerate(METHODS):
                values = select(errors, quantity, dtype, method)
                if len(values):
                    x = at + 0.28 * (i - 1)
                    axes.bar(x, counts(values), 0.28, color=colors[method], label=method)
            axes.axvline(np.log2(C / EDGES[0]) + 0.5, color="#7f8c8d", linestyle=":")
            axes.set_title(f"{quantity}, {dtype}", size=9, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
            ticks = [f"{edge:.2g}" for edge in EDGES] + ["more"]
            axes.set_xticks(at, ticks, size=7, rotation=45)
    for axes in grid[-1]:
        axes.set_xlabel("error / (eps * condition), up to", size=8)
    for axes in grid[:, 0]:
        axes.set_ylabel("matrices", size=8)
    grid[0][0].legend(fontsize=8, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    raise SystemExit(main())
