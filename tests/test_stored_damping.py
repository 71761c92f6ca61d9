"""Dampings of a `Factorization`: values, digits, derivatives, and what does not change."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

import jaxpinv
from tests import damping_oracle
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.programs import svd_calls
from tests.stored_damping_cases import DTYPES, RANKS, SHAPES, of_rank

DAMPS = np.array([0.0, 0.3, 2.0])


@partial(jax.jit, static_argnames="method")
def path(a, b, x, damps, method):
    """All results for many dampings of one factorization."""
    factored = jaxpinv.factorize(a, method=method)
    return jax.vmap(partial(all_of, factored, b, x))(damps)


def all_of(factored, b, x, damp):
    """All results of a factorization with a damping."""
    return (
        factored.pinv(damp=damp),
        factored.solve(b, damp=damp),
        factored.null_projection(x, damp=damp),
    )


@partial(jax.jit, static_argnames="method")
def inverses(a, damps, method):
    """Damped inverses, and solutions for the identity, of one factorization."""
    factored, one = jaxpinv.factorize(a, method=method), jnp.eye(len(a), dtype=a.dtype)
    return jax.vmap(lambda d: (factored.pinv(damp=d), factored.solve(one, damp=d)))(damps)


# Method, shape and dtype, each with its own program.
CASES = [
    pytest.param(method, SHAPES[shape], DTYPES[dtype], id=f"{method}-{shape}-{dtype}")
    for method, shape, dtype in [
        ("svd", "wide", "complex"),
        ("direct", "tall", "complex"),
        ("direct", "square", "real"),
    ]
]


@pytest.mark.unoptimized
@pytest.mark.slow_unless("deficient-svd-wide-complex")
@pytest.mark.parametrize(("method", "shape", "dtype"), CASES)
@pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS)
def test_a_path_of_dampings_is_that_of_the_filter(rng, method, rank, shape, dtype):
    a = of_rank(rng, shape, rank, dtype)
    m, n = shape
    b, x = gaussian(rng, (m, 2), dtype), gaussian(rng, (n, 2), dtype)
    found = jax.device_get(path(a, b, x, DAMPS, method))
    for i, d in enumerate(DAMPS):
        exact = damping_oracle.filtered(a, d) if d else np.linalg.pinv(a)
        exact = exact.astype(dtype)
        limit = bound(np.float64, 2 / d if d else 100)
        for y, known in zip(found, [exact, exact @ b, x - exact @ a @ x], strict=True):
            assert np.max(np.abs(y[i] - known)) <= 10 * limit


@pytest.mark.unoptimized
@pytest.mark.slow
def test_scipy_agrees_and_batches_broadcast(rng):
    a, b = gaussian(rng, (2, 20, 9)), gaussian(rng, (20,))
    factored = jaxpinv.factorize(a)
    found = np.asarray(factored.solve(b[:, None], damp=DAMPS[:, None]))[..., 0]
    assert found.shape == (3, 2, 9)
    for i, d in enumerate(DAMPS):
        for j in range(2):
            known = scipy.sparse.linalg.lsqr(a[j], b, damp=d, atol=1e-15, btol=1e-15)[0]
            assert relative_error(found[i, j], known) <= 1e-10


# Each two of a dtype, a method and a shape.
DIGITS = [
    pytest.param(dtype, method, *sizes, id=f"{dtype.__name__}-{method}-{m}x{n}-{rank}")
    for dtype, method, chosen in [
        (np.float32, "direct", [(9, 9, 9), (9, 9, 4)]),
        (np.float32, "svd", [(9, 12, 9), (20, 9, 9)]),
        (np.float64, "direct", [(9, 12, 9), (20, 9, 9)]),
        (np.float64, "svd", [(9, 9, 9), (9, 9, 4)]),
    ]
    for sizes in chosen
    for m, n, rank in [sizes]
]


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "method", "m", "n", "rank"), DIGITS)
def test_no_digits_are_lost(rng, dtype, method, m, n, rank):
    a = of_rank(rng, (m, n), rank, dtype)
    # A tiny damping amplifies the rounding errors of singular values that are zero.
    is_deficient = rank < min(m, n)
    sizes = [0.5, 1, 3, 1e1, 1e2, 1e4] if is_deficient else [1e-6, 1e-3, 0.1, 1, 1e2, 1e4]
    damps = 2 * np.array(sizes, dtype)
    found = jax.device_get(inverses(a, damps, method))
    for i, d in enumerate(damps.astype(float)):
        exact = damping_oracle.damped(a, np.full(n, d))
        values = np.hypot(np.linalg.svd(a.astype(float), compute_uv=False), d)
        limit = 4 * np.finfo(dtype).eps * values[0] / values[-1]
        for x in found:
            error = np.linalg.norm(np.asarray(x[i], float) - exact)
            assert error <= limit * np.linalg.norm(exact)


class TestWithoutDamping:
    """A damping of zero."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("method", "name"),
        [("svd", "solve"), ("svd", "null_projection"), ("direct", "pinv")],
    )
    def test_each_matrix_has_what_it_has_undamped(self, rng, method, name):
        a = np.stack([of_rank(rng, (12, 9), rank) for rank in (9, 4, 9)])
        given = {"pinv": (), "solve": (12,), "null_projection": (9,)}[name]
        apply = partial(
            getattr(jaxpinv.factorize(a, method=method), name),
            *(gaussian(rng, (3, length, 1)) for length in given),
        )
        plain = np.asarray(apply())
        for damp in (np.array([0.0, 0.0, 0.5]), np.array([1e-320, 0.0, 0.5])):
            found = np.asarray(apply(damp=damp))
            assert np.array_equal(found[:2], plain[:2])
            assert relative_error(found[2], plain[2]) > 1e-3
        assert np.array_equal(apply(damp=0), plain)


