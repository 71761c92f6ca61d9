"""`log_pdet`: the sum of the logarithms of the kept singular values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, hermitian_matrix, matrix

DTYPES = {"real": np.float64, "complex": np.complex128}


@partial(jax.jit, static_argnames="method")
def value_gradient_and_rank(a, method):
    """The logarithms, the gradient of their sum, and the ranks."""

    def f(a):
        value, rank = jaxpinv.log_pdet(a, method=method, return_rank=True)
        return jnp.sum(value), (value, rank)

    gradient, (value, rank) = jax.grad(f, has_aux=True)(a)
    return value, gradient, rank


# Gram-Schmidt is below. For wide ones, the adjoint is factored.
@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shape", "dtype"),
    [
        ("direct", (40, 3, 3), "real"),
        ("direct", (20, 30), "complex"),
        ("direct", (12, 12), "real"),
        ("svd", (30, 20), "real"),
        ("svd", (4, 4), "complex"),
    ],
    ids=str,
)
def test_it_is_that_of_slogdet_at_full_rank(rng, shape, method, dtype):
    dtype = DTYPES[dtype]
    a = gaussian(rng, shape, dtype)
    condition = np.max(np.linalg.cond(a))
    long = a if shape[-2] <= shape[-1] else a.conj().swapaxes(-1, -2)
    gram = long @ long.conj().swapaxes(-1, -2)
    is_square = shape[-2] == shape[-1]
    exact = np.linalg.slogdet(a)[1] if is_square else np.linalg.slogdet(gram)[1] / 2
    found, rank = jaxpinv.log_pdet(a, method=method, return_rank=True)
    # The condition of the Gram matrix is that of the matrix, squared.
    limit = bound(dtype, condition if is_square else condition**2)
    assert np.max(np.abs(found - exact)) <= limit
    assert rank.dtype == jnp.result_type(int)
    assert np.all(rank == min(shape[-2:]))


@pytest.mark.slow
def test_it_keeps_the_digits_that_the_gram_matrix_loses(rng):
    a = matrix(rng, (40, 6, 7), list(np.geomspace(1, 1e-3, 6))).astype(np.float32)
    exact = np.sum(np.log(np.linalg.svd(a.astype(float), compute_uv=False)), axis=-1)
    found = np.asarray(value_gradient_and_rank(a, "direct")[0], float)
    assert np.max(np.abs(found - exact)) <= bound(np.float32, 1e3)
    by_gram = np.linalg.slogdet(a @ a.swapaxes(-1, -2))[1] / 2
    assert np.max(np.abs(by_gram - exact)) > bound(np.float32, 1e3)


@pytest.mark.unoptimized
@pytest.mark.slow
def test_the_gradient_is_the_transposed_pseudo_inverse(rng):
    a = gaussian(rng, (40, 6, 7), np.complex128)
    found, gradient, rank = value_gradient_and_rank(a, "direct")
    limit = bound(np.float64, np.max(np.linalg.cond(a)) ** 2)
    exact = np.linalg.slogdet(a @ a.conj().swapaxes(-1, -2))[1] / 2
    assert np.max(np.abs(found - exact)) <= limit
    assert relative_error(gradient, np.linalg.pinv(a).swapaxes(-1, -2)) <= limit
    assert np.all(rank == 6)


@pytest.mark.unoptimized
def test_lower_triangles_alone_are_read_and_gradients_are_hermitian(rng):
    values = [3.0, -2.0, 0.5, 1e-3]
    a = hermitian_matrix(rng, values, np.complex128)
    lower = np.where(np.tri(4, dtype=bool), a, 9.0)
    f = jax.jit(jax.value_and_grad(partial(jaxpinv.log_pdet, atol=0.1, hermitian=True)))
    value, gradient = f(lower)
    assert abs(value - (np.log(3) + np.log(2) + np.log(0.5))) <= bound(np.float64, 10)
    kept = np.linalg.pinv(a, 0.1 / 3, hermitian=True)
    assert relative_error(gradient, kept.T) <= bound(np.float64, 100)
    assert relative_error(gradient, gradient.conj().T) <= bound(np.float64)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("direct-.0, 3|direct-.5, 0")
@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("direct", (3, 2)),
        ("direct", (5, 2, 2)),
        ("direct", (0, 3)),
        ("direct", (5, 0, 0)),
        ("direct", (0, 2, 2)),
        ("svd", (2, 3)),
        ("svd", (5, 3, 0)),
        ("svd", (0, 3, 2)),
    ],
    ids=str,
)
def test_zero_and_empty_matrices_have_the_logarithm_0_and_rank_0(shape, method):
    a = np.zeros(shape)
    value, gradient, rank = value_gradient_and_rank(a, method)
    assert value.shape == rank.shape == shape[:-2]
    assert not np.any(value)
    assert not np.any(rank)
    assert np.array_equal(gradient, a)


@pytest.mark.slow_unless("svd")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize(
    ("method", "shape"),
    [("direct", (12, 12)), ("direct", (40, 6, 7)), ("svd", (14, 12))],
    ids=str,
)
def test_no_size_overflows_or_vanishes(rng, shape, scale, method):
    a = matrix(rng, shape, list(np.geomspace(1, 0.1, min(shape[-2:]))))
    exact = np.sum(np.log(np.linalg.svd(a, compute_uv=False)), axis=-1)
    exact = exact + min(shape[-2:]) * np.log(scale)
    a = (a * scale).astype(np.float32)
    found, gradient, _ = value_gradient_and_rank(a, method)
    assert found.dtype == np.float32
    assert relative_error(np.asarray(found, float), exact) <= bound(np.float32)
    expected = np.linalg.pinv(a.astype(float)).swapaxes(-1, -2)
    assert relative_error(gradient, expected) <= bound(np.float32, 1e2)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("nan-svd")
@pytest.mark.parametrize("method", ["direct", "svd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_is_nan_alone(rng, value, method):
    a = gaussian(rng, (5, 4, 3))
    bad = a.copy()
    bad[1, 2, 1] = value
    others = np.arange(5) != 1
    found, gradient, rank = value_gradient_and_rank(bad, method)
    known, known_gradient, _ = value_gradient_and_rank(a, method)
    assert np.isnan(found[1])
    assert rank.tolist() == [3, 0, 3, 3, 3]
    assert np.array_equal(found[others], known[others])
    assert np.all(np.isnan(gradient[1]))
    assert np.array_equal(gradient[others], known_gradient[others])


@pytest.mark.unoptimized
def test_tolerances_are_of_batch_shape_and_enlarge_it(rng):
    spectrum = [1.0, 0.1, 0.01, 0.001]
    a = matrix(rng, (6, 4), spectrum)
    rtols = np.array([0.5, 0.05, 0.005, np.nan])
    exact = [np.sum(np.log(spectrum[:k])) for k in (1, 2, 3)]
    for found in (
        jaxpinv.log_pdet(a, rtols),
        jaxpinv.log_pdet(a, rcond=rtols),
        jaxpinv.log_pdet(a, atol=rtols),
        jax.jit(jax.vmap(jaxpinv.log_pdet, (None, 0)))(a, rtols),
    ):
        assert relative_error(found[:3], exact) <= bound(np.float64, 1e3)
        assert np.isnan(found[3])

    @jax.jit
    def gradients(a, rtols):
        mapped = jax.vmap(jax.grad(jaxpinv.log_pdet), (None, 0))(a, rtols)
        return mapped, jax.grad(lambda a: jnp.sum(jaxpinv.log_pdet(a, rtols)))(a)

    mapped, summed = gradients(a, rtols[:3])
    looped = [np.linalg.pinv(a, rtol).T for rtol in rtols[:3]]
    assert relative_error(mapped, looped) <= bound(np.float64, 1e3)
    assert relative_error(summed, np.sum(looped, axis=0)) <= bound(np.float64, 1e3)


@pytest.mark.unoptimized
@pytest.mark.parametrize(
    ("dtype", "real"),
    [(jnp.bfloat16, jnp.bfloat16), (np.complex64, np.float32), (np.int32, np.float64)],
    ids=str,
)
def test_the_result_is_real_of_the_precision_of_the_matrix(dtype, real):
    found = jaxpinv.log_pdet(jnp.asarray([[2, 0], [0, 4]], dtype))
    assert found.dtype == real
    eps = max(float(jnp.finfo(real).eps), float(np.finfo(np.float32).eps))
    assert abs(float(found) - np.log(8)) <= 10 * eps


@pytest.mark.unoptimized
@pytest.mark.slow_unless("8, 14, 13")
# For each device one matrix, two, or a vector of them.
@pytest.mark.parametrize("shape", [(8, 14, 13), (16, 13, 13), (512, 13, 14)], ids=str)
def test_each_device_may_have_its_own_matrices(rng, shape):
    mesh, each = jax.make_mesh((8,), ("batch",)), PartitionSpec("batch")
    a = gaussian(rng, shape)
    a[1, 0] = a[1, 1]
    f = partial(jaxpinv.log_pdet, method="direct", return_rank=True)
    mapped = jax.shard_map(f, mesh=mesh, in_specs=each, out_specs=each)
    value, rank = jax.jit(mapped)(jax.device_put(a, NamedSharding(mesh, each)))
    s = np.linalg.svd(a, compute_uv=False)
    kept = s > max(shape[1:]) * np.finfo(float).eps * s[:, :1]
    assert np.array_equal(rank, np.sum(kept, axis=-1))
    logs = np.sum(np.log(np.where(kept, s, 1)), axis=-1)
    condition = np.max(s[:, 0] / np.min(np.where(kept, s, np.inf), axis=-1))
    assert relative_error(value, logs) <= bound(np.float64, condition)
