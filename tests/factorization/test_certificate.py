"""No matrix with a value to truncate is proven to be of full rank, and others are."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._factorization import certificate, lu
from jaxpinv._factorization.triangular import inverse_at_once
from jaxpinv._factors import Cutoff
from tests.comparison import bound, relative_error
from tests.factorization.full_rank_cases import (
    CONDITION,
    direct_pinv,
    directly,
    random,
    singular_values_taken,
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
    """Matrices with one singular value about the default cutoff, wherever it is."""
    *_, m, n = shape
    eps = max(m, n) * np.finfo(dtype).eps
    k = min(m, n)
    factors = np.concatenate([np.geomspace(0.1, 10, 33), 1 + 1e-6 * np.arange(-15, 16)])
    rest = np.geomspace(1, 0.3, k - 1)
    return np.stack([matrix(rng, (m, n), [*rest, eps * x], dtype) for x in factors])


class TestCertificate:
    """No matrix with a value to truncate is certified."""

    # Real and complex ones by every way.
    @pytest.mark.slow_unless("6, 4")
    @pytest.mark.parametrize(
        ("shape", "dtype"),
        [
            ((3, 3), np.float32),
            ((6, 4), np.complex64),
            ((12, 12), np.complex64),
            ((130, 130), np.float32),
            ((14, 10), np.float32),
            ((10, 30), np.complex64),
        ],
        ids=lambda x: str(x) if isinstance(x, tuple) else np.dtype(x).name,
    )
    def test_values_on_both_sides_of_the_default_cutoff(self, rng, shape, dtype):
        a = near_the_cutoff(rng, shape, dtype)
        s = np.linalg.svd(a.astype(np.complex128), compute_uv=False)
        cut = s[:, -1] <= max(shape) * np.finfo(dtype).eps * s[:, 0]
        taken = np.asarray(singular_values_taken(a))
        assert 10 < np.sum(cut) < 60
        assert np.all(taken[cut])

    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(40, 3, 3), (40, 12, 12), (40, 14, 10)], ids=str)
    @pytest.mark.parametrize("name", ["rtol", "atol"])
    def test_values_a_few_ulps_from_a_given_cutoff(self, rng, shape, name):
        spectrum = [*np.linspace(4, 2, min(shape[1:]) - 1), 0.5]
        a = random(rng, shape, np.float64, spectrum)
        s = np.linalg.svd(a, compute_uv=False)
        ulps = np.spacing(s[:, -1]) * np.arange(-20, 20)
        cutoffs = (s[:, -1] + ulps) / (s[:, 0] if name == "rtol" else 1)
        tolerances = {"rtol": np.zeros(40), "atol": np.zeros(40), name: cutoffs}
        assert np.all(singular_values_taken(a, **tolerances))

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("n", "dtype"),
        [(9, np.float32), (60, np.float32), (60, np.float64)],
        ids=["9-float32", "60-float32", "60-float64"],
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
            results = [
                jaxpinv.pinv(b, method=m, return_rank=True) for m in ("direct", "svd")
            ]
            (x, rank), (y, by_values) = results
            assert rank == by_values
            if rank == n:
                assert relative_error(x, y) <= 2 * bound(dtype, condition)

    @pytest.mark.slow
    def test_growth_in_elimination_does_not_deceive(self):
        for a in (wilkinson(60), wilkinson(60).T):
            error = relative_error(direct_pinv(a), np.linalg.pinv(a))
            assert error <= bound(np.float64, 60)
        # It is the transpose that is eliminated.
        a = jnp.asarray(wilkinson(60).T + 1e-3 * np.eye(60)[::-1])
        cutoff = Cutoff(jnp.asarray(1e-14), jnp.asarray(0.0))
        for b, is_certified in ((a, False), (a.T, True)):
            options = {"swaps_rows": True, "sharply": False, "gives_up_early": False}
            found = lu.factor(b, cutoff, invert=inverse_at_once, **options)
            assert found.certified == is_certified

    # Shapes that other tests compile as well.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "shape", [(40, 3, 3), (40, 12, 12), (40, 14, 10), (60, 60), (90, 60)], ids=str
    )
    def test_zero_tolerances_do_not_certify_singular_matrices(self, rng, shape):
        n = shape[-1]
        spectrum = [*np.geomspace(1, 0.5, n - 1), 0]
        a = random(rng, shape, np.float64, spectrum)
        zeros = np.zeros(shape[:-2])
        assert np.all(singular_values_taken(a, zeros, atol=zeros))


class TestSharpNorms:
    """What decides where Frobenius norms do not."""

    @pytest.mark.parametrize("factor", [0.5, 0.9, 0.999, 1.05, 2])
    def test_a_bound_is_accepted_only_above_the_spectral_norm(self, rng, factor):
        x = gaussian(rng, (9, 8))
        largest = np.linalg.norm(x, 2)
        bound = jnp.asarray(factor * largest)
        accepted = certificate._is_below(jnp.asarray(x), bound)
        with_gram = certificate._is_below(jnp.asarray(x), bound, jnp.asarray(x.T @ x))
        assert bool(accepted) == bool(with_gram) == (factor > 1)

    def test_the_schatten_norm_is_that_of_the_singular_values(self, rng):
        x = gaussian(rng, (9, 9))
        exact = np.sum(np.linalg.svd(x, compute_uv=False) ** 4) ** 0.25
        norm = certificate._schatten_norm(jnp.asarray(x))
        assert abs(norm - exact) <= bound(np.float64) * exact

    @pytest.mark.parametrize(("rtol", "is_proven"), [(2e-4, True), (1.1e-3, False)])
    @pytest.mark.parametrize("gives_gram", [True, False])
    def test_full_rank_is_proven_with_or_without_the_gram_matrix(
        self, rng, rtol, is_proven, gives_gram
    ):
        # One large value above many equal ones: Frobenius norms prove full rank only for a
        # relative tolerance below 1.3e-4. The truth is 1e-3.
        s = 8 * np.r_[1.0, np.full(63, 1e-3)]
        a, w = np.linalg.qr(rng.standard_normal((200, 64)))[0] * s, np.diag(1 / s)
        norm, gram = jnp.asarray(np.linalg.norm(a)), jnp.asarray(a.T @ a)
        found = certificate.certify_full_rank(
            *(jnp.asarray(a), norm, jnp.asarray(w)),
            Cutoff(jnp.asarray(rtol), jnp.asarray(0.0)),
            sharply=True,
            gram=gram if gives_gram else None,
        )
        assert bool(found) == is_proven

    @pytest.mark.slow_unless("0.98")
    @pytest.mark.parametrize("margin", [0.98, 1.02])
    def test_the_inverse_alone_can_refuse(self, margin):
        a, w = jnp.eye(9), jnp.diag(jnp.array([100.0] + [1.0] * 8))
        cutoff = Cutoff(jnp.asarray(0.0), jnp.asarray(margin / 100))
        zero, one = jnp.asarray(0.0), jnp.asarray(1.0)
        assert bool(certificate._by_products(a, w, cutoff, one, zero)) == (margin < 1)


@pytest.mark.slow
def test_graded_matrices_are_certified_by_what_the_proof_assumes(rng):
    a = rng.standard_normal((1000, 6, 6)) * np.geomspace(1, 1e-11, 6)[:, None]
    zeros = np.zeros(len(a))
    factors = directly(a, zeros, atol=zeros)
    certified = np.ptp(np.asarray(factors.s), axis=-1) == 0
    u, s, v = np.asarray(factors.u), np.asarray(factors.s), np.asarray(factors.v)
    residual = np.linalg.norm(a @ v - u * s[:, None, :], axis=(1, 2))
    size = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(v, axis=(1, 2))
    margin = certificate._LEAST_MARGIN * np.finfo(float).eps
    assert np.mean(certified) > 0.9
    assert np.all(residual[certified] <= margin * size[certified])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_gaussian_500_by_500_is_certified_in_single_precision(seed):
    a = np.random.default_rng(seed).standard_normal((500, 500)).astype(np.float32)
    assert not singular_values_taken(a)


@pytest.mark.slow
@pytest.mark.parametrize("n", [49, 64, 301])
def test_an_inverse_by_blocks_of_columns_or_rows_is_certified(rng, n):
    a = random(rng, (n, n), np.float64)
    assert not singular_values_taken(a)
    assert relative_error(direct_pinv(a), np.linalg.inv(a)) <= bound(np.float64, CONDITION)
