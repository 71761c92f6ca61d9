"""One look at an accelerator, in less than eight minutes.

    python -m tests.benchmarks.accelerator --output DIR
    python -m tests.benchmarks.accelerator --output DIR --compile-only

runs some of the tests there, and then times values and gradients next to jnp and, if it is
installed, torch, on its CUDA device. `results.jsonl` says on what; then it has a line for
the tests and one for each case, the most telling first, written as they come. Ratios are
times over that of `jaxpinv.pinv`: above 1 the other one is slower. Errors are those of the
value in units of eps times the condition. `--platform cpu` is a rehearsal of small cases.
`--compile-only` counts what programs would launch on an H100, without one. The status is 1
if a test failed or a case did, for one by an error of more than 4 and 4 times that of jnp,
and 2 if there is no such device.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.benchmarks import cases, kernels, machine, peers
from tests.benchmarks.cases import DEFICIENT, FULL, GRADIENT, MIXED, VALUE, Case
from tests.benchmarks.peers import REFERENCE

ROOT = Path(__file__).parents[2]
#: Tests that hold on every platform, with which they are compiled for few shapes.
TESTS = (
    "tests/platform/test_accelerator_programs.py::test_ranks_are_those_of_numpy",
    "tests/platform/test_accelerator_programs.py"
    "::test_values_and_gradients_of_every_rank_are_right",
    "tests/test_known_matrices.py::test_errors_are_those_of_rounding",
    "tests/test_pinv_values.py::TestAgainstIndependentOracles"
    "::test_satisfies_the_four_penrose_equations",
    "tests/calculus/test_derivatives.py::TestEveryShapeSpectrumAndDtype",
)
REHEARSED = TESTS[:1]
#: At most so many processes run them, because they mostly compile.
WORKERS = 4
#: Share of the time that the tests may take.
SHARE_OF_TESTS = 0.4
#: A method is called as often as it fits into these seconds, but at least so many times.
SECONDS, LEAST_CALLS, WARM_UP = 0.3, 3, 2
#: Largest error of ours, or over that of jnp.
WORST = 4
#: So many matrices of a batch are compared with NumPy.
COMPARED = 64

MATRICES = (
    ((20_000, 6, 7), "float32", FULL),
    ((20_000, 6, 7), "float32", DEFICIENT),
    ((100_000, 3, 3), "float32", FULL),
    ((2_000, 32, 32), "float32", FULL),
    ((512, 512), "float32", FULL),
    ((2_000, 32, 32), "float32", MIXED),
    ((512, 512), "float32", DEFICIENT),
    ((20_000, 64), "float32", FULL),
    ((4_000, 8, 8), "complex64", FULL),
    ((100, 100, 100), "float64", FULL),
    ((100, 100, 100), "float64", DEFICIENT),
    ((200, 64, 64), "float32", FULL),
    ((200, 64, 64), "float32", DEFICIENT),
    ((200, 64, 16), "float32", FULL),
    ((200, 64, 16), "float32", DEFICIENT),
    ((2_000, 400), "float32", FULL),
    ((2_048, 2_048), "float32", FULL),
    ((1_000_000, 3, 3), "float32", FULL),
)
SMALL = (((300, 4, 3), "float32", DEFICIENT), ((9, 9), "float64", FULL))


def main(argv: Sequence[str] | None = None) -> int:
    """Measures what the command line asks for."""
    options = _parser().parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + options.limit_s
    # The tests have a process of their own, and torch wants memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_enable_x64", True)
    if options.compile_only:
        return _compile_only(options.output)
    try:
        device = jax.devices(options.platform)[0]
    except RuntimeError as error:
        print(f"no device for --platform {options.platform}: {error}", file=sys.stderr)
        return 2
    is_rehearsal = device.platform == "cpu"
    with (options.output / "results.jsonl").open("w", encoding="utf-8") as file:
        jax.config.update("jax_default_device", device)
        flags = os.environ.get("XLA_FLAGS", "")
        described = machine.describe(device.platform)
        _write(file, {"platform": device.platform, "xla_flags": flags, **described})
        tests = REHEARSED if is_rehearsal else TESTS
        share = SHARE_OF_TESTS * options.limit_s
        found = run_tests(tests, device.platform, options.output / "tests.txt", share)
        _write(file, found)
        is_right = not found["failed"] and found["passed"] > 0
        platform = "cpu" if is_rehearsal else "gpu"
        methods, missing = available(platform)
        _write(file, {"methods": [x.name for x in methods], "missing": missing})
        for case in grid(SMALL if is_rehearsal else MATRICES):
            if time.monotonic() > end:
                _write(file, {"stopped": f"--limit-s {options.limit_s} is over"})
                break
            row = measure(case, methods, end)
            _write(file, row)
            is_right &= REFERENCE not in row["failed"]
            jax.clear_caches()
    return 0 if is_right else 1


def grid(matrices: Sequence[tuple]) -> Iterator[Case]:
    """Value and gradient of all."""
    for shape, dtype, rank in matrices:
        for operation in (VALUE, GRADIENT):
            yield Case(shape, dtype, rank, operation)


def available(platform: str) -> tuple[list[peers.Peer], dict[str, str]]:
    """The methods that are compared there, ours first, and why others are missing."""
    found, missing = peers.available(platform)
    names = (REFERENCE, peers.JNP, peers.TORCH)
    chosen = {x.name: x for x in found if x.name in names}
    missing = {k: v for k, v in missing.items() if k in names}
    torch = chosen.get(peers.TORCH)
    if isinstance(torch, peers.TorchPeer) and platform == "gpu":
        if not torch.torch.cuda.is_available():
            del chosen[peers.TORCH]
            missing[peers.TORCH] = "has no CUDA device"
    return list(chosen.values()), missing


def run_tests(
    tests: Sequence[str], platform: str, log: Path, seconds: float
) -> dict[str, Any]:
    """What became of tests, in a process of their own, that has so many seconds."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-m", "not slow"]
    # A warning of a platform is no fault, and one missing package no reason to stop.
    command += ["-p", "no:cacheprovider", "-W", "default"]
    command += ["--continue-on-collection-errors", *tests]
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(min(WORKERS, len(tests)))]
    environment = os.environ | {"JAXPINV_TESTS_ON": platform}
    start, stopped = time.monotonic(), False
    with log.open("w", encoding="utf-8") as file:
        try:
            subprocess.run(
                command,
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env=environment,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            stopped = True
    text = log.read_text(encoding="utf-8")
    passed = re.findall(r"^(?:\S+::.* PASSED|\[gw.*\] PASSED \S+::)", text, re.M)
    # The last lines of pytest name what failed, unless it was stopped.
    failed = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", text, re.M)
    failed += re.findall(r"^\[gw.*\] (?:FAILED|ERROR) (\S+::.*?) *$", text, re.M)
    failed += re.findall(r"^(\S+::.*?) (?:FAILED|ERROR)\b", text, re.M)
    return {
        "passed": len(passed),
        "failed": sorted(set(failed)),
        "seconds": round(time.monotonic() - start, 1),
        "stopped_by_time": stopped,
    }


def measure(case: Case, methods: Sequence[peers.Peer], end: float) -> dict[str, Any]:
    """One case: milliseconds, ratios, seconds of compilation and errors."""
    inputs, directions = cases.matrices(case), cases.directions(case)
    calls: dict[str, Callable[[int], object]] = {}
    compilation, errors, failed = {}, {}, {}
    for method in methods:
        if calls and time.monotonic() > end:
            failed[method.name] = "no time left"
            continue
        try:
            prepared = method.prepare(case, inputs, directions)
            result = prepared.call(0)
        except Exception as error:
            failed[method.name] = f"{type(error).__name__}: {str(error)[:300]}"
            continue
        calls[method.name] = prepared.call
        compilation[method.name] = round(prepared.compile_seconds, 3)
        if case.operation == VALUE:
            # A tensor of torch that is on a GPU must be fetched.
            x = getattr(result, "cpu", lambda result=result: result)()
            errors[method.name] = round(error_of_value(case, inputs[0], np.asarray(x)), 3)
    limit = WORST * max(1, errors.get(peers.JNP, 0))
    if not errors.get(REFERENCE, 0) <= limit:
        failed[REFERENCE] = f"error of {errors[REFERENCE]} eps cond"
    seconds = fastest(calls)
    ours = seconds.get(REFERENCE)
    return {
        "case": case.label,
        "ms": {name: round(1e3 * t, 4) for name, t in seconds.items()},
        "ratios": {name: round(t / ours, 3) for name, t in seconds.items()} if ours else {},
        "error_over_eps_cond": errors,
        "compile_s": compilation,
        "failed": failed,
    }


def fastest(calls: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Seconds of the fastest call of each, all in turn, after some that do not count."""
    found: dict[str, float] = dict.fromkeys(calls, np.inf)
    for name, call in calls.items():
        for i in range(WARM_UP):
            call(i)
        start = time.perf_counter()
        call(WARM_UP)
        found[name] = time.perf_counter() - start
    counts = {name: max(LEAST_CALLS, int(SECONDS / t)) for name, t in found.items()}
    counts = {name: min(count, 200) for name, count in counts.items()}
    for i in range(max(counts.values(), default=0)):
        for name, call in calls.items():
            if i < counts[name]:
                start = time.perf_counter()
                call(i)
                found[name] = min(found[name], time.perf_counter() - start)
    return found


def error_of_value(case: Case, a: np.ndarray, x: np.ndarray) -> float:
    """The largest relative error over eps times the condition, of the first matrices."""
    m, n = case.shape[-2:]
    double = np.result_type(case.dtype, np.float64)
    a = a.reshape(-1, m, n)[:COMPARED].astype(double)
    x = x.reshape(-1, n, m)[:COMPARED]
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    kept = s > case.rtol * s[:, :1]
    inverse = np.where(kept, 1, 0) / np.where(kept, s, 1)
    exact = np.swapaxes(vh.conj() * inverse[..., None], 1, 2) @ np.swapaxes(u.conj(), 1, 2)
    condition = s[:, 0] * np.max(inverse, axis=1)
    size = np.linalg.norm(exact, axis=(1, 2)) * condition * np.finfo(case.dtype).eps
    return float(np.max(np.linalg.norm(x - exact, axis=(1, 2)) / size))


def _compile_only(folder: Path) -> int:
    """Counts kernels."""
    jax.config.update("jax_platforms", "cpu")
    try:
        found = kernels.count()
        with (folder / "kernels.jsonl").open("w", encoding="utf-8") as file:
            for row in found:
                _write(file, row)
    except kernels.NoPluginError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _write(file, row: dict[str, Any]) -> None:
    """A line, at once, for a later case may not end."""
    line = json.dumps(row)
    file.write(line + "\n")
    file.flush()
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.accelerator",
        description="tests and times of jaxpinv on an accelerator",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--platform", default="gpu", help="gpu, tpu, or cpu for a rehearsal; default: gpu"
    )
    parser.add_argument(
        "--limit-s", type=float, default=420, help="no case begins after so many seconds"
    )
    parser.add_argument(
        "--compile-only", action="store_true", help="count kernels for an H100 without one"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