@jax.jit
def solution_and_slope(a, b, clean, damp):
    """A damped solution for `b`, and the gradient of the sum of one for `clean`."""

    def solve(a, b):
        return jaxpinv.factorize(a).solve(b, damp=damp)

    return solve(a, b), jax.grad(lambda a: jnp.sum(solve(a, clean)))(a)


def projection(a, x, damp):
    """A damped projection by a factorization."""
    return jaxpinv.factorize(a, method="svd").null_projection(x, damp=damp)


@jax.jit
def near_the_limit(a, b, x, damp):
    """Results for a tall matrix, solutions for its transpose, and a slope in these."""
    tall, wide = (jaxpinv.factorize(of, method="svd") for of in (a, a.T))

    def total(x):
        found = wide.solve(x, damp=damp)
        return jnp.sum(found), found

    slope, found = jax.grad(total, has_aux=True)(x)
    inverse, solved = tall.pinv(damp=damp), tall.solve(b, damp=damp)
    return inverse, solved, found, slope, tall.null_projection(x, damp=damp)


class TestTransformations:
    """Places where a factorization is made, and where it is damped."""

    @pytest.mark.unoptimized
    @pytest.mark.slow
    def test_one_decomposition_serves_a_path(self, rng):
        a, b = gaussian(rng, (12, 9)), gaussian(rng, (12,))
        for method, count in (("svd", 1), ("auto", 2)):
            text = path.lower(a, b, b[:9], DAMPS, method).compile().as_text()
            assert len(svd_calls(text)) == count

    @pytest.mark.unoptimized
    def test_tolerances_that_are_given_hold(self, rng):
        a, b = matrix(rng, (12, 9), [3, 2, 0.5, *[0.1] * 6]), gaussian(rng, (12,))
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        kept = np.where(np.hypot(s, 0.2) > 0.3, s / (s**2 + 0.04), 0)
        exact = (vh.T * kept) @ u.T

        @jax.jit
        def damped(factored):
            return factored.pinv(damp=0.2), factored.solve(b, damp=0.2)

        found = damped(jaxpinv.factorize(a, atol=0.3))
        for x, known in zip(found, (exact, exact @ b), strict=True):
            assert relative_error(x, known) <= bound(np.float64, 10)
        # The default would truncate 1e-15, but does not apply with a damping.
        tiny = matrix(rng, (12, 9), [1, 0.5, *[1e-15] * 7])
        exact = damping_oracle.filtered(tiny, 1e-14)
        found = jaxpinv.factorize(tiny).pinv(damp=1e-14)
        assert relative_error(found, exact) <= 0.5

    @pytest.mark.unoptimized
    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["auto", "svd"])
    def test_batches_of_tiny_matrices(self, rng, method):
        a, b = gaussian(rng, (300, 6, 7)), gaussian(rng, (300, 6))
        factored = jaxpinv.factorize(a, method=method)

        def solve(factored, b):
            return factored.solve(b, damp=0.4)

        found = np.asarray(jax.jit(jax.vmap(solve))(factored, b))
        exact = np.stack([damping_oracle.filtered(a[i], 0.4) @ b[i] for i in range(9)])
        assert relative_error(found[:9], exact) <= bound(np.float64, 100)

    @pytest.mark.unoptimized
    @pytest.mark.slow
    def test_lower_triangles_alone_are_read(self, rng):
        a = hermitian_matrix(rng, [3, -2, 1, *[0] * 6], np.complex128)
        factored = jaxpinv.factorize(a + np.triu(np.ones((9, 9)), 1), hermitian=True)
        exact = damping_oracle.filtered(a, 0.3)
        assert relative_error(factored.pinv(damp=0.3), exact) <= bound(np.float64, 10)

    @pytest.mark.unoptimized
    @pytest.mark.slow
    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_what_is_not_finite_is_nan_for_its_matrix(self, rng, broken):
        a, b = gaussian(rng, (4, 12, 9)), gaussian(rng, (4, 12, 2))
        damp = np.array([0.3, 0.3, 0.3, broken])
        a[1, 2, 3] = broken
        clean, b[2, 4, 1] = b.copy(), broken
        found, slope = map(np.asarray, solution_and_slope(a, b, clean, damp))
        expected = np.zeros((4, 2), bool)
        expected[[1, 3]] = expected[2, 1] = True
        assert np.array_equal(np.all(np.isnan(found), axis=1), expected)
        assert np.array_equal(np.any(np.isnan(found), axis=1), expected)
        assert np.array_equal(np.all(np.isnan(slope), axis=(1, 2)), [0, 1, 0, 1])
        assert not np.any(np.isnan(slope[[0, 2]]))

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_no_square_leaves_the_range(self, rng, size):
        a = of_rank(rng, (9, 12), 9)
        b, x = gaussian(rng, (9, 9)), gaussian(rng, (12, 2))
        exact = damping_oracle.filtered(a, 0.3)
        scaled, d = (a * size).astype(np.float32), np.full(6, 0.3 * size, np.float32)
        b32, x32 = (y.astype(np.float32) for y in (b, x))
        found = jax.device_get(path(scaled, b32, x32, d, "svd"))
        limit = bound(np.float32, 10)
        for y, known in zip(found[:2], (exact, exact @ b), strict=True):
            assert relative_error(np.asarray(y[0], float) * size, known) <= limit
        assert relative_error(found[2][0], x - exact @ a @ x) <= limit
        # A zero matrix gives zero even if the square of the damping is out of range.
        _, zeros, _ = path(0 * scaled, b32, x32, d, "svd")
        assert np.array_equal(zeros, np.zeros((6, 12, 9)))

    @pytest.mark.slow
    @pytest.mark.parametrize("damp", [1e-20, 1e-37])
    def test_a_damping_far_below_the_rounding_has_the_limit(self, damp):
        a = np.zeros((12, 9), np.float32)
        a[0, 0] = 100
        b, x = np.ones(12, np.float32), np.ones(9, np.float32)
        known = np.zeros_like(a.T)
        known[0, 0] = 0.01

        inverse, solved, of_wide, slope, projected = near_the_limit(a, b, x, damp)
        for found in (projected, projection(a, x, damp)):
            assert np.array_equal(found, x - (known @ a @ x))
        limit = bound(np.float32, 1)
        assert relative_error(inverse, known) <= limit
        assert relative_error(solved, known @ b) <= limit
        assert relative_error(of_wide, known.T @ x) <= limit
        assert relative_error(slope, np.sum(known.T, axis=0)) <= limit

    @pytest.mark.slow
    def test_a_matrix_does_not_depend_on_its_batch(self, rng):
        # Of orthonormal columns of scale 1 the factors are triplets, and serve as they are.
        q = np.linalg.qr(gaussian(rng, (500, 16, 12)))[0].astype(np.float32)
        q = q[np.max(np.abs(q), axis=(1, 2)) > 0.76]
        mixed = q.copy()
        mixed[-1] = gaussian(rng, (16, 12))
        alike, mixed = (
            np.asarray(jaxpinv.factorize(a, method="direct").pinv(damp=0.1))
            for a in (q, mixed)
        )
        assert len(q) > 10
        assert np.array_equal(alike[:-1], mixed[:-1])

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("svd-shape[13]")
    @pytest.mark.parametrize(
        ("method", "shape"),
        [("auto", (0, 3)), ("svd", (3, 0)), ("auto", (0, 0)), ("svd", (2, 0, 12))],
    )
    def test_nothing_is_damped_where_nothing_is(self, method, shape):
        factored = jaxpinv.factorize(np.zeros(shape), method=method)
        m, n = shape[-2:]
        assert factored.pinv(damp=1.0).shape == (*shape[:-2], n, m)
        found = factored.solve(np.ones((m, 1)), damp=1.0)
        assert np.array_equal(found, np.zeros((*shape[:-2], n, 1)))
        found = factored.null_projection(np.ones((n, 1)), damp=1.0)
        assert np.array_equal(found, np.ones((*shape[:-2], n, 1)))


@pytest.mark.parametrize("method", ["pinv", "solve", "null_projection"])
def test_invalid_dampings_are_refused(method):
    factored = jaxpinv.factorize(np.ones((5, 3, 3)))
    given = () if method == "pinv" else (np.ones(3),)
    apply = partial(getattr(factored, method), *given)
    start = rf"^Factorization\.{method}: expected "
    with pytest.raises(ValueError, match=start + r"damp >= 0, got -1\.0"):
        apply(damp=-1.0)
    with pytest.raises(TypeError, match=start + "damp to be a real number"):
        apply(damp=True)
    with pytest.raises(ValueError, match=start + "a damping that broadcasts"):
        apply(damp=np.ones(2))
