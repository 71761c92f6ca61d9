"""The benchmark harness, on a clock that it is given: nothing here depends on speed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.benchmarks import (
    cases,
    compare,
    least_squares,
    peers,
    plots,
    publish,
    report,
    stages,
    timing,
)
from tests.benchmarks.cases import Case

pytestmark = pytest.mark.unoptimized

REFERENCE, TWIN = peers.REFERENCE, compare.TWIN


class FakeClock:
    """A clock that methods move, on a machine that gets slower while it runs."""

    def __init__(self, drift=0.0):
        """`drift` is the relative loss of speed in a second."""
        self.time, self.drift, self.log = 0.0, drift, []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds

    def method(self, name, seconds):
        def call(index):
            self.log.append((name, index))
            self.time += seconds * (1 + self.drift * self.time)

        return call

    def rounds(self, seconds=5.0, **costs):
        methods = {name: self.method(name, cost) for name, cost in costs.items()}
        clock = timing.Clock(self.now, self.sleep)
        return timing.rounds(methods, seconds=seconds, clock=clock)


def row(case=None, twin=1.0, single=None, **ratios):
    """A row of results in which every round took the same time."""
    ratios = {REFERENCE: 1.0, TWIN: twin, **ratios}
    times = {name: [x, x] for name, x in ratios.items()}
    return compare.summarize(case or Case((500, 500), "float32"), times, single or {})


@pytest.mark.parametrize("drift", [0.0, 0.3])
def test_twice_as_slow_is_a_ratio_of_two_also_on_a_machine_that_drifts(drift):
    times = FakeClock(drift).rounds(a=0.01, b=0.02, twin=0.01)
    assert timing.ratio(times["b"], times["a"]).median == pytest.approx(2, rel=0.02)
    assert timing.ratio(times["twin"], times["a"]).median == pytest.approx(1, rel=0.02)


def test_methods_take_turns_and_every_second_round_runs_backwards():
    clock = FakeClock()
    times = clock.rounds(a=1.0, b=1.0)
    timed = [name for name, _ in clock.log[-2 * timing.MIN_ROUNDS :]]
    assert "".join(timed[:8]) == "abbaabba"
    assert len(times["a"]) == len(times["b"]) == timing.MIN_ROUNDS


def test_every_call_of_a_method_gets_another_input():
    clock = FakeClock()
    clock.rounds(a=0.01, b=0.01)
    indices = [index for name, index in clock.log if name == "a"][3:]
    assert indices == list(range(len(indices)))


def test_rounds_go_on_while_ratios_are_noisy_and_end_with_the_time():
    rng = np.random.default_rng(0)
    clock = FakeClock()

    def noisy(index):
        clock.time += 0.03 * rng.uniform(0.5, 1.5)

    methods = {"a": noisy, "b": noisy}
    time = timing.Clock(clock.now, clock.sleep)
    assert len(timing.rounds(methods, seconds=1e3, clock=time)["a"]) == timing.MAX_ROUNDS
    assert len(timing.rounds(methods, seconds=0.0, clock=time)["a"]) == timing.MIN_ROUNDS


def test_a_method_that_is_not_installed_is_left_out_and_named(monkeypatch):
    real = importlib.import_module

    def without_torch(name, *args):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without_torch)
    found, missing = peers.available("cpu")
    assert [peer.name for peer in found][:2] == [REFERENCE, peers.JNP]
    assert missing == {peers.TORCH: "No module named 'torch'"}


def test_the_table_shows_known_ratios_and_a_tilde_where_there_was_no_round():
    case = Case((100, 6, 7), "float32")
    timings = [
        row(case, **{peers.JNP: 1.5, "single": {"scipy.linalg.pinv": 12.0}}),
        row(case._replace(operation="gradient"), **{peers.JNP: 2.25}),
    ]
    lines = report.ratios(timings).splitlines()
    assert lines[0].split()[1:4] == ["case", "|", "jnp"]
    assert "1.50" in lines[2]
    assert "~12" in lines[2]
    assert "gradient" in lines[3]
    assert "2.25" in lines[3]
    cells = [x.strip() for x in report.summary(timings).splitlines()[2].split("|")]
    assert cells[1:9] == ["100 x 6x7", "1.50", "", "", "~12", "", "2.25", ""]


def test_a_calibration_outside_its_limits_is_reported():
    good = [row(twin=0.95), row(Case((3, 3), "float32"), twin=1.08)]
    assert report.calibration(good)["outside"] == {}
    assert "All within 0.9 to 1.1" in report.calibration_sentence(report.calibration(good))
    bad = report.calibration([*good, row(Case((4, 4), "float32"), twin=1.2)])
    assert "do not trust: 4x4 float32 full value (1.20)" in report.calibration_sentence(bad)


def test_the_grid_has_every_shape_and_mixes_two_percent():
    found = cases.grid("cpu", quick=False)
    for shape in cases.BATCHES + cases.SINGLE:
        assert {c.operation for c in found if c.shape == shape} == set(cases.OPERATIONS)
    assert {c.shape for c in cases.grid("gpu", quick=False)} >= set(cases.GPU_SHAPES)
    case = Case((200, 6, 7), "float32", cases.MIXED)
    a, *others = cases.matrices(case)
    ranks = np.linalg.matrix_rank(a, rtol=case.rtol)
    assert sorted(np.unique(ranks, return_counts=True)[1].tolist()) == [4, 196]
    assert len(others) == cases.INPUTS - 1
    assert not any(np.array_equal(a, other) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize("operation", cases.OPERATIONS)
@pytest.mark.parametrize("hermitian", [False, True])
def test_the_methods_of_jax_agree_on_a_small_case(operation, hermitian):
    case = Case((3, 4, 4), "complex128", cases.FULL, operation, hermitian)
    found = {
        peer.name: np.asarray(
            peer.prepare(case, cases.matrices(case), cases.directions(case)).call(1)
        )
        for peer in peers.available("cpu")[0]
        if peer.name in (REFERENCE, peers.JNP)
    }
    np.testing.assert_allclose(found[REFERENCE], found[peers.JNP], rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "shape"),
    [(least_squares.WHOLE, (3, 4, 5)), (least_squares.BACKWARD, (6, 4))],
    ids=str,
)
def test_all_methods_of_a_least_squares_gradient_agree(part, shape):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape).astype(np.float32) for _ in range(2)]
    b = rng.standard_normal((*shape[:-1], 1)).astype(np.float32)
    found = [
        jax.tree.leaves(least_squares._prepare(solve, inputs, b, part)(1))
        for solve in least_squares.METHODS.values()
    ]
    for [other] in found[1:]:
        np.testing.assert_allclose(other, found[0][0], rtol=1e-3, atol=1e-3)


def test_the_table_of_least_squares_shows_ratios():
    ratios = {"jaxpinv.lstsq": 1.0, "jnp.linalg.lstsq": 2.5, "A/A": 1.01}
    rows = [{"shape": [20, 6, 7], "part": "gradient", "ratios": ratios}]
    lines = report.least_squares(rows).splitlines()
    assert [x.strip() for x in lines[0].split("|")[3:-1]] == ["jnp.linalg.lstsq", "A/A"]
    cells = [x.strip() for x in lines[2].split("|")[1:-1]]
    assert cells == ["20 x 6x7", "gradient", "2.50", "1.01"]


def test_results_are_text_with_a_line_for_each_row_and_five_digits():
    results = {"machine": {"load": 1 / 3}, "left_out": {}, "timings": [{"x": 2 / 3}, {}]}
    text = report.as_text(results)
    assert json.loads(text) == {
        "machine": {"load": 0.33333},
        "left_out": {},
        "timings": [{"x": 0.66667}, {}],
    }
    assert sum(line.startswith("  {") for line in text.splitlines()) == 2


def test_published_results_are_as_they_are_written():
    text = publish.RESULTS.read_text("utf-8")
    assert report.as_text(json.loads(text)) == text


@pytest.mark.slow
def test_pictures_are_drawn_from_what_json_keeps(tmp_path):
    point = {"sweep": "condition", "dtype": "float32", "x": 10.0, "order": "value"}
    results = {
        "timings": [row(**{peers.JNP: 1.5})],
        "accuracy": [point | {"peer": REFERENCE, "error": 0.0}],
    }
    paths = plots.draw_all(json.loads(json.dumps(results)), tmp_path)
    assert [path.name for path in paths] == ["times.png", "ratios.png", "accuracy.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


@pytest.mark.slow
def test_importing_the_benchmarks_needs_no_optional_package():
    script = (
        "import sys\n"
        "for name in ('torch', 'pytest_benchmark', 'threadpoolctl'):\n"
        "    sys.modules[name] = None\n"
        "import tests.benchmarks.compare\n"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((12, 12), ["product", "LU", "inverse of LU", "proof"]),
        ((14, 9), ["product", "orthonormalizer", "inverse square root", "proof"]),
    ],
    ids=["square", "tall"],
)
def test_stages_of_a_certified_matrix_are_timed(rng, shape, names):
    a = jax.numpy.asarray(rng.standard_normal(shape))
    calls = stages.parts(a)
    f, x = calls["proof"]
    assert f(*x)
    times = stages.milliseconds(calls, repeats=1)
    assert list(times) == names
    assert min(times.values()) > 0


def test_the_table_of_compile_times_has_seconds_of_the_reference_and_ratios():
    row = {REFERENCE: 1.0, peers.JNP: 0.5, "seconds of the reference": 0.2}
    lines = report.costs({"compile": {"7x6 value": row}}).splitlines()
    assert lines[2:] == [
        "|           | seconds |  jnp |",
        "| --------- | ------: | ---: |",
        "| 7x6 value |    0.20 | 0.50 |",
    ]
