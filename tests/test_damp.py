"""`damp` and `damp_scale`: values, digits, batches, and what is refused."""

from functools import partial

import jax
import numpy as np
import pytest
import scipy.sparse.linalg
from sklearn.linear_model import Ridge

import jaxpinv
from tests import damping_oracle
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, hermitian_matrix, matrix

SHAPES = {"tall": (6, 4), "square": (4, 4), "wide": (3, 5)}
SPECTRA = {"full": [2, 1, 0.5, 0.3], "deficient": [2, 1, 0, 0], "zero": [0, 0, 0, 0]}
#: Rows, columns and rank.
ACCURATE = {
    "20x6-6": (20, 6, 6),
    "9x9-9": (9, 9, 9),
    "6x9-6": (6, 9, 6),
    "9x9-4": (9, 9, 4),
}
DAMP = 0.3
OPTIONS = ("method", "hermitian")

pinv = jax.jit(jaxpinv.pinv, static_argnames=OPTIONS)


@partial(jax.jit, static_argnames="method")
def all_results(a, b, x, scale, method):
    """All results with the same options, in one program."""
    options = {"damp": DAMP, "damp_scale": scale, "method": method}
    inverse, found = jaxpinv.pinv(a, **options), jaxpinv.lstsq(a, b, **options)
    return inverse, found, jaxpinv.null_projection(a, x, **options)


DTYPES = {"real": np.float64, "complex": np.complex128}
# Each two of a method, a shape, a dtype and a damping for all unknowns or one for each.
CASES = [
    *("svd-tall-complex-each", "direct-tall-real-all", "svd-square-real-all"),
    *("direct-square-complex-each", "svd-wide-complex-all", "direct-wide-real-each"),
]


@pytest.mark.unoptimized
@pytest.mark.slow_unless("direct-tall.*full")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_results_are_those_of_the_damped_inverse(rng, case, spectrum):
    method, shape, dtype, damped = case.split("-")
    (m, n), dtype = SHAPES[shape], DTYPES[dtype]
    a = matrix(rng, (m, n), spectrum, dtype)
    b, x = gaussian(rng, (m, 2), dtype), gaussian(rng, (n, 2), dtype)
    if damped == "each":
        scale = np.linspace(0.5, 2, n)
        exact = damping_oracle.damped(a, DAMP * scale).astype(dtype)
        limit = bound(np.float64, 4 / DAMP)
    else:
        scale = None
        exact = damping_oracle.filtered(a, DAMP).astype(dtype)
        limit = bound(np.float64, 2 / DAMP)

    found, (solution, residuals, rank, values), projected = all_results(
        a, b, x, scale, method
    )
    assert np.max(np.abs(found - exact)) <= limit
    assert np.max(np.abs(solution - exact @ b)) <= 10 * limit
    assert relative_error(residuals, np.sum(np.abs(a @ exact @ b - b) ** 2, 0)) <= limit
    assert rank == np.linalg.matrix_rank(a)
    known = np.linalg.svd(a, compute_uv=False)
    assert np.max(np.abs(values - known)) <= bound(np.float64, 2)
    assert np.max(np.abs(projected - (x - exact @ a @ x))) <= 10 * limit


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("damp", [DAMP, 1e3])
def test_scipy_and_scikit_learn_agree(rng, damp):
    features, b = gaussian(rng, (20, 3)), gaussian(rng, (20,))
    found = jaxpinv.lstsq(features, b, damp=damp).solution
    by_scipy = scipy.sparse.linalg.lsqr(features, b, damp=damp, atol=1e-15, btol=1e-15)[0]
    assert relative_error(found, by_scipy) <= 1e-10

    a = np.column_stack([np.ones(20), features])
    found = jaxpinv.lstsq(a, b, damp=damp, damp_scale=np.array([0.0, 1, 1, 1])).solution
    model = Ridge(damp**2).fit(features, b)
    assert relative_error(found, [model.intercept_, *model.coef_]) <= 1e-10


# Each two of a method, a dtype, a shape and a kind.
DIGITS = [
    ("direct", np.float32, "20x6-6", "one"),
    ("direct", np.float32, "9x9-9", "scaled"),
    ("direct", np.float32, "9x9-4", "scaled"),
    ("direct", np.float32, "6x9-6", "one"),
    ("svd", np.float32, "20x6-6", "one"),
    ("svd", np.float32, "9x9-9", "scaled"),
    ("svd", np.float64, "6x9-6", "scaled"),
    ("direct", np.float64, "20x6-6", "scaled"),
    ("direct", np.float64, "9x9-9", "one"),
    ("direct", np.float64, "9x9-4", "one"),
]


