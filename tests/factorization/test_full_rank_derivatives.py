"""Derivatives where full rank is proven, and batches of which some matrices have it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.factorization.full_rank_cases import (
    CONDITION,
    direct_pinv,
    random,
    singular_values_taken,
)
from tests.matrices import gaussian, hermitian_matrix, matrix

pytestmark = pytest.mark.unoptimized

SHAPES = {
    "tiny_wide": (2, 20, 4, 6),
    "square": (12, 12),
    "squares": (3, 12, 12),
    "tall": (40, 30),
    "wide": (10, 14),
}


def value_gradient_and_hvp(a, ct, e, method, hermitian=False):
    """The pseudo-inverse, a gradient and a Hessian-vector product.

    Not in one program: so both methods share what follows the factorization.
    """

    def gradient(a):
        x, pullback = jax.vjp(partial(jaxpinv.pinv, hermitian=hermitian, method=method), a)
        return x, pullback(ct)[0]

    (x, g), (_, h) = jax.jvp(gradient, (a,), (e,))
    return x, g, h


# Batches of one axis are among the mixed ones below, and all ways in `test_full_rank`.
@pytest.mark.slow_unless("square-float32")
@pytest.mark.parametrize(
    "case", ["tiny_wide-float32", "square-float32", "tall-float32", "wide-complex128"]
)
def test_values_and_derivatives_are_those_by_singular_values(rng, case):
    name, dtype = case.split("-")
    shape, dtype = SHAPES[name], np.dtype(dtype)
    a, e = random(rng, shape, dtype), gaussian(rng, shape, dtype)
    ct = gaussian(rng, (*shape[:-2], shape[-1], shape[-2]), dtype)
    assert not np.any(singular_values_taken(a))
    results = [value_gradient_and_hvp(a, ct, e, m) for m in ("direct", "svd")]
    for order, (x, y) in enumerate(zip(*results, strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@pytest.mark.slow
def test_hermitian_matrices_go_without_eigenvalues(rng):
    dtype = np.complex128
    eigenvalues = list(np.array([1, -1] * 6) * np.geomspace(1, CONDITION, 12))
    a = np.stack([hermitian_matrix(rng, eigenvalues, dtype) for _ in range(3)])
    ct, e = gaussian(rng, a.shape, dtype), gaussian(rng, a.shape, dtype)
    assert not np.any(singular_values_taken(a, hermitian=True))
    results = [value_gradient_and_hvp(a, ct, e, m, True) for m in ("direct", "svd")]
    for order, (x, y) in enumerate(zip(*results, strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@pytest.mark.parametrize("shape", [(70, 3, 3), (70, 12, 12), (70, 14, 10)], ids=str)
class TestMixedBatches:
    """Some matrices direct, some by singular values, some not finite."""

    @pytest.fixture
    def batch(self, rng, shape):
        a = random(rng, shape, np.float64)
        *_, m, n = shape
        for i in (3, 40, 41, 69):
            a[i] = matrix(rng, (m, n), [*range(2, n + 1), 0])
        a[7, 0, 0] = np.nan
        return a

    @pytest.mark.slow_unless("14, 10")
    def test_only_those_that_need_them_take_singular_values(self, batch):
        taken = np.asarray(singular_values_taken(batch))
        # The values of a matrix that is not finite are NaN.
        assert np.flatnonzero(taken | (np.arange(70) == 7)).tolist() == [3, 7, 40, 41, 69]

    @pytest.mark.slow
    def test_results_do_not_depend_on_batch_mates(self, rng, batch):
        ct, e = gaussian(rng, np.swapaxes(batch, 1, 2).shape), gaussian(rng, batch.shape)
        results = value_gradient_and_hvp(batch, ct, e, "direct")
        for mates in (random(rng, batch.shape, np.float64), np.zeros_like(batch)):
            mine = np.arange(70) % 3 == 0
            other = np.where(mine[:, None, None], batch, mates)
            again = value_gradient_and_hvp(other, ct, e, "direct")
            for x, y in zip(results, again, strict=True):
                assert np.array_equal(x[mine], y[mine])

    @pytest.mark.slow
    def test_singular_matrices_have_the_result_of_their_singular_values(self, rng, batch):
        ct, e = gaussian(rng, np.swapaxes(batch, 1, 2).shape), gaussian(rng, batch.shape)
        results = [value_gradient_and_hvp(batch, ct, e, m) for m in ("direct", "svd")]
        rank = np.full(70, batch.shape[-1])
        rank[[3, 40, 41, 69]] -= 1
        rank[7] = 0
        assert np.array_equal(direct_pinv(batch, return_rank=True)[1], rank)
        for x, y in zip(*results, strict=True):
            assert np.all(np.isnan(x[7]))
            assert np.array_equal(np.isnan(x), np.isnan(y))
            finite = np.arange(70) != 7
            assert relative_error(x[finite], y[finite]) <= bound(np.float64, CONDITION**3)


# Every way, with rows and columns exchanged and not.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_wide", "squares", "wide"])
def test_lstsq_agrees_in_every_field_and_gradient(rng, name):
    shape = SHAPES[name]
    a, b = random(rng, shape, np.float64), gaussian(rng, (*shape[:-1], 2))

    @partial(jax.jit, static_argnames="method")
    def all_of_it(a, b, method):
        def total(a, b):
            found = jaxpinv.lstsq(a, b, method=method)
            return jnp.sum(jnp.sin(found.solution)) + jnp.sum(found.singular_values)

        found = jaxpinv.lstsq(a, b, method=method)
        return found, jax.grad(total, (0, 1))(a, b)

    results = [jax.tree.leaves(all_of_it(a, b, m)) for m in ("direct", "svd")]
    for x, y in zip(*results, strict=True):
        assert np.max(np.abs(x - y)) <= bound(np.float64, CONDITION**3)
