"""The value: Penrose's equations, 50 digits, spectra, dtypes, shapes and scales."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.conftest import WAYS
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.mpmath_oracle import exact_derivative

SHAPES = {"tall": (7, 4), "wide": (4, 7), "square": (5, 5), "batched": (3, 6, 4)}
SPECTRA = {
    "well_conditioned": [5, 4, 3, 2, 1],
    "ill_conditioned": [1, 1e-1, 1e-2, 1e-3, 1e-4],
    "deficient": [3, 2, 1, 0, 0],
    "repeated": [2, 2, 2, 2, 2],
    "repeated_and_deficient": [2, 2, 0, 0, 0],
    "zero": [0, 0, 0, 0, 0],
}
CUT = 1e-5


def condition(spectrum, k):
    """Ratio of the largest to the smallest kept one of the first k singular values."""
    kept = [s for s in spectrum[:k] if s > CUT]
    return max(kept) / min(kept) if kept else 1.0


# Pairs of a way, a shape and a dtype.
PROGRAMS = [
    ("pinv", "tall", np.float64),
    ("pinv", "tall", np.complex64),
    ("pinv", "wide", np.float32),
    ("pinv", "square", np.complex128),
    ("pinv", "batched", np.float32),
    ("lstsq", "tall", np.complex128),
    ("lstsq", "wide", np.complex64),
    ("lstsq", "square", np.float64),
    ("lstsq", "batched", np.float32),
]


@pytest.mark.slow_unless("pinv-tall-complex64|pinv-wide")
@pytest.mark.parametrize(
    ("way", "shape", "dtype"), PROGRAMS, ids=lambda x: getattr(x, "__name__", x)
)
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
class TestAgainstIndependentOracles:
    """Every spectrum, for a few programs."""

    def test_satisfies_the_four_penrose_equations(self, rng, way, shape, spectrum, dtype):
        a = matrix(rng, SHAPES[shape], spectrum, dtype)
        x = np.asarray(WAYS[way](a, rtol=CUT))
        a, x = (z.astype(np.result_type(z, np.float64)) for z in (a, x))
        tolerance = bound(dtype, condition(spectrum, min(SHAPES[shape][-2:])))
        ax, xa = a @ x, x @ a
        assert relative_error(ax @ a, a) <= tolerance
        assert relative_error(xa @ x, x) <= tolerance
        assert np.max(np.abs(ax - ax.conj().swapaxes(-1, -2))) <= tolerance
        assert np.max(np.abs(xa - xa.conj().swapaxes(-1, -2))) <= tolerance

    def test_agrees_with_the_sum_over_triplets_in_50_digits(
        self, rng, way, shape, spectrum, dtype
    ):
        a = matrix(rng, SHAPES[shape], spectrum, dtype)
        tolerance = bound(dtype, condition(spectrum, min(SHAPES[shape][-2:])))
        x = WAYS[way](a, rtol=CUT)
        assert x.dtype == dtype
        assert relative_error(x, exact_derivative(a, [], CUT)) <= tolerance


@pytest.mark.slow_unless("pinv-complex")
@pytest.mark.parametrize(
    ("way", "dtype"),
    [
        ("pinv", np.complex64),
        ("pinv", np.float64),
        ("lstsq", np.float32),
        ("lstsq", np.complex128),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
@pytest.mark.parametrize(
    "eigenvalues",
    [[3, -2, 1, 0.5], [3, -2, 0, 0], [2, -2, 2, -2], [0, 0, 0, 0], [-3, -2, -1, -0.5]],
    ids=["indefinite", "deficient", "repeated", "zero", "negative"],
)
def test_hermitian_agrees_with_the_general_function(way, rng, eigenvalues, dtype):
    a = hermitian_matrix(rng, eigenvalues, dtype)
    x = WAYS[way](a, rtol=CUT, hermitian=True)
    assert relative_error(x, exact_derivative(a, [], CUT)) <= bound(dtype, 6)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("pinv-complex128")
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_hermitian_reads_only_the_lower_triangle(pinv, rng, dtype):
    a = hermitian_matrix(rng, [3, -2, 1, 0.5], dtype)
    spoiled = np.where(np.tri(4, dtype=bool), a, np.nan)
    if dtype == np.complex128:
        np.fill_diagonal(spoiled, [complex(x.real, np.nan) for x in np.diag(a)])
    x = pinv(spoiled, hermitian=True)
    assert relative_error(x, np.linalg.inv(a)) <= bound(dtype, 6)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize(
    "shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3), (0, 3, 2), (0, 2, 3), (0, 0, 0)]
)
def test_empty_shapes_give_zeros_of_the_right_shape(pinv, shape):
    x, rank = pinv(np.zeros(shape), return_rank=True)
    assert x.shape == (*shape[:-2], shape[-1], shape[-2])
    assert rank.shape == shape[:-2]
    assert not np.any(rank)


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "shape"),
    [
        ("pinv", (0, 3)),
        ("pinv", (2, 0, 3)),
        ("pinv", (0, 0, 0)),
        ("lstsq", (3, 0)),
        ("lstsq", (0, 3, 2)),
        ("lstsq", (0, 0)),
    ],
)
def test_empty_shapes_have_derivatives_of_the_right_shape(way, shape):
    def total(a):
        return jnp.sum(WAYS[way](a))

    gradient, hessian = jax.jit(lambda a: (jax.grad(total)(a), jax.hessian(total)(a)))(
        np.zeros(shape)
    )
    assert gradient.shape == shape
    assert hessian.shape == shape + shape


@pytest.mark.unoptimized
def test_empty_hermitian_matrices_are_served_too(pinv):
    assert pinv(jnp.zeros((2, 0, 0)), hermitian=True).shape == (2, 0, 0)


@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize(("way", "dtype"), [("pinv", jnp.bfloat16), ("lstsq", jnp.float16)])
def test_short_floats_are_computed_in_single_precision(way, rng, dtype):
    pinv = WAYS[way]
    a = jnp.asarray(gaussian(rng, (4, 3)), dtype)
    x = pinv(a)
    assert x.dtype == dtype
    assert np.array_equal(x, pinv(a.astype(jnp.float32)).astype(dtype))


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(("way", "dtype"), [("pinv", jnp.bfloat16), ("lstsq", jnp.float16)])
def test_gradient_of_short_floats_is_that_of_single_precision(way, rng, dtype):
    a = jnp.asarray(gaussian(rng, (4, 3)), dtype)

    def total(a):
        return jnp.sum(WAYS[way](a).astype(jnp.float32))

    derive = jax.jit(jax.grad(total))
    gradient = derive(a)
    assert gradient.dtype == dtype
    assert np.array_equal(gradient, derive(a.astype(jnp.float32)).astype(dtype))


@pytest.mark.unoptimized
@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize("a", [[[1, 2], [3, 4], [5, 7]], [[True, False], [True, True]]])
@pytest.mark.parametrize(
    "as_array", [np.asarray, jnp.asarray, list], ids=lambda f: f.__name__
)
def test_integers_and_bools_promote_to_the_default_float(pinv, a, as_array):
    x = pinv(as_array(a))
    assert x.dtype == jnp.float64
    assert relative_error(x, np.linalg.pinv(np.asarray(a, float))) <= bound(np.float64, 10)


SCALES = {
    np.float32: [1e-30, 1e-15, 1e15, 1e30],
    np.float64: [1e-290, 1e-150, 1e150, 1e290],
}
SCALES |= {np.complex64: SCALES[np.float32], np.complex128: SCALES[np.float64]}


@partial(jax.jit, static_argnames="hermitian")
def value_and_jvp(a, e, hermitian):
    """The pseudo-inverse without values below a fifth of the norm, and its derivative."""
    return jax.jvp(partial(jaxpinv.pinv, rtol=0.2, hermitian=hermitian), (a,), (e,))


@pytest.mark.slow_unless("True-complex64")
@pytest.mark.parametrize("extreme", range(4))
@pytest.mark.parametrize(
    ("shape", "hermitian", "dtype"),
    [
        ((6, 4), False, np.float32),
        ((4, 6), False, np.complex128),
        ((4, 4), True, np.float64),
        ((4, 4), True, np.complex64),
    ],
    ids=lambda x: str(x) if isinstance(x, tuple | bool) else x.__name__,
)
def test_scaled_input_gives_the_scaled_value_and_jvp(rng, dtype, extreme, shape, hermitian):
    scale = SCALES[dtype][extreme]
    double = np.result_type(dtype, np.float64)
    a = matrix(rng, shape, [3, 2, 1, 0.5], double)
    a = a @ a.conj().T if hermitian else a
    e = gaussian(rng, shape, double)
    x, dx = value_and_jvp(a, e, hermitian)
    # The tangent is scaled like the matrix, so the JVP has the size of the value.
    scaled = [(z * scale).astype(dtype) for z in (a, e)]
    scaled_x, scaled_dx = value_and_jvp(*scaled, hermitian)
    tolerance = bound(dtype, 36)
    assert relative_error(np.asarray(scaled_x, double) * scale, x) <= tolerance
    assert relative_error(np.asarray(scaled_dx, double) * scale, dx) <= tolerance


@partial(jax.jit, static_argnums=0)
def derivative(pinv, a, e):
    """The derivative along `e`."""
    return jax.jvp(pinv, (a,), (e,))[1]


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-25, 1e-30, 1e30])
def test_tangent_of_another_scale_than_the_matrix_keeps_its_jvp(pinv, rng, scale):
    a, e = matrix(rng, (6, 4), [3, 2, 1, 0.5]), gaussian(rng, (6, 4))
    dx = exact_derivative(a, [e], CUT)
    scaled = derivative(pinv, a.astype(np.float32), (e * scale).astype(np.float32))
    assert relative_error(np.asarray(scaled, float) / scale, dx) <= bound(np.float32, 36)


@partial(jax.jit, static_argnums=0)
def hessian_of_sum(pinv, a, e):
    """A Hessian times a direction, of a number that depends on every element."""

    def total(a):
        return jnp.sum(jnp.sin(pinv(a, rtol=np.float64(0.25))))

    return jax.jvp(jax.grad(total), (a,), (e,))[1]


@pytest.mark.unoptimized
class TestSinglePrecisionMode:
    """JAX with its default settings: without double precision."""

    @pytest.fixture(autouse=True)
    def single(self):
        with jax.enable_x64(False):
            yield

    @pytest.mark.slow_unless("pinv")
    def test_double_precision_input_becomes_single(self, pinv, rng):
        a = matrix(rng, (5, 4), [3, 2, 1, 0.5])
        x = pinv(a)
        assert x.dtype == np.float32
        assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float32, 6)

    @pytest.mark.slow_unless("pinv")
    def test_integers_become_single(self, pinv):
        assert pinv(np.eye(2, dtype=int)).dtype == np.float32

    @pytest.mark.slow_unless("pinv")
    def test_double_precision_tolerances_become_single(self, pinv, rng):
        a = matrix(rng, (3, 5, 4), [3, 2, 1, 0.5])
        x, rank = pinv(a, np.array([0.01, 0.2, 0.5]), return_rank=True)
        assert x.dtype == np.float32
        assert rank.tolist() == [4, 3, 2]

    @pytest.mark.slow
    def test_hessian_agrees_with_that_in_double_precision(self, pinv, rng):
        a, e = matrix(rng, (5, 4), [3, 2, 1, 0.5]), gaussian(rng, (5, 4))
        hessian = hessian_of_sum(pinv, a.astype(np.float32), e.astype(np.float32))
        with jax.enable_x64(True):
            # The same reference for both ways: one program.
            exact = hessian_of_sum(jaxpinv.pinv, a, e)
        assert hessian.dtype == np.float32
        assert relative_error(hessian, exact) <= bound(np.float32, 6**2)


@pytest.mark.unoptimized
@pytest.mark.parametrize("shape", [(0, 30, 30), (0, 100, 100), (2, 0, 40, 30)], ids=str)
def test_no_matrices_at_all_have_as_many_inverses_and_gradients(shape):
    for method in ("direct", "svd"):
        pinv = partial(jaxpinv.pinv, method=method)
        x, pullback = jax.jit(partial(jax.vjp, pinv))(np.zeros(shape))
        [g] = jax.jit(pullback)(x)
        assert (x.shape, g.shape) == ((*shape[:-2], shape[-1], shape[-2]), shape)
