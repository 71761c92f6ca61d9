"""Log-volumes without singular values, and certificates from random directions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._factorization import volume
from jaxpinv._factors import Cutoff
from tests.comparison import bound
from tests.matrices import gaussian, matrix

pytestmark = pytest.mark.unoptimized


@partial(jax.jit, static_argnames="sharply")
def by_lu(a, rtol, *, sharply=False):
    """The logarithms, and where full rank is certified."""
    rtol = jnp.broadcast_to(rtol, a.shape[:-2])
    cutoff = Cutoff(rtol.astype(jnp.finfo(a.dtype).dtype), 0 * jnp.real(a[..., 0, 0]))
    pivots, scale, certified = volume.by_lu(a, cutoff, sharply=sharply)
    return volume.log_of_product(pivots, scale), certified


@jax.jit
def by_gram(a, rtol):
    """The same for tall matrices."""
    rtol = jnp.broadcast_to(rtol, a.shape[:-2])
    cutoff = Cutoff(rtol.astype(jnp.finfo(a.dtype).dtype), 0 * jnp.real(a[..., 0, 0]))
    pivots, scale, certified = volume.by_gram(a, cutoff, halves=128)
    return volume.log_of_product(pivots, scale), certified


@jax.jit
def certified_by_lu(a, rtol):
    """Where full rank is certified, without and with products."""
    return [by_lu(a, rtol, sharply=x)[1] for x in (False, True)]


@pytest.mark.slow_unless("5-complex128|9-float32")
@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (2, np.float32),
        (5, np.complex128),
        (9, np.float32),
        (40, np.complex128),
        (70, np.float32),
    ],
)
def test_well_conditioned_matrices_are_certified_and_right(rng, n, dtype):
    a = np.stack([matrix(rng, (n, n), list(np.geomspace(1, 0.1, n))) for _ in range(5)])
    a = (a if dtype == np.float32 else a * np.exp(1j)).astype(dtype)
    value, certified = by_lu(a, n * np.finfo(dtype).eps)
    assert np.all(certified)
    exact = np.linalg.slogdet(a.astype(complex))[1]
    assert np.max(np.abs(np.asarray(value) - exact)) <= n * bound(dtype, 10)


# Few directions and many, in every dtype.
@pytest.mark.slow_unless("40")
@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        (2, np.complex64),
        (9, np.float64),
        (40, np.float32),
        (70, np.float32),
        (70, np.float64),
        (130, np.complex64),
    ],
)
def test_no_truncated_value_is_certified(rng, n, dtype):
    # Others large, all alike, or many of them small.
    spectra = [np.ones(n - 1), np.geomspace(1, 0.02, n - 1), np.r_[1, np.full(n - 2, 0.02)]]
    a = np.stack(
        [
            matrix(rng, (n, n), [*spectrum, last], dtype)
            for spectrum in spectra
            for last in (0, 1e-9, 1e-3, 5e-3, 9.9e-3)
        ]
    ).astype(dtype)
    # Those without a last value, by the default cutoff and by none at all.
    a = np.concatenate([a, a[::5], a[::5]])
    cutoffs = np.repeat([1e-2, n * np.finfo(dtype).eps, 0], [15, 3, 3])
    assert not np.any(certified_by_lu(a, cutoffs))


@pytest.mark.slow_unless("300")
@pytest.mark.parametrize(
    ("shape", "dtype"), [((40, 12), np.complex128), ((300, 40), np.float32)], ids=str
)
def test_tall_matrices_keep_the_digits_that_their_gram_matrices_lose(rng, shape, dtype):
    n, conditions = shape[1], [1, 2, 10, 100, 300]
    spectra = [np.geomspace(1, 1 / c, n) for c in conditions]
    a = np.stack([matrix(rng, shape, list(s), dtype) for s in spectra]).astype(dtype)
    value, certified = by_gram(a, shape[0] * np.finfo(dtype).eps)
    assert np.all(certified)
    exact = np.sum(np.log(np.linalg.svd(a.astype(complex), compute_uv=False)), axis=-1)
    limit = n * np.finfo(dtype).eps + bound(dtype) * np.array(conditions)
    assert np.all(np.abs(np.asarray(value) - exact) <= limit)
    a[-1] = matrix(rng, shape, [*spectra[-1][:-1], 1e-9], dtype).astype(dtype)
    _, certified = by_gram(a, 1e-6)
    assert certified.tolist() == [True] * 4 + [False]
    found, rank = jaxpinv.log_pdet(a, 1e-6, method="direct", return_rank=True)
    assert rank.tolist() == [n] * 4 + [n - 1]
    exact[-1] = np.sum(np.log(spectra[-1][:-1]))
    assert np.all(np.abs(np.asarray(found) - exact) <= limit)
    # A value between the cutoff and the squares that a Gram matrix can tell from zero.
    a[:] = matrix(rng, shape, [*[1.0] * (n - 1), 9e-3], dtype).astype(dtype)
    assert not np.any(by_gram(a, 1e-2)[1])
    # The Gram matrix of a well-conditioned matrix loses nothing, but its values may be
    # truncated all the same.
    a[:] = matrix(rng, shape, [*[1.0] * (n - 1), 0.4], dtype).astype(dtype)
    assert not np.any(by_gram(a, 0.45)[1])


def test_gram_matrices_that_lose_digits_are_corrected(rng):
    shape, condition, eps = (200, 30), 30, np.finfo(np.float32).eps
    spectrum = np.geomspace(1, 1 / condition, shape[1])
    a = matrix(rng, (64, *shape), list(spectrum), np.float32)
    value, certified = by_gram(a, 1e-6)
    assert np.all(certified)
    exact = np.sum(np.log(np.linalg.svd(a.astype(float), compute_uv=False)), axis=-1)
    assert np.all(np.abs(np.asarray(value, float) - exact) <= 4 * eps * condition)


def test_products_sharpen_the_certificate(rng):
    dtype = np.complex64
    spectrum = np.linspace(1, 0.2, 130)
    spectrum[-1] = 4e-2
    a = matrix(rng, (130, 130), list(spectrum), dtype).astype(dtype)
    assert list(certified_by_lu(a, 1e-2)) == [False, True]


@pytest.mark.slow
def test_a_growth_of_elimination_is_seen(rng):
    # Wilkinson's matrix: partial pivoting lets the last columns grow by 2^(k-1).
    n, a = 60, []
    for k in (24, 60):
        b = np.eye(n, dtype=np.float32)
        b[:k, :k] -= 0.99 * np.tri(k, k=-1, dtype=np.float32)
        b[:k, k - 5 : k] = gaussian(rng, (k, 5), np.float32)
        a += [b, b.T]
    a = np.stack(a)
    value, certified = by_lu(a, n * np.finfo(np.float32).eps)
    # NumPy's determinant loses the same digits.
    exact = np.sum(np.log(np.linalg.svd(a.astype(float), compute_uv=False)), axis=-1)
    limit = bound(np.float32) * np.linalg.cond(a.astype(float))
    errors = [
        np.abs(np.asarray(x, float) - exact)
        for x in (value, jaxpinv.log_pdet(a, method="direct"))
    ]
    assert np.any(errors[0] > limit)
    assert np.all(certified == (errors[0] <= limit))
    assert np.all(errors[1] <= limit)


def test_what_is_not_finite_is_not_certified():
    assert not by_lu(np.full((9, 9), np.nan, np.float32), 1e-5)[1]


@pytest.mark.slow_unless("1e-30-.12")
@pytest.mark.parametrize("shape", [(160, 160), (200, 20), (12, 12)], ids=str)
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e14, 1e16, 1.5 * 2.0**63, 1e36])
def test_ranks_and_values_are_right_at_every_size(rng, size, shape):
    n = shape[1]
    a = [matrix(rng, shape, [*np.ones(n - 1), last]) * size for last in (1e-2, 0.5)]
    a = np.stack(a).astype(np.float32)
    s = np.linalg.svd(a.astype(float), compute_uv=False)
    for rtol, atol in ((0.1, 0.0), (0.0, 0.1 * size)):
        value, rank = jaxpinv.log_pdet(
            a, rtol, atol=atol, method="direct", return_rank=True
        )
        assert rank.tolist() == [n - 1, n]
        exact = [np.sum(np.log(x[x > 0.1 * size])) for x in s]
        # The logarithm of the size is rounded, too.
        limit = n * bound(np.float32) * (1 + abs(np.log(size)))
        assert np.all(np.abs(np.asarray(value) - exact) <= limit)


def test_a_value_has_the_rank_of_its_derivative(rng):
    # Three singular values at the cutoff: rounding decides which are kept.
    spectrum = [*np.geomspace(1, 0.7, 9), 0.5, 0.5, 0.5]
    a = np.stack([matrix(rng, (12, 12), spectrum) for _ in range(100)])

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient(a):
        value, rank = jaxpinv.log_pdet(a, 0.5, method="direct", return_rank=True)
        return jnp.sum(value), rank

    g, rank = gradient(a)
    # The trace of `pinv(A) A` is the rank of the part that was kept.
    assert np.array_equal(np.round(np.sum(g * a, axis=(1, 2))), rank)


@pytest.mark.slow
def test_a_batch_has_the_rank_of_each_matrix(rng):
    a = gaussian(rng, (30, 12, 12))
    for k in range(0, 30, 3):
        a[k] = matrix(rng, (12, 12), [*np.geomspace(1, 0.1, 12 - k // 3), *[0] * (k // 3)])
    a[4] = 0
    a[5, 3, 2], a[7] = np.nan, 1e200 * a[7]
    value, rank = jaxpinv.log_pdet(a, method="direct", return_rank=True)
    for k in range(30):
        if k == 5:
            assert np.isnan(value[k])
            assert rank[k] == 0
            continue
        s = np.linalg.svd(a[k], compute_uv=False)
        kept = s[s > 12 * np.finfo(float).eps * s[0]]
        assert rank[k] == len(kept)
        limit = bound(float, 10 * len(kept) * s[0] / kept[-1]) if len(kept) else 0
        assert abs(value[k] - np.sum(np.log(kept))) <= limit


def test_a_product_out_of_range_has_its_logarithm():
    x = np.array([[1e30, -1e-30, 3.0], [1.0, 1.0, 1.0], [1e30, 1e-30, 0.5]], np.float32)
    scale = np.array([2.0**60, 2.0**-60, 1], np.float32)
    found = np.asarray(volume.log_of_product(jnp.asarray(x), jnp.asarray(scale)))
    exact = np.sum(np.log(np.abs(x.astype(float))), axis=1) + 3 * np.log(
        scale.astype(float)
    )
    assert np.max(np.abs(found - exact)) <= 300 * np.finfo(np.float32).eps
