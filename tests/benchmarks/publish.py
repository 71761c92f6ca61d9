"""Writes the tables of the README and the documentation from the published results.

    python -m tests.benchmarks.publish           writes them
    python -m tests.benchmarks.publish --check   names the files that differ, exits with 1

A table stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import machine, report
from tests.benchmarks.cases import OPERATIONS
from tests.benchmarks.peers import JNP, REFERENCE, TORCH

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "results.json"
ACCELERATOR = RESULTS.parent / "accelerators" / "h200.jsonl"
KERNELS = ACCELERATOR.with_name("h100_kernels.jsonl")
FILES = (
    ROOT / "README.md",
    ROOT / "examples" / "docs" / "pages" / "performance.md",
)
#: What the README shows.
SIZES = ("100000 x 3x3", "20000 x 6x7", "2000 x 32x32", "1000x1000", "2000x400", "20000x64")
MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Results = dict[str, Any]


def speed(results: Results) -> str:
    """The six rows of the README: ratios of times, and seconds of compilation."""
    rows = {
        (row["size"], row["operation"]): row
        for row in results["timings"]
        if row["dtype"] == "float32" and row["rank"] == "full" and not row["hermitian"]
    }
    value, gradient, _ = OPERATIONS
    lines = []
    for size in SIZES:
        cells = [
            report.cell(rows[size, operation], name)
            for operation in (value, gradient)
            for name in (JNP, TORCH)
        ]
        compiled = rows[size, value]["compile_seconds"]
        cells += [f"{compiled[name]:.2f}" for name in (REFERENCE, JNP)]
        lines.append([size, *cells])
    header = ["shape", "value: jnp", "torch", "gradient: jnp", "torch", "compile: ours"]
    return report.table([*header, "jnp"], lines)


def deficient(results: Results) -> str:
    """Ratios to `jnp` of matrices that are not all of full rank, and of Hermitian ones."""
    kinds = {"mixed": "2% of deficient rank", "deficient": "all of deficient rank"}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in results["timings"]:
        if row["dtype"] == "float32" and (row["rank"] != "full" or row["hermitian"]):
            kind = "Hermitian" if row["hermitian"] else kinds[row["rank"]]
            cells = rows.setdefault((row["size"], kind), {})
            cells[row["operation"]] = report.cell(row, JNP)
    return report.table(
        ["shape", "matrices", *OPERATIONS[:2]],
        (
            [size, kind, *(cells.get(operation, "") for operation in OPERATIONS[:2])]
            for (size, kind), cells in rows.items()
        ),
    )


def where(results: Results) -> str:
    """Machine, threads, versions and calibration."""
    sentences = machine.sentence(results["machine"])
    return f"{sentences}\n\n{report.calibration_sentence(results['calibration'])}"


def accelerator() -> str:
    """Times on a GPU, and where they come from."""
    lines = ACCELERATOR.read_text("utf-8").splitlines()
    device, *others = map(json.loads, lines)
    value, gradient = OPERATIONS[:2]
    cases: dict[str, dict[str, Any]] = {}
    for row in others:
        if "case" in row:
            matrices, _, operation = row["case"].rpartition(" ")
            cases.setdefault(matrices, {})[operation] = row
    rows = []
    for matrices, found in cases.items():
        cells = [matrices]
        for operation in (value, gradient):
            if operation not in found:
                cells += ["", "", ""]
                continue
            row = found[operation]
            cells.append(f"{row['ms'][REFERENCE]:.2f}")
            cells += [f"{row['ratios'][name]:.1f}" for name in (JNP, TORCH)]
        rows.append(cells)
    header = ["matrices", "value: ms", "jnp", "torch", "gradient: ms", "jnp", "torch"]
    versions = device["versions"]
    return (
        f"{report.table(header, rows)}\n\n{device['device']}, {device['date']}, "
        f"JAX {versions['jax']}, torch {versions['torch']}, "
        f"`XLA_FLAGS={device['xla_flags']}`."
    )


def kernels() -> str:
    """Kernels, conditionals and loops of programs that were compiled for an H100."""
    columns = {
        "value": "value",
        "gradient": "gradient",
        "hvp": "Hessian times vector",
        "rank": "`matrix_rank`",
        "value of jnp": "value of `jnp`",
    }
    rows: dict[str, dict[str, str]] = {}
    for row in map(json.loads, KERNELS.read_text("utf-8").splitlines()):
        *count, m, n = row["shape"]
        size = f"{count[0]} x {m}x{n}" if count else f"{m}x{n}"
        counts = (str(row[name]) for name in ("kernels", "conditionals", "loops"))
        rows.setdefault(size, {})[row["program"]] = " / ".join(counts)
    lines = ([size, *(found[name] for name in columns)] for size, found in rows.items())
    return report.table(["shape", *columns.values()], lines)


SECTIONS: dict[str, Callable[[Results], str]] = {
    "speed": speed,
    "summary": lambda results: report.summary(results["timings"]),
    "deficient": deficient,
    "least_squares": lambda results: report.least_squares(results["lstsq"]),
    "costs": lambda results: report.costs(results["costs"]),
    "machine": where,
    "accelerator": lambda _: accelerator(),
    "kernels": lambda _: kernels(),
}


def filled(text: str, results: Results) -> str:
    """A text with its tables."""
    return MARKED.sub(
        lambda found: f"{found[1]}\n{SECTIONS[found[2]](results)}\n\n{found[3]}", text
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the tables, or compares them."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.publish",
        description="Writes the tables of the README and the documentation.",
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    results = json.loads(options.results.read_text("utf-8"))
    status = 0
    for path in FILES:
        text = path.read_text("utf-8")
        if filled(text, results) == text:
            continue
        if options.check:
            print(f"{path.name} differs from the results")
            status = 1
        else:
            path.write_text(filled(text, results), "utf-8")
            print(f"wrote {path.name}")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
