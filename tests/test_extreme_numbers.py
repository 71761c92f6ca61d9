"""The largest and the smallest numbers of a precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv import sharded
from jaxpinv._largest import largest_element
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix


def test_a_norm_above_the_largest_number_gives_nan_and_rank_0():
    a = np.full((5, 3), 3e38, np.float32)
    x, rank = jaxpinv.pinv(a, return_rank=True)
    assert np.all(np.isnan(x))
    assert rank == 0
    found = jaxpinv.lstsq(a, np.ones(5, np.float32))
    assert np.all(np.isnan(found.solution))


def test_a_norm_above_the_largest_number_gives_nan_for_divided_rows():
    mesh = jax.make_mesh((2,), ("rows",), devices=jax.devices()[:2])
    x, rank = sharded.pinv(np.full((6, 2), 3e38, np.float32), mesh=mesh, return_rank=True)
    assert np.all(np.isnan(x))
    assert rank == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shape"),
    [("direct", (12, 12)), ("direct", (40, 3, 2)), ("svd", (40, 3, 2))],
    ids=str,
)
def test_the_largest_numbers_have_a_pseudo_inverse(method, shape):
    *batch, m, n = shape
    a = np.broadcast_to(np.eye(m, n, dtype=np.float32) * np.float32(3e38), shape)
    x = np.asarray(jaxpinv.pinv(a, method=method), np.float64)
    exact = np.broadcast_to(np.eye(n, m) / 3e38, (*batch, n, m))
    # Denormal numbers have few digits, or become zero.
    assert np.max(np.abs(x - exact)) <= np.finfo(np.float32).tiny


@pytest.mark.slow_unless("float")
@pytest.mark.parametrize("damp", [None, 1.0], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64], ids=lambda x: x.__name__)
def test_a_solution_does_not_need_the_inverse_of_the_largest_numbers(dtype, damp):
    # 1e-38 is a denormal number, which XLA takes for zero.
    a = np.diag([1e38, 1e38 / 3]).astype(dtype)
    x = jaxpinv.lstsq(a, np.full(2, 1e38, dtype), damp=damp).solution
    assert np.max(np.abs(np.asarray(x) - [1, 3])) <= bound(np.float32, 3)


@jax.jit
def gradient_of_truncated(a, b, ct, atol):
    """The gradient of `<ct, x>` in the matrix."""
    return jax.grad(lambda a: jnp.sum(ct * jaxpinv.lstsq(a, b, atol=atol).solution))(a)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_a", "of_b", "of_ct"),
    [(1e-15, 1e15, 1e-15), (1e15, 1e-15, 1e15)],
    ids=["overflows", "vanishes"],
)
def test_gradients_of_a_solution_stay_in_the_range(rng, of_a, of_b, of_ct):
    a = matrix(rng, (6, 4), [3, 2, 0.3, 0.2])
    b, ct = gaussian(rng, (6, 2)), gaussian(rng, (4, 2))

    scaled = [
        np.asarray(x * scale, np.float32)
        for x, scale in ((a, of_a), (b, of_b), (ct, of_ct), (0.25, of_a))
    ]
    exact = gradient_of_truncated(a, b, ct, 0.25) * (of_b / of_a) * (of_ct / of_a)
    assert 1e-31 < np.max(np.abs(exact)) < 1e32
    found = np.asarray(gradient_of_truncated(*scaled), np.float64)
    assert relative_error(found, exact) <= bound(np.float32, (3 / 0.05) ** 2)


@jax.jit
def gradients(a, b, ct, e):
    """The gradient of a solution in its matrix, and its two derivatives along `e`."""

    def gradient(a):
        return jax.vjp(lambda a: jaxpinv.lstsq(a, b).solution, a)[1](ct)[0]

    def second(a):
        return jax.jvp(gradient, (a,), (e,))[1]

    return gradient(a), *jax.jvp(second, (a,), (e,))


# Wide and complex: by the adjoint, and so what tall and real matrices need is in it.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("of_a", "of_b", "of_ct"),
    [
        (1e15, 1e30, 1e30),
        (1e-15, 1e-30, 1e-30),
        (1e-15, 1e30, 1e-30),
        (1e-15, 1e-30, 1e30),
        (1e15, 1e-30, 1e30),
        (1e15, 1e30, 1e-30),
        (1, [1e30, 1e-30], [1e-30, 1e30]),
        (1, [1e33, 0], [1, 1e33]),
    ],
    ids=str,
)
def test_gradients_stay_in_the_range_where_nothing_is_truncated(rng, of_a, of_b, of_ct):
    shape, dtype = (4, 6), np.complex64
    m, n = shape
    double = np.result_type(dtype, np.float64)
    a, e = matrix(rng, shape, [3, 2, 1, 0.5], double), gaussian(rng, shape, double)
    b, ct = gaussian(rng, (m, 2), double), gaussian(rng, (n, 2), double)
    scales = of_a, np.array(of_b), np.array(of_ct), of_a
    arrays = [x * s for x, s in zip((a, b, ct, e), scales, strict=True)]
    found = gradients(*(x.astype(dtype) for x in arrays))
    # All these numbers are in the range of double precision.
    for x, exact in zip(found, gradients(*arrays), strict=True):
        assert 1e-34 < np.max(np.abs(exact)) < 1e38
        assert relative_error(np.asarray(x, double), exact) <= bound(dtype, 6**3)


@jax.jit
def by_columns(a, e, b, ct):
    """Derivatives along `e` of a solution and of its gradient in the right-hand side."""

    def gradient_of_b(a):
        return jax.vjp(lambda b: jaxpinv.lstsq(a, b).solution, b)[1](ct)[0]

    forward = jax.jvp(lambda a: jaxpinv.lstsq(a, b).solution, (a,), (e,))[1]
    return forward, jax.jvp(gradient_of_b, (a,), (e,))[1]


@pytest.mark.parametrize("bad", [np.inf, np.nan], ids=str)
def test_a_column_that_is_not_finite_spoils_no_derivative_of_others(rng, bad):
    a, e = gaussian(rng, (6, 4)), gaussian(rng, (6, 4))
    b, ct = gaussian(rng, (6, 2)), gaussian(rng, (4, 2))
    spoiled_b, spoiled_ct = b.copy(), ct.copy()
    spoiled_b[2, 0] = spoiled_ct[2, 0] = bad

    results = by_columns(a, e, b, ct), by_columns(a, e, spoiled_b, spoiled_ct)
    for good, spoiled in zip(*results, strict=True):
        assert np.array_equal(good[:, 1], spoiled[:, 1])
        assert not np.any(np.isfinite(spoiled[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("hermitian", [False, True])
def test_a_matrix_of_denormals_is_finite_in_a_batch(hermitian):
    a = np.tile(np.diag([1.0, 2.0]), (40, 1, 1))
    a[7] = 2.2e-308 * np.array([[-0.27, -0.37], [-0.37, 0.1]])
    assert np.all(np.isfinite(jaxpinv.pinv(a, hermitian=hermitian)))


@pytest.mark.slow
def test_a_tall_matrix_of_denormals_is_finite_in_a_batch():
    a = np.ones((40, 3, 2))
    a[:, 0] = 2
    a[7] = 2.2e-308 * np.array([[-0.27, -0.37], [-0.96, 0.1], [0.43, -0.11]])
    assert np.all(np.isfinite(jaxpinv.pinv(a)))


@pytest.mark.parametrize("size", [1e15, 1e30])
def test_small_parts_of_a_solution_do_not_vanish_where_the_matrix_is_large(size):
    a = jnp.diag(jnp.asarray([size, size / 1e6], jnp.float32))
    b = jnp.asarray([0, 1e-36 * size / 1e6], jnp.float32)
    x, dx = jax.jvp(lambda b: jaxpinv.lstsq(a, b).solution, (b,), (b,))
    np.testing.assert_allclose(x, [0, 1e-36], rtol=1e-5)
    np.testing.assert_allclose(dx, [0, 1e-36], rtol=1e-5)


@pytest.mark.parametrize("shape", [(512, 1), (2, 1000, 2), (545, 3)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_the_largest_element_of_a_long_matrix_is_found_wherever_it_is(rng, shape, dtype):
    a = gaussian(rng, shape, dtype)
    found = jax.jit(largest_element)
    parts = np.maximum(np.abs(np.real(a)), np.abs(np.imag(a)))
    assert np.array_equal(found(a), parts.max(axis=(-2, -1)))
    for row in (0, 100, shape[-2] // 2, shape[-2] - 1):
        for value in (-99, np.inf, np.nan):
            changed = a.copy()
            changed[..., row, -1] = value
            assert np.array_equal(
                found(changed), np.full(shape[:-2], abs(value)), equal_nan=True
            )
