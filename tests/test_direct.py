"""Matrices that are proven to be uncut go without singular values, with the same result."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from jaxpinv import _certificate
from jaxpinv._factorisation import factor
from tests.helpers import bound, gaussian, hermitian_matrix, matrix, relative_error

# By Gram-Schmidt, by LU and by Cholesky, each with and without a batch where it has both.
SHAPES = {
    "tiny_square": (40, 3, 3),
    "tiny_tall": (40, 5, 4),
    "tiny_wide": (2, 20, 4, 6),
    "tiny_long": (40, 70, 2),
    "square": (12, 12),
    "squares": (3, 12, 12),
    "tall": (40, 30),
    "talls": (3, 14, 10),
    "wide": (10, 14),
    "long": (1200, 3),
}
DTYPES = {"float32": np.float32, "complex128": np.complex128}
all_shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
all_dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
CONDITION = 20


def random(rng, shape, dtype, spectrum=None):
    """Matrices with singular values from 1 to 20, or with given ones."""
    *batch, m, n = shape
    if spectrum is None:
        spectrum = list(np.geomspace(1, CONDITION, min(m, n)))
    a = [matrix(rng, (m, n), spectrum, dtype) for _ in range(int(np.prod(batch)))]
    return np.stack(a).reshape(shape)


@partial(jax.jit, static_argnames="hermitian")
def singular_values_taken(a, rtol=None, atol=0.0, hermitian=False):
    """For every matrix, whether `factor` took singular values."""
    a = jnp.asarray(a)
    tall = a if a.shape[-2] >= a.shape[-1] else jnp.swapaxes(a, -1, -2).conj()
    real = jnp.finfo(a.dtype)
    rtol = max(a.shape[-2:]) * float(real.eps) if rtol is None else rtol
    tolerances = [
        jnp.broadcast_to(jnp.asarray(x, real.dtype), a.shape[:-2]) for x in (rtol, atol)
    ]
    factors, _ = factor(tall, *tolerances, hermitian=hermitian, direct=True, in_blocks=True)
    # A direct factorisation has one number instead of them, which is a power of two.
    return jnp.ptp(factors.s, axis=-1) > 0


@partial(jax.jit, static_argnames=("method", "hermitian"))
def value_gradient_and_hvp(a, ct, e, method, hermitian=False):
    """The pseudo-inverse, a gradient and a Hessian-vector product."""

    def gradient(a):
        x, pullback = jax.vjp(partial(jaxpinv.pinv, hermitian=hermitian, method=method), a)
        return x, pullback(ct)[0]

    (x, g), (_, h) = jax.jvp(gradient, (a,), (e,))
    return x, g, h


# A dtype for each shape: both for all would compile twice as much.
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(shape, dtype, id=f"{name}-{np.dtype(dtype).name}")
        for (name, shape), dtype in zip(
            SHAPES.items(), itertools.cycle(DTYPES.values()), strict=False
        )
    ],
)
def test_values_and_derivatives_are_those_by_singular_values(rng, shape, dtype):
    a, e = random(rng, shape, dtype), gaussian(rng, shape, dtype)
    ct = gaussian(rng, (*shape[:-2], shape[-1], shape[-2]), dtype)
    assert not np.any(singular_values_taken(a))
    results = [value_gradient_and_hvp(a, ct, e, m) for m in ("auto", "svd")]
    for order, (x, y) in enumerate(zip(*results, strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@all_dtypes
@all_shapes
class TestAgreement:
    """Direct values next to others."""

    def test_values_are_those_in_double_precision(self, rng, shape, dtype):
        a = random(rng, shape, dtype)
        exact = np.linalg.pinv(a.astype(np.result_type(dtype, np.float64)))
        assert relative_error(jaxpinv.pinv(a), exact) <= bound(dtype, CONDITION)

    @pytest.mark.parametrize("exponent", [-100, 100])
    def test_scaling_by_a_power_of_two_scales_exactly(self, rng, shape, dtype, exponent):
        a = random(rng, shape, dtype)
        scale = np.array(2.0**exponent, np.finfo(dtype).dtype)
        assert not np.any(singular_values_taken(a * scale))
        x, y = (np.asarray(jaxpinv.pinv(b)) for b in (a * scale, a))
        assert np.array_equal(x, y / scale)


@pytest.mark.parametrize("shape", [(40, 5, 4), (14, 10), (40, 30)], ids=str)
def test_columns_of_u_are_orthonormal_to_rounding(rng, shape):
    n = shape[-1]
    a = jnp.asarray(random(rng, shape, np.float32, list(np.geomspace(1, 1 / 200, n))))
    zeros = jnp.zeros(shape[:-2], np.float32)
    factors, _ = factor(a, zeros, zeros, hermitian=False, direct=True, in_blocks=True)
    assert not np.any(singular_values_taken(a))
    u = np.asarray(factors.u, np.float64)
    gram = np.swapaxes(u, -1, -2) @ u
    assert np.max(np.abs(gram - np.eye(n))) <= bound(np.float32)


@pytest.mark.parametrize("n", [40, 49, 64, 300, 301])
def test_an_inverse_by_blocks_of_columns_or_rows_is_certified(rng, n):
    a = random(rng, (n, n), np.float64)
    assert not singular_values_taken(a)
    assert relative_error(jaxpinv.pinv(a), np.linalg.inv(a)) <= bound(np.float64, CONDITION)


def test_a_diagonal_matrix_has_exactly_the_reciprocals():
    d = np.arange(3.0, 15.0)
    assert np.array_equal(jaxpinv.pinv(np.diag(d)), np.diag(1 / d))


@all_dtypes
def test_hermitian_matrices_go_without_eigenvalues(rng, dtype):
    eigenvalues = list(np.array([1, -1] * 6) * np.geomspace(1, CONDITION, 12))
    a = np.stack([hermitian_matrix(rng, eigenvalues, dtype) for _ in range(3)])
    ct, e = gaussian(rng, a.shape, dtype), gaussian(rng, a.shape, dtype)
    assert not np.any(singular_values_taken(a, hermitian=True))
    results = [value_gradient_and_hvp(a, ct, e, m, True) for m in ("auto", "svd")]
    for order, (x, y) in enumerate(zip(*results, strict=True)):
        assert relative_error(x, y) <= bound(dtype, CONDITION ** (order + 1))


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_500_by_500_is_certified_in_single_precision(seed):
    a = np.random.default_rng(seed).standard_normal((500, 500)).astype(np.float32)
    assert not singular_values_taken(a)


class TestOption:
    """`method` chooses."""

    def test_svd_takes_singular_values_always(self, rng):
        a = random(rng, (3, 12, 12), np.float64)
        texts = [
            jax.jit(partial(jaxpinv.pinv, method=m)).lower(a).as_text()
            for m in ("auto", "svd")
        ]
        assert ["getrf" in text for text in texts] == [True, False]
        assert all("gesdd" in text for text in texts)

    @pytest.mark.parametrize("name", ["pinv", "lstsq"])
    def test_another_name_is_refused(self, name):
        arguments = [np.eye(3)] * (2 if name == "lstsq" else 1)
        with pytest.raises(ValueError, match=f'{name}: expected method "auto" or "svd"'):
            getattr(jaxpinv, name)(*arguments, method="qr")


def kahan(n, angle):
    """Kahan's matrix, whose pivots do not show how small its last singular value is."""
    c, s = np.cos(angle), np.sin(angle)
    return s ** np.arange(n)[:, None] * (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def wilkinson(n):
    """Wilkinson's matrix, in which elimination grows by `2^(n - 1)`."""
    a = np.eye(n) - np.tril(np.ones((n, n)), -1)
    a[:, -1] = 1
    return a


def near_the_cutoff(rng, shape, dtype):
    """Matrices with one singular value about the default cutoff, wherever it is."""
    *_, m, n = shape
    eps = max(m, n) * np.finfo(dtype).eps
    k = min(m, n)
    factors = np.concatenate([np.geomspace(0.1, 10, 33), 1 + 1e-6 * np.arange(-15, 16)])
    rest = np.geomspace(1, 0.3, k - 1)
    return np.stack([matrix(rng, (m, n), [*rest, eps * x], dtype) for x in factors])


class TestCertificate:
    """No matrix with a value to cut is certified."""

    @pytest.mark.parametrize("dtype", [np.float32, np.complex64], ids=["real", "complex"])
    @pytest.mark.parametrize(
        "shape", [(3, 3), (6, 4), (12, 12), (14, 10), (10, 30), (130, 130)], ids=str
    )
    def test_values_on_both_sides_of_the_default_cutoff(self, rng, shape, dtype):
        a = near_the_cutoff(rng, shape, dtype)
        s = np.linalg.svd(a.astype(np.complex128), compute_uv=False)
        cut = s[:, -1] <= max(shape) * np.finfo(dtype).eps * s[:, 0]
        taken = np.asarray(singular_values_taken(a))
        assert 10 < np.sum(cut) < 60
        assert np.all(taken[cut])

    @pytest.mark.parametrize("shape", [(40, 3, 3), (40, 12, 12), (40, 14, 10)], ids=str)
    @pytest.mark.parametrize("name", ["rtol", "atol"])
    def test_values_a_few_ulps_from_a_given_cutoff(self, rng, shape, name):
        spectrum = [*np.linspace(4, 2, min(shape[1:]) - 1), 0.5]
        a = random(rng, shape, np.float64, spectrum)
        s = np.linalg.svd(a, compute_uv=False)
        ulps = np.spacing(s[:, -1]) * np.arange(-20, 20)
        cutoffs = (s[:, -1] + ulps) / (s[:, 0] if name == "rtol" else 1)
        tolerances = {"rtol": 0.0, name: cutoffs}
        assert np.all(singular_values_taken(a, **tolerances))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
    @pytest.mark.parametrize("n", [9, 20, 60])
    @pytest.mark.parametrize(
        "make",
        [
            lambda n: kahan(n, 1.2),
            lambda n: kahan(n, 0.4),
            wilkinson,
            lambda n: 1 / (np.arange(n)[:, None] + np.arange(n) + 1),
            lambda n: np.vander(np.linspace(-1, 1, n)),
            lambda n: np.diag(10.0 ** -np.arange(n)) @ np.ones((n, n)) + np.eye(n),
            lambda n: np.triu(np.ones((n, n))) * 10.0 ** (np.arange(n) % 7),
        ],
        ids=["kahan", "kahan_hard", "wilkinson", "hilbert", "vander", "graded", "scaled"],
    )
    def test_hard_matrices_agree_with_their_singular_values(self, make, n, dtype):
        a = make(n).astype(dtype)
        for b in (a, np.concatenate([a, a[: n // 2]])):
            condition = np.linalg.cond(b.astype(np.float64))
            results = [jaxpinv.pinv(b, method=m, return_rank=True) for m in ("auto", "svd")]
            (x, rank), (y, by_values) = results
            assert rank == by_values
            if rank == n:
                assert relative_error(x, y) <= 2 * bound(dtype, condition)

    def test_growth_in_elimination_does_not_deceive(self):
        a = wilkinson(60)
        assert relative_error(jaxpinv.pinv(a), np.linalg.pinv(a)) <= bound(np.float64, 60)
        assert singular_values_taken(wilkinson(60) + 1e-3 * np.eye(60)[::-1])

    @pytest.mark.parametrize("shape", [(40, 3, 3), (12, 12), (14, 10), (2, 130, 130)])
    def test_zero_tolerances_do_not_certify_singular_matrices(self, rng, shape):
        n = shape[-1]
        spectrum = [*np.geomspace(1, 0.5, n - 1), 0]
        a = random(rng, shape, np.float64, spectrum)
        assert np.all(singular_values_taken(a, rtol=0.0))


class TestSharpNorms:
    """What decides where Frobenius norms do not."""

    @pytest.mark.parametrize("factor", [0.5, 0.9, 0.999, 1.05, 2])
    def test_a_bound_is_accepted_only_above_the_spectral_norm(self, rng, factor):
        x = gaussian(rng, (9, 8))
        largest = np.linalg.norm(x, 2)
        accepted = _certificate._is_below(jnp.asarray(x), jnp.asarray(factor * largest))
        assert bool(accepted) == (factor > 1)

    def test_the_schatten_norm_is_that_of_the_singular_values(self, rng):
        x = gaussian(rng, (9, 9))
        exact = np.sum(np.linalg.svd(x, compute_uv=False) ** 4) ** 0.25
        norm = _certificate._schatten_norm(jnp.asarray(x))
        assert abs(norm - exact) <= bound(np.float64) * exact

    @pytest.mark.parametrize("margin", [0.98, 1.02])
    def test_the_inverse_alone_can_refuse(self, margin):
        a, w = jnp.eye(9), jnp.diag(jnp.array([100.0] + [1.0] * 8))
        cutoff = _certificate.Cutoff(jnp.asarray(0.0), jnp.asarray(margin / 100))
        zero, one = jnp.asarray(0.0), jnp.asarray(1.0)
        assert bool(_certificate._by_products(a, w, cutoff, one, zero)) == (margin < 1)


@pytest.mark.parametrize("shape", [(70, 3, 3), (70, 12, 12), (70, 14, 10)], ids=str)
class TestMixedBatches:
    """Some matrices direct, some by singular values, some not finite."""

    @pytest.fixture
    def batch(self, rng, shape):
        a = random(rng, shape, np.float64)
        *_, m, n = shape
        for i in (3, 40, 41, 69):
            a[i] = matrix(rng, (m, n), [*range(2, n + 1), 0])
        a[7, 0, 0] = np.nan
        return a

    def test_only_those_that_need_them_take_singular_values(self, batch):
        taken = np.asarray(singular_values_taken(batch))
        # The values of a matrix that is not finite are NaN.
        assert np.flatnonzero(taken | (np.arange(70) == 7)).tolist() == [3, 7, 40, 41, 69]

    def test_results_do_not_depend_on_batch_mates(self, rng, batch):
        ct, e = gaussian(rng, np.swapaxes(batch, 1, 2).shape), gaussian(rng, batch.shape)
        results = value_gradient_and_hvp(batch, ct, e, "auto")
        for mates in (random(rng, batch.shape, np.float64), np.zeros_like(batch)):
            mine = np.arange(70) % 3 == 0
            other = np.where(mine[:, None, None], batch, mates)
            again = value_gradient_and_hvp(other, ct, e, "auto")
            for x, y in zip(results, again, strict=True):
                assert np.array_equal(x[mine], y[mine])

    def test_singular_matrices_have_the_result_of_their_singular_values(self, rng, batch):
        ct, e = gaussian(rng, np.swapaxes(batch, 1, 2).shape), gaussian(rng, batch.shape)
        results = [value_gradient_and_hvp(batch, ct, e, m) for m in ("auto", "svd")]
        ranks = [
            jaxpinv.pinv(batch, method=m, return_rank=True)[1] for m in ("auto", "svd")
        ]
        assert np.array_equal(ranks[0], ranks[1])
        for x, y in zip(*results, strict=True):
            assert np.all(np.isnan(x[7]))
            assert np.array_equal(np.isnan(x), np.isnan(y))
            finite = np.arange(70) != 7
            assert relative_error(x[finite], y[finite]) <= bound(np.float64, CONDITION**3)


@pytest.mark.parametrize("shape", [(1, 5, 4), (40, 5, 4), (1, 12, 12), (14, 10)], ids=str)
def test_tolerances_that_enlarge_the_batch_count_all(rng, shape):
    a = random(rng, shape, np.float64)
    rtol = np.array([1e-9, 0.2, 1e-9])[:, None] if len(shape) > 2 else np.array([1e-9, 0.2])
    results = [jaxpinv.pinv(a, rtol, method=m, return_rank=True) for m in ("auto", "svd")]
    (x, rank), (y, by_values) = results
    assert np.array_equal(rank, by_values)
    assert relative_error(x, y) <= bound(np.float64, CONDITION)


@all_shapes
def test_lstsq_agrees_in_every_field_and_gradient(rng, shape):
    a, b = random(rng, shape, np.float64), gaussian(rng, (*shape[:-1], 2))

    @partial(jax.jit, static_argnames="method")
    def all_of_it(a, b, method):
        def total(a, b):
            found = jaxpinv.lstsq(a, b, method=method)
            return jnp.sum(jnp.sin(found.solution)) + jnp.sum(found.singular_values)

        found = jaxpinv.lstsq(a, b, method=method)
        return found, jax.grad(total, (0, 1))(a, b)

    results = [jax.tree.leaves(all_of_it(a, b, m)) for m in ("auto", "svd")]
    for x, y in zip(*results, strict=True):
        assert np.max(np.abs(x - y)) <= bound(np.float64, CONDITION**3)


def test_a_batch_longer_than_any_vector_unit_agrees_with_numpy(rng):
    # On the CPU jaxlib 0.10.2 sums wrongly over an axis behind which there are more than
    # 32768 numbers.
    a = gaussian(rng, (40_000, 3, 2), np.float32)
    assert relative_error(jaxpinv.pinv(a)[-2:], np.linalg.pinv(a[-2:])) <= bound(
        np.float32, 1e3
    )


@pytest.mark.parametrize("shape", [(33, 3, 2), (2, 9, 9), (10, 9)], ids=str)
def test_works_with_jit_disabled(rng, shape):
    a = random(rng, shape, np.float64)
    with jax.disable_jit():
        x = jaxpinv.pinv(a)
    assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, CONDITION)


@pytest.mark.parametrize("shape", [(64, 3, 2), (12, 12), (3, 14, 10)], ids=str)
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_lowers_for_other_platforms(shape, platform):
    f = jax.jit(jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a))))
    exported = export.export(f, platforms=[platform])
    assert exported(jax.ShapeDtypeStruct(shape, np.float32)).platforms == (platform,)


class TestOverDevices:
    """A batch that is divided takes singular values, but not within `shard_map`."""

    @pytest.mark.parametrize("shape", [(512, 3, 2), (16, 10, 10), (16, 12, 10)], ids=str)
    @pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
    def test_shard_map_keeps_the_direct_way_and_others_need_no_collective(
        self, rng, shape, kind
    ):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
        spec = PartitionSpec("batch")
        a = random(rng, shape, np.float64)
        a[1, :, 0] = 0
        f = jax.grad(lambda a: jnp.sum(jnp.sin(jaxpinv.pinv(a))))
        expected = jax.jit(f)(a)
        with jax.set_mesh(mesh):
            mapped = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec))
            b = jax.device_put(a, NamedSharding(mesh, spec))
            for g, is_direct in ((mapped, True), (jax.jit(f), False)):
                lowered = g.lower(b)
                text = str(lowered.compile().as_text())
                assert not any(x in text for x in ("all-gather", "all-reduce", "permute"))
                assert ("while" in lowered.as_text()) == is_direct
                assert relative_error(g(b), expected) <= bound(np.float64, CONDITION**2)

    @pytest.mark.parametrize("shape", [(40, 3, 3), (6, 9, 9), (6, 20, 9)], ids=str)
    def test_an_explicit_mesh_of_one_device_is_no_exception(self, rng, shape):
        a = random(rng, shape, np.float64)
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Explicit,))
        with jax.set_mesh(mesh):
            b = jax.device_put(a, NamedSharding(mesh, PartitionSpec("batch")))
            x = jax.jit(jaxpinv.pinv)(b)
        assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, CONDITION)


@pytest.mark.parametrize(
    ("spec", "constraints", "shape"),
    [
        ("n, n", [], (12, 12)),
        ("m, 9", ["m >= 10"], (12, 9)),
        ("2, m, 9", ["m >= 10"], (2, 12, 9)),
        ("b, 12, 12", [], (3, 12, 12)),
        ("b, 3, 3", [], (40, 3, 3)),
    ],
)
def test_sizes_may_be_symbols_of_an_exported_program(rng, spec, constraints, shape):
    sizes = export.symbolic_shape(spec, constraints=constraints)
    f = jax.jit(jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a))))
    exported = export.export(f)(jax.ShapeDtypeStruct(sizes, np.float64))
    a = random(rng, shape, np.float64)
    assert relative_error(exported.call(a), f(a)) <= bound(np.float64, CONDITION**2)
