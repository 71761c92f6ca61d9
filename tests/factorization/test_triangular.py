"""Inverses of Cholesky factors, at once and by halves."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxpinv._factorization.triangular import orthonormalizer
from tests.matrices import gaussian

made_orthonormal = jax.jit(partial(orthonormalizer, halves=128))


def exact(gram):
    """The inverse of the adjoint of the lower Cholesky factor, by NumPy."""
    return np.swapaxes(np.linalg.inv(np.linalg.cholesky(gram)).conj(), -1, -2)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param((2, 20), np.complex128, id="at once"),
        pytest.param((256,), np.float64, id="most at once", marks=pytest.mark.slow),
        pytest.param((2, 301), np.complex128, id="by halves"),
        pytest.param((601,), np.float64, id="by quarters", marks=pytest.mark.slow),
    ],
)
def test_columns_are_made_orthonormal(rng, shape, dtype):
    *batch, n = shape
    a = gaussian(rng, (*batch, 2 * n, n), dtype)
    gram = np.swapaxes(a.conj(), -1, -2) @ a
    found = np.asarray(made_orthonormal(gram))
    assert np.array_equal(found, np.triu(found))
    assert np.max(np.abs(found - exact(gram))) <= 1e-12 * np.max(np.abs(found))


@pytest.mark.parametrize("place", [10, 290])
def test_a_gram_matrix_that_is_not_positive_leaves_a_pivot_that_is_not(rng, place):
    a = gaussian(rng, (600, 300))
    gram = a.T @ a
    gram[place, place] = -1
    found = np.asarray(made_orthonormal(gram))
    assert not np.all(np.diagonal(found) > 0)
