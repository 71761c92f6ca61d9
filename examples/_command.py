"""What the command lines of all examples have in common."""

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def parser(
    package: str | None, docstring: str | None, quick: Mapping[str, Any]
) -> argparse.ArgumentParser:
    """A parser with `--quick` and `--output`; the help is the docstring of the example.

    Args:
        package: the name of the example, as `python -m` runs it.
        docstring: what `--help` says above the options.
        quick: what `--quick` sets, by the name of the option.
    """
    found = _described(package, docstring)
    settings = ", ".join(f"{name} {value}" for name, value in quick.items())
    found.add_argument("--quick", action="store_true", help=f"a small run: {settings}")
    found.add_argument(
        "--output", type=Path, default=Path("figures"), help="folder for the figures"
    )
    return found


def without_options(package: str | None, docstring: str | None) -> None:
    """Parses the command line of an example that always makes a small run."""
    found = _described(package, docstring)
    found.add_argument("--quick", action="store_true", help="no change: all runs are small")
    found.parse_args()


def parsed(
    found: argparse.ArgumentParser,
    quick: Mapping[str, Any],
    arguments: Sequence[str] | None,
) -> argparse.Namespace:
    """Parses a command line, and makes the folder for the figures.

    With `--quick` the defaults are those of a small run; other options override them.
    """
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--quick", action="store_true")
    if first.parse_known_args(arguments)[0].quick:
        found.set_defaults(**quick)
    options = found.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    return options


def verdict(checks: Mapping[str, Any], began: float, figures: Path) -> int:
    """Prints the claims that do not hold, and returns the exit status: 0 if all hold.

    Args:
        checks: whether each claim holds.
        began: when the example began, by `time.perf_counter`.
        figures: what was drawn.
    """
    for claim in (claim for claim, holds in checks.items() if not holds):
        print(f"missed: {claim}")
    held = sum(map(bool, checks.values()))
    seconds = time.perf_counter() - began
    print(
        f"{held} of {len(checks)} checks passed in {seconds:.0f} seconds; "
        f"figures: {figures}"
    )
    return 0 if held == len(checks) else 1


def _described(package: str | None, docstring: str | None) -> argparse.ArgumentParser:
    """A parser without options, whose help is the docstring of the example."""
    return argparse.ArgumentParser(
        prog=f"python -m {package}",
        description=docstring,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
