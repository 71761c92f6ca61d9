"""Where full rank is proven no singular values are taken, and results are the same."""

import itertools
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
    directly,
    random,
    singular_values_taken,
)
from tests.matrices import gaussian, hermitian_matrix, matrix

# By Gram-Schmidt, by LU and by Cholesky, each with and without a batch where it has both.
SHAPES = {
    "tiny_square": (40, 3, 3),
    "tiny_tall": (40, 5, 4),
    "tiny_wide": (2, 20, 4, 6),
    "tiny_long": (40, 70, 2),
    "square": (12, 12),
    "squares": (3, 12, 12),
    "tall": (40, 30),
    "wide": (10, 14),
    "talls": (3, 14, 10),
    "long": (1200, 9),
    "tiny_longer": (40, 300, 2),
}
# A dtype for each in turn, so that every way has both: both for all compile twice as much.
CASES = {
    f"{name}-{np.dtype(dtype).name}": (shape, dtype)
    for (name, shape), dtype in zip(
        SHAPES.items(), itertools.cycle([np.float32, np.complex128]), strict=False
    )
}
all_cases = pytest.mark.parametrize(("shape", "dtype"), CASES.values(), ids=CASES)


def value_gradient_and_hvp(a, ct, e, method, hermitian=False):
    """The pseudo-inverse, a gradient and a Hessian-vector product.

    Not in one program: so both methods share what follows the factorization.
    """

    def gradient(a):
        x, pullback = jax.vjp(partial(jaxpinv.pinv, hermitian=hermitian, method=method), a)
        return x, pullback(ct)[0]

    (x, g), (_, h) = jax.jvp(gradient, (a,), (e,))
    return x, g, h


# Batches of one axis are among the mixed ones below.
@pytest.mark.slow_unless("square-float32")
@pytest.mark.parametrize(
    "case",
    [
        "tiny_wide-float32",
        "tiny_long-complex128",
        "square-float32",
        "squares-complex128",
        "tall-float32",
        "wide-complex128",
    ],
)
def test_values_and_derivatives_are_those_by_singular_values(rng, case):
    shape, dtype = CASES[case]
    a, e = random(rng, shape, dtype), gaussian(rng, shape, dtype)
    ct = gaussian(rng, (*shape[:-2], shape[-1], shape[-2]), dtype)
    assert not np.any(singular_values_taken(a))
    results = [value_gradient_and_hvp(a, ct, e, m) for m in ("direct", "svd")]
    for order, (x, y) in enumerate(zip(*results, strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@pytest.mark.slow_unless("tiny_wide")
@all_cases
class TestAgreement:
    """Direct values next to others."""

    def test_values_are_those_in_double_precision(self, rng, shape, dtype):
        a = random(rng, shape, dtype)
        exact = np.linalg.pinv(a.astype(np.result_type(dtype, np.float64)))
        assert relative_error(direct_pinv(a), exact) <= bound(dtype, CONDITION)

    @pytest.mark.slow
    @pytest.mark.parametrize("exponent", [-100, 100])
    def test_scaling_by_a_power_of_two_scales_exactly(self, rng, shape, dtype, exponent):
        a = random(rng, shape, dtype)
        scale = np.array(2.0**exponent, np.finfo(dtype).dtype)
        assert not np.any(singular_values_taken(a * scale))
        x, y = (np.asarray(jaxpinv.pinv(b)) for b in (a * scale, a))
        assert np.array_equal(x, y / scale)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 20, 6, 4), (3, 14, 10), (40, 30)], ids=str)
def test_columns_of_u_are_orthonormal_to_rounding(rng, shape):
    n = shape[-1]
    a = random(rng, shape, np.float32, list(np.geomspace(1, 1 / 200, n)))
    assert not np.any(singular_values_taken(a, 0.0))
    u = np.asarray(directly(a, 0.0).u, np.float64)
    gram = np.swapaxes(u, -1, -2) @ u
    assert np.max(np.abs(gram - np.eye(n))) <= bound(np.float32)


def test_a_diagonal_matrix_has_exactly_the_reciprocals():
    d = np.arange(3.0, 15.0)
    assert np.array_equal(direct_pinv(np.diag(d)), np.diag(1 / d))


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


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 200, 200), (3, 100, 100)], ids=str)
def test_inverses_of_unitary_matrices_are_as_accurate_as_by_singular_values(rng, shape):
    others = gaussian(rng, shape, np.complex64)
    batch = others.copy()
    batch[0] = np.linalg.qr(gaussian(rng, shape[1:], np.complex128))[0]
    assert not np.any(singular_values_taken(batch))
    x, y = (np.asarray(direct_pinv(a)) for a in (batch, others))
    exact = np.linalg.inv(batch[0].astype(np.complex128))
    error = np.linalg.norm(x[0] - exact) / np.linalg.norm(exact)
    assert error <= 4 * np.finfo(np.float32).eps
    # The other matrices stay what they are without it.
    assert np.array_equal(x[1:], y[1:])


class TestOption:
    """`method` chooses."""

    def test_svd_always_computes_singular_values(self, rng):
        a = random(rng, (3, 12, 12), np.float64)
        texts = [
            jax.jit(partial(jaxpinv.pinv, method=m)).lower(a).as_text()
            for m in ("direct", "svd")
        ]
        assert ["getrf" in text for text in texts] == [True, False]
        assert all("gesdd" in text for text in texts)

    @pytest.mark.parametrize("name", ["pinv", "lstsq"])
    def test_another_name_is_refused(self, name):
        arguments = [np.eye(3)] * (2 if name == "lstsq" else 1)
        with pytest.raises(
            ValueError, match=f'{name}: expected method "auto", "direct" or "svd"'
        ):
            getattr(jaxpinv, name)(*arguments, method="qr")


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


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 5, 4), (40, 5, 4), (1, 12, 12), (14, 10)], ids=str)
def test_tolerances_that_enlarge_the_batch_count_all(rng, shape):
    a = random(rng, shape, np.float64)
    rtol = np.array([1e-9, 0.2, 1e-9])[:, None] if len(shape) > 2 else np.array([1e-9, 0.2])
    x, rank = direct_pinv(a, rtol, return_rank=True)
    s = np.linalg.svd(a, compute_uv=False)
    assert np.array_equal(rank, np.sum(s > rtol[..., None] * s[..., :1], axis=-1))
    exact = [np.linalg.pinv(a, t) for t in rtol.ravel()]
    assert relative_error(x, np.stack(exact)) <= bound(np.float64, CONDITION)


# Every way, with a batch and without, and with rows and columns exchanged.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_wide", "square", "squares", "talls", "wide"])
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


@pytest.mark.slow
def test_a_batch_longer_than_any_vector_unit_agrees_with_numpy(rng):
    # On the CPU jaxlib 0.10.2 sums wrongly over an axis behind which there are more than
    # 32768 numbers.
    a = gaussian(rng, (40_000, 3, 2), np.float32)
    assert relative_error(direct_pinv(a)[-2:], np.linalg.pinv(a[-2:])) <= bound(
        np.float32, 1e3
    )
