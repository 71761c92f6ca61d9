"""Digits of derivatives: between neighboring floats, and in single precision."""

from functools import partial

import jax
import numpy as np
import pytest

import jaxpinv
from tests.comparison import C, bound, relative_error
from tests.matrices import gaussian, matrix


@partial(jax.jit, static_argnames="pinv")
def first(pinv, a, e, atol):
    """The derivative along one direction."""
    return jax.jvp(partial(pinv, atol=atol), (a,), (e,))[1]


@pytest.mark.slow_unless("pinv")
def test_derivative_is_finite_between_neighboring_floats_on_both_sides_of_the_cutoff(pinv):
    # The largest entry of the derivative is 1 / (s (s - t)), and rounding of t / s to one
    # would make it infinite.
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    for t in np.linspace(1, 2, 101)[:-1]:
        s = np.nextafter(t, 2)
        dx = first(pinv, np.diag([s, t]), swap, t)
        expected = swap / (s * (s - t))
        assert relative_error(dx, expected) <= bound(np.float64)


def graded(rng, shape, condition):
    """A matrix with singular values from 1 down to `1 / condition`, evenly in size."""
    k = min(shape)
    return matrix(rng, shape, np.logspace(0, -np.log10(condition), k), np.float64)


@partial(jax.jit, static_argnames="pinv")
def first_and_second(pinv, a, e):
    """Both derivatives along one direction."""
    return jax.jvp(lambda a: jax.jvp(pinv, (a,), (e,))[1], (a,), (e,))


@pytest.mark.slow
@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4])
@pytest.mark.parametrize(
    ("pinv", "shape"),
    [
        ("pinv", (7, 6)),
        ("pinv", (16, 16)),
        ("lstsq", (6, 7)),
    ],
    ids=str,
    indirect=["pinv"],
)
def test_single_precision_loses_no_more_than_the_condition(pinv, rng, shape, condition):
    errors = []
    for _ in range(12):
        a = graded(rng, shape, condition).astype(np.float32)
        e = gaussian(rng, shape, np.float32)
        # By one function for both ways: a reference is compiled once.
        exact = first_and_second(jaxpinv.pinv, *(x.astype(np.float64) for x in (a, e)))
        found = first_and_second(pinv, a, e)
        errors.append([relative_error(x, y) for x, y in zip(found, exact, strict=True)])
    assert np.all(np.median(errors, axis=0) <= bound(np.float32, condition, c=C))
