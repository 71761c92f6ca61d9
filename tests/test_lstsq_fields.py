"""`lstsq`: residuals and singular values, and their derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._platform.workarounds import SHARES_BATCHES
from tests.comparison import bound, relative_error
from tests.lstsq_cases import CASES, SHAPES, TOLERANCE
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized


def field(a, b, hermitian, **kwargs):
    """The residuals of `lstsq`."""
    return jaxpinv.lstsq(a, b, hermitian=hermitian, **kwargs).residuals


def formula(a, b, hermitian, **kwargs):
    """The residuals by their definition."""
    part = (a + a.T) / 2 if hermitian else a
    x = jaxpinv.pinv(a, hermitian=hermitian, **kwargs) @ b
    return jnp.sum((b - part @ x) ** 2, axis=0)


@partial(jax.jit, static_argnames=("f", "hermitian"))
def value_and_jacobian(f, a, b, hermitian, **kwargs):
    """The value of `f`, and its Jacobians in both arguments."""
    f = partial(f, hermitian=hermitian, **kwargs)
    return f(a, b), jax.jacobian(f, (0, 1))(a, b)


@pytest.mark.slow
class TestResiduals:
    """The residuals have the derivatives of squared norms."""

    # With a tolerance, the program has the branch for truncated zeros, too.
    @pytest.mark.parametrize(
        ("spectrum", "kwargs", "hermitian"),
        [
            pytest.param(spectrum, kwargs, hermitian, id=f"{name}-{hermitian}")
            for name, (spectrum, kwargs) in CASES.items()
            for hermitian in ((False, True) if kwargs else (False,))
        ],
    )
    def test_gradient_is_that_of_the_formula(self, rng, spectrum, kwargs, hermitian):
        a = hermitian_matrix(rng, spectrum) if hermitian else matrix(rng, (6, 4), spectrum)
        b = gaussian(rng, (len(a), 2))
        (value, jacobian), (expected_value, expected_jacobian) = (
            value_and_jacobian(f, a, b, hermitian, **kwargs) for f in (field, formula)
        )
        difference = np.max(np.abs(value - expected_value))
        assert difference <= bound(np.float64, 36) * np.sum(b**2)
        for result, expected in zip(jacobian, expected_jacobian, strict=True):
            assert np.max(np.abs(result - expected)) <= TOLERANCE


class TestSingularValues:
    """Singular values have the derivatives of those of `jnp.linalg.svd`."""

    # One dtype per shape: all pairs would compile twice as many programs.
    @pytest.mark.slow_unless("hermitian")
    @pytest.mark.parametrize(
        ("shape", "dtype", "hermitian"),
        [
            (SHAPES["tall"], np.float64, False),
            (SHAPES["wide"], np.complex128, False),
            (SHAPES["square"], np.complex128, True),
        ],
        ids=["tall-real", "wide-complex", "hermitian-complex"],
    )
    def test_derivatives_are_those_of_svd(self, rng, shape, dtype, hermitian):
        a = matrix(rng, shape, [3, 2, 1, 0.5], dtype)
        e = gaussian(rng, shape, dtype)
        if hermitian:
            a, e = a @ a.conj().T, e @ e.conj().T
        b = gaussian(rng, shape[:1], dtype)

        def ours(a):
            return jaxpinv.lstsq(a, b, 1.5, hermitian).singular_values

        def theirs(a):
            return jnp.linalg.svd(a, full_matrices=False, compute_uv=False)

        @partial(jax.jit, static_argnums=0)
        def derivatives(f, a):
            """Value and three derivatives along e."""

            def first(a):
                return jax.jvp(f, (a,), (e,))

            def second(a):
                return jax.jvp(first, (a,), (e,))

            ((s, ds), (_, d2s)), (_, (_, d3s)) = jax.jvp(second, (a,), (e,))
            return s, ds, d2s, d3s

        for x, y in zip(derivatives(ours, a), derivatives(theirs, a), strict=True):
            assert relative_error(x, y) <= bound(np.float64, 1e3)

    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(10, 64, 16), (10, 16, 64)], ids=str)
    @pytest.mark.skipif(not SHARES_BATCHES, reason="this jaxlib has no such threads")
    def test_batched_lapack_calls_stay_on_one_thread(self, rng, shape):
        # Two decompositions of whole batches at the same time can deadlock.
        a, b = gaussian(rng, shape), gaussian(rng, (*shape[:-1], 1))

        def values(a, b):
            return jaxpinv.lstsq(a, b).singular_values

        def gradient(a, b):
            return jax.grad(lambda a: jnp.sum(values(a, b)))(a)

        u, s, vh = np.linalg.svd(a, full_matrices=False)
        for f, expected in ((values, s), (gradient, u @ vh)):
            mapped = jax.jit(jax.vmap(f))
            assert relative_error(mapped(a, b), expected) <= bound(np.float64, 10)
            second = jax.jit(jax.vmap(lambda a, b, f=f: jax.jvp(f, (a, b), (a, b))[1]))
            programs = (mapped, second, jax.jit(f))
            text = "".join(program.lower(a, b).as_text() for program in programs)
            calls = svd_calls(text)
            assert calls
            assert not any(f"tensor<{shape[0]}x" in line for line in calls)

    @pytest.mark.slow
    def test_they_are_batched_as_the_tolerances_are(self, rng):
        a, b = gaussian(rng, (5, 4)), gaussian(rng, (5,))
        rtol = np.array([0.1, np.nan])

        def values(a):
            return jaxpinv.lstsq(a, b, rtol).singular_values

        s, ds = jax.jit(lambda a: jax.jvp(values, (a,), (a,)))(a)
        assert np.array_equal(np.isnan(s), [[False] * 4, [True] * 4])
        assert np.array_equal(np.isnan(ds), np.isnan(s))
        assert relative_error(ds[0], s[0]) <= bound(np.float64)

    @pytest.mark.slow
    @pytest.mark.parametrize("rtol", [None, np.array([0.1, np.nan])], ids=["inf", "nan"])
    def test_reverse_mode_gives_nan_where_they_are_nan(self, rng, rtol):
        a, b = gaussian(rng, (2, 5, 4)), gaussian(rng, (5, 1))
        if rtol is None:
            a[1, 0, 0] = np.inf
        derive = jax.grad(lambda a: jnp.sum(jaxpinv.lstsq(a, b, rtol).singular_values))
        gradient = jax.jit(derive)(a)
        assert np.all(np.isfinite(gradient[0]))
        assert np.all(np.isnan(gradient[1]))

    @pytest.mark.slow
    def test_an_inf_gives_nan_and_returns(self, rng):
        a = gaussian(rng, (2, 4, 4), np.float32)
        a[0, 0, 0] = np.inf
        b = np.ones((4, 1), np.float32)

        def values(a):
            return jaxpinv.lstsq(a, b).singular_values

        s, ds = jax.jit(lambda a: jax.jvp(values, (a,), (a,)))(a)
        assert np.array_equal(np.isnan(s), [[True] * 4, [False] * 4])
        assert np.array_equal(np.isnan(ds), np.isnan(s))
