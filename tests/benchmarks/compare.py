"""Compares `jaxpinv.pinv` with its peers in one process on the same inputs.

    python -m tests.benchmarks.compare --quick     about a minute on two quiet cores
    python -m tests.benchmarks.compare             the whole grid
    python -m tests.benchmarks.compare --against FILE

prints the tables and writes them, the numbers as JSON, and the plots to a folder. Ratios
are times over that of `jaxpinv.pinv`: above 1 the other one is slower. With `--against`
the results of an earlier run, it also prints what became slower by more than noise, and the
exit status is 1 if something did.
"""

import argparse
import json
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from tests.benchmarks import (
    accuracy,
    cases,
    costs,
    least_squares,
    machine,
    plots,
    regressions,
    report,
    timing,
)
from tests.benchmarks.cases import Case
from tests.benchmarks.peers import REFERENCE, Peer, available

#: The reference a second time: its ratio is the calibration.
TWIN = "A/A"
PARTS = ("accuracy", "costs", "lstsq", "timings")
#: A method so slow, in seconds and in calls of the reference, is not timed in rounds.
SLOW_CALL, SLOW_RATIO = 0.1, 4.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for."""
    options = _parser().parse_args(arguments)
    jax.config.update("jax_enable_x64", True)
    try:
        jax.config.update("jax_default_device", jax.devices(options.platform)[0])
    except RuntimeError as error:
        print(f"no device for --platform {options.platform}: {error}")
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    peers, missing = available(options.platform)
    seconds = options.seconds or (0.5 if options.quick else 4.0)
    results = {
        "machine": machine.describe(options.platform),
        "left_out": missing,
        "accuracy": [],
        "costs": {},
        "lstsq": [],
        "timings": [],
    }
    results |= _earlier(results["machine"], options)
    if "accuracy" in options.parts:
        results["accuracy"] = _accuracy(peers, options)
    if "costs" in options.parts:
        print("compile time, memory and import time ...")
        results["costs"] = costs.measure(options.platform, quick=options.quick)
    if "lstsq" in options.parts:
        print("lstsq ...")
        results["lstsq"] = list(least_squares.measure(quick=options.quick, seconds=seconds))
    if "timings" in options.parts:
        results["timings"] = _timings(peers, options, seconds)
    results["machine"]["load_at_end"] = machine.load()
    results["calibration"] = (
        report.calibration(results["timings"]) if results["timings"] else None
    )
    status = _write(results, options.output)
    if options.against is None:
        return status
    return compared(results, json.loads(options.against.read_text(encoding="utf-8")))


def compared(results: dict[str, Any], earlier: dict[str, Any]) -> int:
    """Prints what became slower; the exit status is 1 if something did."""
    found = regressions.changes(results["timings"], earlier["timings"])
    print(regressions.report(found, results["machine"], earlier["machine"]))
    if not found:
        print("no case is in both results: measure the same grid")
    return 1 if not found or any(change.is_slower for change in found) else 0


def case_timings(case: Case, peers: Iterable[Peer], seconds: float) -> dict[str, Any]:
    """All methods on one case."""
    inputs, directions = cases.matrices(case), cases.directions(case)
    calls: dict[str, timing.Method] = {}
    compile_seconds, single, reference = {}, {}, 0.0
    for peer in peers:
        if not peer.supports(case):
            continue
        prepared = peer.prepare(case, inputs, directions)
        compile_seconds[peer.name] = prepared.compile_seconds
        once = timing.single(prepared.call)
        reference = once if peer.name == REFERENCE else reference
        if once > SLOW_CALL and once > SLOW_RATIO * reference:
            single[peer.name] = once
        else:
            calls[peer.name] = prepared.call
    calls[TWIN] = calls[REFERENCE]
    times = timing.rounds(calls, seconds=seconds)
    return summarize(case, times, single) | {"compile_seconds": compile_seconds}


def summarize(
    case: Case, times: dict[str, list[float]], single: dict[str, float]
) -> dict[str, Any]:
    """One row of the results, from the seconds of every round."""
    ratios = {
        name: timing.ratio(values, times[REFERENCE])._asdict()
        for name, values in times.items()
    }
    medians = {name: timing.median(values) for name, values in times.items()}
    twin = ratios.pop(TWIN)
    del medians[TWIN]
    return case._asdict() | {
        "label": case.label,
        "size": case.size,
        "rtol": case.rtol,
        "rounds": len(times[REFERENCE]),
        "ratios": ratios,
        "twin": twin,
        "single": {name: once / medians[REFERENCE] for name, once in single.items()},
        "seconds": medians,
    }


def _timings(
    peers: Sequence[Peer], options: argparse.Namespace, seconds: float
) -> list[dict[str, Any]]:
    """The grid, with progress on the standard error."""
    found = []
    end = time.monotonic() + 60 * options.minutes
    bar = tqdm(cases.grid(options.platform, quick=options.quick))
    for case in bar:
        bar.set_description(case.label)
        if time.monotonic() > end:
            tqdm.write(f"no time left for {case.label}")
            continue
        found.append(case_timings(case, peers, seconds))
        # Compiled code and inputs of one case must not fill the memory of the next.
        jax.clear_caches()
    return found


def _earlier(described: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The parts not asked for, from a run into the same folder with the same versions."""
    path = options.output / "results.json"
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if any(earlier["machine"][k] != described[k] for k in ("versions", "cpu", "device")):
        return {}
    return {
        part: earlier[part]
        for part in PARTS
        if part in earlier and part not in options.parts
    }


def _accuracy(peers: Sequence[Peer], options: argparse.Namespace) -> list[dict[str, Any]]:
    """The companion, with progress on the standard error."""
    seeds = 1 if options.quick else 5
    bar = tqdm(accuracy.problems(quick=options.quick), desc="accuracy")
    return [
        point._asdict()
        for problem in bar
        for point in accuracy.measure(peers, problem, seeds)
    ]


def _write(results: dict[str, Any], folder: Path) -> int:
    """Prints the tables and writes all files."""
    parts = [machine.sentence(results["machine"])]
    parts += [f"Left out: {name} ({why})." for name, why in results["left_out"].items()]
    if results["timings"]:
        parts += [
            "Times over that of `jaxpinv.pinv`; ~ from two calls only, where much slower.",
            report.ratios(results["timings"]),
            report.calibration_sentence(results["calibration"]),
        ]
    if results["lstsq"]:
        parts.append(
            "Gradient of `sum(lstsq(a, b).solution ** 2)`, float32, b a vector: times over "
            "that of `jaxpinv.lstsq`.\n\n" + report.least_squares(results["lstsq"])
        )
    if results["costs"]:
        parts.append(report.costs(results["costs"]))
    text = "\n\n".join(parts) + "\n"
    print("\n" + text)
    if results["timings"]:
        text += "\n" + report.summary(results["timings"]) + "\n"
    (folder / "tables.md").write_text(text, encoding="utf-8")
    (folder / "results.json").write_text(report.as_text(results), encoding="utf-8")
    for path in plots.draw_all(results, folder):
        print(f"wrote {path.name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.compare",
        description="jaxpinv.pinv next to its peers: time, memory, accuracy",
    )
    parser.add_argument("--quick", action="store_true", help="small grid, about a minute")
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"))
    parser.add_argument("--against", type=Path, help="results.json of an earlier run")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no case begins after them"
    )
    parser.add_argument("--seconds", type=float, help="for the rounds of each case")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="the others are kept from an earlier run into the same folder",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
