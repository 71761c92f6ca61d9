"""Derivatives of `log_pdet`, of every order, and through transformations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_log_pdet

pytestmark = pytest.mark.unoptimized

DTYPES = {"real": np.float64, "complex": np.complex128}
SHAPES = {"tall": (6, 4), "wide": (4, 6), "square": (4, 4)}
#: Spectrum and absolute cutoff.
SPECTRA = {
    "simple": ([3, 2, 1, 0.5], 0.1),
    "truncated": ([3, 2, 0.3, 0.2], 0.25),
    "deficient": ([3, 2, 0, 0], 0.1),
    "repeated": ([2, 2, 0.3, 0.3], 0.5),
    "zero": ([0, 0, 0, 0], 0.1),
}
# The gap and the condition enter third derivatives with a power.
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


# Every pair of a method, a shape and a dtype, with every spectrum.
@pytest.mark.slow_unless("truncated-direct-wide-complex")
@pytest.mark.parametrize(
    ("method", "shape", "dtype"),
    [
        ("direct", "tall", "real"),
        ("direct", "wide", "complex"),
        ("direct", "square", "real"),
        ("svd", "tall", "complex"),
        ("svd", "wide", "real"),
        ("svd", "square", "complex"),
    ],
)
@pytest.mark.parametrize("case", SPECTRA)
def test_value_and_three_derivatives_are_exact(rng, shape, dtype, case, method):
    shape, dtype = SHAPES[shape], DTYPES[dtype]
    spectrum, cutoff = SPECTRA[case]
    a = matrix(rng, shape, spectrum, dtype)
    directions = gaussian(rng, (3, *shape), dtype)
    found = with_derivatives(a, directions, cutoff, method)
    for order, value in enumerate(found):
        exact = exact_log_pdet(a, directions[:order], cutoff)
        assert abs(value - exact) <= TOLERANCE * max(1, abs(exact))
        assert value.dtype == np.float64


@pytest.mark.slow_unless("6, 4")
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (4, 4)], ids=str)
def test_deficient_matrices_have_exact_derivatives_by_default(rng, shape):
    a = matrix(rng, shape, [3, 2, 0, 0])
    m, n = shape
    left, right = gaussian(rng, (m, m)), gaussian(rng, (n, n))

    def curve(t):
        # The rank is constant along this path.
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

    gradient = jax.jit(jax.grad(total))

    @jax.jit
    def by_modes(a):
        by_forward = jax.jvp(gradient, (a,), (e,))[1]
        by_reverse = jax.grad(lambda a: jnp.vdot(gradient(a), e))(a)
        return by_forward, by_reverse, jax.grad(lambda a: jax.jvp(total, (a,), (e,))[1])(a)

    by_forward, by_reverse, tangent = by_modes(a)
    h = 1e-6
    differences = (gradient(a + h * e) - gradient(a - h * e)) / (2 * h)
    assert relative_error(by_forward, differences) <= 1e-7
    for found in (by_reverse, tangent):
        assert relative_error(found, by_forward) <= bound(np.float64, 1e3)


@pytest.mark.slow
def test_mapped_and_compiled_calls_are_those_of_loops(rng):
    # One alone is factored by singular values, and a batch of them by Gram-Schmidt.
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
