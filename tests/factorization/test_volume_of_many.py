"""Log-volumes of many small matrices, by Gram-Schmidt on vectors of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._factorization import volume, volume_of_many
from jaxpinv._factors import Cutoff
from jaxpinv._inputs import Method
from jaxpinv._platform import determinant_plan
from tests.comparison import bound
from tests.matrices import gaussian, matrix

FLOAT = np.float32


@jax.jit
def found_for(a, rtol):
    """The logarithms, and where full rank is certified."""
    rtol = jnp.broadcast_to(rtol, a.shape[:-2])
    cutoff = Cutoff(rtol.astype(jnp.finfo(a.dtype).dtype), 0 * jnp.real(a[..., 0, 0]))
    isolate = jax.lax.optimization_barrier
    by = partial(volume_of_many.by_gram_schmidt, isolate=isolate)
    norms, scale, certified = by(a, cutoff)
    return volume.log_of_product(norms, scale), certified


def exact(a):
    """The log-volumes, by singular values in double precision."""
    a = np.asarray(a, complex if np.iscomplexobj(a) else float)
    return np.sum(np.log(np.linalg.svd(a, compute_uv=False)), axis=-1)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((13, 13), FLOAT), ((40, 24), FLOAT), ((14, 9), np.complex128)],
    ids=str,
)
def test_matrices_keep_the_digits_that_their_gram_matrices_lose(rng, shape, dtype):
    n, conditions = shape[1], np.array([1, 10, 100, 1000])
    a = [matrix(rng, shape, list(np.geomspace(1, 1 / c, n)), dtype) for c in conditions]
    a = np.stack(a).astype(dtype)
    value, certified = found_for(a, shape[0] * np.finfo(dtype).eps)
    assert np.all(certified)
    limit = n * np.finfo(dtype).eps + bound(dtype) * conditions
    assert np.all(np.abs(np.asarray(value) - exact(a)) <= limit)


@pytest.mark.parametrize("shape", [(13, 13), (32, 24)], ids=str)
def test_no_truncated_value_is_certified(rng, shape):
    n = shape[1]
    # Others all alike, large, or many of them small.
    spectra = [np.ones(n - 1), np.geomspace(1, 0.02, n - 1), np.r_[1, np.full(n - 2, 0.02)]]
    a = [
        matrix(rng, shape, [*spectrum, last], FLOAT)
        for spectrum in spectra
        for last in (0, 1e-9, 1e-3, 5e-3, 9.9e-3)
    ]
    a = np.stack([*a, *a[::5], *a[::5], np.zeros(shape)]).astype(FLOAT)
    cutoffs = np.repeat([1e-2, shape[0] * np.finfo(FLOAT).eps, 0], [15, 3, 4])
    assert not np.any(found_for(a, cutoffs)[1])


def test_what_grows_in_elimination_does_not_grow(rng):
    # Wilkinson's matrix: LU with partial pivoting lets the last columns grow by 2^(n-1).
    n = 30
    a = np.eye(n) - 0.99 * np.tri(n, k=-1)
    a[:, n - 5 :] = gaussian(rng, (n, 5))
    a = np.stack([a, a.T]).astype(FLOAT)
    value, certified = found_for(a, n * np.finfo(FLOAT).eps)
    assert np.all(certified)
    errors = np.abs(np.asarray(value, float) - exact(a))
    assert np.all(errors <= bound(FLOAT) * np.linalg.cond(a.astype(float)))


@partial(jax.jit, static_argnames="method")
def log_pdet(a, method: Method = "auto"):
    """Values and ranks."""
    return jaxpinv.log_pdet(a, method=method, return_rank=True)


# A library factors the first ten matrices alone.
@pytest.mark.slow_unless("16, 20")
@pytest.mark.parametrize("shape", [(16, 20), (20, 16), (16, 16)], ids=str)
def test_a_batch_has_the_values_of_its_matrices(rng, shape):
    a = gaussian(rng, (200, *shape), FLOAT)
    a[3], a[5, 2, 1], a[7] = 0, np.nan, 1e30 * a[7]
    a[9] = matrix(rng, shape, [*np.ones(13), 1e-3, 0, 0], FLOAT)
    assert determinant_plan.volumes_in_vectors((200, 20, 16), is_complex=False)
    assert not determinant_plan.volumes_in_vectors((10, 20, 16), is_complex=False)
    value, rank = log_pdet(a, method="direct")
    assert np.isnan(value[5])
    others = np.arange(200) != 5
    assert rank[:10].tolist() == [16, 16, 16, 0, 16, 0, 16, 16, 16, 14]
    assert np.all(np.asarray(rank[10:]) == 16)
    s = np.linalg.svd(a[others].astype(float), compute_uv=False)
    kept = s > 20 * np.finfo(FLOAT).eps * s[:, :1]
    expected = np.sum(np.log(np.where(kept, s, 1)), axis=-1)
    least = np.min(np.where(kept, s, np.inf), axis=-1)
    limit = bound(FLOAT) * (1 + np.where(kept[:, 0], s[:, 0] / least, 0) + abs(expected))
    assert np.all(np.abs(np.asarray(value)[others] - expected) <= limit)
    alone, rank_alone = log_pdet(a[:10], method="direct")
    assert rank_alone.tolist() == rank[:10].tolist()
    near = np.isnan(alone) | (np.abs(alone - value[:10]) <= 2 * limit[:10].max())
    assert np.all(near)


@pytest.mark.slow_unless("16, 16")
@pytest.mark.parametrize("shape", [(16, 16), (12, 24)], ids=str)
def test_no_value_depends_on_the_rest_of_the_batch(rng, shape):
    a = gaussian(rng, (200, *shape), FLOAT)
    value, _ = log_pdet(a, method="direct")
    # Another order, other neighbors, another size of vectors.
    order = rng.permutation(200)
    assert np.array_equal(log_pdet(a[order], method="direct")[0], value[order])
    some = np.concatenate([a[:30], 1e20 * a[30:50], 0 * a[50:60], a[60:100]])
    found, _ = log_pdet(some, method="direct")
    assert np.array_equal(found[:30], value[:30])
    assert np.array_equal(found[60:], value[60:100])


@pytest.mark.parametrize(
    ("shape", "is_complex", "size"),
    [
        ((63, 32, 32), False, None),
        ((64, 32, 32), False, 64),
        ((2000, 32, 32), False, 80),
        ((100, 41, 32), False, None),
        ((4, 40, 40, 3), False, 80),
        ((2000, 32, 32), True, None),
    ],
    ids=str,
)
def test_vectors_are_of_many_small_real_matrices(shape, is_complex, size):
    found = determinant_plan.volumes_in_vectors(shape, is_complex=is_complex)
    assert found == size
