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
from tests.programs import svd_calls

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


# For wide ones, the adjoint is factored, so tall ones need not be tried by both methods.
@pytest.mark.slow_unless("truncated-direct-square-real")
@pytest.mark.parametrize(
    ("method", "shape", "dtype"),
    [
        ("direct", "wide", "complex"),
        ("direct", "square", "real"),
        ("svd", "tall", "complex"),
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
@pytest.mark.parametrize("shape", [(6, 4), (4, 4)], ids=str)
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
        return jaxpinv.log_pdet((np.eye(m) + t * left) @ a @ (np.eye(n) + t * right))

    first, second = jax.jit(lambda t: jax.jvp(jax.grad(ours), (t,), (1.0,)))(0.0)
    h = 1e-3
    # Central differences, extrapolated: the error is of the order of h^4.
    values = {k: along(k * h) for k in (-2, -1, 0, 1, 2)}
    slope = (8 * (values[1] - values[-1]) - (values[2] - values[-2])) / (12 * h)
    bend = 16 * (values[1] + values[-1]) - (values[2] + values[-2]) - 30 * values[0]
    assert abs(first - slope) <= 1e-8 * max(1, abs(slope))
    assert abs(second - bend / (12 * h**2)) <= 1e-6 * max(1, abs(second))


@pytest.mark.slow
def test_hessians_by_all_mixed_modes_agree(rng):
    shape = (40, 6, 7)
    a, e = matrix(rng, shape, [3, 2, 1, 0.6, 0.5, 0.4]), gaussian(rng, shape)

    def total(a):
        return jnp.sum(jnp.sin(jaxpinv.log_pdet(a, method="direct")))

    gradient = jax.grad(total)

    @jax.jit
    def by_modes(a):
        first, by_forward = jax.jvp(gradient, (a,), (e,))
        by_reverse = jax.grad(lambda a: jnp.vdot(gradient(a), e))(a)
        tangent = jax.grad(lambda a: jax.jvp(total, (a,), (e,))[1])(a)
        return first, by_forward, by_reverse, tangent

    h = 1e-6
    _, by_forward, by_reverse, tangent = (np.asarray(x) for x in by_modes(a))
    after, before = (np.asarray(by_modes(a + step * e)[0]) for step in (h, -h))
    differences = (after - before) / (2 * h)
    assert relative_error(by_forward, differences) <= 1e-7
    for found in (by_reverse, tangent):
        assert relative_error(found, by_forward) <= bound(np.float64, 1e3)


@pytest.mark.slow
def test_mapped_and_compiled_calls_are_those_of_loops(rng):
    # One alone is factored by singular values, and a batch of them by Gram-Schmidt.
    a = gaussian(rng, (300, 6, 7))
    looped = np.stack([jaxpinv.log_pdet(x) for x in a[:20]])
    derived = np.linalg.pinv(a).swapaxes(-1, -2)
    condition = np.max(np.linalg.cond(a))
    mapped, gradient = jax.jit(jax.vmap(jax.value_and_grad(jaxpinv.log_pdet)))(a)
    for values in (jaxpinv.log_pdet(a), jax.jit(jaxpinv.log_pdet)(a), mapped):
        difference = np.asarray(values)[:20] - looped
        assert np.max(np.abs(difference)) <= bound(np.float64, condition)
        assert np.all(np.isfinite(values))
    assert relative_error(gradient, derived) <= bound(np.float64, condition**2)


@pytest.mark.slow
def test_one_factorization_serves_value_and_derivatives(rng):
    a = gaussian(rng, (6, 4))

    def all_of_it(a):
        derive = jax.value_and_grad(jaxpinv.log_pdet)
        return jax.jvp(derive, (a,), (a,))

    compiled = jax.jit(all_of_it).lower(a).compile().as_text()
    assert len(svd_calls(compiled)) == 1


@pytest.mark.slow
def test_reverse_over_reverse_through_a_scan(rng):
    a = matrix(rng, (4, 3), [2, 1, 0.5])

    def step(x):
        return x * (1 + 0.1 * jnp.tanh(jaxpinv.log_pdet(x)))

    def by_scan(a):
        return jnp.sum(jnp.sin(jax.lax.scan(lambda x, _: (step(x), None), a, None, 2)[0]))

    def by_steps(a):
        return jnp.sum(jnp.sin(step(step(a))))

    @jax.jit
    def second(a):
        found = jax.grad(lambda a: jnp.vdot(jax.grad(by_scan)(a), e))(a)
        return found, jax.jvp(jax.grad(by_steps), (a,), (e,))[1]

    e = gaussian(rng, a.shape)
    found, expected = second(a)
    assert relative_error(found, expected) <= bound(np.float64, 1e3)
