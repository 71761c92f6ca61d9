"""What became slower between two results: known changes, and noise that is none."""

import copy
import json

import pytest

from tests.benchmarks import compare, publish, regressions
from tests.benchmarks.cases import Case
from tests.benchmarks.peers import JNP, REFERENCE, TORCH

MACHINE = {"cpu": "A", "cores": 1, "device": "cpu", "versions": {"jax": "1"}}
CASE = Case((500, 500), "float32")


def results(spread=0.01, **ratios):
    """Results of one case: ratios to the reference, with quartiles around them."""
    times = {
        name: [x * (1 - spread), x, x, x * (1 + spread)]
        for name, x in {REFERENCE: 1.0, **ratios}.items()
    }
    times[REFERENCE] = [1.0] * 4
    times[compare.TWIN] = times[REFERENCE]
    row = compare.summarize(CASE, times, {})
    return {"machine": MACHINE, "timings": [row]}


BEFORE = results(**{JNP: 4.0, TORCH: 6.0})


@pytest.mark.parametrize(
    ("factor", "status"), [(1.0, 0), (1.05, 0), (1.25, 1), (2.0, 1), (0.5, 0)]
)
def test_a_slower_reference_is_found_whatever_the_speed_of_the_machine(
    factor, status, capsys
):
    now = results(**{JNP: 4.0 / factor, TORCH: 6.0 / factor})
    for name in now["timings"][0]["seconds"]:
        now["timings"][0]["seconds"][name] *= 7
    assert compare.compared(now, BEFORE) == status
    printed = capsys.readouterr().out
    assert (f"takes {factor:.2f} times as long" in printed) == (status == 1)
    assert f"{status} of 1 cases became slower" in printed


def test_a_change_within_wide_quartiles_is_noise(capsys):
    now, before = (results(spread=0.3, **{JNP: ratio}) for ratio in (3.2, 4.0))
    assert compare.compared(now, before) == 0
    narrow = results(**{JNP: 3.2})
    assert compare.compared(narrow, results(**{JNP: 4.0})) == 1


def test_a_reference_that_became_faster_is_not_a_regression():
    found = regressions.changes(
        results(**{JNP: 1.0, TORCH: 6.0, "numpy.linalg.pinv": 5.0})["timings"],
        results(**{JNP: 4.0, TORCH: 6.0, "numpy.linalg.pinv": 5.0})["timings"],
    )
    assert [change.factor for change in found] == [1.0]


def test_methods_of_few_calls_serve_where_no_others_are(capsys):
    before = results()
    before["timings"][0]["single"] = {JNP: 30.0}
    for ratio, status in ((25.0, 0), (15.0, 1)):
        now = copy.deepcopy(before)
        now["timings"][0]["single"] = {JNP: ratio}
        assert compare.compared(now, before) == status


def test_another_machine_and_missing_common_cases_are_reported(capsys):
    other = copy.deepcopy(BEFORE)
    other["machine"] = MACHINE | {"cpu": "B"}
    other["timings"][0]["label"] = "something else"
    assert compare.compared(BEFORE, other) == 1
    printed = capsys.readouterr().out
    assert "cpu differs: B before, A now" in printed
    assert "no case is in both results" in printed


def test_published_results_are_not_slower_than_themselves():
    found = json.loads(publish.RESULTS.read_text("utf-8"))
    same = regressions.changes(found["timings"], found["timings"])
    assert len(same) == len(found["timings"])
    assert {change.factor for change in same} == {1.0}


def test_a_run_is_compared_with_the_file_that_is_named(tmp_path, capsys, monkeypatch):
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(BEFORE))
    slow = results(**{JNP: 2.0, TORCH: 3.0})
    monkeypatch.setattr(compare, "_timings", lambda *arguments: slow["timings"])
    arguments = ["--parts", "timings", "--output", str(tmp_path), "--against", str(path)]
    assert compare.main(arguments) == 1
    assert "takes 2.00 times as long" in capsys.readouterr().out
