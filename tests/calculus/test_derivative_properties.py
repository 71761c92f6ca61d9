"""Properties of first derivatives, for problems that hypothesis looks for."""

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.comparison import bound
from tests.numpy_oracle import (
    adjoint,
    assert_small,
    derivatives,
    direction,
    in_units,
    is_not_empty,
    reference,
    sizes,
)
from tests.strategies import in_every_configuration, problems

# What is not telling may overflow, and is not looked at.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.slow,
    pytest.mark.unoptimized,
]

methods = st.sampled_from(["direct", "svd"])


@given(problems(is_not_empty), methods)
@in_every_configuration("direct")
def test_the_gradient_is_the_transpose_of_the_derivative(p, method):
    found = derivatives(p, method)
    known = reference(p, found.rank)
    e, ct = in_units(p, p.e, 1), in_units(p, p.ct, 0)
    pushed = np.real(np.sum(ct * in_units(p, found.dx, -1), axis=(1, 2)))
    back = np.real(np.sum(in_units(p, found.gradient, -2) * e, axis=(1, 2)))
    size = sizes(known)[1] * direction(p, p.e) * np.linalg.norm(ct, axis=(1, 2))
    # Both come from the same factors: the condition does not enter.
    error, one = (pushed - back)[:, None, None], np.ones_like(size)
    assert_small(p, error, known.is_telling, size, one)


@given(problems(is_not_empty), methods)
@in_every_configuration("direct")
def test_derivatives_of_the_penrose_equations_hold_where_zeros_are_truncated(p, method):
    known = reference(p, derivatives(p, method).rank)
    # Along such a direction the rank stays what it is.
    rng = np.random.default_rng(p.recipe.seed)
    m, n = p.configuration.shape[-2:]
    left, right = rng.standard_normal((m, m)), rng.standard_normal((n, n))
    right = left.T if p.configuration.hermitian else right
    e = left @ known.kept + known.kept @ right
    e = np.reshape(e * 2.0**p.recipe.exponent, p.a.shape).astype(p.a.dtype)
    found = derivatives(p._replace(e=e), method)
    a, x = known.kept, in_units(p, found.x, -1)
    e, dx = in_units(p, e, 1), in_units(p, found.dx, -1)
    where = known.is_telling & (known.smallest - known.gap <= bound(p.a.dtype) * known.size)
    event(f"telling: {np.mean(where):.1f}")
    along = np.linalg.norm(e, axis=(1, 2))
    size, condition = sizes(known)[1] * along, known.condition
    xa, ax = x @ a, a @ x
    assert_small(p, dx @ ax + x @ e @ x + xa @ dx - dx, where, size, condition)
    range_, corange = e @ x + a @ dx, dx @ a + x @ e
    assert_small(p, range_ - adjoint(range_), where, known.size * size, condition)
    assert_small(p, corange - adjoint(corange), where, known.size * size, condition)
    whole = e @ xa + a @ dx @ a + ax @ e - e
    assert_small(p, whole, where, along, condition**2)


@given(problems(lambda c: is_not_empty(c) and c.real == np.float32), methods)
def test_the_derivative_is_that_of_numpy_in_double_precision(p, method):
    found = derivatives(p, method)
    known = reference(p, found.rank)
    a, e = known.a, in_units(p, p.e, 1)
    ranks = found.rank.ravel()[:, None]

    def truncated(t):
        """The pseudo-inverse of that rank, moved by `t` of the gap."""
        u, s, vh = np.linalg.svd(a + t * step * e, full_matrices=False)
        kept = np.arange(s.shape[1]) < ranks
        inverse = np.where(kept, 1 / np.where(kept, s, 1), 0)
        return adjoint(vh) @ (inverse[..., None] * adjoint(u))

    size = np.linalg.norm(e, axis=(1, 2))
    step = (known.gap / np.where(size > 0, size, 1))[:, None, None]
    h = 1e-3
    difference = truncated(-2 * h) - 8 * truncated(-h) + 8 * truncated(h) - truncated(2 * h)
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = difference / (12 * h * step)
    error = in_units(p, found.dx, -1) - exact
    size = size * sizes(known)[1]
    where = known.is_telling & (size > 0)
    assert_small(p, error, where, size, known.condition)


@given(problems(lambda c: is_not_empty(c) and c.hermitian), methods)
def test_gradients_of_a_hermitian_matrix_are_hermitian(p, method):
    found = derivatives(p, method)
    known = reference(p, found.rank)
    gradient = in_units(p, found.gradient, -2)
    size = sizes(known)[1] * np.linalg.norm(in_units(p, p.ct, 0), axis=(1, 2))
    # Not bit for bit: the compiler may compute both halves of it apart.
    one = np.ones_like(size)
    assert_small(p, gradient - adjoint(gradient), known.is_telling, size, one)
