"""Matrices without full rank, by QR with column pivoting."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import jaxpinv
from jaxpinv._factorization import auto, lu, numerical_rank, pivoted_qr
from jaxpinv._factors import Cutoff
from jaxpinv._platform import plan as plans
from jaxpinv._primitives import trial_of, triplets_of_plan
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, of_values
from tests.platform.targets import CPU
from tests.programs import svd_calls

direct = partial(jaxpinv.pinv, method="direct")
by_svd = partial(jaxpinv.pinv, method="svd")


factor = jax.jit(pivoted_qr.factor, static_argnames="by_halves")


def decomposed(a, rtol=None, *, by_halves=True):
    limits = np.finfo(a.dtype)
    rtol = max(a.shape[-2:]) * limits.eps if rtol is None else rtol
    given = (np.full(a.shape[:-2], x, limits.dtype) for x in (rtol, 0.0))
    cutoff = Cutoff(*map(jnp.asarray, given))
    return factor(a, cutoff, by_halves=by_halves)


@jax.jit
def by_lu(a, cutoff):
    options = {"swaps_rows": True, "sharply": True, "gives_up_early": True}
    return lu.factor(a, cutoff, **options)


def looked_at(a, found):
    """Of the factors of one matrix: errors over eps of what their contract says."""
    u, v, x, kept, _, r, order = (np.asarray(y) for y in found)
    wide = np.result_type(a.dtype, np.float64)
    a, u, v, x, r = (y.astype(wide) for y in (a, u, v, x, r))
    null, w = v[:, ~kept], v[:, kept]
    norm, size = np.linalg.norm(a), np.linalg.norm(w)
    errors = [
        np.linalg.norm(u.conj().T @ u - np.eye(u.shape[1])) / len(kept) ** 0.5,
        np.linalg.norm(null.conj().T @ null - np.eye(null.shape[1])) / len(kept) ** 0.5,
        np.linalg.norm(null.conj().T @ w) / max(size, 1e-300),
        np.linalg.norm(a @ null) / max(norm, 1e-300),
        np.linalg.norm(a @ w - u[:, kept]) / max(norm * size, 1e-300),
        np.linalg.norm(u @ r - a[:, order]) / max(norm, 1e-300),
        np.linalg.norm(x - w @ u[:, kept].conj().T) / max(size, 1e-300),
    ]
    return np.array(errors) / np.finfo(found.x.dtype).eps


# Real and complex ones by both ways and of both shapes, and every rank.
@pytest.mark.slow_unless("True-float64-20")
@pytest.mark.parametrize("rank", [0, 1, 20, 39, 40])
@pytest.mark.parametrize(
    ("m", "by_halves", "dtype"),
    [
        (40, True, np.complex128),
        (40, False, np.float32),
        (55, True, np.float64),
        (55, False, np.complex64),
    ],
)
def test_the_factors_are_what_the_contract_says(rng, m, by_halves, rank, dtype):
    a = of_values(rng, (m, 40), np.geomspace(1, 0.01, rank), dtype)
    found = decomposed(a, by_halves=by_halves)
    assert found.certified
    assert found.kept.sum() == rank
    assert np.all(looked_at(a, found) <= 20)


@pytest.mark.slow
def test_the_equations_of_penrose_hold(rng):
    dtype = np.complex64
    a = of_values(rng, (60, 40), np.geomspace(1, 0.1, 17), dtype)
    x, eps = np.asarray(direct(a)), np.finfo(dtype).eps
    for y, z in [(a @ x @ a, a), (x @ a @ x, x)]:
        assert np.linalg.norm(y - z) <= 200 * eps * np.linalg.norm(z)
    for y in (a @ x, x @ a):
        assert np.linalg.norm(y - y.conj().T) <= 400 * eps


def kahan(n):
    c, s = np.cos(1.2), np.sin(1.2)
    return s ** np.arange(n)[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def with_value_at(rng, factor, n, dtype):
    """Rank n/2 and one more value, so many times the cutoff."""
    cutoff = n * np.finfo(dtype).eps
    return of_values(rng, (n, n), [*np.geomspace(1, 0.1, n // 2), factor * cutoff], dtype)


ADVERSARIAL = {
    "kahan": lambda rng, n, dtype: kahan(n),
    "vandermonde": lambda rng, n, dtype: np.vander(np.linspace(0, 1, n)),
    "hilbert": lambda rng, n, dtype: scipy.linalg.hilbert(n),
    "graded": lambda rng, n, dtype: of_values(
        rng, (n, n), np.geomspace(1, 1e-14, n), dtype
    ),
    "graded_rows": lambda rng, n, dtype: (
        np.geomspace(1, 1e-6, n)[:, None] * of_values(rng, (n, n), np.ones(n // 3), dtype)
    ),
    "repeated": lambda rng, n, dtype: of_values(rng, (n, n), np.ones(n // 2), dtype),
    "integer": lambda rng, n, dtype: (
        rng.integers(-3, 4, (n, n // 2)) @ rng.integers(-3, 4, (n // 2, n))
    ),
    "columns_twice": lambda rng, n, dtype: np.tile(gaussian(rng, (n, n // 2)), 2),
    "ones": lambda rng, n, dtype: np.ones((n, n)),
    "noise": lambda rng, n, dtype: (
        of_values(rng, (n, n), np.ones(n // 2), dtype)
        + 3 * n**0.5 * np.finfo(dtype).eps * np.real(gaussian(rng, (n, n))) / n
    ),
    "above": lambda rng, n, dtype: with_value_at(rng, 4, n, dtype),
    "below": lambda rng, n, dtype: with_value_at(rng, 1 / 4, n, dtype),
    "far_below": lambda rng, n, dtype: with_value_at(rng, 1 / 40, n, dtype),
}


@pytest.mark.slow_unless("float32-(kahan|above|below|integer)")
@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_certified_rank_is_wrong_and_no_error_is_large(rng, dtype, name):
    n, eps = 48, np.finfo(dtype).eps
    for _ in range(4):
        a = np.asarray(ADVERSARIAL[name](rng, n, dtype)).astype(dtype)
        u, s, vh = np.linalg.svd(a.astype(np.float64))
        cutoff = n * eps * s[0]
        found = decomposed(a)
        near = np.abs(s - cutoff) <= 2 * cutoff
        # A float64 SVD is off by a few eps itself.
        near = near & (s > cutoff / 4) if dtype == np.float32 else near
        if not found.certified:
            continue
        rank = int(found.kept.sum())
        assert rank == np.sum(s > cutoff) or np.any(near)
        if dtype == np.float64:
            # Singular vectors in double precision are no oracle for what is as accurate.
            continue
        exact = vh[:rank].T / s[:rank] @ u[:, :rank].T
        error = relative_error(found.x, exact) / (eps * s[0] / s[rank - 1])
        others = relative_error(by_svd(a), exact) / (eps * s[0] / s[rank - 1])
        assert error <= max(4, 4 * others)


@pytest.mark.slow_unless("float32")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_plainly_deficient_is_certified(rng, dtype):
    for name in ("repeated", "integer", "columns_twice", "ones"):
        assert decomposed(ADVERSARIAL[name](rng, 48, dtype).astype(dtype)).certified


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "rank", "dtype"),
    [
        (64, 40, np.complex128),
        (200, 120, np.complex64),
        (500, 250, np.float32),
    ],
)
def test_a_product_of_two_factors_is_certified(rng, n, rank, dtype):
    a = gaussian(rng, (n, rank), dtype) @ gaussian(rng, (rank, n), dtype)
    found = decomposed(a / np.abs(a).max())
    assert found.certified
    assert found.kept.sum() == rank


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0, 1e-9])
def test_pivots_of_lu_tell_rounding_from_what_is_larger(rng, noise):
    a = of_values(rng, (200, 200), np.ones(120), np.float64)
    a = a + noise * gaussian(rng, a.shape)
    cutoff = Cutoff(jnp.asarray(1e-6), jnp.asarray(0.0))
    found = by_lu(a, cutoff)
    assert not found.certified
    assert found.may_be_rounding == (noise == 0)


@pytest.mark.slow_unless("float32")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pivots_of_lu_tell_what_decays_smoothly_from_rounding(rng, dtype):
    n, eps, count = 48, np.finfo(dtype).eps, 20

    def share(values, rtol):
        """How many of some matrices may be deficient but for rounding."""
        a = np.stack([of_values(rng, (n, n), values, dtype) for _ in range(count)])
        cutoff = Cutoff(*(jnp.full(count, x, dtype) for x in (rtol, 0)))
        return np.mean(by_lu(a, cutoff).may_be_rounding)

    decaying = [1, *np.geomspace(1e3 * n * eps, eps / n, n - 1)]
    assert share(decaying, n * eps) <= 0.2
    deficient = np.geomspace(1, 1e-3, n // 2)
    assert share(deficient, n * eps) >= 0.9
    # Truncated values that are large are no rounding.
    assert share(deficient, 0.02) <= 0.3


def may_be_certified(a):
    """Whether a pivoted QR factorization may have a certificate at the default cutoff."""
    n, eps = len(a), np.finfo(np.float32).eps
    a = jnp.asarray(a / np.linalg.norm(a), jnp.float32)
    r = jnp.asarray(scipy.linalg.qr(np.asarray(a), mode="r", pivoting=True)[0])
    cutoff = Cutoff(jnp.float32(n * eps), jnp.float32(0))
    return bool(numerical_rank.numerical_rank(a, jnp.float32(1), r, cutoff)[1])


def test_kept_values_near_the_cutoff_are_given_up(rng):
    n, double = 48, np.float64
    assert may_be_certified(of_values(rng, (n, n), np.ones(n // 2), double))
    assert may_be_certified(of_values(rng, (n, n), np.geomspace(1, 1e-3, n), double))
    # The cutoff is 5.7e-6 times the norm, and so is the last pivot.
    assert not may_be_certified(np.diag([*np.ones(n - 1), 5e-6 * n**0.5]))
    # The norm of the inverse decides if many are small.
    assert not may_be_certified(of_values(rng, (n, n), [1, *[2e-5] * (n - 1)], double))


@pytest.mark.unoptimized
@pytest.mark.slow_unless("3, 60")
@pytest.mark.parametrize("shape", [(60, 40), (3, 60, 40)], ids=str)
def test_tall_matrices_are_decomposed_by_their_square_factors(rng, shape):
    n = shape[-1]
    values = np.geomspace(1, 1e-9, n)
    a = np.stack([of_values(rng, (60, n), values, np.float64) for _ in range(3)])
    a = a if len(shape) == 3 else a[0]
    text = jax.jit(direct).lower(a).as_text()
    [call] = svd_calls(text)
    assert f"{n}x{n}xf64>) -> " in call
    rtol = 1.3e-6  # Between two values.
    x, rank = direct(a, rtol, return_rank=True)
    assert np.all(rank == np.sum(values > rtol))
    assert relative_error(x, np.linalg.pinv(a, rtol)) <= bound(np.float64, 1e6)


def test_what_a_tolerance_keeps_or_more_than_rounding_is_not_certified(rng):
    # Of a shape that other tests compile as well.
    a = of_values(rng, (48, 48), [1, 0.5, 1e-2], np.float32)
    assert not decomposed(a, 0.1).certified
    assert not decomposed(a, 1e-8).certified
    assert decomposed(a, 1e-4).certified
    assert decomposed(a, 1e-4).kept.sum() == 3


@pytest.mark.unoptimized
@pytest.mark.slow
def test_a_matrix_does_not_depend_on_its_batch(rng):
    n = 40
    deficient = of_values(rng, (n, n), np.geomspace(1, 0.1, 15), np.float32)
    full = of_values(rng, (n, n), np.geomspace(1, 0.1, n), np.float32)
    truncated = of_values(rng, (n, n), np.geomspace(1, 1e-5, n), np.float32)
    broken = np.full((n, n), np.nan, np.float32)
    infinite = full.copy()
    infinite[0, 0] = np.inf
    kinds = [deficient, full, truncated, broken, infinite]
    alone, _ = direct(np.stack([deficient] * 5), return_rank=True)
    mixed, rank = direct(np.stack(kinds), return_rank=True)
    assert np.array_equal(alone[0], mixed[0])
    assert np.all(np.isnan(mixed[3:]))
    assert list(rank[:2]) == [15, n]
    assert list(rank[3:]) == [0, 0]
    for a, x in zip(kinds[:3], mixed, strict=False):
        exact = np.linalg.pinv(a.astype(float), n * np.finfo(np.float32).eps)
        assert relative_error(x, exact) <= bound(np.float32, 1e5)


@pytest.mark.slow
def test_a_matrix_that_seems_to_decay_is_decomposed_in_every_batch(rng):
    n = 32
    # Two pivots that might be of a spectrum that decays, but a certificate would hold.
    decaying = np.diag([1, *np.zeros(n - 1)])
    decaying[1:3, 1:3] = [[1.1e-5, 0.3e-5], [-0.2e-5, 0.9e-5]]
    deficient = of_values(rng, (n, n), np.ones(n // 2), np.float32)
    assert decomposed(decaying.astype(np.float32)).certified

    @jax.jit
    def factored(a):
        plan = plans.factorization(a.shape, CPU, is_complex=False, method="direct")
        trial = trial_of(dataclasses.replace(plan, remainder=4), CPU, hermitian=False)
        cutoff = (jnp.full(4, x, np.float32) for x in (n * 1.2e-7, 0))
        decompose = triplets_of_plan(plan, hermitian=False)
        return auto.factor(a, *cutoff, decompose=decompose, trial=trial)

    batches = [[decaying, other, other, other] for other in (deficient, decaying)]
    (mixed, x), (alone, y) = (factored(np.asarray(a, np.float32)) for a in batches)
    assert np.array_equal(mixed.u[0], alone.u[0])
    assert np.array_equal(x[0], y[0])
    assert np.all(mixed.v[1] != alone.v[1])


@pytest.mark.unoptimized
@pytest.mark.slow
def test_several_tolerances_of_one_matrix_are_each_met(rng):
    a = of_values(rng, (40, 40), np.geomspace(1, 0.1, 20), np.float64)
    a = np.stack([a] * 2)
    rtol = np.array([[1e-10], [1e-30]])
    x, rank = direct(a, rtol, return_rank=True)
    assert np.array_equal(rank, [[20] * 2, [40] * 2])
    exact = np.linalg.pinv(a, 1e-10)
    assert relative_error(x[0], exact) <= bound(np.float64, 100)


@jax.jit
def products_of(a, b, x):
    """All but the basis, from one factorization."""
    found = jaxpinv.factorize(a, method="direct")
    return found.solve(b), found.null_projection(x), found.singular_values(), found.rank


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(50, 40), (40, 50)], ids=str)
def test_null_projections_and_least_squares(rng, shape):
    m, n = shape
    a = of_values(rng, shape, np.geomspace(1, 0.1, 15), np.float64)
    b, x = gaussian(rng, (m,)), gaussian(rng, (n,))
    exact = np.linalg.pinv(a, rcond=1e-10)
    solution, projection, s, rank = products_of(a, b, x)
    assert rank == 15
    assert relative_error(projection, x - exact @ (a @ x)) <= 1e-13
    assert relative_error(solution, exact @ b) <= 1e-12
    assert relative_error(s, np.linalg.svd(a, compute_uv=False)) <= 1e-13


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(50, 40), (40, 50)], ids=str)
def test_null_spaces(rng, shape):
    n = shape[1]
    a = of_values(rng, shape, np.geomspace(1, 0.1, 15), np.float64)
    exact = np.linalg.pinv(a, rcond=1e-10)
    basis, nullity = jaxpinv.null_space(a, method="direct")
    basis = np.asarray(basis)
    assert nullity == n - 15
    assert not np.any(basis[:, n - 15 :])
    assert np.max(np.abs(basis @ basis.T - (np.eye(n) - exact @ a))) <= 1e-13
    assert np.max(np.abs(basis.T @ basis - np.diag(np.arange(n) < n - 15))) <= 1e-14


@pytest.mark.unoptimized
@pytest.mark.slow
def test_fields_of_lstsq(rng):
    a = of_values(rng, (50, 40), np.geomspace(1, 0.1, 15), np.float64)
    b = gaussian(rng, (50,))
    exact = np.linalg.pinv(a, rcond=1e-10)
    solution, residuals, rank, s = jaxpinv.lstsq(a, b, method="direct")
    assert rank == 15
    assert relative_error(solution, exact @ b) <= 1e-12
    assert relative_error(residuals, np.sum((b - a @ exact @ b) ** 2)) <= 1e-12
    assert relative_error(s, np.linalg.svd(a, compute_uv=False)) <= 1e-13