@pytest.mark.slow_unless("svd-float32-20x6-6-one")
@pytest.mark.parametrize(
    ("method", "dtype", "case", "kind"),
    DIGITS,
    ids=lambda x: x if isinstance(x, str) else x.__name__,
)
def test_no_digits_are_lost(rng, dtype, method, case, kind):
    (m, n, rank), is_scaled = ACCURATE[case], kind == "scaled"
    spectrum = [*np.linspace(2, 0.5, rank), *[0] * (min(m, n) - rank)]
    a = matrix(rng, (m, n), spectrum, dtype)
    scale = np.logspace(-0.5, 0.5, n).astype(dtype)
    options = {"damp_scale": scale} if is_scaled else {}
    # A tiny damping amplifies the rounding errors of singular values that are zero.
    sizes = [1e-6, 1e-3, 1e-1, 1, 1e2, 1e4] if rank == min(m, n) else [0.5, 1e2, 1e4]
    for d in 2 * np.array(sizes, dtype):
        dampings = np.asarray(d * (scale if is_scaled else np.ones(n)), float)
        exact = damping_oracle.damped(a, dampings)
        values = np.linalg.svd(
            np.vstack([a.astype(float), np.diag(dampings)]), compute_uv=False
        )
        # The null space of a wide matrix does not affect its damped inverse.
        condition = values[0] / values[-1 if is_scaled else min(m, n) - 1]
        x = np.asarray(pinv(a, damp=d, method=method, **options), float)
        error = np.linalg.norm(x - exact) / np.linalg.norm(exact)
        assert error <= 4 * np.finfo(dtype).eps * condition


@pytest.mark.unoptimized
@pytest.mark.slow
def test_only_the_lower_triangle_is_read_of_hermitian_matrices(rng):
    a = hermitian_matrix(rng, [3, -2, 1, 0], np.complex128)
    damaged = a + np.triu(np.ones((4, 4)), 1)
    exact = damping_oracle.filtered(a, DAMP)
    limit = bound(np.float64, 10)
    assert relative_error(pinv(damaged, damp=DAMP, hermitian=True), exact) <= limit
    scale = np.array([0.5, 1, 1, 2])
    found = pinv(damaged, damp=DAMP, damp_scale=scale, hermitian=True)
    assert relative_error(found, damping_oracle.damped(a, DAMP * scale)) <= limit


@pytest.mark.unoptimized
@pytest.mark.slow_unless("200-6-7")
@pytest.mark.parametrize(("count", "m", "n"), [(200, 6, 7), (200, 20, 9), (20, 40, 32)])
def test_a_batch_may_have_any_ranks_and_dampings(rng, count, m, n):
    # Sizes at which a direct factorization is tried, and ranks for which it fails.
    a = np.stack(
        [matrix(rng, (m, n), [*np.linspace(2, 1, i % (min(m, n) + 1)), *[0] * 50])
         for i in range(count)]
    ).astype(np.float32)  # fmt: skip
    damp = np.float32(10) ** rng.uniform(-2, 2, count).astype(np.float32)
    x = np.asarray(pinv(a, damp=damp), float)
    wide = a.astype(float)
    for i in range(count):
        u, s, vh = np.linalg.svd(wide[i], full_matrices=False)
        exact = (vh.T * (s / (s**2 + float(damp[i]) ** 2))) @ u.T
        # For a deficient matrix, the rounding errors of its zeros may become this large.
        assert np.max(np.abs(x[i] - exact)) <= bound(np.float32, 2 / damp[i] ** 2)


