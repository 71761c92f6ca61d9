"""The benchmark for accelerators, as far as a CPU can tell."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jax.experimental import topologies

from tests import jacobi_oracle
from tests.benchmarks import accelerator, kernels, peers, ranks
from tests.benchmarks.cases import Case
from tests.benchmarks.peers import REFERENCE

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parents[2]

PROGRAM = """
%body.1 (p: (s32[], f32[6])) -> (s32[], f32[6]) {
  %fusion.1 = f32[6,20]{1,0} fusion(%p), kind=kLoop
}
ENTRY %main (a: f32[20,6,7]) -> f32[20,7,6] {
  %many = (s32[], f32[13,6]{1,0}, f32[6]{0}, f32[2]{0}, f32[3], /*index=5*/f32[4]) while(%t)
  %svd.1 = (f32[20,7,6]{1,2,0}, s32[20]) custom-call(%x), custom_call_target="cusolver"
  %out = (f32[2], f32[2], f32[2], f32[2], f32[2], /*index=5*/f32[2]) fusion(%x), kind=kLoop
  %copy.3 = f32[20] copy(%x)
  %get = f32[20] get-tuple-element(%out), index=1
  ROOT %cond = (f32[20,7,6]) conditional(%any, %t, %f)
}
"""


def lines_of(path):
    """The rows of a file of results."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_kernels_are_counted_whatever_they_return():
    assert kernels.counted(PROGRAM) == {
        "kernels": 3,
        "conditionals": 1,
        "loops": 1,
        "copies": 1,
        "libraries": {"cusolver": 1},
    }


def test_without_the_plug_in_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    def nothing(*args, **kwargs):
        raise RuntimeError("no such platform: cuda\nmore")

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(topologies, "get_topology_desc", nothing)
    assert accelerator.main(["--output", str(tmp_path), "--compile-only"]) == 2
    message = capsys.readouterr().err
    assert "jax[cuda12]" in message
    assert message.strip().endswith("RuntimeError: no such platform: cuda")


def test_without_the_device_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    assert accelerator.main(["--output", str(tmp_path), "--platform", "tpu"]) == 2
    assert "no device for --platform tpu" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class Wrong:
    """A method whose values are off by half."""

    name = REFERENCE

    def supports(self, case):
        return True

    def prepare(self, case, inputs, directions):
        return peers.Prepared(lambda i: 1.5 * np.linalg.pinv(inputs[i % 4]), 0.0)


class Broken:
    """A method that is not there."""

    name = peers.JNP

    def supports(self, case):
        return False

    def prepare(self, case, inputs, directions):
        raise ValueError("not on this device")


def test_wrong_values_fail_and_a_method_that_is_missing_does_not_end_the_run():
    row = accelerator.measure(Case((5, 4, 3), "float64"), [Wrong(), Broken()], np.inf)
    assert list(row["ms"]) == [REFERENCE]
    assert "error of" in row["failed"][REFERENCE]
    assert row["failed"][peers.JNP] == "ValueError: not on this device"


def test_errors_are_in_units_of_eps_times_the_condition():
    case = Case((2, 2), "float64")
    a = np.diag([1.0, 1e-3])
    x = np.diag([1.0, 1e3 * (1 + 1e-12)])
    expected = 1e-12 / (1e3 * 2.0**-52)
    assert accelerator.error_of_value(case, a, x) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_reference_triplets_have_more_digits_than_the_matrices(rng, shape, dtype):
    m, n = shape
    a = ranks.matrices(rng, 60, m, n, dtype)
    u, s, v = jacobi_oracle.triplets(a)
    eps = 32 * np.finfo(s.dtype).eps
    assert np.all(s[:, :-1] >= s[:, 1:])
    error = a - jacobi_oracle.product(u * s[:, None], np.conj(np.swapaxes(v, 1, 2)))
    assert np.all(jacobi_oracle.norms(error) <= eps * s[:, 0])
    is_kept = s > 1e-16 * s[:, :1]
    for x in (u, v):
        gram = jacobi_oracle.product(np.conj(np.swapaxes(x, 1, 2)), x)
        both = is_kept[:, :, None] & is_kept[:, None]
        assert np.max(np.where(both, np.abs(gram - np.eye(s.shape[1])), 0)) <= 1e-3


@pytest.mark.slow
def test_a_wrong_rank_is_counted(rng, monkeypatch):
    given = 80, 4, 3, "float32"
    a, rtol = ranks.matrices(rng, *given), ranks.tolerances(rng, *given)
    assert ranks.measure(a, rtol).is_right
    solved = ranks._solved

    def one_too_many(a, rtol, method):
        x, rank = solved(a, rtol, method)
        return x, rank + int(method == "direct")

    monkeypatch.setattr(ranks, "_solved", one_too_many)
    found = ranks.measure(a, rtol)
    assert found.wrong + found.near == found.tried
    assert not found.is_right


@pytest.mark.slow
def test_failing_tests_are_named_and_slow_ones_stopped(tmp_path):
    path = tmp_path / "test_some.py"
    path.write_text("def test_a(): pass\ndef test_b(): assert 0\n", encoding="utf-8")
    other = tmp_path / "test_others.py"
    other.write_text("import no_such_package\n", encoding="utf-8")
    found = accelerator.run_tests([str(path), str(other)], "cpu", tmp_path / "log", 120)
    assert found["passed"] == 1
    assert [re.split("::|/", name)[-1] for name in found["failed"]] == [
        "test_others.py",
        "test_b",
    ]
    path.write_text("import time\ndef test_a(): time.sleep(60)\n", encoding="utf-8")
    found = accelerator.run_tests([str(path)], "cpu", tmp_path / "log", 1)
    assert found["stopped_by_time"]
    assert found["passed"] == 0


@pytest.mark.slow
def test_the_chosen_tests_exist(capsys, monkeypatch):
    # In this process, because another one would import JAX.
    command = ["--collect-only", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
    monkeypatch.chdir(ROOT)
    assert pytest.main([*command, *accelerator.TESTS]) == 0
    found = capsys.readouterr().out
    for test in accelerator.TESTS:
        assert test in found


@pytest.mark.slow
def test_a_rehearsal_has_the_device_the_tests_and_every_case(tmp_path):
    command = [sys.executable, "-m", "tests.benchmarks.accelerator", "--platform", "cpu"]
    subprocess.run(
        [*command, "--output", str(tmp_path)],
        check=True,
        cwd=ROOT,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        timeout=900,
    )
    first, tests, _, *rows = lines_of(tmp_path / "results.jsonl")
    assert first["platform"] == "cpu"
    assert first["versions"]["jax"]
    assert tests["passed"] == len(accelerator.REHEARSED)
    assert not tests["failed"]
    assert [row["case"] for row in rows] == [
        case.label for case in accelerator.grid(accelerator.SMALL)
    ]
    for row in rows:
        assert row["ratios"][REFERENCE] == 1
        assert row["ratios"][peers.JNP] > 0
        assert not row["failed"]
