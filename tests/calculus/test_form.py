"""The formula of derivatives, from factors of any kind."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxpinv._calculus import form
from jaxpinv._calculus.form import Outer
from jaxpinv._calculus.matrix_derivative import derivative
from jaxpinv._factors import Factors, product_with_u, times_gram
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_derivative

pytestmark = pytest.mark.unoptimized

# Rounding times the powers of the condition and of the relative gap, at most 60, that
# third derivatives contain.
TOLERANCE = bound(np.float64, 60**3)


@partial(jax.jit, static_argnames="options")
def derivative_along(factors, along, options=()):
    """The derivative along several directions."""
    return derivative(factors, along, product_with_u, times_gram, **dict(options))


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 3])
def test_derivatives_do_not_depend_on_the_factorization(rng, order):
    a = matrix(rng, (6, 4), [3, 2, 1, 0.5], np.complex128)
    directions = [gaussian(rng, a.shape, np.complex128) for _ in range(order)]
    q, r = np.linalg.qr(a)
    factors = Factors(
        jnp.asarray(q),
        jnp.ones(4),
        jnp.asarray(np.linalg.inv(r)),
        jnp.ones(4, bool),
        jnp.zeros((), bool),
    )
    along = {1 << i: jnp.asarray(e) for i, e in enumerate(directions)}
    result = derivative_along(factors, along)
    assert relative_error(result, exact_derivative(a, directions, 0.1)) <= TOLERANCE


@pytest.mark.slow_unless("True")
@pytest.mark.parametrize("broadcasts", [True, False])
def test_directions_may_lack_batch_axes_of_others(rng, broadcasts):
    a = matrix(rng, (6, 4), [3, 2, 0.3, 0.2], np.complex128)
    shared = gaussian(rng, (1, *a.shape), np.complex128)
    own, of_shared = (gaussian(rng, (3, *a.shape), np.complex128) for _ in range(2))
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    row = (u, s, vh.conj().T, s > 0.5, np.zeros((), bool))
    factors = Factors(*(jnp.asarray(x[None]) for x in row))
    # The matrix moves by of_shared along both other directions at once.
    along = {1: jnp.asarray(shared), 2: jnp.asarray(own), 3: jnp.asarray(of_shared)}
    found = derivative_along(factors, along, options=(("broadcasts", broadcasts),))
    for i, result in enumerate(found):
        exact = exact_derivative(a, [shared[0], own[i]], 0.5)
        exact = exact + exact_derivative(a, [of_shared[i]], 0.5)
        assert relative_error(result, exact) <= TOLERANCE


def oblique(a, rank, *, fills_up):
    """Factors of which the kept columns of V are not orthonormal, by pivoted QR.

    Nor are those that are kept the first ones, and they are in units of 4.
    """
    n = a.shape[1]
    found: Any = scipy.linalg.qr(a, mode="economic", pivoting=True)
    u, r, order = found
    null = scipy.linalg.null_space(a, rcond=1e-9)
    v, kept = np.zeros((n, n), a.dtype), np.arange(n) < rank
    v[order[:rank], :rank] = 4 * np.linalg.inv(r[:rank, :rank])
    v -= null @ (null.conj().T @ v)
    v[:, rank:] = null
    turn = np.roll(np.arange(n), 1)
    u, s, v = u if fills_up else u * kept, 4.0 * kept, v
    is_inverse = np.zeros((), bool)
    factors = (u[:, turn], s[turn], v[:, turn], kept[turn], is_inverse)
    return Factors(*map(jnp.asarray, factors))


@jax.jit
def of_oblique(factors, directions, b, c):
    """The derivative, its products with vectors, and a gradient along a direction."""
    evaluate = partial(
        form.evaluate,
        factors,
        derivative=partial(derivative, apply_u=product_with_u, apply_gram=times_gram),
        truncates=False,
        may_branch=False,
    )
    *others, last = directions
    gradient = evaluate([None, *others, Outer(b, c)])
    return (
        evaluate([None, *directions]),
        evaluate([Outer(b, None), *directions]),
        evaluate([Outer(None, c), *directions]),
        jnp.sum(gradient.mT * last).real,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "kind", "dtype"),
    [
        (2, "zeros", np.complex128),
        (2, "square", np.float64),
        (3, "tall", np.complex128),
    ],
    ids=lambda x: {np.float64: "real", np.complex128: "complex"}.get(x, x),
)
def test_a_basis_of_the_corange_need_not_be_orthonormal(rng, order, kind, dtype):
    m, n = (4, 4) if kind == "square" else (6, 4)
    a = matrix(rng, (m, n), [3, 2, 0, 0], dtype)
    directions = [gaussian(rng, (m, n), dtype) for _ in range(order)]
    b, c = gaussian(rng, (m, 1), dtype), gaussian(rng, (n, 1), dtype)
    exact = exact_derivative(a, directions, 0.1)
    factors = oblique(a, 2, fills_up=kind != "zeros")
    expected = (exact, exact @ b, exact.T @ c, (c.T @ exact @ b)[0, 0].real)
    for x, y in zip(of_oblique(factors, directions, b, c), expected, strict=True):
        assert relative_error(x, y) <= TOLERANCE
