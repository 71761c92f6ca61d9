"""Draws the figures of the documentation.

python -m examples.docs.figures
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

from examples._style import FADED, INK, save, style

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "pages" / "images"
BLUE, RED, GREEN, YELLOW = "#2a6f97", "#d1495b", "#2a9d8f", "#e9a23b"


def cutoffs(path: Path) -> None:
    """Singular values of a real matrix, and where each library truncates by default."""
    data: Any = load_breast_cancer()
    a = data.data.astype(np.float32)
    s = np.linalg.svd(a, compute_uv=False)
    s = s / s[0]
    eps = float(np.finfo(np.float32).eps)
    longer = max(a.shape)
    defaults = {
        f"jnp, TensorFlow: 10 max(m, n) eps = {10 * longer * eps:.0e}": 10 * longer * eps,
        f"jaxpinv, torch, SciPy: max(m, n) eps = {longer * eps:.0e}": longer * eps,
        "NumPy, torch.pinverse: 1e-15": 1e-15,
    }
    figure = Figure(figsize=(8, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    style(axes)
    axes.semilogy(np.arange(1, s.size + 1), np.maximum(s, 1e-17), "o", color=INK, ms=4)
    for (name, value), color in zip(defaults.items(), (RED, BLUE, YELLOW), strict=True):
        kept = int(np.sum(s > value))
        axes.axhline(value, color=color, linewidth=1.5)
        axes.annotate(
            f"{name}, {kept} of {s.size} kept",
            (s.size, value),
            (0, 4),
            textcoords="offset points",
            ha="right",
            color=color,
            size=9,
        )
    axes.set(xlabel="index", ylabel="singular value / largest", ylim=(1e-16, 3))
    save(figure, path)


def communication(path: Path, devices: int = 4) -> None:
    """The tree of QR factorizations over four devices."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set(xlim=(-0.6, devices - 0.4), ylim=(-0.5, 3.0))
    places = [(x, 0.0) for x in range(devices)]
    for device, (x, y) in enumerate(places):
        text = f"device {device}\n$A_{device} = Q_{device} R_{device}$\nrows stay here"
        _box(axes, x, y, text, BLUE)
    level = 1
    while len(places) > 1:
        parents = []
        for (x0, y0), (x1, y1) in zip(places[::2], places[1::2], strict=True):
            # The first of each pair takes part in the next level.
            above = 0.25 if level == 1 else 0.12
            _arrow(axes, (x1, y1 + above), (x0 + 0.32, level + 0.05), RED)
            _arrow(axes, (x0 - 0.12, y0 + above), (x0 - 0.12, level - 0.18), INK)
            _arrow(axes, (x0 + 0.32, level - 0.1), (x1 - 0.2, y1 + above), GREEN)
            is_root = len(places) == 2
            text = "QR of two $R$" + (", then\nsingular values" if is_root else "")
            _box(axes, x0, level, text, YELLOW if is_root else FADED)
            parents.append((x0, float(level)))
        places, level = parents, level + 1
    axes.text(-0.5, 2.75, "up: triangular factors, $n^2$ numbers each", color=RED, size=10)
    text = "down: blocks of the orthogonal factor, $n^2$ numbers each"
    axes.text(-0.5, 2.5, text, color=GREEN, size=10)
    save(figure, path)


def layers() -> list[list[str]]:
    """Modules of the package in the layers that `lint-imports` checks, the top first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    rows = [row.replace("|", ":").split(":") for row in contract["layers"]]
    return [[name.strip() for name in row] for row in rows]


def imports() -> set[tuple[str, str]]:
    """Pairs of an importer and what it imports, each a module or a sub-package."""
    names = {name for row in layers() for name in row}
    return {
        (importer, imported)
        for path in (ROOT / "jaxpinv").rglob("*.py")
        for importer in [path.relative_to(ROOT / "jaxpinv").parts[0].removesuffix(".py")]
        for imported in _imported(path)
        if importer in names and imported in names and importer != imported
    }


def reduced(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs that do not follow from a chain of others."""
    follow = {(a, d) for a, b in pairs for c, d in pairs if b == c}
    while more := {(a, d) for a, b in follow for c, d in pairs if b == c} - follow:
        follow |= more
    return pairs - follow


def architecture(path: Path) -> None:
    """The modules, with a line for each import that no chain of others implies."""
    pairs = reduced(imports())
    ordered = [name for row in layers() for name in row]
    depth: dict[str, int] = {}
    for name in ordered:
        depth[name] = 1 + max((depth[a] for a, b in pairs if b == name), default=-1)
    rows = [[x for x in ordered if depth[x] == i] for i in range(max(depth.values()) + 1)]
    places: dict[str, tuple[float, float]] = {}
    for i, row in enumerate(rows):
        above = {x: [places[a][0] for a, b in pairs if b == x] for x in row}
        if i:
            row = sorted(row, key=lambda x: float(np.mean(above[x])))
        gap = 1.0 if len(row) > 4 else 1.5
        places |= {
            x: (gap * (j - (len(row) - 1) / 2), -float(i)) for j, x in enumerate(row)
        }
    figure = Figure(figsize=(8, 6.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    half = max(x for x, _ in places.values()) + 0.5
    axes.set(xlim=(-half, half), ylim=(0.5 - len(rows), 0.5))
    for importer, imported in sorted(pairs):
        # A line over several layers bends around the boxes between them.
        span, side = depth[imported] - depth[importer], places[importer][0]
        bend = 0.0 if span == 1 else -0.35 if side > 0 else 0.35
        _arrow(axes, places[importer], places[imported], BLUE, bend)
    for name, (x, y) in places.items():
        _box(axes, x, y, name, INK)
    # A test reads from the file whether it shows the modules of today.
    save(figure, path, modules=" ".join(ordered))


def _imported(path: Path) -> Iterator[str]:
    """Names of the modules of the package that a file imports, of their first part."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        first, _, rest = node.module.partition(".")
        if first == "jaxpinv":
            yield from [rest.split(".")[0]] if rest else [x.name for x in node.names]


def _box(axes: Axes, x: float, y: float, text: str, color: str) -> None:
    """A text in a box."""
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": color}
    axes.text(x, y, text, ha="center", va="center", size=8.5, color=INK, bbox=box)


def _arrow(axes: Axes, start: tuple, end: tuple, color: str, bend: float = 0.0) -> None:
    """An arrow."""
    arrow = {"arrowstyle": "-|>", "color": color, "linewidth": 1.4}
    arrow |= {"connectionstyle": f"arc3,rad={bend}"}
    axes.annotate("", end, start, arrowprops=arrow)


def main() -> None:
    """Draws all of them."""
    FOLDER.mkdir(exist_ok=True)
    for draw in (cutoffs, communication, architecture):
        path = FOLDER / f"{draw.__name__}.png"
        draw(path)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
