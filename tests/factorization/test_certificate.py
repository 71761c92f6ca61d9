"""No matrix with a value to truncate is proven to be of full rank, and others are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpinv._factorization import certificate, lu
from jaxpinv._factors import Cutoff
from tests.comparison import bound, relative_error
from tests.factorization.full_rank_cases import (
    CONDITION,
    directly,
    directly_inverted,
    random,
    singular_values_taken,
    solved,
)
from tests.matrices import gaussian, matrix


def kahan(n, angle):
    """Kahan's matrix, whose pivots do not show how small its last singular value is."""
    c, s = np.cos(angle), np.sin(angle)
    return s ** np.arange(n)[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def wilkinson(n):
    """Wilkinson's matrix, in which elimination grows by `2^(n - 1)`."""
    a = np.eye(n) - np.tril(np.ones((n, n)), -1)
    a[:, -1] = 1
    return a


def near_the_cutoff(rng, shape, dtype):
    """Matrices with one singular value about the default cutoff, wherever it is.

    And those of which it is truncated, in double precision.
    """
    batch, m, n = shape
    eps = max(m, n) * np.finfo(dtype).eps
    close = np.arange(batch // 2) - batch // 4
    factors = np.r_[np.geomspace(0.1, 10, batch - batch // 2), 1 + 1e-6 * close]
    rest = np.geomspace(1, 0.3, n - 1)
    a = np.stack([matrix(rng, (m, n), [*rest, eps * x], dtype) for x in factors])
    s = np.linalg.svd(a.astype(np.complex128), compute_uv=False)
    truncated = s[:, -1] <= eps * s[:, 0]
    assert batch // 4 < np.sum(truncated) < batch - 4
    return a, truncated


@partial(jax.jit, static_argnames="sharply")
def by_lu(a, rtol, atol, *, sharply=False):
    """What LU factors give, without what follows where they are not certified."""
    options = {"swaps_rows": True, "sharply": sharply, "gives_up_early": False}
    return lu.factor(a, Cutoff(rtol, atol), **options)


# Real and complex ones by every way. Each test below compiles the same programs.
SHAPES = [
    ((40, 3, 3), np.float32),
    ((40, 12, 12), np.complex64),
    ((40, 16, 13), np.float32),
]
every_way = pytest.mark.parametrize(
    ("shape", "dtype"), SHAPES, ids=[str(shape) for shape, _ in SHAPES]
)


class TestCertificate:
    """No matrix with a value to truncate is certified."""

    @pytest.mark.slow
    def test_values_on_both_sides_of_the_default_cutoff(self, rng):
        a, truncated = near_the_cutoff(rng, (64, 6, 4), np.complex64)
        assert np.all(np.asarray(singular_values_taken(a))[truncated])

    def test_values_on_both_sides_of_a_cutoff_by_lu(self, rng):
        a, truncated = near_the_cutoff(rng, (40, 12, 12), np.complex64)
        rtol = np.full(40, 12 * np.finfo(np.float32).eps, np.float32)
        certified = np.asarray(by_lu(a, rtol, 0 * rtol).certified)
        assert not np.any(certified[truncated])
        assert np.any(certified)

    @pytest.mark.slow
    @every_way
    def test_values_on_both_sides_of_such_a_cutoff(self, rng, shape, dtype):
        a, truncated = near_the_cutoff(rng, shape, dtype)
        rtol = np.full(40, shape[1] * np.finfo(dtype).eps, np.float32)
        taken = singular_values_taken(a, rtol, atol=np.zeros(40, np.float32))
        assert np.all(taken[truncated])

    @pytest.mark.slow
    def test_values_on_both_sides_of_a_cutoff_by_sharper_norms(self, rng):
        a, truncated = near_the_cutoff(rng, (40, 130, 130), np.float32)
        rtol, zero = np.full((2, 40), [[130 * np.finfo(np.float32).eps], [0]], np.float32)
        found = by_lu(a, rtol, zero, sharply=True)
        assert not np.any(np.asarray(found.certified)[truncated])

    @pytest.mark.slow
    @every_way
    @pytest.mark.parametrize("name", ["rtol", "atol"])
    def test_values_a_few_ulps_from_a_given_cutoff(self, rng, shape, dtype, name):
        spectrum = [*np.linspace(4, 2, min(shape[1:]) - 1), 0.5]
        a = random(rng, shape, dtype, spectrum)
        s = np.linalg.svd(a.astype(np.complex128), compute_uv=False)
        ulps = np.spacing(s[:, -1].astype(np.float32)) * np.arange(-20.0, 20)
        cutoffs = (s[:, -1] + ulps) / (s[:, 0] if name == "rtol" else 1)
        zeros = np.zeros(40, np.float32)
        tolerances = {"rtol": zeros, "atol": zeros, name: cutoffs.astype(np.float32)}
        assert np.all(singular_values_taken(a, **tolerances))

    @pytest.mark.slow
    @every_way
    def test_zero_tolerances_do_not_certify_singular_matrices(self, rng, shape, dtype):
        spectrum = [*np.geomspace(1, 0.5, shape[-1] - 1), 0]
        a, zeros = random(rng, shape, dtype, spectrum), np.zeros(40, np.float32)
        assert np.all(singular_values_taken(a, zeros, atol=zeros))

    # With tolerances that are given, as in the next tests, which share the programs.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("n", "dtype"),
        [(9, np.float32), (60, np.float64)],
        ids=["9-float32", "60-float64"],
    )
    @pytest.mark.parametrize(
        "make",
        [
            lambda n: kahan(n, 1.2),
            lambda n: kahan(n, 0.4),
            wilkinson,
            lambda n: 1 / (np.arange(n)[:, None] + np.arange(n) + 1),
            lambda n: np.vander(np.linspace(-1, 1, n)),
            lambda n: np.diag(10.0 ** -np.arange(n)) @ np.ones((n, n)) + np.eye(n),
            lambda n: np.triu(np.ones((n, n))) * 10.0 ** (np.arange(n) % 7),
        ],
        ids=["kahan", "kahan_hard", "wilkinson", "hilbert", "vander", "graded", "scaled"],
    )
    def test_hard_matrices_agree_with_their_singular_values(self, make, n, dtype):
        a = make(n).astype(dtype)
        for b in (a, np.concatenate([a, a[: n // 2]])):
            condition = np.linalg.cond(b.astype(np.float64))
            rtol, atol = np.array([len(b) * np.finfo(dtype).eps, 0], dtype)
            x, rank, _ = solved(b, rtol, atol)
            s = np.linalg.svd(b, compute_uv=False)
            assert rank == np.sum(s > rtol * s[0])
            if rank == n:
                assert relative_error(x, np.linalg.pinv(b, 0)) <= 2 * bound(
                    dtype, condition
                )

    @pytest.mark.slow
    @pytest.mark.parametrize("m", [60, 90])
    def test_zero_tolerances_do_not_certify_larger_ones(self, rng, m):
        a, zero = random(rng, (m, 60), np.float64, [*np.geomspace(1, 0.5, 59), 0]), 0.0
        assert singular_values_taken(a, np.array(zero), atol=np.array(zero))

    @pytest.mark.slow
    def test_growth_in_elimination_does_not_deceive(self):
        rtol, zero = np.array([60 * np.finfo(float).eps, 0])
        for a in (wilkinson(60), wilkinson(60).T):
            error = relative_error(directly_inverted(a, rtol, atol=zero), np.linalg.pinv(a))
            assert error <= bound(np.float64, 60)
        # It is the transpose that is eliminated.
        a = wilkinson(60).T + 1e-3 * np.eye(60)[::-1]
        for b, is_certified in ((a, False), (a.T, True)):
            assert by_lu(b, 1e-14, 0.0).certified == is_certified


@jax.jit
def is_below(x, bound, gram):
    """Whether bounds on a norm are accepted, without and with the Gram matrix."""
    return certificate._is_below(x, bound), certificate._is_below(x, bound, gram)


@jax.jit
def proven(a, norm, w, rtol, gram):
    """Whether full rank is proven, without and with the Gram matrix."""
    prove = partial(certificate.certify_full_rank, sharply=True)
    cutoff = Cutoff(rtol, 0 * rtol)
    return [prove(a, norm, w, cutoff, gram=g) for g in (None, gram)]


class TestSharpNorms:
    """What decides where Frobenius norms do not."""

    @pytest.mark.parametrize("factor", [0.5, 0.9, 0.999, 1.05, 2])
    def test_a_bound_is_accepted_only_above_the_spectral_norm(self, rng, factor):
        x = gaussian(rng, (9, 8))
        largest = np.linalg.norm(x, 2)
        accepted, with_gram = is_below(x, factor * largest, x.T @ x)
        assert bool(accepted) == bool(with_gram) == (factor > 1)

    def test_the_schatten_norm_is_that_of_the_singular_values(self, rng):
        x = gaussian(rng, (9, 9))
        exact = np.sum(np.linalg.svd(x, compute_uv=False) ** 4) ** 0.25
        norm = jax.jit(certificate._schatten_norm)(x)
        assert abs(norm - exact) <= bound(np.float64) * exact

    @pytest.mark.parametrize(("rtol", "is_proven"), [(2e-4, True), (1.1e-3, False)])
    def test_full_rank_is_proven_with_or_without_the_gram_matrix(
        self, rng, rtol, is_proven
    ):
        # One large value above many equal ones: Frobenius norms prove full rank only for a
        # relative tolerance below 1.3e-4. The truth is 1e-3.
        s = 8 * np.r_[1.0, np.full(63, 1e-3)]
        a, w = np.linalg.qr(rng.standard_normal((200, 64)))[0] * s, np.diag(1 / s)
        found = proven(a, np.linalg.norm(a), w, rtol, a.T @ a)
        assert [bool(x) for x in found] == [is_proven] * 2

    @pytest.mark.slow_unless("0.98")
    @pytest.mark.parametrize("margin", [0.98, 1.02])
    def test_the_inverse_alone_can_refuse(self, margin):
        a, w = np.eye(9), np.diag([100.0] + [1.0] * 8)
        by_products = jax.jit(certificate._by_products)
        cutoff = Cutoff(jnp.asarray(0.0), jnp.asarray(margin / 100))
        found = by_products(a, w, cutoff, 1.0, 0.0)
        assert bool(found) == (margin < 1)


@pytest.mark.unoptimized
@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_rank_is_proven_only_between_what_is_kept_and_what_is_left(name):
    eps = np.finfo(float).eps

    def proven(tolerance, rank, w_norm, remainder):
        given = {"rtol": 0.0, "atol": 0.0, name: tolerance}
        cutoff = Cutoff(*(jnp.asarray(given[x]) for x in Cutoff._fields))
        one = jnp.asarray(1.0)
        return bool(certificate.certify_rank(one, w_norm, remainder, rank, cutoff, 3))

    # The smallest value of a matrix of norm 1 is at least 0.1.
    assert proven(0.09, 3, 10.0, 0.0)
    assert not proven(0.11, 3, 10.0, 0.0)
    # What is left is 1.5 eps with its rounding, and the largest value at least 0.7.
    assert proven(2.5 * eps, 2, 10.0, eps)
    assert not proven(1.4 * eps, 2, 10.0, eps)


@pytest.mark.slow
def test_graded_matrices_are_certified_by_what_the_proof_assumes(rng):
    a = rng.standard_normal((1000, 6, 6)) * np.geomspace(1, 1e-11, 6)[:, None]
    zeros = np.zeros(len(a))
    factors = directly(a, zeros, atol=zeros)
    certified = np.ptp(np.asarray(factors.s), axis=-1) == 0
    u, s, v = np.asarray(factors.u), np.asarray(factors.s), np.asarray(factors.v)
    residual = np.linalg.norm(a @ v - u * s[:, None, :], axis=(1, 2))
    size = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(v, axis=(1, 2))
    margin = certificate.LEAST_MARGIN * np.finfo(float).eps
    assert np.mean(certified) > 0.9
    assert np.all(residual[certified] <= margin * size[certified])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_gaussian_500_by_500_is_certified_in_single_precision(seed):
    a = np.random.default_rng(seed).standard_normal((500, 500)).astype(np.float32)
    assert not singular_values_taken(a)


@pytest.mark.slow
def test_an_inverse_of_odd_order_is_certified(rng):
    n = 301
    a = random(rng, (n, n), np.float64)
    found = by_lu(a, n * np.finfo(float).eps, 0.0)
    assert found.certified
    assert relative_error(found.x, np.linalg.inv(a)) <= bound(np.float64, CONDITION)
