"""Derivatives of matrices without full rank, by QR with column pivoting."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import relative_error
from tests.matrices import gaussian, of_values

pytestmark = pytest.mark.unoptimized

direct = partial(jaxpinv.pinv, method="direct")
by_svd = partial(jaxpinv.pinv, method="svd")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((40, 40), np.complex128), ((50, 40), np.float64), ((40, 50), np.complex128)],
    ids=str,
)
def test_derivatives_are_those_along_a_curve_of_constant_rank(rng, shape, dtype):
    m, n = shape
    a = of_values(rng, shape, np.geomspace(1, 0.2, 15), dtype)
    left, right = (gaussian(rng, (k, k), dtype) / k**0.5 for k in shape)
    ct = gaussian(rng, (n, m), dtype)

    def curve(t):
        t = jnp.asarray(t, dtype)
        return (
            (jnp.eye(m, dtype=dtype) + t * left) @ a @ (jnp.eye(n, dtype=dtype) + t * right)
        )

    def value(t):
        return direct(curve(t))

    h = 1e-3
    x = [np.linalg.pinv(np.asarray(curve(k * h)), rcond=1e-9) for k in range(-3, 4)]
    first = (x[6] - 9 * x[5] + 45 * x[4] - 45 * x[2] + 9 * x[1] - x[0]) / (60 * h)
    second = (2 * x[6] - 27 * x[5] + 270 * x[4] - 490 * x[3]) / (180 * h * h)
    second = second + (270 * x[2] - 27 * x[1] + 2 * x[0]) / (180 * h * h)

    def dual(f):
        return lambda t: jax.jvp(f, (t,), (1.0,))[1]

    @jax.jit
    def both(t):
        return jax.jvp(dual(value), (t,), (1.0,))

    for found, expected, limit in zip(
        both(0.0), (first, second), (1e-7, 1e-6), strict=True
    ):
        assert relative_error(found, expected) <= limit
    # Along any direction, as with singular vectors.
    e = gaussian(rng, shape, dtype)

    def derivatives(f, a):
        def total(a):
            return jnp.real(jnp.sum(ct * f(a)))

        return jax.jvp(jax.grad(total), (a,), (e,))

    of_svd = jax.jit(partial(derivatives, by_svd))(a)
    for y, z in zip(jax.jit(partial(derivatives, direct))(a), of_svd, strict=True):
        assert relative_error(y, z) <= 1e-9