class TestTransformations:
    """Mapping over a damping, and a damping that is NaN."""

    @pytest.mark.unoptimized
    def test_one_decomposition_serves_all_dampings(self, rng):
        a, damp = gaussian(rng, (7, 5)), np.array([0.0, 0.1, 1.0, 10.0])
        mapped = jax.jit(jax.vmap(lambda d: jaxpinv.pinv(a, damp=d)))
        exact = np.stack([damping_oracle.filtered(a, d) for d in damp])
        assert relative_error(mapped(damp), exact) <= bound(np.float64, 100)
        assert relative_error(jaxpinv.pinv(a, damp=damp), exact) <= bound(np.float64, 100)
        assert "4,7,5" not in str(jax.make_jaxpr(mapped)(damp)).split("damped_factor")[0]
        # A factorization without singular values would be one for each damping.
        assert "potrf" not in mapped.lower(damp).as_text()

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("svd")
    @pytest.mark.parametrize("method", ["direct", "svd"])
    def test_a_map_over_tolerances_alone_equals_a_loop(self, rng, method):
        a, b = matrix(rng, (7, 5), [2, 1, 0.5, 0.3, 0.01]), gaussian(rng, (7,))

        def results(rtol):
            options = {"damp": 0.1, "rtol": rtol, "method": method}
            slope = jax.grad(lambda a: jaxpinv.pinv(a, **options)[0, 0])(a)
            return jaxpinv.lstsq(a, b, **options).solution, slope

        rtols = np.array([1e-3, 0.1, 0.4])
        compiled = jax.jit(results)
        looped = [compiled(rtol) for rtol in rtols]
        solutions, slopes = map(np.stack, zip(*looped, strict=True))
        found = jax.jit(jax.vmap(results))(rtols)
        assert relative_error(found[0], solutions) <= bound(np.float64, 100)
        assert relative_error(found[1], slopes) <= bound(np.float64, 100)

    @pytest.mark.unoptimized
    def test_rank_and_values_have_the_whole_batch(self, rng):
        a, b = gaussian(rng, (7, 5)), gaussian(rng, (7,))
        damped = partial(jaxpinv.lstsq, damp=np.array([0.5, 1.0]))
        found = jax.eval_shape(damped, a, b)
        shapes = [x.shape for x in found]
        assert shapes == [(2, 5), (2,), (2,), (2, 5)]

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("True-nan")
    @pytest.mark.parametrize("broken", [np.nan, np.inf])
    @pytest.mark.parametrize("is_scaled", [False, True])
    def test_what_is_not_finite_gives_nan_for_its_matrix(self, rng, broken, is_scaled):
        a, damp = gaussian(rng, (3, 5, 4)), np.array([1.0, broken, 0.5])
        options = {"damp_scale": np.ones(4)} if is_scaled else {}
        x = pinv(a, damp=damp, **options)
        assert np.all(np.isnan(x[1]))
        assert not np.any(np.isnan(x[::2]))

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("shape3")
    @pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 0, 3)])
    def test_nothing_is_damped_where_nothing_is(self, shape):
        a = np.zeros(shape)
        found = jaxpinv.pinv(a, damp=1.0)
        assert found.shape == (*shape[:-2], shape[-1], shape[-2])
        scaled = jaxpinv.pinv(a, damp=1.0, damp_scale=np.ones(shape[-1]))
        assert scaled.shape == found.shape

    @pytest.mark.slow_unless("1e-30")
    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_no_square_leaves_the_range(self, rng, size):
        a = matrix(rng, (5, 4), [2, 1, 0.5, 0.3])
        exact = damping_oracle.filtered(a, DAMP)
        x = pinv((a * size).astype(np.float32), damp=np.float32(DAMP * size))
        assert relative_error(np.asarray(x, float) * size, exact) <= bound(np.float32, 10)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"damp": -1.0}, ValueError, "pinv: expected damp >= 0, got -1.0"),
        ({"damp": True}, TypeError, "pinv: expected damp to be a real number"),
        ({"damp": 1j}, TypeError, "pinv: expected damp to be a real number"),
        ({"damp": np.ones(2)}, ValueError, "pinv: expected a damping that broadcasts"),
        ({"damp_scale": np.ones(3)}, ValueError, "pinv: expected damp too if"),
        (
            {"damp": 1.0, "damp_scale": 1.0},
            ValueError,
            "pinv: expected damp_scale of shape (..., 3), one for each unknown, got",
        ),
        (
            {"damp": 1.0, "damp_scale": np.ones((2, 3))},
            ValueError,
            "pinv: expected a damping that broadcasts against the batch shape (3,), got "
            "damp of shape () and damp_scale of shape (2, 3)",
        ),
        (
            {"damp": 1.0, "damp_scale": -np.ones(3)},
            ValueError,
            "pinv: expected damp_scale >= 0",
        ),
        (
            {"damp": 1.0, "damp_scale": np.ones(2)},
            ValueError,
            "pinv: expected damp_scale of shape (..., 3)",
        ),
    ],
)
def test_invalid_dampings_are_refused(options, error, message):
    with pytest.raises(error) as caught:
        jaxpinv.pinv(np.ones((3, 4, 3)), **options)
    assert str(caught.value).startswith(message)
