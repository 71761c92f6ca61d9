"""Properties of pseudo-inverses, for problems that hypothesis looks for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

import jaxpinv
from tests import strategies
from tests.helpers import bound, unitary
from tests.strategies import (
    Configuration,
    Problem,
    Recipe,
    problem,
    problems,
    projection,
    results,
    singular_values,
)

methods = st.sampled_from(["auto", "svd"])


class Reference(NamedTuple):
    """What NumPy finds in double precision, for the rank that was found.

    Everything stands in units of the power of two of the recipe, and of one batch axis.

    Attributes:
        a: the matrices, `(B, m, n)`.
        kept: their kept part, of that rank.
        smallest: the smallest kept singular value, or 1 if there is none, `(B,)`.
        gap: the difference to the next one.
        size: the Frobenius norm, the measure of the backward error of a factorisation.
        condition: that over the gap, or 1.
        is_telling: whether the condition leaves digits, and the tolerances are numbers.
        ranks: the least and the largest rank that rounding allows, each `(B,)`.
    """

    a: np.ndarray
    kept: np.ndarray
    smallest: np.ndarray
    gap: np.ndarray
    size: np.ndarray
    condition: np.ndarray
    is_telling: np.ndarray
    ranks: tuple[np.ndarray, np.ndarray]


def reference(p: Problem, rank: np.ndarray) -> Reference:
    """The reference of a problem and of the ranks that the library found."""
    a, rank = in_units(p, p.a, 1), rank.ravel()
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    s = np.concatenate([s, np.zeros((len(a), 1))], axis=1)
    rows, size = np.arange(len(a)), np.linalg.norm(a, axis=(1, 2))
    kept_values = np.where(np.arange(s.shape[1]) < rank[:, None], s, 0)[:, :-1]
    kept = (u * kept_values[:, None]) @ vh
    smallest = np.where(rank > 0, s[rows, rank - 1], 1)
    gap = np.where(rank > 0, smallest - s[rows, rank], 1)
    with np.errstate(divide="ignore"):
        condition = np.where(rank > 0, size / gap, 1)
    is_telling = condition * p.configuration.eps < 1e-3
    scale = 2.0**p.recipe.exponent
    rtol, atol = (x.ravel().astype(float) for x in (p.rtol, p.atol))
    with np.errstate(over="ignore"):
        relative = np.where(rtol > 0, rtol, 0) * np.where(s[:, 0] > 0, s[:, 0], 1)
        cutoff = np.maximum(relative, atol / scale)[:, None]
    slack = bound(p.configuration.dtype) * size[:, None]
    ranks = np.sum(s[:, :-1] > cutoff + slack, axis=1), np.sum(s[:, :-1] > cutoff - slack, axis=1)
    return Reference(a, kept, smallest, gap, size, condition, is_telling, ranks)


def in_units(p: Problem, x: np.ndarray, power: int) -> np.ndarray:
    """Double precision, in one batch axis, divided by a power of the scale."""
    flat = np.reshape(x, (int(np.prod(x.shape[:-2])), *x.shape[-2:]))
    double = flat.astype(np.result_type(x, np.float64))
    return double * 2.0 ** (-power * p.recipe.exponent)


def adjoint(x: np.ndarray) -> np.ndarray:
    """Conjugate transpose."""
    return np.conj(np.swapaxes(x, -1, -2))


def largest(x: np.ndarray) -> np.ndarray:
    """The largest element of each matrix."""
    return np.max(np.abs(x), axis=(1, 2), initial=0)


def assert_small(p: Problem, error: np.ndarray, where: np.ndarray, size, condition):
    """Asserts that rounding explains an error of that size."""
    limit = bound(p.configuration.dtype) * condition * size
    bad = where & ~(largest(error) <= limit)
    assert not np.any(bad), (largest(error)[bad] / limit[bad], condition[bad])


def is_not_empty(configuration: Configuration) -> bool:
    """Whether there is something in the matrices."""
    return bool(np.prod(configuration.shape))


@given(problems(is_not_empty), methods)
def test_the_rank_is_the_number_of_values_above_the_cutoff(p, method):
    rank = results(p, method).rank
    least, most = reference(p, rank).ranks
    event(f"rounding decides: {np.any(least < most)}")
    assert np.all((least <= rank.ravel()) & (rank.ravel() <= most))


@given(problems(is_not_empty), methods)
def test_penrose_equations_hold_on_the_kept_part(p, method):
    found = results(p, method)
    known = reference(p, found.rank)
    a, x = known.a, in_units(p, found.x, -1)
    ax, xa = a @ x, x @ a
    where, condition = known.is_telling, known.condition
    event(f"telling: {np.mean(where):.1f}")
    one = np.ones_like(condition)
    assert_small(p, ax @ known.a - known.kept, where, known.size, condition)
    assert_small(p, xa @ x - x, where, 1 / known.smallest, condition)
    assert_small(p, ax - adjoint(ax), where, one, condition)
    assert_small(p, xa - adjoint(xa), where, one, condition)


def sizes(known: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Natural sizes of the value and, along directions of size 1, of the derivative."""
    return 1 / known.smallest, 1 / (known.smallest * known.gap)


def direction(p: Problem, x: np.ndarray) -> np.ndarray:
    """Frobenius norms in units, `(B,)`."""
    return np.linalg.norm(in_units(p, x, 1), axis=(1, 2))


@given(problems(is_not_empty))
def test_both_methods_agree_in_value_rank_and_derivative(p):
    direct, by_values = results(p), results(p, "svd")
    known = reference(p, by_values.rank)
    least, most = known.ranks
    same = direct.rank.ravel() == by_values.rank.ravel()
    assert np.all(same | (least < most))
    where, condition = known.is_telling & same, 2 * known.condition
    value, derivative = sizes(known)
    x, y = (in_units(p, r.x, -1) for r in (direct, by_values))
    assert_small(p, x - y, where, value, condition)
    x, y = (in_units(p, r.dx, -1) for r in (direct, by_values))
    assert_small(p, x - y, where, derivative * direction(p, p.e), condition)
    x, y = (in_units(p, r.gradient, -2) for r in (direct, by_values))
    ct = np.linalg.norm(in_units(p, p.ct, 0), axis=(1, 2))
    assert_small(p, x - y, where, derivative * ct, condition)


@given(problems(is_not_empty), methods)
def test_the_gradient_is_the_transpose_of_the_derivative(p, method):
    found = results(p, method)
    known = reference(p, found.rank)
    e, ct = in_units(p, p.e, 1), in_units(p, p.ct, 0)
    pushed = np.sum(ct * in_units(p, found.dx, -1), axis=(1, 2)).real
    back = np.sum(in_units(p, found.gradient, -2) * e, axis=(1, 2)).real
    size = sizes(known)[1] * direction(p, p.e) * np.linalg.norm(ct, axis=(1, 2))
    # Both come from the same factors: the condition does not enter.
    finite = np.isfinite(size)
    assert_small(p, (pushed - back)[:, None, None], finite, size, np.ones_like(size))


@given(problems(is_not_empty), methods)
def test_the_solution_is_the_pseudo_inverse_times_the_right_side(p, method):
    found = results(p, method)
    known = reference(p, found.rank)
    x, b = in_units(p, found.x, -1), in_units(p, p.b, 0)
    error = in_units(p, found.solution, -1) - x @ b
    size = sizes(known)[0] * np.linalg.norm(b, axis=(1, 2))
    assert_small(p, error, known.is_telling, size, known.condition)
