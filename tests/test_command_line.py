"""`python -m jaxpinv`: what it prints about an installation and about a shape."""

import subprocess
import sys

import jax
import pytest

import jaxpinv
from jaxpinv import __main__ as command_line


def printed(capsys, *arguments):
    """The lines that a command prints."""
    assert command_line.main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def test_versions_platform_and_threads_are_printed(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    lines = printed(capsys)
    assert f"jaxpinv {jaxpinv.__version__}" in lines
    assert f"jax {jax.__version__}" in lines
    assert "devices 8 x cpu (cpu)" in lines
    assert "float64 enabled" in lines
    assert "OMP_NUM_THREADS 3" in lines
    assert "MKL_NUM_THREADS not set" in lines


@pytest.mark.parametrize(
    ("is_cpu", "shares", "devices", "threads", "found"),
    [
        (True, True, 1, "1", ["jaxlib before 0.12"]),
        (True, False, 8, "4", ["several CPU devices"]),
        (True, True, 8, "4", ["jaxlib before 0.12", "several CPU devices"]),
        (True, False, 8, "1", ["none that concern"]),
        (False, True, 8, "4", ["none that concern"]),
    ],
)
def test_a_fault_is_named_where_it_concerns_the_installation(
    monkeypatch, is_cpu, shares, devices, threads, found
):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", threads)
    lines = list(
        command_line._faults(is_cpu=is_cpu, shares_batches=shares, devices=devices)
    )
    assert len(lines) == len(found)
    assert all(text in line for text, line in zip(found, lines, strict=True))


def test_a_plan_says_what_is_done_and_why(capsys):
    text = "\n".join(printed(capsys, "plan", "20000", "6", "7", "--platform", "cpu"))
    assert "20000 matrices, 6 by 7, float32, method 'auto', on a CPU" in text
    # 7 times 2^-23.
    assert "default rtol: max(m, n) * eps = 8.34e-07" in text
    assert "the adjoint is factored: 7 by 6" in text
    assert "factorization: Gram-Schmidt; singular values only if" in text
    # 20000 (36 + 42 / 8).
    assert "why: the work saved, 8.25e+05 units, is at least 8192: compiling it" in text


@pytest.mark.parametrize(
    ("arguments", "factorization", "why"),
    [
        (["5", "5"], "singular value decomposition", "is less than 8192"),
        (["40", "4", "4"], "singular value decomposition", "is less than 8192"),
        (["100", "100"], "singular value decomposition", "is less than 16384"),
        (["1000", "1000"], "LU with partial pivoting", "is at least 16384"),
        (["2000", "400"], "Cholesky QR", "is at least 16384"),
        (["100", "100", "--method", "direct"], "LU", "method='direct' was requested"),
        (["900", "900", "--method", "svd"], "singular", "method='svd' was requested"),
        (["0", "5", "3"], "nothing to factor", ""),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_a_plan_names_the_factorization_and_the_reason(
    capsys, arguments, factorization, why
):
    text = "\n".join(printed(capsys, "plan", *arguments, "--platform", "cpu"))
    assert factorization in text
    assert why in text


def test_the_plan_for_one_matrix_counts_no_matrices(capsys):
    for shape in (["5", "3"], ["1000", "1000"], ["1", "5", "3"]):
        text = "\n".join(printed(capsys, "plan", *shape, "--platform", "gpu"))
        assert "matrices " not in text
    assert "matrices tried at a time: " in "\n".join(
        printed(capsys, "plan", "99", "3", "3", "--method", "direct")
    )


@pytest.mark.parametrize(("n", "has_lu"), [(100, False), (200, True)])
def test_what_is_planned_is_what_a_program_does(capsys, n, has_lu):
    lines = printed(capsys, "plan", str(n), str(n))
    program = jax.jit(jaxpinv.pinv).lower(jax.ShapeDtypeStruct((n, n), "float32"))
    assert ("getrf" in program.as_text()) == has_lu
    assert any("LU" in line for line in lines) == has_lu


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "5"], "expected at least m and n, got 1 size"),
        (["plan", "5", "-3"], "expected a size of 0 or more, got -3"),
        (["plan", "a", "3"], "expected a size of 0 or more, got a"),
        (["plan", "5", "3", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["draw"], "invalid choice: 'draw'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_what_cannot_be_planned_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        command_line.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_module():
    command = [sys.executable, "-W", "error", "-m", "jaxpinv", "plan", "3", "2"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    assert run.stdout.startswith("one matrix, 3 by 2")
