"""Tables of the results, in Markdown."""

import json
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.benchmarks.cases import OPERATIONS, size_name
from tests.benchmarks.peers import JNP, REFERENCE, SCALE, TORCH

#: Between these the same code against itself has to stay.
CALIBRATED = (0.9, 1.1)
PINVS = (JNP, TORCH, "numpy.linalg.pinv", "scipy.linalg.pinv")

Row = dict[str, Any]


def as_text(results: dict[str, Any]) -> str:
    """The results as JSON: one line for each row, numbers with five digits."""
    parts = []
    for name, value in _rounded(results).items():
        text = json.dumps(value)
        if isinstance(value, list) and value:
            rows = ",\n  ".join(json.dumps(row) for row in value)
            text = f"[\n  {rows}\n ]"
        parts.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rounded(value: Any) -> Any:
    """The same, its numbers rounded to five significant digits."""
    if isinstance(value, dict):
        return {name: _rounded(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(x) for x in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown table with aligned columns, numbers to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
    lines.insert(1, rule)
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        + " |"
        for line in lines
    )


def ratios(timings: Iterable[Row], names: Sequence[str] = PINVS + SCALE) -> str:
    """Every case: times over that of `jaxpinv.pinv`, and its own calibration."""
    header = ["case", *(short(name) for name in names), "A/A", "rounds"]
    return table(
        header,
        (
            [
                row["label"],
                *(cell(row, name) for name in names),
                f"{row['twin']['median']:.2f}",
                str(row["rounds"]),
            ]
            for row in timings
        ),
    )


def summary(timings: Iterable[Row], dtype: str = "32") -> str:
    """The short table: full rank in single precision, value, gradient and HVP."""
    chosen = {
        (row["size"], row["operation"]): row
        for row in timings
        if row["rank"] == "full"
        and not row["hermitian"]
        and _single(row) == (dtype == "32")
    }
    sizes = list(dict.fromkeys(size for size, _ in chosen))
    names = {"value": (*PINVS, SCALE[0])}
    columns = [(o, n) for o in OPERATIONS for n in names.get(o, (JNP, TORCH))]
    header = ["shape", *(f"{operation}: {short(name)}" for operation, name in columns)]
    rows = []
    for size in sizes:
        kind = " complex" if "complex" in chosen[size, OPERATIONS[0]]["dtype"] else ""
        cells = (
            cell(chosen[size, operation], name) if (size, operation) in chosen else ""
            for operation, name in columns
        )
        rows.append([size + kind, *cells])
    return table(header, rows)


def calibration(timings: Sequence[Row]) -> dict[str, Any]:
    """How the same compiled code did against itself, over all cases."""
    found = {row["label"]: row["twin"]["median"] for row in timings}
    low, high = CALIBRATED
    return {
        "cases": len(found),
        "median": statistics.median(found.values()),
        "low": min(found.values()),
        "high": max(found.values()),
        "outside": {label: r for label, r in found.items() if not low <= r <= high},
    }


def calibration_sentence(found: dict[str, Any]) -> str:
    """The same in words."""
    low, high = CALIBRATED
    text = (
        f"A/A calibration: the same compiled code against itself in each of the "
        f"{found['cases']} cases: {found['low']:.2f} to {found['high']:.2f}, "
        f"median {found['median']:.3f}."
    )
    if found["outside"]:
        cases = ", ".join(f"{label} ({r:.2f})" for label, r in found["outside"].items())
        return f"{text} NOT within {low} to {high}, do not trust: {cases}."
    return f"{text} All within {low} to {high}."


def costs(found: dict[str, Any]) -> str:
    """Compile time, residuals, peak memory and import time."""
    parts = []
    if "compile" in found:
        text = "Compile time over that of `jaxpinv.pinv`, and the seconds of that:\n\n"
        parts.append(text + _compile_times(found["compile"]))
    if "residuals" in found:
        rows = _named(found["residuals"], lambda x: f"{x:.2f}")
        parts.append("Kept for the backward pass, in units of the input:\n\n" + rows)
    if "peak_memory" in found:
        rows = _named(found["peak_memory"], lambda x: f"{x:.1f}")
        text = "Peak memory of a call beyond its input, in units of the input:\n\n"
        parts.append(text + rows)
    if "import" in found:
        times = {k: v for k, v in found["import"].items() if k != "seconds of jax"}
        text = ", ".join(f"{name} {x:.3f}" for name, x in times.items())
        parts.append(f"Import time over that of `import jax.numpy`: {text}.")
    return "\n\n".join(parts)


def least_squares(rows: Sequence[Row]) -> str:
    """Gradient through `lstsq` and its derivative part, next to other ways."""
    names = list(rows[0]["ratios"])[1:]
    return table(
        ["shape", "part", *names],
        (
            [
                size_name(row["shape"]),
                row["part"],
                *(f"{row['ratios'][name]:.2f}" for name in names),
            ]
            for row in rows
        ),
    )


def _compile_times(found: dict[str, dict[str, float]]) -> str:
    """The seconds of the reference, and the others in units of them."""
    seconds = "seconds of the reference"
    others = dict.fromkeys(n for row in found.values() for n in row if n != seconds)
    names = [name for name in others if name != REFERENCE]
    rows = (
        [key, f"{row[seconds]:.2f}", *(f"{row[name]:.2f}" for name in names)]
        for key, row in found.items()
    )
    return table(["", "seconds", *(short(name) for name in names)], rows)


def _named(found: dict[str, dict[str, float]], form) -> str:
    """Table of rows of named numbers."""
    names = dict.fromkeys(n for row in found.values() for n in row if "seconds" not in n)
    rows = (
        [key, *(form(row[n]) if n in row else "" for n in names)]
        for key, row in found.items()
    )
    return table(["", *(short(name) for name in names)], rows)


def cell(row: Row, name: str) -> str:
    """One ratio; of a method that is too slow for the rounds, from two calls."""
    if name in row["ratios"]:
        return f"{row['ratios'][name]['median']:.2f}"
    return f"~{row['single'][name]:.0f}" if name in row["single"] else ""


def short(name: str) -> str:
    """Name of a method in a table head."""
    if name == SCALE[-1]:
        return "product"
    library, *_, function = name.split(".")
    return library if function == "pinv" else function


def _single(row: Row) -> bool:
    """Whether the case is in single precision."""
    return row["dtype"] in ("float32", "complex64")
