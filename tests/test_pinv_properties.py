"""Properties of values, for problems that hypothesis searches."""

import numpy as np
import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from tests import strategies
from tests.matrices import unitary
from tests.numpy_oracle import (
    adjoint,
    assert_small,
    direction,
    excess_of_vectors,
    in_units,
    is_not_empty,
    projection,
    reference,
    results,
    sizes,
)
from tests.strategies import (
    Configuration,
    Problem,
    Recipe,
    in_every_configuration,
    problem,
    problems,
)

# Results that are not telling may overflow; the tests ignore them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),
    pytest.mark.slow,
]

methods = st.sampled_from(["direct", "svd"])


@given(problems(is_not_empty), methods)
@in_every_configuration("direct")
def test_the_rank_is_the_number_of_values_above_the_cutoff(p, method):
    rank = results(p, method).rank
    least, most = reference(p, rank).ranks
    event(f"rounding decides: {np.any(least < most)}")
    assert np.all((least <= rank.ravel()) & (rank.ravel() <= most))


# Of condition about 1e8, where one pass does not make the columns orthonormal.
HARD = Recipe(("ill_conditioned",), 0, 10, 0, ("zero",), 0)
# For its adjoint, LAPACK drops an off-diagonal element of 33 eps.
GRADED = Recipe(("graded",), 23445, 4, 213, ("rtol",), 0)


@given(problems(is_not_empty), methods)
@in_every_configuration("direct")
@example(problem(Configuration((33, 3, 2)), HARD), "direct")
@example(problem(Configuration((12, 9), np.complex64), HARD._replace(digits=7)), "direct")
@example(problem(Configuration((3, 5), np.complex128), GRADED), "svd")
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


@given(problems(is_not_empty))
@in_every_configuration()
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
@in_every_configuration("direct")
def test_the_solution_is_the_pseudo_inverse_times_the_right_side(p, method):
    found = results(p, method)
    known = reference(p, found.rank)
    x, b = in_units(p, found.x, -1), in_units(p, p.b, 0)
    error = in_units(p, found.solution, -1) - x @ b
    size = sizes(known)[0] * np.linalg.norm(b, axis=(1, 2))
    assert_small(p, error, known.is_telling, size, known.condition)


@given(problems(lambda c: is_not_empty(c) and c.given), methods)
def test_the_pseudo_inverse_of_the_pseudo_inverse_is_the_kept_part(p, method):
    found = results(p, method)
    known = reference(p, found.rank)
    # The adjoint has the shape of the matrix, for which a program is already compiled.
    back = adjoint(found.x)
    half = 0.5 / np.where(known.size > 0, known.size, 1) * 2.0**-p.recipe.exponent
    atol = np.reshape(half, p.atol.shape).astype(p.atol.dtype)
    unit = p.recipe._replace(exponent=-p.recipe.exponent)
    q = Problem(p.configuration, unit, back, p.b, p.ct, p.e, np.zeros_like(atol), atol)
    twice = results(q, method)
    again = adjoint(in_units(p, twice.x, 1))
    loss = np.maximum(known.condition, reference(q, twice.rank).condition) ** 2
    where = known.is_telling & (loss * p.configuration.eps < 1e-3)
    event(f"telling: {np.mean(where):.1f}")
    assert_small(p, again - known.kept, where, known.size, loss)


@given(problems(is_not_empty), methods)
@in_every_configuration("direct")
def test_unitary_factors_change_places(p, method):
    rng = np.random.default_rng(p.recipe.seed)
    m, n = p.configuration.shape[-2:]
    left, right = unitary(rng, m, m, p.a.dtype), unitary(rng, n, n, p.a.dtype)
    right = adjoint(left) if p.configuration.hermitian else right
    turned = (left @ p.a.astype(left.dtype) @ right).astype(p.a.dtype)
    if p.configuration.hermitian:
        turned = (turned + adjoint(turned)) / 2
    found, other = results(p, method), results(p._replace(a=turned), method)
    known = reference(p, found.rank)
    same = found.rank.ravel() == other.rank.ravel()
    assert np.all(same | (known.ranks[0] < known.ranks[1]))
    x, y = in_units(p, found.x, -1), in_units(p, other.x, -1)
    error = adjoint(right) @ x @ adjoint(left) - y
    condition = known.condition + reference(p._replace(a=turned), other.rank).condition
    assert_small(p, error, same & known.is_telling, sizes(known)[0], condition)


