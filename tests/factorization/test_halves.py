"""Products by halves, and damped inverses that are made of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpinv._factorization import damped_qr, halves
from jaxpinv._factors import Cutoff
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix

pytestmark = pytest.mark.unoptimized

FEWEST = 128


@jax.jit
def products(x, upper, columns):
    """All kinds of products."""
    return (
        halves.gram(x, fewest=FEWEST),
        halves.gram_of_upper(upper, fewest=FEWEST),
        halves.times_upper(x, upper, fewest=FEWEST),
        halves.upper_times(upper, columns, fewest=FEWEST),
    )


@pytest.mark.parametrize("n", [5, 128, 131])
def test_products_are_those_of_numpy(rng, n):
    x, y = (gaussian(rng, (2, 9, n), np.complex128) for _ in range(2))
    upper = np.triu(gaussian(rng, (2, n, n), np.complex128))
    columns = y.swapaxes(-1, -2)
    exact = (
        x.conj().swapaxes(-1, -2) @ x,
        upper.conj().swapaxes(-1, -2) @ upper,
        x @ upper,
        upper @ columns,
    )
    for found, known in zip(products(x, upper, columns), exact, strict=True):
        assert relative_error(found, known) <= bound(np.float64, n)


def test_large_damped_inverses_lose_no_digits(rng):
    dtype = np.complex64
    # The power series is short for all but the smaller dampings.
    a = matrix(rng, (140, 131), list(np.geomspace(1, 1e-4, 131)), dtype).astype(dtype)
    u, s, vh = np.linalg.svd(a.astype(complex), full_matrices=False)
    damps = [2e-3, 3e-3, 1e-2, 3e-2, 0.1, 1, 10]

    @jax.jit
    def inverse(a, damp):
        # Without what follows where it is not certified.
        cutoff = Cutoff(jnp.zeros_like(damp), jnp.zeros_like(damp))
        found = damped_qr.by_gram(a, damp[None], cutoff, truncates=False, halves=FEWEST)
        return found.x, found.certified

    for damp in damps:
        d = float(np.finfo(dtype).dtype.type(damp))
        exact = (vh.conj().T * (s / (s**2 + d**2))) @ u.conj().T
        found, certified = inverse(a, np.finfo(dtype).dtype.type(damp))
        assert certified
        found = np.asarray(found)
        condition = np.hypot(s[0], d) / np.hypot(s[-1], d)
        error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
        assert error <= 4 * np.finfo(dtype).eps * condition, damp


correct = jax.jit(partial(damped_qr.orthonormalized, upper_from=FEWEST))


@pytest.mark.parametrize("size", [1e-4, 2e-3, 3e-2])
def test_columns_that_are_nearly_orthonormal_are_corrected(rng, size):
    a, d = matrix(rng, (9, 5), [3, 2, 1, 1, 0.5]), np.full(1, 0.7)
    normal = a.T @ a + 0.49 * np.eye(5)
    first = np.linalg.inv(np.linalg.cholesky(normal)).T
    noise = np.triu(gaussian(rng, (5, 5)))
    first = first @ (np.eye(5) + size * noise / np.linalg.norm(noise))
    exact = np.linalg.solve(normal, a.T)
    given = (jnp.asarray(x, np.float32) for x in (a, d, first))
    q, w, x, p, converged = correct(*given)
    assert converged
    q, w = (np.asarray(y, float) for y in (q, w))
    both = np.concatenate([a, 0.7 * np.eye(5)])
    products = ((p, np.linalg.inv(normal)), (both @ w, q), (q.T @ q, np.eye(5)))
    for found, known in ((x, exact), *products):
        assert relative_error(found, known) <= bound(np.float32)


def test_the_short_series_leaves_out_less_than_rounding(rng):
    # One column, whose length is off by so much that the next power would be 10 eps.
    a, d = gaussian(rng, (9, 1)), np.full(1, 0.7)
    eps = float(np.finfo(np.float32).eps)
    normal = np.sum(a**2) + 0.49
    first = np.full((1, 1), (1 + (10 * eps) ** (1 / 3)) ** 0.5 / normal**0.5)
    x = correct(*(jnp.asarray(y, np.float32) for y in (a, d, first)))[2]
    assert relative_error(x, a.T / normal) <= 4 * eps


def test_the_series_of_a_matrix_does_not_depend_on_its_batch(rng):
    a = np.stack([matrix(rng, (9, 5), [3, 2, 1, 1, 0.5])] * 2)
    d = np.full((2, 1), 0.7)
    first = np.linalg.inv(np.linalg.cholesky(a[0].T @ a[0] + 0.49 * np.eye(5))).T
    # Only the second matrix needs the long series.
    first = np.stack([first * (1 + 1e-4), first * 1.02])
    given = [jnp.asarray(x, np.float32) for x in (a, d, first)]
    alike = [jnp.stack([x[0]] * 2) for x in given]
    x, both = correct(*given)[2], correct(*alike)[2]
    assert np.array_equal(x[0], both[0])
    assert not np.array_equal(x[1], both[1])
