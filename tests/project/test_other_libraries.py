"""What the documentation says about other libraries, call by call."""

import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests import comparison
from tests.benchmarks import downstream, features, libraries
from tests.project.pages import page, tables

pytestmark = pytest.mark.unoptimized

LIBRARIES = (
    libraries.of_jaxpinv(),
    libraries.of_jnp(),
    libraries.of_numpy(),
    libraries.of_scipy(),
)
EPS = float(np.finfo(np.float64).eps)


def is_installed(call):
    """Whether the library that a call in the table belongs to can be imported."""
    library = call.strip("`").split(".")[0]
    return library == "jnp" or importlib.util.find_spec(library) is not None


FEATURES, DERIVATIVES, _ = tables(page("comparison.md"))


def test_every_feature_has_its_row():
    assert [row[0] for row in FEATURES[1:]] == list(features.ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("row", features.ROWS)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_a_cell_says_what_a_call_returns(library, row):
    head, *rows = FEATURES
    cells = next(cells for cells in rows if cells[0] == row)
    said = dict(zip(head, cells, strict=True))[library.name]
    found = features.cell(row, library)
    if row == "error of the second derivative" and said != features.NONE:
        # Its digits are rounding, which no two machines share.
        assert found is not None
        assert abs(np.log10(float(found) / float(said))) < 0.7
    elif row == features.NO_CONVERGENCE:
        # On another machine, or with more threads, LAPACK may converge, or lose digits.
        ours = library.name == "jaxpinv"
        assert found in ((said,) if ours else (said, features.RIGHT, "wrong"))
    else:
        assert found == (None if said == "hangs" else said)


@pytest.mark.slow
def test_derivatives_of_programs_are_those_of_the_page():
    found = downstream.rows()
    assert [row[0] for row in DERIVATIVES[1:]] == [row[0] for row in found]
    said = np.array([row[1:] for row in DERIVATIVES[1:]], float)
    values = np.array([row[1:] for row in found], float)
    assert np.array_equal(values[:2], said[:2], equal_nan=True)
    # The digits of errors are rounding, which no two machines share.
    least_squares, by_pinv = slice(2), 2
    errors, known = values[2:], said[2:]
    assert np.all(np.abs(np.log10(errors[:, least_squares] / known[:, least_squares])) < 1)
    for table in (errors, known):
        assert np.all(table[:, by_pinv] > 1e4 * table[:, 0])


# The smallest singular value, between any two of the default cutoffs 1e-15, 6 eps and 60
# eps, and the tolerances. Neither 6e-4 alone truncates 1e-3, but both together do, and
# 1e-15 is so small that a default `rtol` beside it matters.
LADDER = {5e-16: 6e-4, 1.2e-15: 1e-15, 5e-15: 6e-4, 1e-13: 1e-15}
MIGRATIONS = [
    row[:2]
    for rows in tables(page("moving_over.md"))
    for row in rows[1:]
    if rows[0][0] == "theirs" and is_installed(row[0])
]


def namespace(smallest, unit):
    """What the code of the table is about, with that singular value, in that unit."""
    a = np.zeros((6, 4))
    a[[3, 0, 5, 2], range(4)] = [1, -0.5, 1e-3, smallest]
    # Its eigenvalues are exact as well.
    h = np.diag([1, -0.5, 1e-3, smallest])
    b = np.array([1.0, 2.0, -1.0, 0.5, 3.0, 1.5])
    a, h = unit * a, unit * h
    names = {"jax": jax, "jnp": jnp, "numpy": np, "jaxpinv": jaxpinv, "eps": EPS}
    tolerance = LADDER[smallest]
    names |= {"r": tolerance, "t": tolerance, "norm": np.linalg.norm}
    return names | {"a": a, "b": b, "h": h}


# In the second one absolute tolerances are not relative ones.
@pytest.mark.slow
@pytest.mark.parametrize("unit", [1, 0.75])
@pytest.mark.parametrize("smallest", LADDER)
@pytest.mark.parametrize(("theirs", "ours"), MIGRATIONS, ids=[row[0] for row in MIGRATIONS])
def test_code_that_moves_over_gives_the_same_numbers(theirs, ours, smallest, unit):
    names: dict[str, Any] = namespace(smallest, unit)
    library = theirs.strip("`").split(".")[0]
    if library not in names:
        names[library] = importlib.import_module(library)
    if library in ("torch", "scipy"):
        importlib.import_module(f"{library}.linalg")
    their_names = dict(names)
    if library == "lineax":
        their_names |= {k: jnp.asarray(names[k]) for k in "abh"}
    if library == "torch":
        their_names |= {k: names["torch"].tensor(names[k]) for k in "abh"}
    expected = eval(theirs.strip("`"), their_names)
    found = eval(ours.strip("`"), names)
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    for x, y in zip(found, expected, strict=True):
        x, y = (np.asarray(z) for z in (x, y))
        if "null_space" in theirs:
            x, y = (z @ z.conj().T for z in (x, y))
        assert comparison.relative_error(x, y) <= comparison.bound(np.float64)
