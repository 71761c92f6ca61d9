"""Time over batch sizes and rows: `python -m tests.benchmarks.cliffs [--quick]`.

`pinv` of full rank by default against `method="svd"` and jnp, in rounds that take turns, on
one thread if started by `OPENBLAS_NUM_THREADS=1 taskset -c 0`. A step is the time of a
shape over that of its smaller neighbor, in rows or in matrices, beyond the ratio of their
elements. What looks like a step or a slower shape is timed again, for longer, and both
neighbors in the same rounds: a slow second of the machine is neither. If some are left the
status is 1. All shapes take an hour or two.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import jaxpinv
from tests.benchmarks import timing

METHODS: tuple[str, ...] = ("auto", "svd", "jnp")
AUTO, SVD, JNP = METHODS
BATCHES = (1, 2, 4, 8, 16, 24, 31, 32, 33, 48, 64, 100, 128, 256)
#: Close pairs where the package or a power of two has a threshold, and the way there.
ROWS = (
    *(8, 9, 16, 32, 64, 128, 256, 512, 1000, 1001, 1023, 1025, 2040, 2048, 2056),
    *(4088, 4096, 4104, 8184, 8192, 16_384, 32_768, 65_536, 100_000),
)
COLUMNS = (1, 2, 4, 8, 9, 16, 32)
MOST_ELEMENTS = 20_000_000
LARGEST_STEP, LARGEST_RATIO = 1.5, 1.1
#: A step is timed again if single times show this much of it.
SUSPICIOUS = 1.3
#: Below this an eager call's way through JAX is most of the time.
SHORTEST = 20e-6


class Shape(NamedTuple):
    """A batch of matrices."""

    batch: int
    m: int
    n: int

    @property
    def elements(self) -> int:
        """Of all matrices."""
        return self.batch * self.m * self.n


class Point(NamedTuple):
    """Median seconds of each method, and ratios of the times of single rounds."""

    shape: Shape
    seconds: dict[str, float]
    svd_ratio: float
    jnp_ratio: float


class Step(NamedTuple):
    """From a shape to a larger one: time, in units of what more elements explain."""

    smaller: Shape
    larger: Shape
    factor: float


def call(shape: Shape, method: Any) -> timing.Method:
    """A compiled pseudo-inverse of one matrix after the other, that waits."""
    inputs = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    arrays = [jnp.asarray(x if shape.batch > 1 else x[0]) for x in inputs]

    def pinv(a: jax.Array) -> jax.Array:
        return jnp.linalg.pinv(a) if method == JNP else jaxpinv.pinv(a, method=method)

    run = jax.jit(pinv).lower(arrays[0]).compile()
    return lambda i: jax.block_until_ready(run(arrays[i % len(arrays)]))


def measure(shape: Shape, seconds: float) -> Point:
    """All methods, in turn."""
    calls = {method: call(shape, method) for method in METHODS}
    times = timing.rounds(calls, seconds=seconds, block=0.01)
    ratios = [timing.ratio(times[AUTO], times[x]).median for x in (SVD, JNP)]
    return Point(shape, {x: timing.median(y) for x, y in times.items()}, *ratios)


def neighbors(shapes: Sequence[Shape]) -> Iterator[tuple[Shape, Shape]]:
    """Pairs that differ in the rows alone or the batch alone, with nothing between."""
    for axis in ("batch", "m"):
        rest = [x for x in Shape._fields if x != axis]
        groups: dict[tuple, list[Shape]] = {}
        for shape in shapes:
            groups.setdefault(tuple(getattr(shape, x) for x in rest), []).append(shape)
        for group in groups.values():
            yield from itertools.pairwise(sorted(group))


def factor(smaller: Shape, larger: Shape, ratio: float) -> float:
    """The ratio of times, less what the elements explain."""
    return ratio * smaller.elements / larger.elements


def steps(
    points: Sequence[Point], again: Callable[[Shape, Shape], float]
) -> Iterator[Step]:
    """Steps upward of the default method that another measurement confirms."""
    seconds = {point.shape: point.seconds[AUTO] for point in points}
    for pair in neighbors(list(seconds)):
        smaller, larger = (seconds[x] for x in pair)
        if larger < SHORTEST or factor(*pair, larger / smaller) < SUSPICIOUS:
            continue
        yield Step(*pair, factor(*pair, again(*pair)))


def together(smaller: Shape, larger: Shape) -> float:
    """The ratio of times of two shapes, in turn."""
    calls = {str(x): call(x, AUTO) for x in (smaller, larger)}
    times = timing.rounds(calls, seconds=1.0, block=0.01)
    return timing.ratio(times[str(larger)], times[str(smaller)]).median


def shapes(*, quick: bool) -> Iterator[Shape]:
    """Up to a size, the rows from the columns on."""
    for n in (2, 8) if quick else COLUMNS:
        for m in (1000, 1001, 4088, 4096) if quick else sorted({n, *ROWS}):
            for batch in (1, 31, 32) if quick else BATCHES:
                shape = Shape(batch, m, n)
                if m >= n and shape.elements <= MOST_ELEMENTS:
                    yield shape


def draw(points: Sequence[Point], path: Path) -> None:
    """Time of an element against rows, a line for each batch, and the ratio to the SVD."""
    widths = sorted({point.shape.n for point in points})
    batches = sorted({point.shape.batch for point in points})
    size = (4 * len(widths), 6)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    panels = figure.subplots(2, len(widths), sharex=True, sharey="row", squeeze=False)
    for [upper, lower], n in zip(panels.T, widths, strict=True):
        for i, batch in enumerate(batches):
            chosen = [x for x in points if (x.shape.batch, x.shape.n) == (batch, n)]
            chosen.sort()
            rows = [x.shape.m for x in chosen]
            color = (0.8 * i / len(batches), 0.35, 1 - 0.8 * i / len(batches))
            each = [1e9 * x.seconds[AUTO] / x.shape.elements for x in chosen]
            upper.loglog(rows, each, ".-", color=color, label=f"{batch} matrices")
            lower.loglog(rows, [x.svd_ratio for x in chosen], ".-", color=color)
        lower.axhline(LARGEST_RATIO, color="#7f8c8d", linewidth=0.8)
        upper.set_title(f"{n} columns")
        lower.set_xlabel("rows")
    panels[0, 0].set_ylabel("ns an element")
    panels[1, 0].set_ylabel('time / time of method="svd"')
    panels[0, 0].legend(fontsize=6)
    figure.savefig(path)


def label(shape: Shape) -> str:
    """Name of a shape."""
    return f"{shape.batch} x {shape.m}x{shape.n}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints and draws. Returns 1 if there is a step or a slower shape."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few shapes")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY=VALUE[,VALUE]")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each shape")
    parser.add_argument("--out", type=Path, help="folder for cliffs.json and cliffs.png")
    args = parser.parse_args(argv)
    only = {k: v.split(",") for k, v in (x.split("=") for x in args.only)}
    points = []
    for shape in shapes(quick=args.quick):
        if all(str(getattr(shape, k)) in v for k, v in only.items()):
            point = measure(shape, args.seconds)
            if point.svd_ratio > LARGEST_RATIO:
                point = measure(shape, 5 * args.seconds)
            points.append(point)
            ratios = f"svd {point.svd_ratio:.2f}, jnp {point.jnp_ratio:.2f}"
            seconds = f"{1e3 * point.seconds[AUTO]:.3f} ms"
            print(f"{label(shape)}: {seconds}, over {ratios}", file=sys.stderr, flush=True)
            jax.clear_caches()
    slower = [x for x in points if x.svd_ratio > LARGEST_RATIO]
    found = [x for x in steps(points, together) if x.factor > LARGEST_STEP]
    for step in sorted(found, key=lambda x: -x.factor):
        pair = f"{label(step.smaller)} to {label(step.larger)}"
        print(f"step of {step.factor:.2f}: {pair}")
    for point in sorted(slower, key=lambda x: -x.svd_ratio):
        print(f"{point.svd_ratio:.2f} times the SVD: {label(point.shape)}")
    print(f"{len(found)} steps, {len(slower)} of {len(points)} shapes slower than the SVD")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        rows = [x._asdict() | {"shape": list(x.shape)} for x in points]
        (args.out / "cliffs.json").write_text(json.dumps(rows, indent=1))
        draw(points, args.out / "cliffs.png")
    return 1 if found or slower else 0


if __name__ == "__main__":
    sys.exit(main())
