"""Derivatives of damped results, of every order, in the matrix and in the damping."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests import damping_oracle
from tests.comparison import bound, pair, relative_error
from tests.differentiation import two_derivatives
from tests.matrices import gaussian, matrix, of_values

pytestmark = pytest.mark.unoptimized

SHAPES = {"tall": (6, 4), "square": (4, 4), "wide": (3, 5)}
DTYPES = {"real": np.float64, "complex": np.complex128}
SPECTRA = {"full": [2, 1, 0.5, 0.3], "deficient": [2, 1, 0, 0], "zero": [0, 0, 0, 0]}


@partial(jax.jit, static_argnames=("function", "mode", "is_scaled", "method"))
def all_derivatives(function, mode, a, d, e, dd, ct, *, is_scaled, method):
    """Value and two derivatives, or the gradient and its derivative, along `e` and `dd`."""

    def f(a, d):
        damping = {"damp": 1.0, "damp_scale": d} if is_scaled else {"damp": d[0]}
        return function(a, **damping, method=method)

    def gradient(a, d):
        return jax.vjp(f, a, d)[1](ct)

    at, along = (a, d), (e, dd)
    if mode == "forward":
        return two_derivatives(f, at, along)
    return jax.jvp(gradient, at, along)


def solution(a, **options):
    """The solution of `lstsq` for two right-hand sides."""
    return jaxpinv.lstsq(a, jnp.eye(a.shape[0], 2, dtype=a.dtype), **options).solution


def projection(a, **options):
    """The result of `null_projection` for two vectors."""
    return jaxpinv.null_projection(a, jnp.eye(a.shape[1], 2, dtype=a.dtype), **options)


FUNCTIONS = {"pinv": jaxpinv.pinv, "lstsq": solution, "null_projection": projection}


# Every pair of a function, a damping, a method, a shape, a dtype and a mode.
CASES = [
    "pinv-one-svd-square-complex-reverse",
    "pinv-one-direct-wide-real-forward",
    "pinv-scaled-svd-tall-complex-forward",
    "lstsq-one-svd-wide-real-reverse",
    "lstsq-one-direct-tall-complex-forward",
    "lstsq-one-direct-wide-complex-reverse",
    "lstsq-scaled-direct-square-complex-reverse",
    "null_projection-one-direct-square-real-forward",
    "null_projection-scaled-svd-wide-complex-reverse",
    "null_projection-scaled-direct-tall-real-reverse",
]


@pytest.mark.slow_unless("deficient-(pinv-scaled-svd|lstsq-one-direct)-tall")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_derivatives_exist_where_the_rank_changes(rng, case, spectrum):
    name, kind, method, shape, dtype, mode = case.split("-")
    is_scaled, shape, dtype = kind == "scaled", SHAPES[shape], DTYPES[dtype]
    # Differences pass through the deficient matrix: on both sides the rank is full.
    a, e = matrix(rng, shape, spectrum, dtype), gaussian(rng, shape, dtype)
    n = shape[1]
    d, dd = np.full(n, 0.7), np.full(n, 0.4)
    if is_scaled:
        d, dd = rng.uniform(0.5, 1, n), rng.standard_normal(n)
    x = [
        damping_oracle.derivative(a, d, e, dd, order) if order else
        damping_oracle.damped(a, d)
        for order in range(3)
    ]  # fmt: skip
    exact = {
        "pinv": x,
        "lstsq": [y[:, :2] for y in x],
        "null_projection": [
            np.eye(n, 2) - (x[0] @ a)[:, :2],
            -(x[1] @ a + x[0] @ e)[:, :2],
            -(x[2] @ a + 2 * x[1] @ e)[:, :2],
        ],
    }[name]
    ct = gaussian(rng, exact[0].shape, dtype)
    found = all_derivatives(
        FUNCTIONS[name], mode, a, d, e, dd, ct, is_scaled=is_scaled, method=method
    )
    if mode == "forward":
        for known, y in zip(exact, found, strict=True):
            assert relative_error(y, known) <= 1e-9
        return
    for known, slopes in zip(exact[1:], found, strict=True):
        along = pair(slopes[0], e) + pair(slopes[1], dd)
        assert abs(along - pair(ct, known)) <= 1e-9 * np.sum(np.abs(ct * known))


@functools.cache
def with_known_damping(scale, method, mode):
    """All derivatives of `pinv` along `e`, for a damping that is not an argument."""
    options = {"damp": 0.7, "damp_scale": scale and np.array(scale), "method": method}

    def f(a):
        return jaxpinv.pinv(a, **options)

    @jax.jit
    def derivatives(a, e, ct):
        def gradient(a):
            return jax.vjp(f, a)[1](ct)[0]

        if mode == "forward":
            return two_derivatives(f, (a,), (e,))[1:]
        return jax.jvp(gradient, (a,), (e,))

    return derivatives


@pytest.mark.slow_unless("deficient-svd-tall-complex-scaled")
@pytest.mark.parametrize(
    ("method", "shape", "dtype", "is_scaled", "mode"),
    [
        ("svd", "tall", "complex", True, "reverse"),
        ("svd", "square", "real", False, "reverse"),
        ("svd", "wide", "complex", False, "forward"),
        ("direct", "tall", "real", False, "forward"),
        ("direct", "square", "complex", True, "forward"),
        ("direct", "wide", "complex", True, "reverse"),
    ],
    ids=lambda x: {True: "scaled", False: "one"}.get(x, x),
)
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_derivatives_with_a_known_damping(
    rng, method, shape, spectrum, dtype, is_scaled, mode
):
    # Every unknown is then known to be damped, and another rule applies, unless it would
    # lose digits: see the last test.
    shape, dtype = SHAPES[shape], DTYPES[dtype]
    a, e = matrix(rng, shape, spectrum, dtype), gaussian(rng, shape, dtype)
    scale = tuple(np.linspace(0.5, 2, shape[1]).tolist()) if is_scaled else None
    d = 0.7 * (np.ones(shape[1]) if scale is None else np.array(scale))
    ct = gaussian(rng, shape[::-1], dtype)
    derivatives = with_known_damping(scale, method, mode)
    loses_digits = is_scaled and shape[0] < shape[1]
    assert ("pinv_form" in str(jax.make_jaxpr(derivatives)(a, e, ct))) == loses_digits
    for order, y in enumerate(derivatives(a, e, ct), 1):
        exact = damping_oracle.derivative(a, d, e, 0 * d, order)
        if mode == "forward":
            assert relative_error(y, exact) <= 1e-9
        else:
            size = 1e-9 * np.sum(np.abs(ct * exact))
            assert abs(pair(y, e) - pair(ct, exact)) <= size


@pytest.mark.slow
def test_derivatives_in_a_damping_of_zero_exist(rng):
    a, e = matrix(rng, (5, 3), [3, 2, 1]), gaussian(rng, (5, 3))
    zeros, ones, ct = np.zeros(3), np.ones(3), gaussian(rng, (3, 5))
    found = all_derivatives(
        jaxpinv.pinv, "forward", a, zeros, e, ones, ct, is_scaled=False, method="svd"
    )
    for order in (1, 2):
        exact = damping_oracle.derivative(a, zeros, e, ones, order)
        assert relative_error(found[order], exact) <= 1e-9


def test_a_gradient_does_not_depend_on_the_other_dampings_of_its_batch(rng):
    # Long enough for Cholesky factors. What is truncated takes another formula.
    m, n = 16, 13
    spectrum = np.linspace(2, 0.3, n)
    a = np.stack([matrix(rng, (m, n), spectrum.tolist()) for _ in range(3)])
    ct = gaussian(rng, (3, n, m))

    @jax.jit
    def gradient(a, d):
        return jax.vjp(partial(jaxpinv.pinv, method="direct"), a)[1](ct)[0], jax.vjp(
            lambda a, d: jaxpinv.pinv(a, damp=d, method="direct"), a, d
        )[1](ct)

    d = np.array([0.5, 0.7, 0.9])
    _, alike = jax.device_get(gradient(a, d))
    deficient, steep = a.copy(), a.copy()
    deficient[0] = matrix(rng, (m, n), [*spectrum[:5], *[0] * 8])
    steep[0] = matrix(rng, (m, n), np.geomspace(1, 1e-9, n).tolist())
    for b, limit in ((a, 1e-12), (deficient, 1e-12), (steep, bound(np.float64, 1e9))):
        plain, mixed = jax.device_get(gradient(b, d * [0, 1, 1]))
        for x, y in zip(alike, mixed, strict=True):
            assert np.array_equal(x[1:], y[1:])
        assert relative_error(mixed[0][0], plain[0]) <= limit
        assert mixed[1][0] == 0
    e = gaussian(rng, (m, n))
    for i in range(1, 3):
        exact = damping_oracle.derivative(a[i], np.full(n, d[i]), e, np.full(n, 0.4), 1)
        along = pair(alike[0][i], e) + 0.4 * alike[1][i]
        assert abs(along - pair(ct[i], exact)) <= 1e-9 * np.sum(np.abs(ct[i] * exact))


@pytest.mark.slow_unless("tall")
@pytest.mark.parametrize("shape", [(12, 9), (9, 12)], ids=["tall", "wide"])
def test_nor_does_a_solution_or_its_gradient(rng, shape):
    # Of each batch one matrix has no certified Cholesky factor, or no damping.
    (m, n), spectrum = shape, np.linspace(2, 0.3, 9)
    dtype = np.complex128
    a = np.stack([matrix(rng, shape, spectrum.tolist(), dtype) for _ in range(3)])
    b, ct = (gaussian(rng, (3, length, 2), dtype) for length in (m, n))

    @jax.jit
    def results(a, d):
        def solve(a, b, d):
            return jaxpinv.lstsq(a, b, method="direct", damp=d).solution

        plain, damped = (jax.vjp(solve, a, b, x) for x in (None, d))
        return (plain[0], *plain[1](ct)[:2]), (damped[0], *damped[1](ct))

    d = np.array([0.5, 0.7, 0.9])
    _, alike = jax.device_get(results(a, d))
    deficient, steep, broken = a.copy(), a.copy(), a.copy()
    deficient[0] = matrix(rng, shape, [*spectrum[:5], 0, 0, 0, 0], dtype)
    steep[0] = matrix(rng, shape, np.geomspace(1, 1e-9, 9).tolist(), dtype)
    broken[0, 1, 1] = np.nan
    for x, limit in ((a, 1e-12), (deficient, 1e-12), (steep, bound(float, 1e9))):
        plain, mixed = jax.device_get(results(x, d * [0, 1, 1]))
        for y, z in zip(alike, mixed, strict=True):
            assert np.array_equal(y[1:], z[1:])
        for y, z in zip(plain, mixed, strict=False):
            assert relative_error(z[0], y[0]) <= limit
        assert mixed[3][0] == 0
    _, mixed = jax.device_get(results(broken, d))
    for y, z in zip(alike, mixed, strict=True):
        assert np.array_equal(y[1:], z[1:])
        assert np.all(np.isnan(z[0]))


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "traced"])
def test_derivatives_of_wide_matrices_keep_the_digits_of_small_dampings(rng, is_known):
    # `P` is as large as 1 / d^2 in the null space.
    a, e = (
        of_values(rng, (9, 12), np.geomspace(1, 1 / 30, 9), float),
        gaussian(rng, (9, 12)),
    )
    d = 1e-3 * np.linspace(0.5, 2, 12)
    damped = partial(jaxpinv.pinv, damp=1.0, method="direct")
    scales = (d,) if is_known else ()

    @jax.jit
    def derivative(a, e, d):
        def f(a):
            return damped(a, damp_scale=scales[0] if scales else d)

        return jax.jvp(f, (a,), (e,))[1]

    exact = damping_oracle.derivative(a, d, e, 0 * d, 1)
    assert relative_error(derivative(a, e, d), exact) <= bound(np.float64, 2000)