# Two singular values and a cutoff between them that scales with them, for shapes that are
# factored without singular values.
CUT = Recipe(("full",), 0, 0, 0, ("between",), 0)


@given(problems(is_not_empty, scaled=False), methods, st.integers(-20, 20))
@example(problem(Configuration((33, 3, 2)), CUT), "direct", -20)
@example(problem(Configuration((12, 9), np.complex64), CUT), "direct", -20)
def test_powers_of_two_scale_exactly(p, method, exponent):
    found = results(p, method)
    scale = p.rtol.dtype.type(2.0) ** exponent
    with np.errstate(over="ignore"):
        q = p._replace(a=p.a * scale, e=p.e * scale, atol=p.atol * scale)
    scaled = results(q, method)
    assert np.array_equal(found.rank, scaled.rank)
    assert np.array_equal(found.x, scaled.x * scale)
    assert np.array_equal(found.dx, scaled.dx * scale)
    assert np.array_equal(found.gradient, scaled.gradient * scale**2)
    assert np.array_equal(found.solution, scaled.solution * scale)


def has_adjoint(configuration: Configuration) -> bool:
    """Whether the adjoints have another shape for which a program exists."""
    *batch, m, n = configuration.shape
    turned = configuration._replace(shape=(*batch, n, m))
    return m != n and turned in strategies.CONFIGURATIONS


@given(problems(lambda c: is_not_empty(c) and has_adjoint(c)), methods)
def test_the_adjoint_has_the_adjoint_pseudo_inverse(p, method):
    *batch, m, n = p.configuration.shape
    turned = p.configuration._replace(shape=(*batch, n, m))
    q = problem(turned, p.recipe)._replace(a=adjoint(p.a), rtol=p.rtol, atol=p.atol)
    found, other = results(p, method), results(q, method)
    assert np.array_equal(found.rank, other.rank)
    known = reference(p, found.rank)
    error = in_units(p, found.x, -1) - adjoint(in_units(p, other.x, -1))
    # Both come from the same factors, so the condition does not enter.
    assert_small(
        p, error, np.isfinite(known.condition), sizes(known)[0], np.ones_like(known.gap)
    )


def has_projections(configuration: Configuration) -> bool:
    """Whether projections onto null spaces are compiled: by default for wide ones alone."""
    return strategies.IS_LARGE or configuration.shape[-2] < configuration.shape[-1]


# The norms of its singular vectors, which NumPy shares, are off by 11 eps.
CLUSTERED = Recipe(("clustered",), 4366, 0, 0, ("between",), 5)


@given(problems(lambda c: is_not_empty(c) and has_projections(c)))
@example(problem(Configuration((9, 12), np.complex64), CUT))
@example(problem(Configuration((1, 9, 9), np.complex128), CLUSTERED))
def test_rank_and_nullity_add_up_to_the_number_of_columns(p):
    found = results(p)
    known = reference(p, found.rank)
    n = p.configuration.shape[-1]
    batch = p.configuration.shape[:-2]
    x = np.broadcast_to(np.eye(n, dtype=p.a.dtype), (*batch, n, n))
    q = in_units(p, projection(p, x), 0)
    nullity = np.trace(q, axis1=1, axis2=2)[:, None, None]
    rank, one = found.rank.ravel()[:, None, None], np.ones_like(known.condition)
    where, excess = np.isfinite(known.condition), excess_of_vectors(p, known.a)
    assert_small(p, rank + nullity - n, where, one * n, excess)
    assert_small(p, q @ q - q, where, one * n, excess)
    assert_small(p, q - adjoint(q), where, one * n, excess)
    assert_small(p, known.kept @ q, known.is_telling, known.size, known.condition)


