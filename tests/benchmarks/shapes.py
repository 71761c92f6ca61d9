"""Accuracy over shapes: `python -m tests.benchmarks.shapes [--quick] [--only ...]`.

The error of every result over `eps * cond`, by `method="direct"`, by `method="svd"` and by
jnp, the worst of several matrices. The default is one of the first two. The error is
relative to the change that a change of the matrix by its own size makes, so that a backward
stable method has a small number everywhere: see `tests.extended_oracle`. A cell may have 4,
or 4 times the error of `method="svd"`, in the norm and in the largest element. If one has
more the status is 1. All shapes take hours on one core.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxpinv
from tests.benchmarks import shapes_report
from tests.benchmarks.kinds import KINDS
from tests.benchmarks.shapes_report import DIRECT, DTYPES, JNP, METHODS, Cell
from tests.extended_oracle import Operands, Reference, condition_number, errors
from tests.matrices import gaussian

COLUMNS = (1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 24, 32, 64)
ROWS = (10, 30, 100, 300, 1001, 4095, 4097, 20_000, 100_000, 300_000, 1_000_000)
FEW = (1, 2, 3, 8, 16, 64)
DERIVED_ROWS = (30, 1001, 20_000, 100_000)
BATCHES = (1, 3, 31, 32, 100)
SQUARE = (100, 200, 300)
MOST_ELEMENTS = 20_000_000
#: In 80 bits there are 2e8 products a second: most of one Gram matrix.
MOST_PRODUCTS = {"float64": 2e7, "complex128": 1e7}
#: Derivatives take time: most elements of a matrix.
MOST_DERIVED = 2_000_000
LARGEST_CONDITION = 2e3
#: As many matrices of a batch are looked at.
LOOKED_AT = 6


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


def operands(shape: Shape, kind: str, seed: int) -> Operands | None:
    """A batch of matrices of that kind, and what goes with them, or None.

    Of two right-hand sides the first is in the range but for rounding.
    """
    rng = np.random.default_rng([seed, shape.batch, shape.m, shape.n])
    rows = [KINDS[kind](rng, shape.m, shape.n, shape.dtype) for _ in range(shape.batch)]
    rows = [row for row in rows if row is not None]
    if not rows:
        return None
    a = np.stack(rows).astype(shape.dtype)
    x, c = (gaussian(rng, (shape.batch, shape.n, k), shape.dtype) for k in (1, 2))
    other = gaussian(rng, (shape.batch, shape.m, 1), shape.dtype)
    b = np.concatenate([a @ x, other], axis=-1)
    return Operands(a, b, c, gaussian(rng, a.shape, shape.dtype))


def _null(method: Any, a: jax.Array, x: jax.Array, rtol: float | None) -> jax.Array:
    """The projection on the null space; jnp has none but by singular vectors."""
    if method != JNP:
        return jaxpinv.null_projection(a, x, rtol, method=method)
    vh = jnp.linalg.svd(a, full_matrices=False)[2]
    return x - jnp.conj(jnp.swapaxes(vh, -1, -2)) @ (vh @ x)


def _solve(method: Any, a: jax.Array, b: jax.Array, rtol: float | None) -> Sequence[Any]:
    if method == JNP:
        return jax.vmap(lambda a, b: jnp.linalg.lstsq(a, b, rcond=rtol)[:2])(a, b)
    return jaxpinv.lstsq(a, b, rtol, method=method)[:2]


def _pinv(method: Any, a: jax.Array, rtol: float | None) -> jax.Array:
    if method == JNP:
        # Its own default may be larger than one.
        default = max(a.shape[-2:]) * float(jnp.finfo(a.dtype).eps)
        return jnp.linalg.pinv(a, rtol=default if rtol is None else rtol)
    return jaxpinv.pinv(a, rtol, method=method)


@partial(jax.jit, static_argnames=("method", "rtol"))
def values(given: Operands, method: str, rtol: float | None) -> dict[str, jax.Array]:
    """The pseudo-inverse and least squares of `Reference.values`, for a batch."""
    a, b, _, _ = map(jnp.asarray, given)
    solution, residuals = _solve(method, a, b, rtol)
    x = _pinv(method, a, rtol)
    return {"pinv": x, "solution": solution, "residuals": residuals}


@partial(jax.jit, static_argnames=("method", "rtol"))
def projections(given: Operands, method: str, rtol: float | None) -> dict[str, jax.Array]:
    """The projections of `Reference.values`, for a batch."""
    a, b, c, _ = map(jnp.asarray, given)
    wide = jnp.conj(jnp.swapaxes(a, -1, -2))
    return {
        "null": _null(method, a, c, rtol),
        "null of wide": _null(method, wide, b, rtol),
    }


@partial(jax.jit, static_argnames=("method", "rtol"))
def gradient(given: Operands, method: str, rtol: float | None) -> dict[str, jax.Array]:
    """The gradient that `Reference.derivatives` knows, for a batch."""
    a, b, c, _ = map(jnp.asarray, given)
    _, pull = jax.vjp(lambda a: _solve(method, a, b, rtol)[0], a)
    return {"gradient": pull(c)[0]}


@partial(jax.jit, static_argnames=("method", "rtol"))
def directional(given: Operands, method: str, rtol: float | None) -> dict[str, jax.Array]:
    """The derivatives of the pseudo-inverse that it knows, for a batch."""
    a, _, _, e = map(jnp.asarray, given)

    def first(a):
        return jax.jvp(lambda a: _pinv(method, a, rtol), (a,), (e,))[1]

    one, two = jax.jvp(first, (a,), (e,))
    return {"first": one, "second": two}


OF_VALUES = (values, projections)
PROGRAMS = (*OF_VALUES, gradient, directional)


def measure(
    shape: Shape,
    kinds: Sequence[str] = tuple(KINDS),
    seeds: int = 3,
    methods: Sequence[str] = METHODS,
    programs: Sequence[Callable[..., dict[str, jax.Array]]] = PROGRAMS,
) -> Iterator[Cell]:
    """All cells of a shape."""
    eps = float(np.finfo(shape.dtype).eps)
    worst: dict[tuple[str, str, str], np.ndarray] = {}
    looked_at = np.unique(np.linspace(0, shape.batch - 1, LOOKED_AT, dtype=int))
    for kind, seed in itertools.product(kinds, range(seeds if shape.batch == 1 else 1)):
        given = operands(shape, kind, seed)
        if given is None:
            continue
        condition = max(condition_number(given.a[i]) for i in looked_at)
        if condition > LARGEST_CONDITION:
            continue
        references = [Reference(Operands(*(x[i] for x in given))) for i in looked_at]
        # If the default cutoff would truncate, one that does not.
        rtol = None if condition * shape.m * eps < 0.9 else eps
        known = [x.values() for x in references]
        if set(programs) - set(OF_VALUES):
            known = [k | x.derivatives() for k, x in zip(known, references, strict=True)]
        for method, program in itertools.product(methods, programs):
            for name, batch in program(given, method, rtol).items():
                x, key = np.asarray(batch), (kind, name, method)
                for i, k, r in zip(looked_at, known, references, strict=True):
                    found = errors(x[i], k[name]) / (eps * r.condition)
                    worst[key] = np.maximum(worst.get(key, 0.0), found)
    for key, both in worst.items():
        yield Cell(shape.dtype, shape.batch, shape.m, shape.n, *key, *map(float, both))


def programs_of(shape: Shape) -> Sequence[Callable[..., dict[str, jax.Array]]]:
    """Derivatives take most of the time: of few shapes."""
    is_chosen = shape.batch in (1, 32) and shape.m in (shape.n, *DERIVED_ROWS, *SQUARE)
    return PROGRAMS if is_chosen and shape.elements <= MOST_DERIVED else OF_VALUES


def shapes(*, quick: bool) -> Iterator[Shape]:
    """Single matrices of all sizes, batches of fewer, and square ones."""
    if quick:
        yield from (Shape(1, 20_000, 2, x) for x in DTYPES[:2])
        yield Shape(3, 1001, 8, "float64")
        return
    for dtype in DTYPES:
        is_complex, most = dtype.startswith("c"), MOST_PRODUCTS.get(dtype, np.inf)
        for n in FEW if is_complex else COLUMNS:
            for m, batch in itertools.product(sorted({n, *ROWS}), BATCHES):
                is_chosen = batch == 1 or (n in FEW and (batch == 32 or not is_complex))
                fits = batch * m * n <= MOST_ELEMENTS
                fits &= min(batch, LOOKED_AT) * m * n * n <= most
                if m >= n and is_chosen and fits:
                    yield Shape(batch, m, n, dtype)
        yield from (Shape(1, n, n, dtype) for n in SQUARE)


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
            programs = OF_VALUES if args.values else programs_of(shape)
            found = list(measure(shape, kinds, args.seeds, methods, programs))
            cells += found
            lines = [f"beyond the limit: {x}" for x in shapes_report.violations(found)]
            print(shape, *lines, sep="\n    ", file=sys.stderr, flush=True)
            jax.clear_caches()
    print(shapes_report.table(cells))
    beyond = shapes_report.violations(cells)
    for line in beyond:
        print(f"beyond the limit: {line}")
    tried = sum(cell.method == DIRECT for cell in cells)
    print(f"{len(beyond)} of {tried} cells beyond the limit")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([cell._asdict() for cell in cells], indent=1)
        (args.out / "shapes.json").write_text(text)
        shapes_report.draw(cells, args.out / "shapes.png")
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main())
