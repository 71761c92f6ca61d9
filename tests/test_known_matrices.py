"""Known matrices, against rational arithmetic: in units of eps times the condition."""

from functools import partial

import jax
import numpy as np
import pytest

import jaxpinv
from tests.comparison import C, bound, relative_error
from tests.mpmath_oracle import exact_derivative
from tests.rational_oracle import GALLERY, SHAPES, error, exact


@partial(jax.jit, static_argnames="method")
def value_derivative_and_rank(a, e, rtol, method):
    """The pseudo-inverse, its derivative along a direction, and the rank."""

    def f(a):
        return jaxpinv.pinv(a, rtol, method=method, return_rank=True)

    return jax.jvp(f, (a,), (e,), has_aux=True)


# All pairs of a shape, a dtype and a method but those of methods and dtypes for tall ones.
PROGRAMS = [
    ("square", np.float32, "direct"),
    ("square", np.float64, "direct"),
    ("square", np.float64, "svd"),
    ("tall", np.float32, "svd"),
    ("tall", np.float64, "direct"),
]
CASES = [
    (name, *program)
    for name in GALLERY
    for program in PROGRAMS
    if exact(name, SHAPES[program[0]], program[1]).is_regular()
]


@pytest.mark.slow_unless("square-float32-direct")
@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0]}-{case[1]}-{case[2].__name__}-{case[3]}"
)
def test_errors_are_those_of_rounding(case):
    name, shape, dtype, method = case
    errors = error(name, shape, dtype, method, value_derivative_and_rank)
    assert errors.rank == exact(name, SHAPES[shape], dtype).rank
    assert errors.value <= C
    assert errors.derivative <= C


class TestRationalArithmetic:
    """The oracle itself."""

    @pytest.mark.parametrize("name", ["magic", "pascal", "two_cycles_laplacian"])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_it_satisfies_the_penrose_equations(self, name, shape):
        known = exact(name, SHAPES[shape], np.float64)
        a, x = known.a, known.x
        tolerance = bound(np.float64, known.condition)
        assert relative_error(a @ x @ a, a) <= tolerance
        assert relative_error(x @ a @ x, x) <= tolerance
        assert np.max(np.abs(a @ x - (a @ x).T)) <= tolerance
        assert np.max(np.abs(x @ a - (x @ a).T)) <= tolerance

    @pytest.mark.parametrize("name", ["minij", "magic", "incidence", "kahan"])
    def test_its_derivative_is_that_by_differences_in_50_digits(self, name):
        known = exact(name, SHAPES["square"], np.float64)
        cutoff = known.cutoff() * float(np.linalg.norm(known.a, 2))
        difference = exact_derivative(known.a, [known.e], cutoff)
        assert relative_error(difference, known.dx) <= bound(np.float64)

    @pytest.mark.parametrize(
        ("name", "rank"),
        [
            ("magic", 3),
            ("ones", 1),
            ("bipartite", 2),
            ("chow", 11),
            ("gearm", 11),
            ("path_laplacian", 11),
            ("complete_laplacian", 11),
            ("two_cycles_laplacian", 10),
            ("pascal", 12),
            ("hilbert", 12),
        ],
    )
    def test_it_finds_the_known_rank(self, name, rank):
        assert exact(name, SHAPES["square"], np.float64).rank == rank
