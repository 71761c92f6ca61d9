"""Derivatives of every order, against differences in 50 digits."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, pair, relative_error
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.mpmath_oracle import exact_derivative

pytestmark = pytest.mark.unoptimized

SHAPES = {"tall": (6, 4), "wide": (4, 6), "square": (4, 4), "batched": (2, 5, 4)}
DTYPES = {"real": np.float64, "complex": np.complex128}
# Spectrum and absolute cutoff.
SPECTRA = {
    "simple": ([3, 2, 1, 0.5], 0.1),
    "truncated": ([3, 2, 0.3, 0.2], 0.25),
    "deficient": ([3, 2, 0, 0], 0.1),
    "repeated": ([2, 2, 2, 2], 0.1),
    "repeated_and_deficient": ([2, 2, 0, 0], 0.1),
    "zero": ([0, 0, 0, 0], 0.1),
    "repeated_and_truncated": ([2, 2, 0.3, 0.3], 0.5),
    "truncated_next_to_kept": ([5, 4, 3, 2.9], 2.95),
}
# Both ways, real and complex. Hermitian ones are square.
CASES = ["pinv-tall-complex", "pinv-batched-real", "lstsq-wide-complex"]
all_cases = pytest.mark.parametrize(
    ("pinv", "shape", "dtype"),
    [
        (way, SHAPES[shape], DTYPES[dtype])
        for way, shape, dtype in (x.split("-") for x in CASES)
    ],
    ids=CASES,
    indirect=["pinv"],
)
# Rounding times the powers of the condition and of the relative gap, at most 60, that
# third derivatives contain.
TOLERANCE = bound(np.float64, 60**3)


def along(f, direction):
    """The function whose value is the derivative of `f` along a fixed direction."""
    return lambda a: jax.jvp(f, (a,), (direction,))[1]


def against(f, cotangent):
    """The function whose value is the gradient of `f` against a fixed cotangent."""
    return lambda a: jax.vjp(f, a)[1](cotangent)[0]


@partial(jax.jit, static_argnames=("pinv", "hermitian"))
def forward(pinv, a, directions, atol, hermitian=False):
    """Derivatives along the first, the first two, ... directions, by forward mode.

    All orders in one program, for the last one contains the others.
    """

    def derived(f, e):
        def g(a):
            lower, tangents = jax.jvp(f, (a,), (e,))
            return [*lower, tangents[-1]]

        return g

    def value(a):
        return [pinv(a, atol=atol, hermitian=hermitian)]

    f = functools.reduce(derived, directions, value)
    return f(a)[1:]


def assert_exact(results, a, directions, cutoff):
    """Asserts that derivatives along the first, the first two, ... directions are exact."""
    for order, result in enumerate(results, start=1):
        exact = exact_derivative(a, directions[:order], cutoff)
        assert relative_error(result, exact) <= TOLERANCE, order
    assert len(results) == len(directions)


@partial(jax.jit, static_argnames="pinv")
def by_every_mode(pinv, a, ct, e1, e2, e3, atol):
    """The numbers `<ct, D(e1)>`, `<ct, D(e1, e2)>` and `<ct, D(e1, e2, e3)>`, by mode."""
    f = partial(pinv, atol=atol)
    gradient = against(f, ct)

    def paired(x, y):
        return jnp.real(jnp.sum(x * y))

    first = {"reverse": paired(gradient(a), e1)}
    second = {
        "forward_over_reverse": paired(along(gradient, e1)(a), e2),
        "reverse_over_reverse": paired(against(gradient, e1)(a), e2),
        "reverse_over_forward": paired(against(along(f, e1), ct)(a), e2),
    }
    if pinv is not jaxpinv.pinv:
        # To compile the third order by `lstsq` takes as long as all of the rest.
        return first, second, {}
    third = {
        "forward_over_forward_over_reverse": paired(along(along(gradient, e1), e2)(a), e3),
        "forward_over_reverse_over_reverse": paired(
            along(against(gradient, e1), e2)(a), e3
        ),
        "reverse_over_reverse_over_reverse": paired(
            against(against(gradient, e1), e2)(a), e3
        ),
    }
    return first, second, third


@pytest.mark.slow_unless("pinv-tall-complex")
@pytest.mark.parametrize(("spectrum", "cutoff"), SPECTRA.values(), ids=SPECTRA)
@all_cases
class TestEveryShapeSpectrumAndDtype:
    """The cases that every derivative must pass."""

    def test_forward_derivative_is_exact(self, pinv, rng, shape, spectrum, cutoff, dtype):
        a = matrix(rng, shape, spectrum, dtype)
        directions = [gaussian(rng, shape, dtype) for _ in range(3)]
        assert_exact(forward(pinv, a, directions, cutoff), a, directions, cutoff)

    def test_reverse_mode_at_every_order_is_exact(
        self, pinv, rng, shape, spectrum, cutoff, dtype
    ):
        a = matrix(rng, shape, spectrum, dtype)
        e1, e2, e3 = (gaussian(rng, shape, dtype) for _ in range(3))
        ct = gaussian(rng, (*shape[:-2], shape[-1], shape[-2]), dtype)
        orders = by_every_mode(pinv, a, ct, e1, e2, e3, cutoff)
        for order, results in enumerate(orders, start=1):
            exact = exact_derivative(a, [e1, e2, e3][:order], cutoff)
            size = np.linalg.norm(ct) * max(np.linalg.norm(exact), 1)
            for mode, result in results.items():
                assert abs(result - pair(ct, exact)) <= TOLERANCE * size, mode


@pytest.mark.slow
@pytest.mark.parametrize("spectrum", [[3, 2, 0, 0], [2, 2, 0, 0], [0, 0, 0, 0]], ids=str)
def test_the_default_cutoff_recognizes_exact_deficiency(rng, spectrum):
    a = matrix(rng, (6, 4), spectrum, np.complex128)
    directions = [gaussian(rng, (6, 4), np.complex128) for _ in range(3)]
    assert_exact(forward(jaxpinv.pinv, a, directions, None), a, directions, 0.1)


@pytest.mark.slow
@all_cases
def test_derivative_is_exact_where_large_values_are_truncated(pinv, rng, shape, dtype):
    a = matrix(rng, shape, [4, 3, 2.4, 0.1], dtype)
    directions = [gaussian(rng, shape, dtype) for _ in range(3)]
    assert_exact(forward(pinv, a, directions, 2.7), a, directions, 2.7)


@partial(jax.jit, static_argnames="pinv")
def hermitian_gradient(pinv, a, ct, atol):
    """The gradient against a cotangent."""
    return against(partial(pinv, hermitian=True, atol=atol), ct)(a)


@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize(
    ("pinv", "dtype"),
    [("pinv", np.complex128), ("lstsq", np.float64)],
    ids=["pinv-complex", "lstsq-real"],
    indirect=["pinv"],
)
@pytest.mark.parametrize(
    ("eigenvalues", "cutoff"),
    [
        ([3, -2, 1, 0.5], 0.1),
        ([3, -2, 0.3, -0.2], 0.25),
        ([3, -2, 0, 0], 0.1),
        ([2, -2, 2, -2], 0.1),
        ([2, -2, 0.3, -0.3], 0.5),
        ([0, 0, 0, 0], 0.1),
    ],
    ids=[
        "indefinite",
        "truncated",
        "deficient",
        "repeated",
        "repeated_and_truncated",
        "zero",
    ],
)
class TestHermitian:
    """The derivative of `hermitian=True` is that along the Hermitian part."""

    def test_derivative_is_that_along_hermitian_parts(
        self, pinv, rng, eigenvalues, cutoff, dtype
    ):
        a = hermitian_matrix(rng, eigenvalues, dtype)
        directions = [gaussian(rng, a.shape, dtype) for _ in range(3)]
        results = forward(pinv, a, directions, cutoff, hermitian=True)
        assert_exact(results, a, [(e + e.conj().T) / 2 for e in directions], cutoff)

    def test_gradient_is_hermitian(self, pinv, rng, eigenvalues, cutoff, dtype):
        a = hermitian_matrix(rng, eigenvalues, dtype)
        ct = gaussian(rng, a.shape, dtype)
        gradient = np.asarray(hermitian_gradient(pinv, a, ct, cutoff))
        assert np.array_equal(gradient, gradient.conj().T)


@pytest.mark.slow
def test_hermitian_derivative_is_exact_where_eigenvalues_are_exactly_zero(rng):
    a = np.diag([3.0, -2.0, 0.0, 0.0])
    directions = [hermitian_matrix(rng, [1, 2, 3, 4]) for _ in range(3)]
    results = forward(jaxpinv.pinv, a, directions, None, hermitian=True)
    assert_exact(results, a, directions, 0.1)


def test_third_derivatives_of_a_nonlinear_function_are_exact(rng):
    # Its cotangents change with the matrix.
    a, e = matrix(rng, (4, 3), [3, 2, 0.3]), gaussian(rng, (4, 3))
    x = np.linalg.pinv(a, rcond=0.2)
    first, second, third = (exact_derivative(a, [e] * k, 0.5) for k in (1, 2, 3))
    exact = np.cos(x) * (third - first**3) - 3 * np.sin(x) * first * second

    @jax.jit
    def by_two_modes(a):
        def total(a):
            return jnp.sum(jnp.sin(jaxpinv.pinv(a, atol=0.5)))

        product = along(jax.grad(total), e)
        by_reverse = jax.grad(lambda a: jnp.vdot(product(a), e))(a)
        return jnp.vdot(along(product, e)(a), e), jnp.vdot(by_reverse, e)

    for found in by_two_modes(a):
        assert abs(found - np.sum(exact)) <= TOLERANCE * np.sum(np.abs(exact))
