"""`log_pdet`: the sum of the logarithms of the kept singular values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.mpmath_oracle import exact_log_pdet

pytestmark = pytest.mark.unoptimized

DTYPES = {"real": np.float64, "complex": np.complex128}
#: Spectrum and absolute cutoff.
SPECTRA = {
    "simple": ([3, 2, 1, 0.5], 0.1),
    "truncated": ([3, 2, 0.3, 0.2], 0.25),
    "deficient": ([3, 2, 0, 0], 0.1),
    "repeated": ([2, 2, 0.3, 0.3], 0.5),
    "zero": ([0, 0, 0, 0], 0.1),
}
#: By LU, Gram-Schmidt, two Gram matrices and singular values, and the adjoints of these.
SHAPES = [(4, 4), (40, 6, 7), (40, 7, 6), (30, 20), (20, 30), (130, 130), (300, 3, 3)]
# The gap and the condition, to the power that third derivatives have.
TOLERANCE = bound(np.float64, 1e4)


@partial(jax.jit, static_argnames="method")
def with_derivatives(a, directions, atol, method):
    """The value, and the derivatives along the first, the first two and all directions."""
    f = partial(jaxpinv.log_pdet, atol=atol, method=method)
    found = [f(a)]
    for e in directions:
        f = partial(lambda f, e, a: jax.jvp(f, (a,), (e,))[1], f, e)
        found.append(f(a))
    return found


@pytest.mark.slow_unless("direct-wide-complex-truncated")
@pytest.mark.parametrize("case", SPECTRA)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)], ids=["tall", "wide", "square"])
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_value_and_three_derivatives_are_exact(rng, shape, dtype, case, method):
    spectrum, cutoff = SPECTRA[case]
    a = matrix(rng, shape, spectrum, dtype)
    directions = gaussian(rng, (3, *shape), dtype)
    found = with_derivatives(a, directions, cutoff, method)
    for order, value in enumerate(found):
        exact = exact_log_pdet(a, directions[:order], cutoff)
        assert abs(value - exact) <= TOLERANCE * max(1, abs(exact))
        assert value.dtype == np.float64


@pytest.mark.slow_unless("direct-.40, 6")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_it_is_that_of_slogdet_at_full_rank(rng, shape, method):
    for dtype in DTYPES.values():
        a = gaussian(rng, shape, dtype)
        condition = np.max(np.linalg.cond(a))
        long = a if shape[-2] <= shape[-1] else a.conj().swapaxes(-1, -2)
        gram = long @ long.conj().swapaxes(-1, -2)
        is_square = shape[-2] == shape[-1]
        exact = np.linalg.slogdet(a)[1] if is_square else np.linalg.slogdet(gram)[1] / 2
        found, rank = jaxpinv.log_pdet(a, method=method, return_rank=True)
        # The Gram matrix has the square of the condition.
        limit = bound(dtype, condition if is_square else condition**2)
        assert np.max(np.abs(found - exact)) <= limit
        assert rank.dtype == jnp.result_type(int)
        assert np.all(rank == min(shape[-2:]))


@pytest.mark.parametrize("method", ["direct", "svd"])
def test_it_keeps_the_digits_that_the_gram_matrix_loses(rng, method):
    a = matrix(rng, (40, 6, 7), list(np.geomspace(1, 1e-3, 6))).astype(np.float32)
    exact = np.sum(np.log(np.linalg.svd(a.astype(float), compute_uv=False)), axis=-1)
    found = np.asarray(jaxpinv.log_pdet(a, method=method), float)
    assert np.max(np.abs(found - exact)) <= bound(np.float32, 1e3)
    by_gram = np.linalg.slogdet(a @ a.swapaxes(-1, -2))[1] / 2
    assert np.max(np.abs(by_gram - exact)) > bound(np.float32, 1e3)


def test_the_gradient_is_the_transposed_pseudo_inverse(rng):
    a = gaussian(rng, (40, 6, 7))
    found = jax.grad(lambda a: jnp.sum(jaxpinv.log_pdet(a, method="direct")))(a)
    assert relative_error(found, np.linalg.pinv(a).swapaxes(-1, -2)) <= bound(
        np.float64, np.max(np.linalg.cond(a)) ** 2
    )


@pytest.mark.slow_unless("6, 4")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)], ids=str)
def test_exact_deficiency_under_the_default_cutoff(rng, shape):
    a = matrix(rng, shape, [3, 2, 0, 0])
    m, n = shape
    left, right = gaussian(rng, (m, m)), gaussian(rng, (n, n))

    def curve(t):
        # Of constant rank.
        return (np.eye(m) + t * left) @ a @ (np.eye(n) + t * right)

    def along(t):
        return np.sum(np.log(np.linalg.svd(curve(t), compute_uv=False)[:2]))

    def ours(t):
        return jaxpinv.log_pdet(
            jnp.matmul(jnp.eye(m) + t * left, a) @ (jnp.eye(n) + t * right)
        )

    first, second = jax.jvp(jax.grad(ours), (0.0,), (1.0,))
    h = 1e-3
    # Central differences, extrapolated: the error is of the order of h^4.
    values = {k: along(k * h) for k in (-2, -1, 0, 1, 2)}
    slope = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)
    bend = 16 * (values[1] + values[-1]) - (values[2] + values[-2]) - 30 * values[0]
    assert abs(first - slope) <= 1e-8 * max(1, abs(slope))
    assert abs(second - bend / (12 * h**2)) <= 1e-6 * max(1, abs(second))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5, 3), (40, 6, 7)], ids=str)
def test_hessians_by_all_mixed_modes_agree(rng, shape):
    a, e = matrix(rng, shape, [3, 2, 1, 0.6, 0.5, 0.4]), gaussian(rng, shape)

    def total(a):
        return jnp.sum(jnp.sin(jaxpinv.log_pdet(a, method="direct")))

    gradient = jax.grad(total)
    by_forward = jax.jvp(gradient, (a,), (e,))[1]
    by_reverse = jax.grad(lambda a: jnp.vdot(gradient(a), e))(a)
    tangent = jax.grad(lambda a: jax.jvp(total, (a,), (e,))[1])(a)
    h = 1e-6
    differences = (gradient(a + h * e) - gradient(a - h * e)) / (2 * h)
    assert relative_error(by_forward, differences) <= 1e-7
    for found in (by_reverse, tangent):
        assert relative_error(found, by_forward) <= bound(np.float64, 1e3)


def test_lower_triangles_alone_are_read_and_gradients_are_hermitian(rng):
    values = [3.0, -2.0, 0.5, 1e-3]
    a = hermitian_matrix(rng, values, np.complex128)
    lower = np.where(np.tri(4, dtype=bool), a, 9.0)
    f = partial(jaxpinv.log_pdet, atol=0.1, hermitian=True)
    assert abs(f(lower) - np.log(3)) <= bound(np.float64, 10)
    gradient = jax.grad(f)(lower)
    kept = jaxpinv.pinv(a, atol=0.1, hermitian=True)
    assert relative_error(gradient, kept.T) <= bound(np.float64, 100)
    assert relative_error(gradient, gradient.conj().T) <= bound(np.float64)


@pytest.mark.slow_unless("direct-(3, 2|0, 3)")
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2, 2), (0, 3), (3, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_zero_and_empty_matrices_have_the_logarithm_0_and_rank_0(shape, method):
    for batch in ((), (5,), (0,)):
        a = np.zeros((*batch, *shape))
        value, rank = jaxpinv.log_pdet(a, method=method, return_rank=True)
        assert value.shape == rank.shape == batch
        assert not np.any(value)
        assert not np.any(rank)
        gradient = jax.grad(lambda a: jnp.sum(jaxpinv.log_pdet(a, method=method)))(a)
        assert np.array_equal(gradient, a)


@pytest.mark.slow_unless("direct-1e.30-.64, 64")
@pytest.mark.parametrize("shape", [(64, 64), (70, 64), (40, 6, 7)], ids=str)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_no_size_overflows_or_vanishes(rng, shape, scale, method):
    a = matrix(rng, shape, list(np.geomspace(1, 0.1, min(shape[-2:]))))
    exact = np.sum(np.log(np.linalg.svd(a, compute_uv=False)), axis=-1)
    exact = exact + min(shape[-2:]) * np.log(scale)
    a = (a * scale).astype(np.float32)
    found = jaxpinv.log_pdet(a, method=method)
    assert found.dtype == np.float32
    assert relative_error(np.asarray(found, float), exact) <= bound(np.float32)
    gradient = jax.grad(lambda a: jnp.sum(jaxpinv.log_pdet(a, method=method)))(a)
    expected = np.linalg.pinv(a.astype(float)).swapaxes(-1, -2)
    assert relative_error(gradient, expected) <= bound(np.float32, 1e2)


@pytest.mark.parametrize("method", ["direct", "svd"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_is_nan_alone(rng, value, method):
    a = gaussian(rng, (5, 4, 3))
    bad = a.copy()
    bad[1, 2, 1] = value

    def f(a):
        return jaxpinv.log_pdet(a, method=method, return_rank=True)

    def gradient(a):
        return jax.grad(lambda a: jnp.sum(f(a)[0]))(a)

    others = np.arange(5) != 1
    found, rank = f(bad)
    assert np.isnan(found[1])
    assert rank.tolist() == [3, 0, 3, 3, 3]
    assert np.array_equal(found[others], f(a)[0][others])
    assert np.all(np.isnan(gradient(bad)[1]))
    assert np.array_equal(gradient(bad)[others], gradient(a)[others])


def test_tolerances_are_of_batch_shape_and_enlarge_it(rng):
    spectrum = [1.0, 0.1, 0.01, 0.001]
    a = matrix(rng, (6, 4), spectrum)
    rtols = np.array([0.5, 0.05, 0.005, np.nan])
    exact = [np.sum(np.log(spectrum[:k])) for k in (1, 2, 3)]
    for found in (
        jaxpinv.log_pdet(a, rtols),
        jaxpinv.log_pdet(a, rcond=rtols),
        jaxpinv.log_pdet(a, atol=rtols),
        jax.jit(jaxpinv.log_pdet)(a, rtols),
        jax.vmap(jaxpinv.log_pdet, (None, 0))(a, rtols),
    ):
        assert relative_error(found[:3], exact) <= bound(np.float64, 1e3)
        assert np.isnan(found[3])

    def gradient(rtol):
        return jax.grad(jaxpinv.log_pdet)(a, rtol)

    mapped = jax.vmap(gradient)(rtols[:3])
    looped = [jaxpinv.pinv(a, rtol).T for rtol in rtols[:3]]
    assert relative_error(mapped, looped) <= bound(np.float64, 1e3)
    summed = jax.grad(lambda a: jnp.sum(jaxpinv.log_pdet(a, rtols[:3])))(a)
    assert relative_error(summed, np.sum(looped, axis=0)) <= bound(np.float64, 1e3)


@pytest.mark.slow
def test_mapped_and_compiled_calls_are_those_of_loops(rng):
    # Alone they are factored by singular values, and together by Gram-Schmidt.
    a = gaussian(rng, (300, 6, 7))
    looped = np.stack([jaxpinv.log_pdet(x) for x in a])
    derived = np.stack([np.linalg.pinv(x).T for x in a])
    condition = np.max(np.linalg.cond(a))
    for f in (jaxpinv.log_pdet, jax.vmap(jaxpinv.log_pdet)):
        for g in (f, jax.jit(f)):
            assert np.max(np.abs(g(a) - looped)) <= bound(np.float64, condition)
    gradient = jax.jit(jax.vmap(jax.grad(jaxpinv.log_pdet)))(a)
    assert relative_error(gradient, derived) <= bound(np.float64, condition**2)


@pytest.mark.slow
def test_one_factorization_serves_value_and_derivatives(rng):
    a = gaussian(rng, (6, 4))

    def all_of_it(a):
        derive = jax.value_and_grad(jaxpinv.log_pdet)
        return jax.jvp(derive, (a,), (a,))

    compiled = str(jax.jit(all_of_it).lower(a).compile().as_text())
    assert compiled.count('custom_call_target="lapack_dgesdd_ffi"') == 1


@pytest.mark.slow
def test_reverse_over_reverse_through_a_scan(rng):
    a = matrix(rng, (4, 3), [2, 1, 0.5])

    def step(x):
        return x * (1 + 0.1 * jnp.tanh(jaxpinv.log_pdet(x)))

    def by_scan(a):
        return jnp.sum(jnp.sin(jax.lax.scan(lambda x, _: (step(x), None), a, None, 2)[0]))

    def by_steps(a):
        return jnp.sum(jnp.sin(step(step(a))))

    def second(a):
        return jax.grad(lambda a: jnp.vdot(jax.grad(by_scan)(a), e))(a)

    e = gaussian(rng, a.shape)
    expected = jax.jvp(jax.grad(by_steps), (a,), (e,))[1]
    assert relative_error(second(a), expected) <= bound(np.float64, 1e3)


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