def is_batch(configuration: Configuration) -> bool:
    """Whether there are at least two matrices."""
    return is_not_empty(configuration) and bool(np.prod(configuration.shape[:-2]) > 1)


@given(problems(is_batch), methods, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_what_is_not_finite_stays_in_its_own_matrix(p, method, bad, data):
    *batch, m, n = p.configuration.shape
    at = tuple(data.draw(st.integers(0, size - 1)) for size in batch)
    i, j = data.draw(st.integers(0, m - 1)), data.draw(st.integers(0, n - 1))
    i, j = max(i, j), min(i, j)
    i = min(i, m - 1)
    spoiled = p.a.copy()
    spoiled[(*at, i, j)] = bad
    spoiled[(*at, 0, 0)] = bad
    found, other = results(p, method), results(p._replace(a=spoiled), method)
    for before, after in zip(found, other, strict=True):
        mates = np.ones(batch, bool)
        mates[at] = False
        assert np.array_equal(before[mates], after[mates])
    assert other.rank[at] == 0
    for x in (other.x, other.dx, other.gradient, other.solution):
        assert np.all(np.isnan(x[at]))


@given(problems(lambda c: is_not_empty(c) and c.given), methods, st.data())
def test_a_nan_tolerance_gives_nan(p, method, data):
    name = data.draw(st.sampled_from(["rtol", "atol"]))
    tolerance = np.full_like(p.rtol, np.nan)
    found = results(p._replace(**{name: tolerance}), method)
    assert not np.any(found.rank)
    assert all(np.all(np.isnan(x)) for x in (found.x, found.dx, found.gradient))


@given(problems(lambda c: is_not_empty(c) and c.given), methods, st.data())
def test_a_tolerance_above_all_values_gives_exact_zeros(p, method, data):
    name, value = data.draw(
        st.sampled_from([("rtol", 1.0), ("rtol", 7.0), ("rtol", np.inf), ("atol", np.inf)])
    )
    found = results(p._replace(**{name: np.full_like(p.rtol, value)}), method)
    for x in found:
        assert np.array_equal(x, np.zeros_like(x))


@given(problems(lambda c: is_not_empty(c) and c.hermitian), methods)
def test_above_the_diagonal_of_a_hermitian_matrix_nothing_is_read(p, method):
    lower = np.tri(p.a.shape[-1], dtype=bool)
    other = results(p._replace(a=np.where(lower, p.a, p.a.dtype.type(np.nan))), method)
    for x, y in zip(results(p, method), other, strict=True):
        assert np.array_equal(x, y)


square = Configuration((9, 9), np.complex128, given=False)


@given(
    st.lists(
        st.sampled_from(["full", "integer", "permutation", "repeated"]),
        min_size=2,
        max_size=2,
    ),
    st.integers(0, 2**16),
    methods,
)
def test_pseudo_inverses_of_kronecker_products_are_those_products(kinds, seed, method):
    # NumPy inverts the factors, and the library their product.
    small = [square._replace(shape=(3, 3)) for _ in kinds]
    factors = [
        problem(c, Recipe((kind,), seed + i, 0, 0, ("zero",), 0)).a
        for i, (c, kind) in enumerate(zip(small, kinds, strict=True))
    ]
    p = problem(square, Recipe(("zero",), seed, 0, 0, ("zero",), 0))
    p = p._replace(a=np.kron(*factors))
    found = results(p, method)
    known = reference(p, found.rank)
    exact = np.kron(*(np.linalg.pinv(x, rcond=1e-10) for x in factors))
    error = (found.x - exact)[None]
    ranks = [np.linalg.matrix_rank(x, tol=1e-10) for x in factors]
    assert found.rank == np.prod(ranks)
    assert_small(p, error, known.is_telling, sizes(known)[0], 2 * known.condition)
