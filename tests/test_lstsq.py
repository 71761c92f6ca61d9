"""`lstsq`: properties that `pinv` does not have."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.lstsq_cases import SHAPES
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_derivative


def solution(a, b, **kwargs):
    """The solution, the first field of `lstsq`."""
    return jaxpinv.lstsq(a, b, **kwargs).solution


compiled = jax.jit(jaxpinv.lstsq)


@jax.jit
def derivatives_of_solution(a, e, b, ct, rtol):
    """Two derivatives along `e`, and the gradient and its derivative, paired with `e`."""

    def f(a):
        return solution(a, b, rtol=rtol)

    def forward(a):
        return jax.jvp(f, (a,), (e,))[1]

    def gradient(a):
        return jax.vjp(f, a)[1](ct)[0]

    # If all arguments have one scale, a gradient has none, and so the direction must not.
    unit = e / jnp.max(jnp.abs(e))
    paired = [jnp.sum(x * unit) for x in jax.jvp(gradient, (a,), (e,))]
    return *jax.jvp(forward, (a,), (e,)), *paired


@jax.jit
def second_derivatives(a, e, rtol):
    """Second derivatives of the solution, times the scale, and of a projection."""
    (m, n), size = a.shape, jnp.max(jnp.abs(a))

    def f(a):
        projected = jaxpinv.null_projection(a, jnp.ones((n, 1), a.dtype), rtol)
        return solution(a, jnp.ones((m, 1), a.dtype), rtol=rtol) * size, projected

    return jax.jvp(lambda a: jax.jvp(f, (a,), (e,))[1], (a,), (e,))[1]


# A real and a complex dtype for each shape, one of each precision.
@pytest.mark.unoptimized
@pytest.mark.slow_unless("complex128")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (SHAPES["tall"], np.float32),
        (SHAPES["tall"], np.complex128),
        (SHAPES["wide"], np.float64),
        (SHAPES["wide"], np.complex64),
        (SHAPES["square"], np.float32),
        (SHAPES["square"], np.complex128),
    ],
    ids=lambda x: str(x) if isinstance(x, tuple) else x.__name__,
)
@pytest.mark.parametrize(
    "spectrum", [[3, 2, 1, 0.5], [3, 2, 1, 0]], ids=["full", "deficient"]
)
def test_every_field_agrees_with_numpy(rng, shape, spectrum, dtype):
    a, b = matrix(rng, shape, spectrum, dtype), gaussian(rng, (shape[0], 3), dtype)
    double = np.result_type(dtype, np.float64)
    exact = np.linalg.lstsq(a.astype(double), b.astype(double), rcond=1e-5)
    found = compiled(a, b, 1e-5)
    assert found._fields == ("solution", "residuals", "rank", "singular_values")
    tolerance = bound(dtype, 6)
    assert relative_error(found.solution, exact[0]) <= tolerance
    assert int(found.rank) == exact[2]
    assert relative_error(found.singular_values, exact[3]) <= tolerance
    residuals = np.sum(np.abs(b - a @ exact[0]) ** 2, axis=0)
    difference = np.abs(np.asarray(found.residuals) - residuals)
    assert np.max(difference) <= tolerance * np.sum(np.abs(b) ** 2)
    if exact[1].size:
        assert relative_error(found.residuals, exact[1]) <= bound(dtype, 60)
    real = np.zeros(0, dtype).real.dtype
    assert [x.dtype for x in found] == [dtype, real, np.int64, real]


@pytest.mark.unoptimized
@pytest.mark.slow
def test_precision_of_both_arguments_is_promoted(rng):
    a, b = gaussian(rng, (5, 4), np.float32), gaussian(rng, (5, 2), np.complex128)
    with jax.numpy_dtype_promotion("standard"):
        found = jaxpinv.lstsq(a, b)
        expected = np.linalg.lstsq(a.astype(np.complex128), b)[0]
        assert found.solution.dtype == np.complex128
        assert found.residuals.dtype == np.float64
        assert relative_error(found.solution, expected) <= bound(np.float64, 10)
        short = jaxpinv.lstsq(jnp.asarray(a, jnp.bfloat16), jnp.ones(5, jnp.bfloat16))
        assert {x.dtype.name for x in short} == {"bfloat16", "int64"}


def test_ill_conditioned_systems_are_solved_to_a_small_residual(rng):
    # The pseudo-inverse and its rounding errors are large. The solution is not large.
    errors = {"lstsq": [], "pinv": []}
    for _ in range(12):
        a = matrix(rng, (8, 8), np.logspace(0, -6, 8).tolist()).astype(np.float32)
        b = a @ gaussian(rng, (8,), np.float32)
        found = {"lstsq": solution(a, b, rtol=0.0), "pinv": jaxpinv.pinv(a, 0.0) @ b}
        for name, x in found.items():
            x = np.asarray(x, float)
            size = np.linalg.norm(a, 2) * np.linalg.norm(x)
            errors[name].append(np.linalg.norm(b - a.astype(float) @ x) / size)
    assert np.median(errors["lstsq"]) <= bound(np.float32, c=1)
    assert np.median(errors["pinv"]) > bound(np.float32, 1e2)


@pytest.mark.slow
@pytest.mark.parametrize("rtol", [0.01, 0.25], ids=["nothing_truncated", "more_truncated"])
class TestScales:
    """Scales whose square overflows or underflows in single precision.

    Both branches of one program are tried: nothing is truncated, or two values are.
    """

    SCALES = (1e-30, 1e-15, 1e15, 1e30)

    def check(self, f, arrays, rtol, exact):
        """Compares results at several scales of the arguments."""
        for scale in self.SCALES:
            scaled = [(x * scale).astype(np.float32) for x in arrays]
            for x, y in zip(f(*scaled, np.float32(rtol)), exact, strict=True):
                error = np.max(np.abs(np.asarray(x, float) - y))
                limit = bound(np.float32, 6**3) * max(np.max(np.abs(y)), 1)
                assert error <= limit, scale

    def test_matrix_and_right_hand_side_scaled_alike(self, rng, rtol):
        shape = (4, 6)
        a, e = matrix(rng, shape, [3, 2, 1, 0.5]), gaussian(rng, shape)
        b, ct = gaussian(rng, (shape[0], 2)), gaussian(rng, (shape[1], 2))
        first, second = (exact_derivative(a, [e] * k, 3 * rtol) @ b for k in (1, 2))
        paired = [np.sum(ct * x) / np.max(np.abs(e)) for x in (first, second)]
        exact = first, second, *paired
        self.check(derivatives_of_solution, (a, e, b, ct), rtol, exact)

    def test_matrix_alone_scaled(self, rng, rtol):
        shape = (6, 4)
        a, e = matrix(rng, shape, [3, 2, 1, 0.5]), gaussian(rng, shape)
        x = [exact_derivative(a, [e] * k, 3 * rtol) for k in range(3)]
        b, c = np.ones((shape[0], 1)), np.ones((shape[1], 1))
        size = np.max(np.abs(a))
        # By the product rule, from I - pinv(A) A.
        exact = x[2] @ b * size, -(x[2] @ a + 2 * x[1] @ e) @ c
        self.check(second_derivatives, (a, e), rtol, exact)


@pytest.mark.unoptimized
@pytest.mark.slow
class TestCost:
    """Counts of the compiled program."""

    M, N = 96, 64

    def flops(self, f, *args):
        """Floating-point operations, without those of library calls."""
        analysis = jax.jit(f).lower(*args).compile().cost_analysis()
        assert analysis is not None
        return analysis["flops"]

    @pytest.mark.parametrize(
        ("shape", "kwargs"),
        [((M, N), {}), ((N, M), {"rtol": 0.0})],
        ids=["tall-default", "wide-rtol"],
    )
    def test_derivatives_are_products_with_vectors(self, rng, shape, kwargs):
        a, b = gaussian(rng, shape), gaussian(rng, shape[:1])
        ct = gaussian(rng, shape[1:])

        def all_of_it(a, e, ct):
            # By singular values, because the flops of their decomposition are not counted.
            def f(a):
                return solution(a, b, method="svd", **kwargs)

            return jax.jvp(f, (a,), (e,)), jax.vjp(f, a)[1](ct)

        one_product = self.M * self.N**2
        # If a tolerance is given, a branch that is not taken is counted, too.
        most = {False: 100 * self.M * self.N, True: 24 * one_product}[bool(kwargs)]
        assert self.flops(all_of_it, a, a, ct) <= most

    def test_nothing_n_by_m_is_formed_for_a_value(self, rng):
        a, b = gaussian(rng, (self.M, self.N)), gaussian(rng, (self.M,))
        # By singular values, because the flops of their decomposition are not counted.
        flops = self.flops(partial(solution, method="svd"), a, b)
        assert flops <= 20 * self.M * self.N
        through_pinv = self.flops(lambda a, b: jaxpinv.pinv(a, method="svd") @ b, a, b)
        assert through_pinv > flops + self.M * self.N**2


@pytest.mark.unoptimized
@pytest.mark.slow
def test_a_column_that_is_not_finite_stays_alone(rng):
    a, b = gaussian(rng, (2, 5, 4)), gaussian(rng, (2, 5, 3))
    spoiled = b.copy()
    spoiled[1, 2, 0] = np.inf
    good, bad = solution(a, b), solution(a, spoiled)
    assert not np.any(np.isfinite(bad[1, :, 0]))
    assert np.array_equal(bad[0], good[0])
    assert np.array_equal(bad[1, :, 1:], good[1, :, 1:])


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "shape"),
    [
        ("auto", (128, 8, 9)),
        ("auto", (300, 4, 3)),
        ("direct", (128, 9, 8)),
        ("direct", (60, 20, 30)),
        ("svd", (128, 8, 9)),
    ],
    ids=str,
)
def test_singular_values_are_those_of_numpy_however_matrices_are_factored(
    rng, shape, method
):
    # Shapes on both sides of the plan's limits, tall and wide.
    a = gaussian(rng, shape)
    found = jaxpinv.lstsq(a, a[..., :1], method=method).singular_values
    s = np.linalg.svd(a, compute_uv=False)
    assert relative_error(found, s) <= bound(np.float64, 10)
