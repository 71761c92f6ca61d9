"""Accuracy over shapes: a small part of `tests.benchmarks.shapes`, and its references."""

import itertools
import json

import mpmath
import numpy as np
import pytest

from tests import comparison, extended_oracle, matrices, mpmath_oracle
from tests.benchmarks import shapes, shapes_report
from tests.benchmarks.shapes import Shape
from tests.benchmarks.shapes_report import DIRECT, SVD, Cell
from tests.extended_oracle import Operands, Reference

VALUES = (shapes.values,)
LEAST_SQUARES = (shapes.values, shapes.gradient)
EVERYTHING = (shapes.values, shapes.projections, shapes.gradient)

# Kinds of matrices share programs.
CASES = [
    (Shape(1, 1001, 2, "complex64"), ["intercept"], VALUES),
    (Shape(1, 100_000, 3, "float32"), ["gaussian", "intercept"], EVERYTHING),
    (Shape(3, 20_000, 8, "float64"), ["intercept", "common mean"], LEAST_SQUARES),
    (Shape(1, 300, 300, "float32"), ["orthonormal"], VALUES),
    (Shape(64, 4096, 12, "float32"), ["intercept"], VALUES),
]
IDS = ["-".join(map(str, (*shape, *kinds))) for shape, kinds, _ in CASES]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "kinds", "programs"), CASES, ids=IDS)
def test_errors_are_a_small_multiple_of_eps_times_the_condition(shape, kinds, programs):
    cells = list(shapes.measure(shape, kinds, 1, (DIRECT,), programs))
    quantities = {"pinv", "solution", "residuals"}
    assert quantities <= {cell.quantity for cell in cells}
    if shapes_report.violations(cells):
        # These compile more programs, so only measure them if they could excuse an error.
        cells += shapes.measure(shape, kinds, 1, (SVD,), programs)
    assert shapes_report.violations(cells) == []


def _mpmath(x):
    """All digits of an array, up to those of a longdouble."""
    high = x.astype(complex)
    pairs = zip(high.ravel().tolist(), (x - high).astype(complex).ravel(), strict=True)
    parts = [mpmath.mpmathify(p) + mpmath.mpmathify(complex(q)) for p, q in pairs]
    return mpmath.matrix(np.reshape(parts, x.shape).tolist())


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1500, 2), "float64"),
        *itertools.product([(7, 3), (4, 4)], shapes_report.DTYPES),
    ],
    ids=str,
)
def test_references_have_the_digits_of_mpmath(shape, dtype):
    given = _operands(shape, dtype)
    known = Reference(given)
    found = known.values()
    eps = float(np.finfo(extended_oracle.wide(given.a.dtype)).eps)
    with mpmath.workdps(50):
        a, b = _mpmath(given.a), _mpmath(given.b)
        x = (a.H * a) ** -1 * a.H
        r = b - a * (x * b)
        exact = {
            "pinv": x,
            "solution": x * b,
            "null of wide": r,
            "null": mpmath.zeros(*given.c.shape),
            "residuals": mpmath.matrix(
                [mpmath.norm(r[:, k], 2) ** 2 for k in range(r.cols)]
            ),
        }
        for name, value in exact.items():
            difference = _mpmath(found[name].exact.reshape(value.rows, -1)) - value
            limit = 10 * eps * known.condition * float(np.max(found[name].size))
            assert mpmath.norm(list(difference), 2) < limit, name


@pytest.mark.parametrize("shape", [(5, 3), (3, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_derivatives_of_references_are_those_of_mpmath(shape, dtype):
    given = _operands(shape, dtype)
    found = Reference(given).derivatives()
    first, second = (
        mpmath_oracle.exact_derivative(given.a, [given.e] * order, 0.0) for order in (1, 2)
    )
    np.testing.assert_allclose(found["first"].exact, first, rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(found["second"].exact, second, rtol=1e-13, atol=1e-12)
    change = comparison.pair(given.c, first @ given.b)
    assert abs(comparison.pair(found["gradient"].exact, given.e) - change) < 1e-12


def _operands(shape, dtype):
    rng = np.random.default_rng(3)
    (m, n), k = shape, 2
    sizes = ((m, n), (m, k), (n, k), (m, n))
    return Operands(*(matrices.gaussian(rng, size, dtype) for size in sizes))


def test_an_error_of_the_largest_element_is_not_hidden_by_the_norm():
    exact = np.ones((10_000, 1))
    found = exact.copy()
    found[5] += 1e-3
    known = extended_oracle.Known(exact, 100.0)
    np.testing.assert_allclose(
        extended_oracle.errors(found, known), [1e-5, 1e-3], rtol=1e-9
    )
    found[7] = np.nan
    assert np.all(extended_oracle.errors(found, known) == np.inf)


def test_a_cell_may_have_four_times_the_error_of_the_svd():
    def cell(method, norm, largest=0.0):
        place = ("float32", 1, 100, 2, "gaussian", "pinv")
        return Cell(*place, method, norm, largest)

    assert shapes_report.violations([cell(DIRECT, 4.0)]) == []
    assert shapes_report.violations([cell(DIRECT, 19.9), cell(SVD, 5.0)]) == []
    [line] = shapes_report.violations([cell(DIRECT, 20.1), cell(SVD, 5.0, 9.0)])
    assert line.startswith("20.1 (svd 5) norm: float32 1 100 2")
    assert len(shapes_report.violations([cell(DIRECT, np.nan, np.inf)])) == 2


def test_references_need_more_digits_than_double(monkeypatch):
    monkeypatch.setattr(np, "longdouble", np.float64)
    with pytest.raises(RuntimeError, match="more digits than float64"):
        extended_oracle.wide(np.dtype(np.float64))
    assert extended_oracle.wide(np.dtype(np.float32)) == np.float64


@pytest.mark.unoptimized
@pytest.mark.slow
def test_the_sweep_prints_a_table_and_draws(tmp_path, capsys):
    only = ["--only", "n=2", "dtype=float64", "kind=common mean", "--values"]
    arguments = ["--quick", "--seeds", "1", *only, "--out", str(tmp_path)]
    status = shapes.main(arguments)
    text = capsys.readouterr().out
    assert "| float64 | 2 |" in text
    assert status == int("beyond the limit: " in text)
    assert (tmp_path / "shapes.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "shapes.json").read_text())) == 15
