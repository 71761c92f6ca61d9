"""Accuracy over shapes: `python -m tests.benchmarks.shapes [--quick] [--only ...]`.

The error of every result over `eps * cond`, by both ways and by jnp, the worst of several
matrices. It is relative to the change that a change of the matrix by its own size makes, so
that a backward stable method has a small number everywhere: see `tests.extended`. A cell
may have 4, or 4 times the error of `method="svd"`. If one has more the status is 1.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxpinv
from tests.extended import Operands, Reference, error
from tests.helpers import gaussian, unitary

AUTO, SVD, JNP = METHODS = ("auto", "svd", "jnp")
DTYPES = ("float32", "float64", "complex64", "complex128")
COLUMNS = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 24, 32, 64)
ROWS = (10, 30, 100, 300, 1001, 4095, 4097, 20_000, 100_000, 300_000, 1_000_000)
BATCHES = (1, 3, 31, 32, 100)
SQUARE = (100, 200, 300)
MOST_ELEMENTS = 20_000_000
#: In 80 bits there are 2e8 products a second: most of one Gram matrix.
MOST_PRODUCTS = {"float64": 2e7, "complex128": 1e7}
#: An orthonormal matrix and its derivatives take time: most elements of them.
MOST_ORTHONORMAL, MOST_DERIVED = 1_000_000, 2_000_000
#: As many matrices of a batch are looked at.
LOOKED_AT = 6
LIMIT = 4.0


class Shape(NamedTuple):
    """A batch of tall matrices of one dtype: one program for each method."""

    batch: int
    m: int
    n: int
    dtype: str

    @property
    def elements(self) -> int:
        """Of all matrices."""
        return self.batch * self.m * self.n


class Cell(NamedTuple):
    """The worst error of one result over `eps * cond`."""

    dtype: str
    batch: int
    rows: int
    columns: int
    kind: str
    quantity: str
    method: str
    error: float


def _random(rng, m: int, n: int, dtype: str) -> np.ndarray:
    return gaussian(rng, (m, n), dtype) / np.sqrt(m)


def _intercept(rng, m: int, n: int, dtype: str) -> np.ndarray:
    """A column of ones, a straight line, and other regressors between 0 and 1."""
    a = rng.uniform(size=(m, n))
    a[:, 0] = 1
    if n > 1:
        a[:, 1] = np.linspace(0, 1, m)
    return a if np.dtype(dtype).kind == "f" else a * np.exp(0.3j)


def _common_mean(rng, m: int, n: int, dtype: str) -> np.ndarray:
    a = rng.uniform(size=(m, n)) + rng.choice([0, 0.5, 1, 10])
    return a if np.dtype(dtype).kind == "f" else a + 0.5j * rng.uniform(size=(m, n))


def _orthonormal(rng, m: int, n: int, dtype: str) -> np.ndarray | None:
    return unitary(rng, m, n, dtype) if m * n <= MOST_ORTHONORMAL else None


def _graded(rng, m: int, n: int, dtype: str) -> np.ndarray | None:
    """Condition 1000."""
    left = _orthonormal(rng, m, n, dtype)
    if left is None or n == 1:
        return None
    return (left * np.geomspace(1, 1e-3, n)) @ unitary(rng, n, n, dtype)


KINDS: dict[str, Callable[..., np.ndarray | None]] = {
    "gaussian": _random,
    "intercept": _intercept,
    "common mean": _common_mean,
    "orthonormal": _orthonormal,
    "graded": _graded,
}


def operands(shape: Shape, kind: str, seed: int) -> Operands | None:
    """A batch of matrices of that kind, and what goes with them. None if too ill to test.

    Of two right-hand sides the first is in the range but for rounding.
    """
    rng = np.random.default_rng([seed, shape.batch, shape.m, shape.n])
    rows = [KINDS[kind](rng, shape.m, shape.n, shape.dtype) for _ in range(shape.batch)]
    if rows[0] is None:
        return None
    a = np.stack(rows).astype(shape.dtype)
    # Square Gaussian matrices may be ill; of long ones the condition is that of a part.
    conditions = np.linalg.cond(a[:, : 2 * shape.n + 1000])
    if np.max(conditions) > 2e3:
        return None
    x, c = (gaussian(rng, (shape.batch, shape.n, k), shape.dtype) for k in (1, 2))
    other = gaussian(rng, (shape.batch, shape.m, 1), shape.dtype)
    b = np.concatenate([a @ x, other], axis=-1)
    return Operands(a, b, c, gaussian(rng, a.shape, shape.dtype))


def _null(method: str, a: jax.Array, x: jax.Array, rtol: float | None) -> jax.Array:
    """The projection on the null space, by singular vectors but for "auto"."""
    if method == AUTO:
        return jaxpinv.null_projection(a, x, rtol)
    vh = jnp.linalg.svd(a, full_matrices=False)[2]
    return x - jnp.conj(jnp.swapaxes(vh, -1, -2)) @ (vh @ x)


def _solve(method: str, a: jax.Array, b: jax.Array, rtol: float | None) -> Sequence[Any]:
    if method == JNP:
        return jax.vmap(lambda a, b: jnp.linalg.lstsq(a, b, rcond=rtol)[:2])(a, b)
    return jaxpinv.lstsq(a, b, rtol, method=method)[:2]


def _pinv(method: str, a: jax.Array, rtol: float | None) -> jax.Array:
    if method == JNP:
        # Its own default may be larger than one.
        default = max(a.shape[-2:]) * float(jnp.finfo(a.dtype).eps)
        return jnp.linalg.pinv(a, rtol=default if rtol is None else rtol)
    return jaxpinv.pinv(a, rtol, method=method)


@partial(jax.jit, static_argnames=("method", "rtol"))
def values(given: Operands, method: str, rtol: float | None) -> dict[str, jax.Array]:
    """What `Reference.values` knows, for a batch."""
    a, b, c, _ = given
    solution, residuals = _solve(method, a, b, rtol)
    wide = jnp.conj(jnp.swapaxes(a, -1, -2))
    return {
        "pinv": _pinv(method, a, rtol),
        "solution": solution,
        "residuals": residuals,
        "null": _null(method, a, c[..., :1], rtol),
        "null of wide": _null(method, wide, b[..., :1], rtol),
    }


@partial(jax.jit, static_argnames=("method", "rtol"))
def derivatives(given: Operands, method: str, rtol: float | None) -> dict[str, jax.Array]:
    """What `Reference.derivatives` knows, for a batch."""
    a, b, c, e = given

    def first(a):
        return jax.jvp(lambda a: _pinv(method, a, rtol), (a,), (e,))[1]

    one, two = jax.jvp(first, (a,), (e,))
    _, pull = jax.vjp(lambda a: _solve(method, a, b, rtol)[0], a)
    return {"gradient": pull(c)[0], "first": one, "second": two}


def measure(
    shape: Shape,
    kinds: Sequence[str] = tuple(KINDS),
    seeds: int = 3,
    methods: Sequence[str] = METHODS,
    *,
    derived: bool = True,
) -> Iterator[Cell]:
    """All cells of a shape."""
    eps = float(np.finfo(shape.dtype).eps)
    worst: dict[tuple[str, str, str], float] = {}
    looked_at = np.unique(np.linspace(0, shape.batch - 1, LOOKED_AT, dtype=int))
    derived = derived and shape.elements <= MOST_DERIVED
    for kind in kinds:
        for seed in range(seeds if shape.batch == 1 else 1):
            given = operands(shape, kind, seed)
            if given is None:
                continue
            references = [Reference(Operands(*(x[i] for x in given))) for i in looked_at]
            condition = max(x.condition for x in references)
            # Where the default cutoff would cut, one that does not.
            rtol = None if condition * shape.m * eps < 0.5 else eps
            known = [x.values() for x in references]
            if derived:
                known = [
                    k | x.derivatives() for k, x in zip(known, references, strict=True)
                ]
            for method in methods:
                found = values(given, method, rtol)
                if derived:
                    found |= derivatives(given, method, rtol)
                for name, batch in found.items():
                    x = np.asarray(batch)
                    errors = [
                        error(x[i], k[name]) / (eps * r.condition)
                        for i, k, r in zip(looked_at, known, references, strict=True)
                    ]
                    key = (kind, name, method)
                    worst[key] = max(worst.get(key, 0.0), *errors)
    for key, value in worst.items():
        yield Cell(shape.dtype, shape.batch, shape.m, shape.n, *key, value)


def shapes(*, quick: bool) -> Iterator[Shape]:
    """Single matrices of all sizes, batches of fewer, and square ones."""
    for dtype in DTYPES[:2] if quick else DTYPES:
        most = MOST_PRODUCTS.get(dtype, np.inf)
        for n in (2, 8) if quick else COLUMNS:
            for m in (20_000,) if quick else sorted({n, *ROWS}):
                for batch in (1,) if quick else BATCHES:
                    is_chosen = batch == 1 or n in (1, 2, 3, 8, 9, 16)
                    looked_at = min(batch, LOOKED_AT)
                    fits = batch * m * n <= MOST_ELEMENTS and looked_at * m * n * n <= most
                    if m >= n and is_chosen and fits:
                        yield Shape(batch, m, n, dtype)
        if not quick:
            yield from (Shape(1, n, n, dtype) for n in SQUARE)


def violations(cells: Sequence[Cell], limit: float = LIMIT) -> list[tuple[Cell, float]]:
    """Cells of "auto" beyond the limit, the worst first, with what `method="svd"` has."""
    by_svd = {cell[:-2]: cell.error for cell in cells if cell.method == SVD}
    found = [
        (cell, by_svd[cell[:-2]])
        for cell in cells
        if cell.method == AUTO and not cell.error <= limit * max(1.0, by_svd[cell[:-2]])
    ]
    return sorted(found, key=lambda x: -x[0].error)


def table(cells: Sequence[Cell]) -> str:
    """The worst over rows, batches and kinds, by both ways and by jnp, in Markdown."""
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
                    worst[cell.method] = max(worst[cell.method], cell.error)
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
    colours = dict(zip(METHODS, ("#d1495b", "#2a6f97", "#e09f3e"), strict=True))
    for axes, n in zip(panels, widths, strict=False):
        for dtype, style in styles.items():
            for method, colour in colours.items():
                worst: dict[int, float] = {}
                for cell in cells:
                    if (cell.columns, cell.dtype, cell.method) == (n, dtype, method):
                        worst[cell.rows] = max(worst.get(cell.rows, 0), cell.error)
                rows = sorted(worst)
                axes.loglog(
                    rows,
                    [max(worst[m], 1e-3) for m in rows],
                    style,
                    color=colour,
                    marker=".",
                    label=f"{method}, {dtype}",
                )
        axes.axhline(LIMIT, color="#7f8c8d", linewidth=0.8)
        axes.set_title(f"{n} columns")
    figure.supxlabel("rows")
    figure.supylabel("error / (eps cond)")
    panels[0].legend(fontsize=6)
    figure.savefig(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and draws. Returns 1 if a cell is beyond the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cells, in a minute")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY=VALUE[,VALUE]")
    parser.add_argument("--values", action="store_true", help="no derivatives")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for shapes.json and shapes.png")
    args = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    only = {k: v.split(",") for k, v in (x.split("=") for x in args.only)}
    kinds = only.pop("kind", list(KINDS))
    methods = only.pop("method", list(METHODS))
    unknown = set(only) - set(Shape._fields)
    if unknown:
        parser.error(
            f"--only takes kind, method, {', '.join(Shape._fields)}: got {unknown}"
        )
    cells: list[Cell] = []
    for shape in shapes(quick=args.quick):
        if all(str(getattr(shape, k)) in v for k, v in only.items()):
            found = measure(shape, kinds, args.seeds, methods, derived=not args.values)
            cells += found
            print(*shape, file=sys.stderr, flush=True)
            jax.clear_caches()
    print(table(cells))
    beyond = violations(cells)
    for cell, by_svd in beyond:
        print(f"beyond the limit: {cell.error:.3g}, by the SVD {by_svd:.2g}:", *cell[:-2])
    print(f"{len(beyond)} of {sum(x.method == AUTO for x in cells)} cells beyond the limit")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([cell._asdict() for cell in cells], indent=1)
        (args.out / "shapes.json").write_text(text)
        draw(cells, args.out / "shapes.png")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
