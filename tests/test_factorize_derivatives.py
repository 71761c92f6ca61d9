"""Derivatives of what a stored factorization gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.differentiation import reverse_over_reverse
from tests.factorize_cases import RTOL, SPECTRA, by_methods, by_numpy
from tests.matrices import gaussian, matrix

pytestmark = pytest.mark.unoptimized


def by_functions(a, b, x, **kwargs):
    """All results, by the functions."""
    found = jaxpinv.lstsq(a, b, **kwargs)
    return {
        "pinv": jaxpinv.pinv(a, **kwargs),
        "solve": found.solution,
        "null_projection": jaxpinv.null_projection(a, x, **kwargs),
        "singular_values": found.singular_values,
        "log_pdet": jaxpinv.log_pdet(a, **kwargs),
        "rank": found.rank,
    }


def total(results):
    """One number that depends on all results."""
    return sum(jnp.sum(jnp.abs(x) ** 2) for k, x in results.items() if k != "rank")


@jax.jit
def derivatives_of_functions(a, e, b, x):
    """The gradient of a number that depends on all results, and its derivative."""

    def f(a):
        # The method with the smallest programs.
        return total(by_functions(a, b, x, rtol=RTOL, method="svd"))

    return jax.jvp(jax.grad(f), (a,), (e,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "method", "mode"),
    [
        ("vmap", "direct", "forward"),
        ("checkpoint", "svd", "reverse"),
    ],
)
def test_derivatives_are_those_of_the_functions_wherever_it_was_made(
    rng, made, method, mode
):
    spectrum = SPECTRA["truncated"]
    a = matrix(rng, (3, 5, 4), spectrum)
    e, b, x = (gaussian(rng, s) for s in [(3, 5, 4), (3, 5, 1), (3, 4, 2)])
    ways = {"vmap": jax.vmap, "checkpoint": jax.checkpoint}
    make = ways[made](partial(jaxpinv.factorize, rtol=RTOL, method=method))

    def of_methods(a):
        return total(by_methods(make(a), b, x))

    @jax.jit
    def derivatives(a):
        if mode == "forward":
            return jax.jvp(jax.grad(of_methods), (a,), (e,))
        return reverse_over_reverse(of_methods, a, e)[1:]

    expected = derivatives_of_functions(a, e, b, x)
    for found, known in zip(derivatives(a), expected, strict=True):
        assert relative_error(found, known) <= bound(np.float64, 1e4)


@pytest.mark.slow
def test_derivatives_exist_without_a_jit_around_them(rng):
    a = matrix(rng, (3, 5, 4), SPECTRA["truncated"])
    b, x, ct = (gaussian(rng, s) for s in [(3, 5, 1), (3, 4, 1), (3, 4, 1)])

    def f(a):
        factored = jaxpinv.factorize(a, rtol=RTOL)
        moved = factored.solve(b) + factored.null_projection(x)
        return jnp.sum(moved * ct) + jnp.sum(factored.log_pdet())

    def expected(a):
        found = by_numpy(a, b, x)
        moved = found["solve"] + found["null_projection"]
        return np.sum(moved * ct) + np.sum(found["log_pdet"])

    e, h = gaussian(rng, (3, 5, 4)), 1e-6
    difference = (expected(a + h * e) - expected(a - h * e)) / (2 * h)
    assert abs(np.sum(jax.grad(f)(a) * e) - difference) <= 1e-7 * abs(difference)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_derivatives_pass_through_the_carry_of_a_scan(rng, method):
    a, e, b = (gaussian(rng, s) for s in [(3, 4), (3, 4), (2, 3)])
    make = partial(jaxpinv.factorize, method=method)

    def step(factored, b):
        x = factored.solve(b)
        a = jnp.outer(b, x) + factored.pinv().T
        return make(a), factored.log_pdet() + jnp.sum(factored.null_projection(x * x))

    def by_scan(a):
        last, found = jax.lax.scan(step, make(a), b)
        return jnp.sum(jnp.sin(found)) + jnp.sum(last.solve(b[0]))

    @jax.jit
    def all_by_scan(a):
        # Reverse over reverse for one of the methods: the loop is the same.
        if method == "svd":
            return jax.value_and_grad(by_scan)(a)
        return reverse_over_reverse(by_scan, a, e)

    for x, y in zip(all_by_scan(a), all_by_loop(a, e, b), strict=False):
        assert relative_error(x, y) <= bound(np.float64, 1e4)


@jax.jit
def all_by_loop(a, e, b):
    """Value, gradient and its derivative of the scan, as a loop over wide matrices."""

    def by_loop(a):
        # All are of full rank.
        found = 0.0
        for row in b:
            inverse = full_rank_pinv(a)
            x = inverse @ row
            projected = x * x - inverse @ (a @ (x * x))
            log = jnp.linalg.slogdet(a @ a.T)[1] / 2
            found += jnp.sin(log + jnp.sum(projected))
            a = jnp.outer(row, x) + inverse.T
        return found + jnp.sum(full_rank_pinv(a) @ b[0])

    (value, gradient), (_, hessian) = jax.jvp(jax.value_and_grad(by_loop), (a,), (e,))
    return value, gradient, hessian


def full_rank_pinv(a):
    """The pseudo-inverse of a wide matrix of full rank, by its normal equations."""
    return a.T @ jnp.linalg.inv(a @ a.T)
