"""The example in small size, and the parts that it is made of."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

# The folder that Python itself puts there when the example is run as a script.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
nist = importlib.import_module("nist")
models = importlib.import_module("separable_models").MODELS
fit_table = importlib.import_module("fit_table")
variable_projection = importlib.import_module("variable_projection")

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def test_misra1a_and_roszman1_reach_the_certified_digits(tmp_path, capsys):
    status = variable_projection.main(["Misra1a", "Roszman1", "--output", str(tmp_path)])
    assert status == 0
    printed = capsys.readouterr()
    assert "4 of 4 fits reach 9 digits" in printed.out
    assert printed.out.count("2.3894212918E+02") == 3, "certified and found from two starts"
    assert "Roszman1" in printed.err, "progress on the standard error"
    for name in ("Misra1a", "Roszman1"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG_SIGNATURE)


def test_digits_beyond_reach_give_a_failing_exit_status(tmp_path, capsys):
    status = variable_projection.main(
        ["BoxBOD", "--digits", "11.5", "--output", str(tmp_path)]
    )
    assert status == 1
    assert "missed: BoxBOD start 2" in capsys.readouterr().out


def test_an_unknown_set_is_refused_by_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        variable_projection.main(["Misra1b"])
    assert "got Misra1b" in capsys.readouterr().err


def test_mgh17_converges_from_decays_that_are_over_at_the_second_observation():
    dataset, model = nist.read("MGH17"), models["MGH17"]
    iterations = []
    result = variable_projection.fit(
        dataset, model, lambda iteration, losses: iterations.append(int(iteration))
    )
    assert np.all(fit_table.agreement(dataset, model, result).least > 9)
    # A Hessian without the derivative of the pseudo-inverse takes several times as many.
    assert result.iterations[1] < 12
    assert sorted(iterations) == list(range(1, result.iterations.max() + 1))


@pytest.mark.parametrize("name", [n for n in models if models[n].rss_in_reach])
def test_certified_parameters_give_the_certified_residual(name):
    dataset, model = nist.read(name), models[name]
    nonlinear = model.nonlinear_of(dataset.certified)
    linear = np.setdiff1d(dataset.certified, nonlinear, assume_unique=True)
    merged = model.parameters(nonlinear, linear)
    np.testing.assert_array_equal(merged, dataset.certified)
    fitted = (
        model.fixed(dataset.x, *nonlinear) + model.matrix(dataset.x, nonlinear) @ linear
    )
    rss = np.sum((dataset.y - fitted) ** 2)
    assert nist.digits(rss, dataset.certified_rss) > 6


def test_the_parser_reads_the_lines_that_the_header_names():
    dataset = nist.read("ENSO")
    assert dataset.x.shape == dataset.y.shape == (168,)
    assert (dataset.x[0], dataset.y[0]) == (1.0, 12.9)
    assert (dataset.x[-1], dataset.y[-1]) == (168.0, 14.8)
    np.testing.assert_array_equal(dataset.starts[0, :4], [11.0, 3.0, 0.5, 40.0])
    np.testing.assert_array_equal(dataset.starts[1, 4:], [-1.5, 0.5, 26.0, -0.1, 1.5])
    assert dataset.certified[[0, -1]].tolist() == [10.510749193, 1.4966870418]
    assert dataset.certified_rss == 788.53978668


def test_digits_are_the_logarithm_of_the_relative_error():
    found = np.array([1.001, -1.0, 1.0 + 1e-13, np.nan, np.inf])
    np.testing.assert_allclose(nist.digits(found, 1.0), [3, 0, 11, 0, 0], atol=1e-9)
    assert nist.digits(1.001e-6, 1e-6) == pytest.approx(3)


def test_exchanged_terms_are_reported_in_the_order_of_nist():
    certified = nist.read("Lanczos3").certified
    found = certified[[4, 5, 0, 1, 2, 3]] * (1 + 1e-4)
    ordered = models["Lanczos3"].in_order_of(certified, found)
    np.testing.assert_allclose(ordered, certified, rtol=2e-4)
