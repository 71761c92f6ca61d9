"""Derivatives of bases of null spaces, of their projectors, and of projections."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound
from tests.differentiation import two_derivatives
from tests.lstsq_cases import TOLERANCE, cases_of, cutoff
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_derivative

pytestmark = pytest.mark.unoptimized

#: Singular values and the cutoff between them.
SPECTRA = {
    "full": ([3.0, 2.0, 1.0, 0.5], 1e-10),
    "deficient": ([3.0, 2.0, 0.0, 0.0], 1e-10),
    "repeated": ([2.0, 2.0, 0.0, 0.0], 1e-10),
    "truncated": ([3.0, 2.0, 0.3, 0.2], 0.5),
}


def projector(a, cutoff):
    """The projector onto the null space."""
    basis = jaxpinv.null_space(a, atol=cutoff).basis
    return basis @ jnp.conj(basis.T)


@jax.jit
def by_forward_mode(a, e, cutoff):
    """The projector and its two derivatives along `e`."""
    return two_derivatives(partial(projector, cutoff=cutoff), (a,), (e,))


@jax.jit
def by_reverse_mode(a, e, weights, cutoff):
    """The projector, and the gradient of a number and its derivative, paired with `e`."""

    def loss(a):
        found = projector(a, cutoff)
        return jnp.real(jnp.sum(weights * found)), found

    both = jax.jvp(jax.grad(loss, has_aux=True), (a,), (e,))
    (gradient, found), (change, _) = both
    return found, [jnp.real(jnp.sum(x * e)) for x in (gradient, change)]


@pytest.mark.slow_unless("forward")
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [("reverse", (4, 6), np.complex128), ("forward", (6, 4), np.float64)],
    ids=str,
)
def test_the_projector_has_exact_derivatives(rng, mode, shape, spectrum, dtype):
    values, cutoff = SPECTRA[spectrum]
    a, e = matrix(rng, shape, values, dtype), gaussian(rng, shape, dtype)
    if not values[-1]:
        # Along this straight line, the rank is constant.
        e = a @ gaussian(rng, (shape[1], shape[1]), dtype)

    # P = I - pinv(A) A, by the product rule from differences in 50 digits.
    x = [exact_derivative(a, [e] * k, cutoff) for k in range(3)]
    exact = [np.eye(shape[1]) - x[0] @ a, -x[1] @ a - x[0] @ e, -x[2] @ a - 2 * x[1] @ e]
    weights, numbers = gaussian(rng, exact[0].shape, dtype), []
    if mode == "forward":
        found = by_forward_mode(a, e, cutoff)
        assert len(found) == 3
    else:
        value, numbers = by_reverse_mode(a, e, weights, cutoff)
        found = [value]
        assert len(numbers) == 2
    for y, z in zip(found, exact[: len(found)], strict=True):
        assert np.max(np.abs(y - z)) <= 1e-9 * max(1, np.max(np.abs(z)))
    for number, z, tolerance in zip(numbers, exact[1:], (1e-8, 1e-7), strict=False):
        assert abs(number - np.sum(weights * z).real) < tolerance


@pytest.mark.slow
def test_the_derivative_of_the_basis_is_that_of_the_docstring(rng):
    a, e = gaussian(rng, (6, 3)) @ gaussian(rng, (3, 5)), gaussian(rng, (6, 5))
    f = jax.jit(lambda a, e: jax.jvp(lambda a: jaxpinv.null_space(a).basis, (a,), (e,)))
    basis, moved = f(a, e)
    expected = -np.linalg.pinv(a, rcond=1e-10) @ e @ basis
    assert np.max(np.abs(moved - expected)) <= bound(np.float64, 1e3)


@jax.jit
def projection_and_derivatives(a, x, e, dx, **kwargs):
    """The projection and its first two derivatives along one direction."""
    f = partial(jaxpinv.null_projection, **kwargs)

    return two_derivatives(f, (a, x), (e, dx))


@pytest.mark.slow
@cases_of(tall="tolerance", wide="tolerance", square="default")
def test_projections_and_derivatives_are_exact(rng, shape, spectrum, kwargs, dtype):
    a, e = matrix(rng, shape, spectrum, dtype), gaussian(rng, shape, dtype)
    x, dx = gaussian(rng, (shape[1], 2), dtype), gaussian(rng, (shape[1], 2), dtype)
    cut = cutoff(kwargs)

    derivatives = [exact_derivative(a, [e] * k, cut) for k in range(3)]
    # Derivatives of pinv(A) A, by the product rule, and of pinv(A) A x.
    q = [
        derivatives[0] @ a,
        derivatives[1] @ a + derivatives[0] @ e,
        derivatives[2] @ a + 2 * derivatives[1] @ e,
    ]
    exact = [x - q[0] @ x, dx - q[0] @ dx - q[1] @ x, -q[2] @ x - 2 * q[1] @ dx]
    for y, z in zip(projection_and_derivatives(a, x, e, dx, **kwargs), exact, strict=True):
        assert np.max(np.abs(y - z)) <= TOLERANCE * max(1, np.max(np.abs(z)))


@jax.jit
def pushed_and_pulled(a, x, e, ct):
    """The derivative of a projection along `(e, x)`, and what it pulls `ct` back to."""
    pushed = jax.jvp(jaxpinv.null_projection, (a, x), (e, x))[1]
    return pushed, jax.vjp(jaxpinv.null_projection, a, x)[1](ct)


@pytest.mark.slow
def test_the_gradient_of_a_projection_is_the_transpose(rng):
    a, e = gaussian(rng, (3, 5)), gaussian(rng, (3, 5))
    x, ct = gaussian(rng, (5, 2)), gaussian(rng, (5, 2))
    pushed, back = pushed_and_pulled(a, x, e, ct)
    paired = np.sum(back[0] * e) + np.sum(back[1] * x)
    assert abs(np.sum(ct * pushed) - paired) <= bound(np.float64, 1e3)
