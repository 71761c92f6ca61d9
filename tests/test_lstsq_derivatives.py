"""Derivatives of solutions in both arguments, and shapes of all fields."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, pair, relative_error
from tests.lstsq_cases import TOLERANCE, cases_of, cutoff
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_derivative
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized


def solution(a, b, **kwargs):
    """The solution, the first field of `lstsq`."""
    return jaxpinv.lstsq(a, b, **kwargs).solution


@jax.jit
def forward(a, b, directions, db, **kwargs):
    """First and second derivative of the solution along directions, each with `db`."""
    f = partial(solution, **kwargs)
    e1, e2 = directions

    def first(a, b):
        return jax.jvp(f, (a, b), (e1, db))[1]

    return jax.jvp(first, (a, b), (e2, db))


@jax.jit
def backward(a, b, ct, directions, db, **kwargs):
    """The gradient of `<ct, x>` and its derivative, paired with directions and `db`."""

    def paired(a, b):
        return jnp.sum(jnp.real(ct * solution(a, b, **kwargs)))

    e1, e2 = directions
    gradient = jax.grad(paired, (0, 1))
    both = [gradient(a, b), jax.jvp(gradient, (a, b), (e2, db))[1]]
    return [jnp.sum(jnp.real(x * e1)) + jnp.sum(jnp.real(y * db)) for x, y in both]


def mixed_derivative(a, b, directions, db, cut):
    """The mixed derivative by the oracle; `b` enters linearly, so at most once."""
    result = exact_derivative(a, directions, cut) @ b
    for i in range(len(directions)):
        others = directions[:i] + directions[i + 1 :]
        result = result + exact_derivative(a, others, cut) @ db
    return result


class TestDerivativesInBothArguments:
    """Matrices of few columns, against differences in 50 digits."""

    @pytest.mark.slow
    @cases_of(tall="default", wide="tolerance", square="tolerance")
    def test_forward_derivatives_are_exact(self, rng, shape, spectrum, kwargs, dtype):
        a, b, db = self.arrays(rng, shape, spectrum, dtype)
        directions = [gaussian(rng, shape, dtype) for _ in range(2)]
        results = forward(a, b, directions, db, **kwargs)
        for order, result in enumerate(results, start=1):
            exact = mixed_derivative(a, b, directions[:order], db, cutoff(kwargs))
            assert relative_error(result, exact) <= TOLERANCE

    @pytest.mark.slow_unless("wide-full")
    @cases_of(tall="tolerance", wide="default, tolerance", square="default")
    def test_gradient_and_its_derivative_are_exact(
        self, rng, shape, spectrum, kwargs, dtype
    ):
        a, b, db = self.arrays(rng, shape, spectrum, dtype)
        directions = [gaussian(rng, shape, dtype) for _ in range(2)]
        ct = gaussian(rng, (shape[1], 2), dtype)
        results = backward(a, b, ct, directions, db, **kwargs)
        for order, result in enumerate(results, start=1):
            exact = mixed_derivative(a, b, directions[:order], db, cutoff(kwargs))
            size = np.linalg.norm(ct) * max(np.linalg.norm(exact), 1)
            assert abs(result - pair(ct, exact)) <= TOLERANCE * size

    def arrays(self, rng, shape, spectrum, dtype):
        """Matrix, right-hand sides, and a direction of these."""
        b, db = gaussian(rng, (shape[0], 2), dtype), gaussian(rng, (shape[0], 2), dtype)
        return matrix(rng, shape, spectrum, dtype), b, db


@jax.jit
def third(a, b, ct, e1, e2, e3, atol):
    """The third derivative of `<ct, x>`, by reverse mode three times."""
    f = partial(solution, b=b, atol=atol)
    for cotangent in (ct, e1, e2):
        f = partial(lambda f, ct, a: jax.vjp(f, a)[1](ct)[0], f, cotangent)
    return jnp.sum(f(a) * e3)


# Both branches of one program: derivatives are products with vectors, or of the matrix.
@pytest.mark.slow
@pytest.mark.parametrize("atol", [0.1, 0.25], ids=["nothing_truncated", "more_truncated"])
def test_reverse_over_reverse_over_reverse_is_exact(rng, atol):
    a, b = matrix(rng, (3, 4), [3, 2, 0.2]), gaussian(rng, (3, 1))
    directions = [gaussian(rng, a.shape) for _ in range(3)]
    ct = gaussian(rng, (4, 1))
    exact = exact_derivative(a, directions, atol) @ b
    # The smallest kept value, 0.2, enters with the fourth power of its reciprocal.
    tolerance = bound(np.float64, 15**3) * np.linalg.norm(ct) * np.linalg.norm(exact)
    found = third(a, b, ct, *directions, atol)
    assert abs(found - pair(ct, exact)) <= tolerance


@pytest.mark.slow_unless(r"^\(7, 1")
@pytest.mark.parametrize(
    ("a", "b", "tolerance", "x", "residuals", "rank"),
    [
        ((2, 5, 4), (5,), (), (2, 4), (2,), (2,)),
        ((7, 1, 5, 4), (2, 5, 3), (), (7, 2, 4, 3), (7, 2, 3), (7, 1)),
        ((5, 4), (2, 5, 3), (7, 1), (7, 2, 4, 3), (7, 2, 3), (7, 1)),
        ((5, 4), (5,), (3,), (3, 4), (3,), (3,)),
        ((0, 4), (0, 3), (), (4, 3), (3,), ()),
        ((5, 0), (5, 3), (), (0, 3), (3,), ()),
        ((5, 4), (5, 0), (), (4, 0), (0,), ()),
        ((0, 5, 4), (5, 2), (), (0, 4, 2), (0, 2), (0,)),
    ],
    ids=str,
)
def test_batches_broadcast_and_a_vector_has_one_axis(
    rng, a, b, tolerance, x, residuals, rank
):
    a, b = gaussian(rng, a), gaussian(rng, b)
    atol = np.full(tolerance, 1e-3) if tolerance else None

    @jax.jit
    def fields_and_gradient(a, b):
        def total(a, b):
            found = jaxpinv.lstsq(a, b, atol=atol)
            return jnp.sum(found.solution), found

        return jax.grad(total, (0, 1), has_aux=True)(a, b)

    gradient, found = fields_and_gradient(a, b)
    assert [g.shape for g in gradient] == [a.shape, b.shape]
    k = min(a.shape[-2:])
    assert [y.shape for y in found] == [x, residuals, rank, (*rank, k)]
    columns = b[:, None] if b.ndim == 1 else b
    expected = np.matmul(np.linalg.pinv(a), columns)
    expected = expected[..., 0] if b.ndim == 1 else expected
    assert relative_error(found.solution, np.broadcast_to(expected, x)) <= bound(
        np.float64, 1e3
    )


def test_one_matrix_for_many_right_hand_sides_is_factored_once(rng):
    f = jax.jit(jax.vmap(partial(solution, rtol=0.1), (None, 0)))
    text = f.lower(gaussian(rng, (5, 4)), gaussian(rng, (8, 5))).as_text()
    [line] = svd_calls(text)
    assert re.search(r": \(tensor<(1x)?5x4xf64>\) -> ", line)


@pytest.mark.slow
def test_mapped_over_either_argument_equals_a_loop(rng):
    a, b = gaussian(rng, (3, 5, 4)), gaussian(rng, (3, 5))

    @jax.jit
    def gradient(a, b):
        return jax.grad(lambda a, b: jnp.sum(jnp.sin(solution(a, b))), (0, 1))(a, b)

    for axes in [(0, None), (None, 0)]:
        args = [x if axis == 0 else x[0] for x, axis in zip((a, b), axes, strict=True)]
        mapped = jax.vmap(gradient, axes)(*args)
        rows = [
            [x[i] if axis == 0 else x for x, axis in zip(args, axes, strict=True)]
            for i in range(3)
        ]
        looped = [gradient(*row) for row in rows]
        for result, expected in zip(mapped, zip(*looped, strict=True), strict=True):
            assert relative_error(result, np.stack(expected)) <= bound(np.float64, 1e3)
