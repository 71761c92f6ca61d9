"""Ridge regression with learned dampings, against NumPy, scikit-learn and differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from examples.learned_ridge import __main__ as example
from examples.learned_ridge import grid, newton, ridge

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
DATA = ridge.diabetes()
#: All rows, and the halves: the shapes of a small run, so that all share one program.
PRESENT = np.stack([np.ones(442), *(np.arange(442) % 2 == half for half in (0, 1))])
DAMPINGS = np.array([[3.0, 0.5, 20.0, 40.0], [8.0] * 4, [1.0, 30.0, 0.7, 200.0]])


def expand(log_dampings):
    """The errors of all rows and of both halves, with derivatives."""
    a, y = PRESENT[:, :, None] * DATA.a, PRESENT * DATA.y
    arrays = map(jnp.asarray, (log_dampings, a, y, DATA.groups))
    return newton.Expansion(log_dampings, *jax.device_get(ridge.expansions(*arrays)))


def normal_equations(a, y, dampings):
    """The coefficients, `(1 + n,)`, with one damping for each group."""
    d = np.concatenate([[0.0], dampings[DATA.groups]])
    return np.linalg.solve(a.T @ a + np.diag(d**2), a.T @ y)


def test_dampings_are_learned_as_claimed(tmp_path, capsys):
    status = example.main(["--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert "a grid for four dampings" in printed.err, "progress"
    assert (tmp_path / "learned_ridge.png").read_bytes().startswith(PNG_SIGNATURE)


def test_dampings_that_are_not_learned_give_a_failing_exit_status(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(newton, "STEPS", 0)
    assert example.main(["--quick", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "missed: the gradient is zero" in printed
    assert "missed: no point of the grid for four dampings is better" in printed
    assert "missed: the closed form" not in printed


def test_the_error_and_coefficients_are_those_of_fits_without_each_row():
    found = expand(np.log(DAMPINGS))
    for k, (present, dampings) in enumerate(zip(PRESENT, DAMPINGS, strict=True)):
        rows = np.flatnonzero(present)
        squares = []
        for row in rows:
            others = rows[rows != row]
            x = normal_equations(DATA.a[others], DATA.y[others], dampings)
            squares.append((DATA.a[row] @ x - DATA.y[row]) ** 2)
        assert found.error[k] == pytest.approx(np.mean(squares), rel=1e-9)
        x = normal_equations(DATA.a[rows], DATA.y[rows], dampings)
        np.testing.assert_allclose(found.coefficients[k], x, rtol=1e-7, atol=1e-7)


def test_the_error_with_one_damping_is_that_of_scikit_learn():
    found = expand(np.log(np.full((3, 4), 8.0)))
    for error, present in zip(found.error, PRESENT > 0, strict=True):
        model = RidgeCV([64.0]).fit(DATA.a[present, 1:], DATA.y[present])
        assert error == pytest.approx(-np.float64(model.best_score_), rel=1e-10)


def test_gradient_and_hessian_are_those_of_differences():
    at, step = np.log(DAMPINGS), 1e-4
    found = expand(at)
    for group, e in enumerate(step * np.eye(4)):
        above, below = expand(at + e), expand(at - e)
        slope = (above.error - below.error) / (2 * step)
        np.testing.assert_allclose(found.gradient[:, group], slope, rtol=1e-5, atol=1e-4)
        bend = (above.gradient - below.gradient) / (2 * step)
        np.testing.assert_allclose(found.hessian[:, group], bend, rtol=1e-5, atol=1e-4)


def test_newton_finds_minima_inside_and_at_the_ends_of_the_range():
    # Wells, some with the bottom out of range. The second problem starts on a hump, and the
    # first step of the third leads over a narrow well.
    bottoms = np.log([[2.0, 1e-3, 50.0], [0.5, 1e6, 300.0], [10.0, 10.0, 5.6]])
    widths = np.array([[2.0], [2.0], [0.6]])

    def wells(at):
        off = (at - bottoms) / widths
        rest = np.exp(-(off**2) / 2)
        error = 5 + np.sum(1 - rest, axis=1)
        slope = off * rest / widths
        bend = (1 - off**2) * rest / widths**2
        return newton.Expansion(at, error, at[:, :2], slope, bend[:, :, None] * np.eye(3))

    start = np.log([[10.0] * 3, [20.0] * 3, [10.0] * 3])
    over = start.copy()
    over[2, 2] -= newton.LARGEST_STEP
    assert wells(over).error[2] > wells(start).error[2]
    assert np.any(wells(start).hessian < 0)
    found = newton.learn(wells, start)
    expected = np.clip(np.exp(bottoms), newton.LOWEST, newton.HIGHEST)
    np.testing.assert_allclose(np.exp(found.end.log_dampings), expected, rtol=1e-6)
    assert np.all(np.diff(found.errors, axis=0) <= 0)
    assert found.factorizations.max() == len(found.errors) < 20


def test_a_search_over_ratios_returns_the_fit_of_its_dampings():
    ratios = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 0.1, 5.0, 10.0], [1.0, 10, 0.1, 1.0]])
    found = grid.search(DATA, ratios)
    np.testing.assert_allclose(found.dampings / found.dampings[0], ratios[1])
    on_the_grid = np.sqrt(found.model.alphas)[:, None] * ratios[1]
    assert on_the_grid.min() == pytest.approx(newton.LOWEST)
    assert on_the_grid.max() == pytest.approx(newton.HIGHEST)
    x = normal_equations(DATA.a, DATA.y, found.dampings)
    np.testing.assert_allclose(found.predicted(DATA.a[:9, 1:]), DATA.a[:9] @ x)
    at = np.log(np.stack([found.dampings] * 3))
    assert found.errors[-1] == pytest.approx(expand(at).error[0], rel=1e-10)


def test_the_features_are_those_of_the_paper():
    assert DATA.a.shape == (442, 65)
    np.testing.assert_array_equal(np.bincount(DATA.groups), [4, 6, 9, 45])
    np.testing.assert_allclose(DATA.a[:, 1:].mean(axis=0), 0, atol=1e-12)
    assert np.linalg.matrix_rank(DATA.a) == 65
