"""Dampings of a `Factorization`: values, digits, derivatives, and what does not change."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

import jaxpinv
from tests import damping_oracle
from tests.comparison import bound, pair, relative_error
from tests.differentiation import reverse_over_reverse, two_derivatives
from tests.matrices import gaussian, hermitian_matrix, matrix

# Sides of more than eight, so that the matrices are not factored anew.
SHAPES = {"tall": (12, 9), "square": (9, 9), "wide": (9, 10)}
RANKS = {"full": 9, "deficient": 4, "zero": 0}
DTYPES = {"real": np.float64, "complex": np.complex128}
DAMPS = np.array([0.0, 0.3, 2.0])


def of_rank(rng, shape, rank, dtype=np.float64):
    """A matrix with singular values from 2 to 0.5, and zeros."""
    zeros = [0.0] * (min(shape) - rank)
    return matrix(rng, shape, [*np.linspace(2, 0.5, rank), *zeros], dtype)


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


# Method, shape and dtype, each with its own program.
CASES = [
    pytest.param(method, SHAPES[shape], DTYPES[dtype], id=f"{method}-{shape}-{dtype}")
    for method, shape, dtype in [
        ("svd", "wide", "complex"),
        ("direct", "tall", "real"),
        ("direct", "square", "complex"),
        ("svd", "tall", "complex"),
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
    found = path(a, b, x, DAMPS, method)
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
    found = factored.solve(b[:, None], damp=DAMPS[:, None])[..., 0]
    assert found.shape == (3, 2, 9)
    for i, d in enumerate(DAMPS):
        for j in range(2):
            known = scipy.sparse.linalg.lsqr(a[j], b, damp=d, atol=1e-15, btol=1e-15)[0]
            assert relative_error(found[i, j], known) <= 1e-10


# Each two of a dtype, a method and a shape, and all shapes by a direct factorization.
DIGITS = [
    pytest.param(dtype, method, *sizes, id=f"{dtype.__name__}-{method}-{m}x{n}-{rank}")
    for dtype, method, left_out in [
        (np.float32, "direct", None),
        (np.float32, "svd", 20),
        (np.float64, "direct", 20),
        (np.float64, "svd", 12),
    ]
    for sizes in [(20, 9, 9), (9, 9, 9), (9, 12, 9), (9, 9, 4)]
    for m, n, rank in [sizes]
    if left_out not in (m, n)
]


@pytest.mark.slow_unless("float32-direct-9x9-9")
@pytest.mark.parametrize(("dtype", "method", "m", "n", "rank"), DIGITS)
def test_no_digits_are_lost(rng, dtype, method, m, n, rank):
    a = of_rank(rng, (m, n), rank, dtype)
    # A tiny damping amplifies the rounding errors of singular values that are zero.
    sizes = [1e-6, 1e-3, 1e-1, 1, 1e2, 1e4] if rank == min(m, n) else [0.5, 1e2, 1e4]
    damps = 2 * np.array(sizes, dtype)
    zeros = np.zeros((n, 2), dtype)
    identity = np.eye(m, dtype=dtype)
    inverses, solutions, _ = path(a, identity, zeros, damps, method)
    for i, d in enumerate(damps.astype(float)):
        exact = damping_oracle.damped(a, np.full(n, d))
        values = np.hypot(np.linalg.svd(a.astype(float), compute_uv=False), d)
        limit = 4 * np.finfo(dtype).eps * values[0] / values[-1]
        for x in (inverses[i], solutions[i]):
            error = np.linalg.norm(np.asarray(x, float) - exact)
            assert error <= limit * np.linalg.norm(exact)


def derivatives(name, a, c, d, e, dc, dd):
    """The first and the second derivative, by the oracle."""
    d, dd = (np.full(a.shape[1], x) for x in (d, dd))
    x = damping_oracle.damped(a, d)
    x1, x2 = (damping_oracle.derivative(a, d, e, dd, order) for order in (1, 2))
    if name == "pinv":
        return x1, x2
    if name == "solve":
        return x1 @ c + x @ dc, x2 @ c + 2 * x1 @ dc
    y, y1, y2 = x @ a, x1 @ a + x @ e, x2 @ a + 2 * x1 @ e
    return dc - y1 @ c - y @ dc, -y2 @ c - 2 * y1 @ dc


def damped_by(name, *, is_known, method, inside):
    """A result of a factorization as a function of the matrix, a vector and a damping."""
    make = partial(jaxpinv.factorize, method=method)
    make = jax.jit(make) if inside else make

    def f(a, c, d):
        factored = make(a)
        damp = {"damp": 0.7 if is_known else d}
        if name == "pinv":
            return factored.pinv(**damp)
        return getattr(factored, name)(c, **damp)

    return f


OPTIONS = ("name", "is_known", "method", "inside")


@partial(jax.jit, static_argnames=OPTIONS)
def forward(name, at, along, **options):
    """Two derivatives along `along`."""
    return two_derivatives(damped_by(name, **options), at, along)[1:]


@partial(jax.jit, static_argnames=OPTIONS)
def reverse(name, at, along, ct, **options):
    """Gradients, and Hessian-vector products by forward and by reverse mode."""
    f = damped_by(name, **options)

    def gradient(*at):
        return jax.vjp(f, *at)[1](ct)

    def pushed(*at):
        pairs = zip(gradient(*at), along, strict=True)
        return sum(jnp.sum(jnp.real(g * t)) for g, t in pairs)

    slopes, hvp = jax.jvp(gradient, at, along)
    return slopes, hvp, jax.grad(pushed, argnums=(0, 1, 2))(*at)


# Function, whether the damping is known, and other options that change the program.
DERIVATIVES = [
    pytest.param(
        *(name, damp == "known", method, SHAPES[shape], DTYPES[dtype]),
        id=f"{name}-{damp}-{method}-{shape}-{dtype}",
    )
    for name, damp, method, shape, dtype in [
        ("pinv", "known", "direct", "tall", "real"),
        ("pinv", "traced", "svd", "wide", "complex"),
        ("solve", "known", "svd", "wide", "complex"),
        ("solve", "traced", "direct", "tall", "complex"),
        ("null_projection", "known", "direct", "square", "complex"),
        ("null_projection", "traced", "svd", "tall", "real"),
    ]
]


@pytest.mark.unoptimized
@pytest.mark.slow_unless("deficient-solve-known")
@pytest.mark.parametrize(("name", "is_known", "method", "shape", "dtype"), DERIVATIVES)
@pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS)
def test_derivatives_exist_at_every_matrix(rng, name, is_known, method, shape, rank, dtype):
    # The oracle's differences pass through the deficient matrix.
    m, n = shape
    a, e = of_rank(rng, shape, rank, dtype), gaussian(rng, shape, dtype)
    length = m if name == "solve" else n
    c, dc = (gaussian(rng, (length, 1), dtype) for _ in range(2))
    d, dd = 0.7, 0.0 if is_known else 0.4
    exact = derivatives(name, a, c, d, e, dc, dd)
    ct = gaussian(rng, exact[0].shape, dtype)
    options = {"is_known": is_known, "method": method, "inside": method == "direct"}
    at, along = (a, c, d), (e, dc, dd)
    for found, known in zip(forward(name, at, along, **options), exact, strict=True):
        assert relative_error(found, known) <= 1e-9
    slopes = reverse(name, at, along, ct, **options)
    for found, known in zip(slopes, (*exact, exact[1]), strict=True):
        pushed = sum(pair(g, t) for g, t in zip(found, along, strict=True))
        assert abs(pushed - pair(ct, known)) <= 1e-9 * np.sum(np.abs(ct * known))


class TestWithoutDamping:
    """A damping of zero."""

    @pytest.mark.slow_unless("svd")
    @pytest.mark.parametrize("method", ["svd", "direct"])
    def test_each_matrix_has_what_it_has_undamped(self, rng, method):
        a = np.stack([of_rank(rng, (12, 9), rank) for rank in (9, 4, 9)])
        b, x = gaussian(rng, (3, 12, 1)), gaussian(rng, (3, 9, 1))
        factored = jaxpinv.factorize(a, method=method)
        plain = factored.pinv(), factored.solve(b), factored.null_projection(x)
        for damp in (np.array([0.0, 0.0, 0.5]), np.array([1e-320, 0.0, 0.5])):
            found = all_of(factored, b, x, damp)
            for y, known in zip(found, plain, strict=True):
                assert np.array_equal(y[:2], known[:2])
                assert relative_error(y[2], known[2]) > 1e-3
        for y, known in zip(all_of(factored, b, x, 0), plain, strict=True):
            assert np.array_equal(y, known)

    @pytest.mark.unoptimized
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["pinv", "solve", "null_projection"])
    def test_derivatives_in_the_damping_exist(self, rng, name):
        a, e = of_rank(rng, (12, 9), 9), gaussian(rng, (12, 9))
        c = gaussian(rng, (12 if name == "solve" else 9, 1))
        exact = derivatives(name, a, c, 0.0, e, 0 * c, 1.0)
        options = {"is_known": False, "method": "svd", "inside": False}
        found = forward(name, (a, c, 0.0), (e, 0 * c, 1.0), **options)
        size = np.max(np.abs(exact[1]))
        for y, known in zip(found, exact, strict=True):
            assert np.max(np.abs(y - known)) <= 1e-9 * size


class TestTransformations:
    """Places where a factorization is made, and where it is damped."""

    @pytest.mark.unoptimized
    @pytest.mark.slow
    def test_one_decomposition_serves_a_path(self, rng):
        a, b = gaussian(rng, (12, 9)), gaussian(rng, (12,))
        for method, count in (("svd", 1), ("auto", 2)):
            text = path.lower(a, b, b[:9], DAMPS, method).compile().as_text()
            assert text is not None
            assert text.count('custom_call_target="lapack_dgesdd_ffi"') == count

    @pytest.mark.unoptimized
    @pytest.mark.slow
    def test_it_passes_through_the_carry_of_a_scan(self, rng):
        # Like the search for the step of a trust region.
        a, e, b = gaussian(rng, (9, 10)), gaussian(rng, (9, 10)), gaussian(rng, (9,))
        damps = np.array([0.5, 1.0, 2.0])

        def by_scan(a):
            def step(carry, damp):
                factored, d = carry
                x = factored.solve(b, damp=damp * d)
                return (factored, jnp.sum(x**2)), x

            start = jaxpinv.factorize(a), jnp.asarray(1.0)
            (factored, last), found = jax.lax.scan(step, start, damps)
            return jnp.sum(found**3) + last * jnp.sum(factored.solve(b, damp=last))

        def by_loop(a):
            d, total = 1.0, 0.0
            for damp in damps:
                y = b @ a @ jnp.linalg.inv(a.T @ a + (damp * d) ** 2 * jnp.eye(10))
                d, total = jnp.sum(y**2), total + jnp.sum(y**3)
            y = b @ a @ jnp.linalg.inv(a.T @ a + d**2 * jnp.eye(10))
            return total + d * jnp.sum(y)

        @partial(jax.jit, static_argnums=0)
        def all_of_it(f, a):
            return f(a), *reverse_over_reverse(f, a, e)

        both = (all_of_it(f, a) for f in (by_scan, by_loop))
        for found, exact in zip(*both, strict=True):
            assert relative_error(found, exact) <= 1e-8

    @pytest.mark.unoptimized
    def test_tolerances_that_are_given_hold(self, rng):
        a, b = matrix(rng, (12, 9), [3, 2, 0.5, *[0.1] * 6]), gaussian(rng, (12,))
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        kept = np.where(np.hypot(s, 0.2) > 0.3, s / (s**2 + 0.04), 0)
        exact = (vh.T * kept) @ u.T
        factored = jaxpinv.factorize(a, atol=0.3)
        assert relative_error(factored.pinv(damp=0.2), exact) <= bound(np.float64, 10)
        assert relative_error(factored.solve(b, damp=0.2), exact @ b) <= bound(
            np.float64, 10
        )
        # The default would truncate 1e-15, but does not apply with a damping.
        tiny = matrix(rng, (12, 9), [1, 0.5, *[1e-15] * 7])
        exact = damping_oracle.filtered(tiny, 1e-14)
        found = jaxpinv.factorize(tiny).pinv(damp=1e-14)
        assert relative_error(found, exact) <= 0.5

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("svd")
    @pytest.mark.parametrize("method", ["auto", "svd"])
    def test_batches_of_tiny_matrices(self, rng, method):
        a, b = gaussian(rng, (300, 6, 7)), gaussian(rng, (300, 6))
        factored = jaxpinv.factorize(a, method=method)

        def solve(factored, b):
            return factored.solve(b, damp=0.4)

        found = jax.vmap(solve)(factored, b)
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
    @pytest.mark.slow_unless("nan")
    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    def test_what_is_not_finite_is_nan_for_its_matrix(self, rng, broken):
        a, b = gaussian(rng, (4, 12, 9)), gaussian(rng, (4, 12, 2))
        damp = np.array([0.3, 0.3, 0.3, broken])
        a[1, 2, 3] = broken
        clean, b[2, 4, 1] = b.copy(), broken

        def total(a):
            return jnp.sum(solve(a, clean, damp))

        def solve(a, b, damp):
            return jaxpinv.factorize(a).solve(b, damp=damp)

        found, slope = map(
            np.asarray, (jax.jit(solve)(a, b, damp), jax.jit(jax.grad(total))(a))
        )
        expected = np.zeros((4, 2), bool)
        expected[[1, 3]] = expected[2, 1] = True
        assert np.array_equal(np.all(np.isnan(found), axis=1), expected)
        assert np.array_equal(np.any(np.isnan(found), axis=1), expected)
        assert np.array_equal(np.all(np.isnan(slope), axis=(1, 2)), [0, 1, 0, 1])
        assert not np.any(np.isnan(slope[[0, 2]]))

    @pytest.mark.slow
    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_no_square_leaves_the_range(self, rng, size):
        a = of_rank(rng, (12, 9), 9)
        b, x = gaussian(rng, (12, 2)), gaussian(rng, (9, 2))
        exact = damping_oracle.filtered(a, 0.3)
        scaled, d = (a * size).astype(np.float32), np.array([0.3 * size], np.float32)
        found = path(scaled, *(y.astype(np.float32) for y in (b, x)), d, "svd")
        limit = bound(np.float32, 10)
        for y, known in zip(found[:2], (exact, exact @ b), strict=True):
            assert relative_error(np.asarray(y[0], float) * size, known) <= limit
        assert relative_error(found[2][0], x - exact @ a @ x) <= limit
        # A zero matrix gives zero even if the square of the damping is out of range.
        zero = jaxpinv.factorize(0 * scaled).solve(b.astype(np.float32), damp=d[0])
        assert np.array_equal(zero, np.zeros((9, 2)))

    @pytest.mark.slow
    @pytest.mark.parametrize("damp", [1e-20, 1e-37])
    def test_a_damping_far_below_the_rounding_has_the_limit(self, damp):
        a = np.zeros((12, 9), np.float32)
        a[0, 0] = 100
        b, x = np.ones(12, np.float32), np.ones(9, np.float32)
        known = np.zeros_like(a.T)
        known[0, 0] = 0.01

        def projections(damp):
            return jaxpinv.factorize(a, method="svd").null_projection(x, damp=damp)

        for projected in (projections(damp), jax.jit(projections)(damp)):
            assert np.array_equal(projected, x - (known @ a @ x))
        for of, exact, right in ((a, known, b), (a.T, known.T, x)):
            factored = jaxpinv.factorize(of, method="svd")
            limit = bound(np.float32, 1)
            assert relative_error(factored.pinv(damp=damp), exact) <= limit
            assert relative_error(factored.solve(right, damp=damp), exact @ right) <= limit
            slope = jax.grad(lambda b, of: jnp.sum(of.solve(b, damp=damp)))(right, factored)
            assert relative_error(slope, np.sum(exact, axis=0)) <= limit

    @pytest.mark.slow
    def test_a_matrix_does_not_depend_on_its_batch(self, rng):
        # Of orthonormal columns of scale 1 the factors are triplets, and serve as they are.
        q = np.linalg.qr(gaussian(rng, (500, 16, 12)))[0].astype(np.float32)
        q = q[np.max(np.abs(q), axis=(1, 2)) > 0.76]
        mixed = np.concatenate([q, gaussian(rng, (1, 16, 12)).astype(np.float32)])
        alike, mixed = (
            jaxpinv.factorize(a, method="direct").pinv(damp=0.1) for a in (q, mixed)
        )
        assert len(q) >= 10
        assert np.array_equal(alike, mixed[:-1])

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("svd-shape3|auto-shape2")
    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 12)])
    @pytest.mark.parametrize("method", ["auto", "svd"])
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
