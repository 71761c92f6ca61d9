"""Damped solutions by Cholesky factors: digits, certificates, and what is not formed."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxpinv
from jaxpinv._factorization import damped_cholesky
from tests.comparison import relative_error
from tests.matrices import gaussian, of_values

EPS = float(np.finfo(np.float32).eps)
SIZES = [1e-6, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1, 1e2, 1e4]


@jax.jit
def solution_and_slopes(a, b, d, g):
    """A damped solution, and its pullback of `g` to the matrix, the vector and `d`."""

    def solve(a, b, d):
        options = {"method": "direct", "return_singular_values": False}
        return jaxpinv.lstsq(a, b, damp=d, **options).solution

    x, pullback = jax.vjp(solve, a, b, d)
    return x, *pullback(g)


def exact(a, b, d, g):
    """The same in double precision, sizes of products, and the condition of `[A; D]`."""
    m, n = a.shape
    a, b, g, d = (np.asarray(x, float) for x in (a, b, g, d))
    if m < n:
        u, s, vh = np.linalg.svd(np.hstack([a, d * np.eye(m)]), full_matrices=False)
        y, z = (u @ ((u.T @ x) / s**2) for x in (b, a @ g))
        x, of_b = a.T @ y, z
        # The part of `g / d^2` in the null space of `a` has no part in any result.
        of_x, r = (g - a.T @ z) / d**2, d**2 * y
    else:
        _, s, vh = np.linalg.svd(np.vstack([a, d * np.eye(n)]), full_matrices=False)
        x, of_x = (vh.T @ ((vh @ y) / s**2) for y in (a.T @ b, g))
        of_b, r = a @ of_x, b - a @ x
    of_a = np.outer(r, of_x) - np.outer(of_b, x)
    return (x, of_a, of_b, -2 * d * (of_x @ x), np.abs(of_x)), s[0] / s[-1]


@pytest.mark.slow_unless("12-9-30")
@pytest.mark.parametrize("condition", [30, 1e4])
@pytest.mark.parametrize(("m", "n"), [(12, 9), (40, 40), (12, 30), (140, 131)])
def test_no_digits_are_lost(rng, m, n, condition):
    values = np.geomspace(2, 2 / condition, min(m, n))
    a = of_values(rng, (m, n), values, np.float32)
    b, g = (gaussian(rng, (k,)).astype(np.float32) for k in (m, n))
    for d in 2 * np.array(SIZES, np.float32):
        known, cond = exact(a, b, d, g)
        found = solution_and_slopes(a, b, d, g)
        for x, y in zip(found, known[:4], strict=True):
            # A sum of products of two vectors can be far smaller than the vectors.
            size = np.linalg.norm(y) if np.ndim(y) else 2 * d * np.abs(known[0]) @ known[4]
            assert np.linalg.norm(np.asarray(x, float) - y) <= 4 * EPS * cond * size


@partial(jax.jit, static_argnames="again")
def certified(a, d, rtol, again=False):
    """Where triangular factors serve."""
    zeros = jnp.zeros(d.shape[:-1], jnp.float32)
    options = {"halves": 128, "may_truncate": True, "again": again}
    return damped_cholesky.factor(a, d, rtol + zeros, zeros, **options)[1]


@jax.jit
@jax.vmap
def solution_for_each(a, b):
    """Solutions with a damping of 1e-6."""
    return jaxpinv.lstsq(a, b, damp=np.float32(1e-6), method="direct").solution


@pytest.mark.slow
@pytest.mark.parametrize("smallest", [1e-3, 5e-4])
def test_no_matrix_among_many_loses_digits(rng, smallest):
    # For batches of at most 12 columns, there are no Cholesky factors.
    n = 13
    s = np.r_[np.ones(n - 2), smallest, smallest]
    u, v = np.linalg.qr(gaussian(rng, (2, 2000, n, n)))[0]
    a = ((u * s) @ np.swapaxes(v, -1, -2)).astype(np.float32)
    b = gaussian(rng, (2000, n, 1)).astype(np.float32)
    found = solution_for_each(a, b)
    u, s, vh = np.linalg.svd(a.astype(float))
    filtered = (s / (s**2 + 1e-6**2))[..., None]
    x = np.swapaxes(vh, -1, -2) @ (filtered * (np.swapaxes(u, -1, -2) @ b))
    error = np.linalg.norm(np.asarray(found, float) - x, axis=(1, 2)) / np.linalg.norm(
        x, axis=(1, 2)
    )
    assert np.all(error <= 4 * EPS * s[:, 0] / s[:, -1])


@pytest.mark.slow_unless("12, 9")
@pytest.mark.parametrize("shape", [(12, 9), (12, 30)], ids=str)
@pytest.mark.parametrize(("size", "other"), [(1e-14, 1), (1e14, 1), (1e-10, 1e10)])
def test_no_size_of_the_elements_costs_digits(rng, shape, size, other):
    m, n = shape
    a = (size * gaussian(rng, shape)).astype(np.float32)
    b, g = ((x * gaussian(rng, (k,))).astype(np.float32) for x, k in ((other, m), (1, n)))
    d = np.float32(size / 3)
    known, _ = exact(a, b, d, g)
    for x, y in zip(solution_and_slopes(a, b, d, g), known[:4], strict=True):
        assert np.linalg.norm(np.asarray(x, float) - y) <= 1e-5 * np.linalg.norm(y)


@jax.jit
def tangent(a, b, d, e):
    """The tangent of a damped solution along `e`."""

    def solve(a):
        return jaxpinv.lstsq(a, b, damp=d, method="direct").solution

    return jax.jvp(solve, (a,), (e,))[1]


@pytest.mark.parametrize(("size", "other"), [(1e-15, 1e10), (1e14, 1e-10)])
def test_tangents_of_wide_matrices_do_not_leave_the_range(rng, size, other):
    a, e = gaussian(rng, (2, 9, 12))
    b, d = gaussian(rng, (9,)), 1 / 3
    gram = a @ a.T + d**2 * np.eye(9)
    y = np.linalg.solve(gram, b)
    known = e.T @ y - a.T @ np.linalg.solve(gram, (e @ a.T + a @ e.T) @ y)
    arrays = (size * a, other * b, size * d, size * e)
    found = tangent(*(np.asarray(x, np.float32) for x in arrays))
    error = np.linalg.norm(np.asarray(found, float) * (size / other) - known)
    assert error <= 1e-5 * np.linalg.norm(known)


def test_the_largest_numbers_have_solutions(rng):
    a = gaussian(rng, (12, 9))
    a = (3e38 * a / np.max(np.abs(a))).astype(np.float32)
    b, g = np.full(12, 1e10, np.float32), np.zeros(9, np.float32)
    x = solution_and_slopes(a, b, np.float32(1e38), g)[0]
    assert np.all(np.isfinite(x))
    assert np.any(x)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("a1")
@pytest.mark.parametrize(
    ("a", "b"), [((12, 9), (0, 12, 2)), ((3, 9, 12), (0, 3, 9, 1)), ((12, 9), (12, 0))]
)
def test_no_right_hand_sides_have_empty_solutions(a, b):
    def solve(a, b, d):
        return jaxpinv.lstsq(a, b, damp=d, method="direct").solution

    @jax.jit
    def with_gradients(*args):
        x, pullback = jax.vjp(solve, *args)
        return x, pullback(x)

    x, gradients = with_gradients(np.ones(a), np.ones(b), np.ones(()))
    assert x.shape == (*b[:-2], a[-1], b[-1])
    assert not any(np.any(y) for y in gradients)


@pytest.mark.unoptimized
@pytest.mark.slow
def test_gradients_are_exported_with_a_symbolic_batch_of_vectors(rng):
    def loss(a, b):
        return jnp.sum(jaxpinv.lstsq(a, b, damp=0.3, method="direct").solution ** 2)

    [k] = export.symbolic_shape("k")
    a, b = gaussian(rng, (12, 9)), gaussian(rng, (3, 12, 1))
    shapes = (jax.ShapeDtypeStruct(s, np.float64) for s in (a.shape, (k, 12, 1)))
    found = export.export(jax.jit(jax.grad(loss)))(*shapes).call(a, b)
    inverse = np.linalg.solve(a.T @ a + 0.3**2 * np.eye(9), a.T)
    known = sum(exact(a, y, 0.3, 2 * inverse @ y)[0][1] for y in b[..., 0])
    assert relative_error(found, known) <= 1e-12


class TestCertificates:
    """Where corrections are known to converge."""

    def test_a_large_damping_needs_no_probes(self, rng):
        # No probe can be right here.
        a = of_values(rng, (30, 20), np.geomspace(1, 1e-9, 20), np.float32)
        probes = damped_cholesky.certificate.probes
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                damped_cholesky.certificate, "probes", lambda *x: jnp.nan * probes(*x)
            )
            # A function of its own, because what is compiled calls nothing.
            certify = jax.jit(lambda a, d: certified(a, d, np.float32(0)))
            assert certify(a, np.full(1, 0.1, "f4"))
            assert not certify(a, np.full(1, 1e-3, "f4"))

    @pytest.mark.slow_unless("20")
    @pytest.mark.parametrize("n", [3, 20, 131])
    def test_each_matrix_is_judged_by_its_condition(self, rng, n):
        conditions = np.array([1, 30, 200, 5e3, 1e5, 1e7])
        values = [np.geomspace(1, 1 / x, n) for x in conditions]
        a = np.stack([of_values(rng, (n + 9, n), x, np.float32) for x in values])
        tiny, zero = np.full((6, 1), 1e-7, "f4"), np.float32(0)
        assert np.array_equal(certified(a, tiny, zero), conditions < 1e3)
        assert np.array_equal(certified(a, tiny, zero, again=True), conditions < 1e6)
        # Where a cutoff might truncate a value, the norm of the inverse has to prove it.
        rtols = np.array([1e-5, 0.5], "f4")
        proven = [certified(a, np.zeros((6, 1), "f4"), rtol) for rtol in rtols]
        assert np.array_equal(proven, [[1, 1, 1, 0, 0, 0], [0] * 6])
        # A damping of 0.1 makes all of them well-conditioned.
        mixed = np.array([0, 0.1, 1e-7, 0.1, 0.1, 0], "f4")[:, None]
        assert np.array_equal(certified(a, mixed, zero), [1, 1, 1, 1, 1, 0])

    def test_nothing_is_certified_out_of_range(self, rng):
        a = np.stack([gaussian(rng, (9, 5)) for _ in range(5)]).astype(np.float32)
        sizes = np.array([1, 1e-17, 1e17, np.nan, np.inf], "f4")[:, None]
        found = certified(a * sizes[..., None], np.minimum(sizes, 1e-3), np.float32(0))
        assert np.array_equal(found, [1, 0, 0, 0, 0])


@pytest.mark.slow_unless("12-30")
@pytest.mark.parametrize(("m", "n"), [(40, 40), (12, 30)])
def test_no_product_leaves_the_range(rng, m, n):
    a, b, g = (gaussian(rng, x).astype(np.float32) for x in ((m, n), (m,), (n,)))
    usual = solution_and_slopes(a, b, np.float32(0.5), g)
    for size, of_b in ((27, 100), (-27, -100)):
        unit, many = np.exp2(np.array([size, of_b], np.float32))
        found = solution_and_slopes(unit * a, many * b, unit / 2, g)
        expected = (many / unit, many / unit / unit, 1 / unit, many / unit / unit)
        for x, y, scale in zip(found, usual, expected, strict=True):
            assert np.array_equal(x, y * scale)


@pytest.mark.slow
def test_without_damping_the_cutoff_truncates(rng):
    # With so many rows it is 5e-3.
    a = of_values(rng, (40000, 9), np.geomspace(1, 1e-3, 9), np.float32)
    b = gaussian(rng, (40000,)).astype(np.float32)

    @jax.jit
    def solve(a, b, d):
        return jaxpinv.lstsq(
            a, b, damp=d, method="direct", return_singular_values=False
        ).solution

    u, s, vh = np.linalg.svd(a.astype(float), full_matrices=False)
    kept = s > len(a) * EPS * s[0]
    assert not np.all(kept)
    known = vh[kept].T @ (u[:, kept].T @ b / s[kept])
    assert relative_error(solve(a, b, np.float32(0)), known) <= 1e-3


def test_no_inverse_is_formed(rng):
    m, n = 40, 30

    def results(a, d, c, b, g):
        solved = damped_cholesky.solve(a, d, c, b, None)
        return solved, damped_cholesky.gradient(a, d, c, solved, (None, g))

    a, b, g = gaussian(rng, (m, n)), gaussian(rng, (m, 1)), gaussian(rng, (n, 1))
    program = jax.make_jaxpr(results)(a, np.ones(1), np.eye(n), b, g)
    # The gradient itself is the only result of this size.
    equations: Any = program.eqns
    products = [e for e in equations if e.primitive.name in ("dot_general", "inner")]
    assert products
    assert all(x.aval.size <= m for e in products for x in e.outvars)
    solves = [e for e in equations if e.primitive.name == "triangular_solve"]
    assert len(solves) == 4 * (1 + damped_cholesky._CORRECTIONS)
    assert all(x.aval.size == n for e in solves for x in e.outvars)


def test_vectors_mapped_alone_are_columns_of_one_matrix(rng):
    seen = []

    def double(x, y):
        seen.append((x.shape, y.shape))
        return x + 1, 2 * y

    x, y = gaussian(rng, (1, 3, 4, 5, 2)), gaussian(rng, (6, 3, 1, 7, 2))
    arrays = map(jnp.asarray, (x, y))
    found = damped_cholesky.among_columns(double, (1, 3, 1), *arrays)
    assert seen == [((1, 3, 1, 5, 48), (1, 3, 1, 7, 48))]
    assert np.array_equal(found[0], np.broadcast_to(x + 1, (6, 3, 4, 5, 2)))
    assert np.array_equal(found[1], np.broadcast_to(2 * y, (6, 3, 4, 7, 2)))


@pytest.mark.unoptimized
@pytest.mark.slow_unless("None, 0")
@pytest.mark.parametrize("in_axes", [(None, 0), (0, None), (0, 0)], ids=str)
def test_maps_equal_loops(rng, in_axes):
    a, b = gaussian(rng, (3, 20, 13)), gaussian(rng, (3, 20))
    g, d = gaussian(rng, (13,)), np.float64(0.1)
    axes = (*in_axes, None, None)
    row = [x if axis == 0 else x[0] for x, axis in zip((a, b), in_axes, strict=True)]
    mapped = jax.jit(jax.vmap(solution_and_slopes, axes))(*row, d, g)
    for i in range(3):
        chosen = [x[i] if axis == 0 else x for x, axis in zip(row, in_axes, strict=True)]
        a_i, b_i = chosen
        known, _ = exact(a_i, b_i, d, g)
        for x, y in zip(jax.device_get(mapped), known[:4], strict=True):
            assert relative_error(x[i], y) <= 1e-12
