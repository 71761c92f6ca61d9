"""One matrix of rows on several devices: equal to the whole, and none ever holds it."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from jaxpinv import sharded
from jaxpinv._factorization import tsqr
from jaxpinv._row_sharded import shorten, triplets
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_derivative
from tests.sharded.meshes import BY_ROWS, mesh_of, put

pytestmark = pytest.mark.unoptimized

M, N = 720, 4
BY_COLUMNS = PartitionSpec(None, "rows")
SPECTRA = {
    "full": ([3, 2, 1, 0.5], 0.0),
    "deficient": ([3, 2, 0, 0], 1e-9),
    "truncated": ([3, 2, 0.3, 0.2], 0.2),
    "repeated": ([2, 2, 0.3, 0.3], 0.2),
    "zero": ([0, 0, 0, 0], 0.0),
}


def derivatives_of_pinv(pinv, a, e, ct, rtol):
    """Value, rank, gradient, and the derivative of the gradient along `e`."""

    def gradient(a):
        x, pullback, rank = jax.vjp(
            lambda a: pinv(a, rtol, return_rank=True), a, has_aux=True
        )
        return pullback(ct)[0], (x, rank)

    gradient, hvp, (x, rank) = jax.jvp(gradient, (a,), (e,), has_aux=True)
    return x, rank, gradient, hvp


def derivatives_of_lstsq(lstsq, a, b, e, rtol):
    """All fields, gradients in both arguments, and their derivative along `e` of `a`.

    The last one only where nothing is truncated, or the tests would compile for too long.
    """

    def total(a, b):
        found = lstsq(a, b, rtol)
        fields = found.solution, found.residuals, found.singular_values
        return sum(jnp.sum(jnp.sin(x)) for x in fields), found

    derive = jax.grad(total, (0, 1), has_aux=True)
    if rtol is not None:
        gradient, found = derive(a, b)
        return *found, *gradient
    gradient, hvp, found = jax.jvp(lambda a: derive(a, b), (a,), (e,), has_aux=True)
    return *found, *gradient, *hvp


def pinv_by_rows(a, rtol=None, **kwargs):
    """The function under test on eight devices."""
    return sharded.pinv(a, rtol, mesh=mesh_of(8), axis="rows", **kwargs)


def lstsq_by_rows(a, b, rtol=None):
    """The function under test on eight devices."""
    return sharded.lstsq(a, b, rtol, mesh=mesh_of(8), axis="rows")


def whole(f):
    """A function of the package as it is for a matrix on one device."""
    return functools.partial(f, method="svd")


# Compiled once for all tests that want them.
PINV = jax.jit(functools.partial(derivatives_of_pinv, pinv_by_rows))
LSTSQ = jax.jit(functools.partial(derivatives_of_lstsq, lstsq_by_rows))
WHOLE_PINV = jax.jit(functools.partial(derivatives_of_pinv, whole(jaxpinv.pinv)))
WHOLE_LSTSQ = jax.jit(functools.partial(derivatives_of_lstsq, whole(jaxpinv.lstsq)))


@functools.cache
def program(f, dtype, k, has_rtol):
    """Either of the functions of rows, compiled."""
    a, e, ct = put_arguments(*(np.zeros(s, dtype) for s in [(M, N), (M, N), (N, M)]))
    b = put(np.zeros((M, k)[:k], dtype))
    rtol = 0.0 if has_rtol else None
    args = (a, e, ct, rtol) if f is PINV else (a, b, e, rtol)
    return f.lower(*args).compile()


def arguments_of_pinv(rng, a):
    """Directions and cotangents for a matrix."""
    a = np.asarray(a)
    return a, gaussian(rng, a.shape, a.dtype), gaussian(rng, a.shape[::-1], a.dtype)


def put_arguments(a, e, ct):
    """They, by rows and by columns."""
    return put(a), put(e), put(ct, BY_COLUMNS)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("case", SPECTRA)
def test_pinv_and_its_derivatives_are_those_of_the_whole_matrix(rng, dtype, case):
    spectrum, rtol = SPECTRA[case]
    args = arguments_of_pinv(rng, matrix(rng, (M, N), spectrum, dtype))
    by_rows = program(PINV, dtype, 1, True)
    found = by_rows(*put_arguments(*args), rtol)
    for x, y in zip(found, WHOLE_PINV(*args, rtol), strict=True):
        assert relative_error(x, y) <= bound(dtype, 1e3)
    for y, spec in (found[0], BY_COLUMNS), (found[2], BY_ROWS), (found[3], BY_ROWS):
        assert y.sharding.is_equivalent_to(NamedSharding(mesh_of(8), spec), 2)


@pytest.mark.slow_unless("truncated")
@pytest.mark.parametrize(
    ("k", "rtol"),
    [(1, None), (2, 0.25)],
    ids=["vector and default", "matrix and truncated"],
)
def test_lstsq_and_its_derivatives_are_those_of_the_whole_matrix(rng, k, rtol):
    a = matrix(rng, (M, N), [3, 2, 0.6, 0.4])
    b = gaussian(rng, (M, k)[:k])
    e = gaussian(rng, a.shape)
    by_rows = program(LSTSQ, np.float64, k, rtol is not None)
    found = by_rows(put(a), put(b), put(e), rtol)
    reference = WHOLE_LSTSQ(a, b, e, rtol)
    assert int(found[2]) == (4 if rtol is None else 2)
    for x, y in zip(found, reference, strict=True):
        assert relative_error(x, y) <= bound(np.float64, 1e3)


def test_the_default_cutoff_counts_the_rows_of_all_devices(rng):
    eps = np.finfo(np.float64).eps
    # Between the cutoff of nine rows and that of all.
    a = matrix(rng, (M, N), [1, 1, 1, M * eps / 2])
    assert int(pinv_by_rows(put(a), return_rank=True)[1]) == 3
    a = matrix(rng, (M, N), [1, 1, 1, M * eps * 4])
    assert int(pinv_by_rows(put(a), return_rank=True)[1]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 6])
def test_any_number_of_devices_may_have_fewer_rows_than_columns(rng, count):
    m, n = -(-5 // count) * count, 5
    a = matrix(rng, (m, n), [3, 2, 1, 0, 0])
    directions = gaussian(rng, (2, m, n))
    e, f = directions
    mesh = mesh_of(count)

    @jax.jit
    def derivatives(a, e, f):
        def pinv(a):
            return sharded.pinv(a, 0.1, mesh=mesh)

        def first(a):
            return jax.jvp(pinv, (a,), (e,))

        (x, dx), (_, d2x) = jax.jvp(first, (a,), (f,))
        return x, dx, d2x

    found = derivatives(*(put(x, BY_ROWS, mesh) for x in (a, e, f)))
    for order, x in enumerate(found):
        reference = exact_derivative(a, directions[:order], 0.1)
        assert relative_error(x, reference) <= bound(np.float64, 1e2)


@pytest.mark.slow
@pytest.mark.parametrize("element", [np.inf, np.nan], ids=str)
def test_one_element_that_is_not_finite_makes_the_result_nan_on_all_devices(rng, element):
    a, e, ct = arguments_of_pinv(rng, gaussian(rng, (M, N)))
    a[M // 2, 1] = element
    x, rank, gradient, hvp = program(PINV, np.float64, 1, True)(
        *put_arguments(a, e, ct), 0.0
    )
    assert int(rank) == 0
    assert all(np.all(np.isnan(y)) for y in (x, gradient, hvp))
    by_rows = program(LSTSQ, np.float64, 1, False)
    found = by_rows(put(a), put(gaussian(rng, (M,))), put(e), None)
    solution, residuals, rank, values, *_ = found
    assert int(rank) == 0
    assert all(np.all(np.isnan(y)) for y in (solution, residuals, values))
    # LAPACK, which may loop forever on an Inf, was given zeros on all devices.
    u, s, _ = tsqr.decompose(put(a), mesh_of(8), "rows", shorten, triplets)
    assert np.all(np.isfinite(u))
    assert np.all(np.isnan(s))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30], ids=str)
def test_a_matrix_of_any_size_loses_no_digit_in_single_precision(rng, scale):
    a = matrix(rng, (M, N), [3, 2, 1, 0.5])
    x, rank = pinv_by_rows(put((a * scale).astype(np.float32)), return_rank=True)
    assert x.dtype == np.float32
    assert int(rank) == 4
    reference = np.linalg.pinv(a) / scale
    assert relative_error(x, reference) <= bound(np.float32, 6)


def test_equal_terms_in_many_rows_lose_no_digit():
    # A running sum over the rows of one device would be off by 40 eps.
    rows = np.arange(160_000)[:, None] >> np.arange(2)
    a = np.where(rows & 1, np.float32(0.1), np.float32(-0.1))
    a[:, 0] = 0.1
    exact = np.linalg.pinv(a.astype(float))
    error = np.linalg.norm(np.asarray(pinv_by_rows(put(a)), float) - exact, 2)
    assert error <= 8 * np.finfo(np.float32).eps * np.linalg.norm(exact, 2)


@pytest.mark.slow_unless("Auto")
@pytest.mark.parametrize(
    ("axis", "kind"), [("x", AxisType.Explicit), (("x", "y"), AxisType.Auto)], ids=str
)
def test_axes_of_a_mesh_of_two_are_found_in_the_sharding(rng, axis, kind):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=(kind,) * 2)
    a = gaussian(rng, (16, 3))
    x = sharded.pinv(put(a, PartitionSpec(axis), mesh))
    assert x.sharding.shard_shape(x.shape) == (3, 16 // (2 if axis == "x" else 8))
    assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, 10)


@pytest.mark.slow
def test_a_mesh_with_explicit_sharding_needs_no_axis_in_a_gradient(rng):
    mesh = mesh_of(8, AxisType.Explicit)
    args = arguments_of_pinv(rng, gaussian(rng, (M, N)))
    specs = BY_ROWS, BY_ROWS, BY_COLUMNS
    placed = [put(x, spec, mesh) for x, spec in zip(args, specs, strict=True)]
    f = jax.jit(functools.partial(derivatives_of_pinv, sharded.pinv))
    found = f(*placed, 0.0)
    assert jax.typeof(found[0]).sharding.spec == BY_COLUMNS
    assert jax.typeof(found[2]).sharding.spec[0] == "rows"
    for x, y in zip(found, WHOLE_PINV(*args, 0.0), strict=True):
        assert relative_error(x, y) <= bound(np.float64, 1e3)


@pytest.mark.slow_unless("Auto")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_an_array_that_is_not_on_the_mesh_is_put_there(rng, kind):
    a = gaussian(rng, (16, 3))
    x = sharded.pinv(jnp.asarray(a), mesh=mesh_of(8, kind))
    assert x.sharding.shard_shape(x.shape) == (3, 2)
    assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, 10)


def test_the_context_has_the_mesh_and_its_only_axis(rng):
    a = gaussian(rng, (M, N))
    with jax.set_mesh(mesh_of(8)):
        x = jax.jit(sharded.pinv)(put(a))
    assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, 10)


COLLECTIVE = re.compile(
    r" = (.*?) (all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter)(?:-start)?\("
)


def sizes(text):
    """Numbers of elements of all arrays in a text."""
    shapes = re.findall(r"[a-z]\d+\[([\d,]*)\]", text)
    return [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize("f", [PINV, LSTSQ], ids=["pinv", "lstsq"])
def test_devices_send_small_matrices_and_hold_no_more_than_their_rows(f):
    text = program(f, np.float64, 1, f is PINV).as_text()
    found = [(kind, max(sizes(result))) for result, kind in COLLECTIVE.findall(text)]
    kinds = [kind for kind, _ in found]
    # Up the tree and down.
    assert kinds.count("collective-permute") == 6
    assert set(kinds) == {"collective-permute", "all-reduce"}
    assert max(size for _, size in found) == N * N < M // 8
    assert max(sizes(text)) == M // 8 * N
