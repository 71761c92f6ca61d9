"""Derivatives where full rank is proven, and batches of which some matrices have it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._inputs import prepare
from jaxpinv._solver import Strategy, factorize
from tests.comparison import bound, relative_error
from tests.factorization.full_rank_cases import (
    CONDITION,
    known_derivatives,
    known_gradient,
    random,
)
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.numpy_oracle import adjoint

pytestmark = pytest.mark.unoptimized

SHAPES = {
    "tiny_wide": (2, 20, 4, 6),
    "square": (12, 12),
    "squares": (3, 13, 13),
    "wide": (10, 14),
}


def solutions(a, ct, e, method="direct", hermitian=False):
    """The pseudo-inverse, a gradient, and its derivative along `e`.

    And for every matrix, its rank and whether `pinv` takes singular values.
    """
    *found, rank, s = _solutions(a, ct, e, method, hermitian)
    return found, np.asarray(rank), np.ptp(np.asarray(s), axis=-1) > 0


@partial(jax.jit, static_argnames=("method", "hermitian"))
def _solutions(a, ct, e, method, hermitian):
    def pinv(a):
        inputs = prepare("pinv", a, {"rtol": None, "atol": None}, hermitian=hermitian)
        found = factorize(inputs, Strategy(hermitian, method, with_pinv=True))
        return found.pinv(), (found.rank(), found.factors.s)

    def gradient(a):
        x, pullback, others = jax.vjp(pinv, a, has_aux=True)
        return (x, pullback(ct)[0]), others

    (x, g), (_, h), (rank, s) = jax.jvp(gradient, (a,), (e,), has_aux=True)
    return x, g, h, rank, s


# Batches of one axis are among the mixed ones below, and all ways in `test_full_rank`.
@pytest.mark.slow_unless("square-float32")
@pytest.mark.parametrize("case", ["tiny_wide-float32", "square-float32", "wide-complex128"])
def test_values_and_derivatives_are_those_in_double_precision(rng, case):
    name, dtype = case.split("-")
    shape, dtype = SHAPES[name], np.dtype(dtype)
    a, e = random(rng, shape, dtype), gaussian(rng, shape, dtype)
    ct = gaussian(rng, (*shape[:-2], shape[-1], shape[-2]), dtype)
    found, _, taken = solutions(a, ct, e)
    assert not np.any(taken)
    for order, (x, y) in enumerate(zip(found, known_derivatives(a, ct, e), strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@pytest.mark.slow
def test_hermitian_matrices_go_without_eigenvalues(rng):
    dtype = np.complex128
    eigenvalues = list(np.array([1, -1] * 6) * np.geomspace(1, CONDITION, 12))
    a = np.stack([hermitian_matrix(rng, eigenvalues, dtype) for _ in range(3)])
    ct, e = gaussian(rng, a.shape, dtype), gaussian(rng, a.shape, dtype)
    found, _, taken = solutions(a, ct, e, hermitian=True)
    assert not np.any(taken)
    # Derivatives are those along the Hermitian part, and so are gradients.
    x, g, h = known_derivatives(a, ct, (e + adjoint(e)) / 2)
    known = x, (g + adjoint(g)) / 2, (h + adjoint(h)) / 2
    for order, (x, y) in enumerate(zip(found, known, strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@pytest.mark.parametrize("shape", [(70, 3, 3), (70, 13, 13), (70, 16, 13)], ids=str)
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

    def directions(self, rng, batch):
        """A cotangent of the pseudo-inverses, and a direction."""
        return gaussian(rng, np.swapaxes(batch, 1, 2).shape), gaussian(rng, batch.shape)

    @pytest.mark.slow_unless("16, 13")
    def test_only_those_that_need_them_take_singular_values(self, rng, batch):
        *_, taken = solutions(batch, *self.directions(rng, batch))
        # The values of a matrix that is not finite are NaN.
        assert np.flatnonzero(taken | (np.arange(70) == 7)).tolist() == [3, 7, 40, 41, 69]

    @pytest.mark.slow
    def test_results_do_not_depend_on_batch_mates(self, rng, batch):
        ct, e = self.directions(rng, batch)
        results, *_ = solutions(batch, ct, e)
        for mates in (random(rng, batch.shape, np.float64), np.zeros_like(batch)):
            mine = np.arange(70) % 3 == 0
            other = np.where(mine[:, None, None], batch, mates)
            again, *_ = solutions(other, ct, e)
            for x, y in zip(results, again, strict=True):
                assert np.array_equal(x[mine], y[mine])

    @pytest.mark.slow
    def test_singular_matrices_have_the_result_of_their_singular_values(self, rng, batch):
        given = batch, *self.directions(rng, batch)
        (found, ranks, _), (known, *_) = solutions(*given), solutions(*given, "svd")
        rank = np.full(70, batch.shape[-1])
        rank[[3, 40, 41, 69]] -= 1
        rank[7] = 0
        assert np.array_equal(ranks, rank)
        for x, y in zip(found, known, strict=True):
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

    @jax.jit
    def all_of_it(a, b):
        def total(a, b):
            found = jaxpinv.lstsq(a, b, method="direct")
            return jnp.sum(jnp.sin(found.solution)) + jnp.sum(found.singular_values), found

        gradients, found = jax.grad(total, (0, 1), has_aux=True)(a, b)
        return *found, *gradients

    u, s, vh = np.linalg.svd(a, full_matrices=False)
    solution = np.linalg.pinv(a) @ b
    residuals = np.sum((b - a @ solution) ** 2, axis=-2)
    slope = np.cos(solution)
    x, of_a = known_gradient(a, slope @ adjoint(b))
    ranks = np.full(shape[:-2], min(shape[-2:]))
    known = solution, residuals, ranks, s, of_a + u @ vh, adjoint(x) @ slope
    for x, y in zip(all_of_it(a, b), known, strict=True):
        assert np.max(np.abs(x - y)) <= bound(np.float64, CONDITION**3)
