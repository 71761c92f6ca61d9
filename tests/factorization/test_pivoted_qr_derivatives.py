"""Derivatives of matrices without full rank, by QR with column pivoting."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._inputs import Method
from tests.comparison import pair, relative_error
from tests.matrices import gaussian, of_values

pytestmark = [pytest.mark.unoptimized, pytest.mark.slow]


@partial(jax.jit, static_argnames="method")
def derivatives(a, ct, e, method: Method = "direct"):
    """The derivative along `e`, the gradient of `<ct, X>`, and its Hessian times `e`."""

    def gradient(a):
        x, pullback = jax.vjp(partial(jaxpinv.pinv, method=method), a)
        return x, pullback(ct)[0]

    (_, g), (dx, h) = jax.jvp(gradient, (a,), (e,))
    return dx, g, h


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((40, 40), np.complex128), ((50, 40), np.float64), ((40, 50), np.complex128)],
    ids=["square", "tall", "wide"],
)
def test_derivatives_are_those_along_a_curve_of_constant_rank(rng, shape, dtype):
    m, n = shape
    a = of_values(rng, shape, np.geomspace(1, 0.2, 15), dtype)
    left, right = (gaussian(rng, (k, k), dtype) / k**0.5 for k in shape)
    ct = gaussian(rng, (n, m), dtype)

    def curve(t):
        return (np.eye(m) + t * left) @ a @ (np.eye(n) + t * right)

    h = 1e-3
    x = [np.linalg.pinv(curve(k * h), rcond=1e-9) for k in range(-3, 4)]
    first = (x[6] - 9 * x[5] + 45 * x[4] - 45 * x[2] + 9 * x[1] - x[0]) / (60 * h)
    second = (2 * x[6] - 27 * x[5] + 270 * x[4] - 490 * x[3]) / (180 * h * h)
    second = second + (270 * x[2] - 27 * x[1] + 2 * x[0]) / (180 * h * h)
    # The curve is `a + t e + t^2 bend / 2`.
    e, bend = left @ a + a @ right, 2 * left @ a @ right
    dx, gradient, product = derivatives(a, ct, e)
    assert relative_error(dx, first) <= 1e-7
    # The numbers are a hundredth of the product of the norms, and the errors 1e-11 of it.
    size = np.linalg.norm(ct) * np.linalg.norm(first)
    assert abs(pair(gradient, e) - pair(ct, first)) <= 1e-11 * size
    found = pair(product, e) + pair(gradient, bend)
    size = np.linalg.norm(ct) * np.linalg.norm(second)
    assert abs(found - pair(ct, second)) <= 1e-9 * size


def test_derivatives_along_any_direction_are_those_by_singular_vectors(rng):
    shape = (50, 40)
    a = of_values(rng, shape, np.geomspace(1, 0.2, 15), np.float64)
    ct, e = gaussian(rng, shape[::-1]), gaussian(rng, shape)
    given = tuple(map(jnp.asarray, (a, ct, e)))
    for y, z in zip(derivatives(*given), derivatives(*given, "svd"), strict=True):
        assert relative_error(y, z) <= 1e-9
