"""Sums over long axes: their error bound, and the rules of the primitive `inner`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxpinv
from jaxpinv._inner import _group, inner
from jaxpinv._linalg import matmul, squared_norms, sum_of_rows
from jaxpinv._platform import form_plan
from jaxpinv._shapes import divided
from tests.comparison import bound, relative_error
from tests.matrices import gaussian


def limit(m, k, j, dtype):
    """The stated error bound, relative to the sum of absolute products."""
    sides = min(k, j)
    chunk = 16 if sides < 4 else 64 if sides < 16 else max(128, 2 * max(k, j))
    stages = np.ceil(np.log(max(m / chunk / 16, 1)) / np.log(8))
    # A complex product is four real ones, in two sums.
    factor = 2 if np.dtype(dtype).kind == "c" else 1
    return factor * (chunk + 8 * stages + 16 + 1) * np.finfo(dtype).eps / 2


@pytest.mark.slow_unless("float32")
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize(
    ("m", "k", "j"),
    [(999_983, 2, 2), (200_000, 1, 1), (100_000, 6, 1), (20_011, 5, 7), (5000, 40, 3)],
    ids=str,
)
def test_the_error_is_within_the_stated_bound(rng, m, k, j, dtype):
    # Terms of one sign. A running sum rounds equal ones alike: it is off by 1e-3 or more.
    x = np.abs(gaussian(rng, (m, k), dtype)).astype(dtype)
    y = np.abs(gaussian(rng, (m, j), dtype)).astype(dtype)
    x[:, 0], y[:, 0] = 0.3, 0.7
    double = np.result_type(dtype, np.float64)
    exact = x.T.astype(double) @ y.astype(double)
    size = np.abs(x).T.astype(float) @ np.abs(y).astype(float)
    error = np.abs(np.asarray(inner(jnp.asarray(x), jnp.asarray(y))) - exact)
    assert np.max(error / size) <= limit(m, k, j, dtype)


@pytest.mark.slow_unless("1024-1-1")
@pytest.mark.parametrize("m", [1024, 49_152])
@pytest.mark.parametrize(
    ("k", "j", "dtype"), [(1, 1, np.float32), (3, 2, np.complex64), (4, 4, np.complex64)]
)
def test_sums_within_chunks_are_not_merged_with_those_over_chunks(m, k, j, dtype):
    # No chunk or group is padded, so nothing but the order of sums is between them.
    x, y = (np.full((m, n), 0.7, np.float32).astype(dtype) for n in (k, j))
    if np.iscomplexobj(x):
        x, y = (z * dtype(1 + 0.3j) for z in (x, y))
    double = np.result_type(dtype, np.float64)
    exact = x.T.astype(double) @ y.astype(double)
    size = np.abs(x).T.astype(float) @ np.abs(y).astype(float)
    error = np.abs(np.asarray(inner(jnp.asarray(x), jnp.asarray(y))) - exact)
    assert np.max(error / size) <= limit(m, k, j, dtype) / (2 if k > 1 else 1)


def test_the_sums_of_chunks_are_added_in_as_few_groups_as_the_bound_says():
    for terms in [*range(1, 5000), 62_500, 62_501, 65_536, 99_991]:
        added, left = 0, terms
        while left > 1:
            added += _group(left)
            left = -(-left // _group(left))
        assert added <= 16 + 8 * max(0, np.ceil(np.log(terms / 16) / np.log(8) - 1e-9))


@pytest.mark.parametrize("most", [16, 64, 256])
def test_chunks_are_of_one_length_and_leave_less_than_another_one(most):
    for rows in range(1, 1100):
        count, length = divided(rows, most)
        assert min(most, rows) // 2 < length <= most
        assert 0 <= rows - count * length < length
    assert divided(10 * most, most) == (10, most)
    # An exact length wins.
    assert divided(7 * (most - 1), most) == (7, most - 1)
    # If there is none, few rows are left over, but there are not many more chunks.
    assert divided(2053, 256) == (8, 256)
    assert divided(2039, 256) == (8, 254)


@pytest.mark.parametrize("is_complex", [False, True])
def test_only_sums_over_short_chunks_use_no_library(is_complex):
    # With 128 rows in a chunk, a library call takes half as long.
    for k, j in np.ndindex(20, 20):
        for is_cpu in (True, False):
            if form_plan.sums_products(
                k, j, is_complex=is_complex, is_single=True, is_cpu=is_cpu
            ):
                assert min(k, j) < 16
                assert is_complex or is_cpu


@pytest.mark.parametrize("k", [4, 15])
def test_equal_terms_in_a_few_columns_cost_no_more(k):
    # In chunks of 128 rows they would cost 12 eps.
    x = jnp.full((20_000, k), 0.7, jnp.float32)
    gram = np.asarray(matmul(x.T, x), float)
    error = np.max(np.abs(gram / (20_000 * float(np.float32(0.7)) ** 2) - 1))
    assert error <= bound(np.float32, 0.5)


def test_a_product_is_planned_with_its_whole_batch():
    # A reduction in plain arithmetic suits one vector. For 3000 it would take 20 times as
    # long as a library.
    a, b = np.ones((30, 32), np.float32), np.ones((3000, 32, 1), np.float32)

    def product(b):
        return matmul(jnp.asarray(a), b)

    assert "dot" not in lowered(product, b[0])
    assert "dot" in lowered(jax.vmap(product), b)
    assert "dot" in lowered(product, b)


def lowered(f, x):
    """The program for one argument, before XLA optimizes it."""
    return jax.jit(f).lower(x).as_text()


@pytest.mark.slow_unless("300000")
@pytest.mark.parametrize("m", [1001, 20_000, 300_000])
def test_equal_terms_cost_a_few_roundings_whatever_their_number(m):
    @jax.jit
    def sums(x):
        return matmul(x.T, x), squared_norms(x), sum_of_rows(x)

    one = float(np.float32(0.1))
    found = sums(np.full((m, 2), 0.1, np.float32))
    for x, exact in zip(found, (m * one**2, m * one**2, m * one), strict=True):
        error = np.max(np.abs(np.asarray(x, float) / exact - 1))
        assert error <= bound(np.float32, 0.5)


@pytest.mark.unoptimized
class TestRules:
    """The transformations of a product over a long axis are those of the product."""

    @pytest.fixture
    def operands(self, rng):
        shapes = [(3, 1, 500, 4), (3, 2, 500, 5)]
        return [gaussian(rng, s, np.complex128) for s in shapes]

    def plain(self, x, y):
        """The product by NumPy."""
        return np.einsum("...mk,...mj->...kj", x, y)

    def test_derivatives_in_both_operands(self, operands):
        tangents = [2j * x + 1 for x in operands]
        # The product rule, by NumPy.
        (x, y), (dx, dy) = operands, tangents
        expected = self.plain(x, y), self.plain(dx, y) + self.plain(x, dy)
        found = jax.jit(partial(jax.jvp, inner))(operands, tangents)
        for z, known in zip(found, expected, strict=True):
            assert relative_error(z, known) <= bound(np.float64)

    def test_transposes_sum_over_what_was_stretched(self, operands):
        x, y = operands
        ct = self.plain(x, y) * (1 - 2j)
        # By NumPy: the first operand has one matrix where the second has two.
        of_x = np.sum(np.einsum("...mj,...kj->...mk", y, ct), axis=1, keepdims=True)
        expected = of_x, np.einsum("...mk,...kj->...mj", x, ct)
        found = jax.jit(lambda x, y, ct: jax.vjp(inner, x, y)[1](ct))(x, y, ct)
        for z, known in zip(found, expected, strict=True):
            assert z.shape == known.shape
            assert relative_error(z, known) <= bound(np.float64)

    @pytest.mark.parametrize("axes", [(0, 0), (None, 1), (1, None)], ids=str)
    def test_batches(self, rng, axes):
        shapes = {None: (300, 4), 0: (6, 300, 4), 1: (300, 6, 4)}
        x, y = (gaussian(rng, shapes[axis]) for axis in axes)
        found = jax.jit(jax.vmap(inner, in_axes=axes))(x, y)
        x, y = (
            z if axis is None else np.moveaxis(z, axis, 0)
            for z, axis in zip((x, y), axes, strict=True)
        )
        expected = self.plain(x, y)
        assert relative_error(found, expected) <= bound(np.float64)

    def test_without_jit(self, operands):
        with jax.disable_jit():
            found = inner(*operands)
        assert relative_error(found, self.plain(*operands)) <= bound(np.float64)


def test_rows_on_many_devices_are_added_where_they_lie(rng):
    mesh = jax.make_mesh((8,), ("rows",), axis_types=(jax.sharding.AxisType.Auto,))
    by_rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))
    # No chunk length divides the 1009 rows of a device.
    x, y = (
        jax.device_put(gaussian(rng, (8 * 1009, n)).astype(np.float32), by_rows)
        for n in (3, 5)
    )
    program = jax.jit(lambda x, y: matmul(x.T, y)).lower(x, y).compile()
    assert "all-gather" not in str(program.as_text())
    exact = np.asarray(x, float).T @ np.asarray(y, float)
    size = np.abs(np.asarray(x, float)).T @ np.abs(np.asarray(y, float))
    error = np.abs(np.asarray(program(x, y)) - exact)
    assert np.max(error / size) <= limit(8 * 1009, 3, 5, np.float32)


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("rows", [5, 1000])
@pytest.mark.parametrize("columns", [0, 2])
def test_no_right_sides_give_empty_results(rows, columns):
    found = jaxpinv.lstsq(np.ones((rows, 2)), np.ones((rows, columns)))
    assert found.solution.shape == (2, columns)
    assert found.residuals.shape == (columns,)
    assert np.all(np.abs(found.residuals) <= bound(np.float64) * rows)


@pytest.mark.unoptimized
@pytest.mark.parametrize("shape", [(1000, 0), (0, 1000), (0, 0)], ids=str)
def test_empty_matrices_have_gradients(shape):
    a, b = np.ones(shape), np.ones(shape[:1])
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(jaxpinv.lstsq(a, b).solution)))(a)
    assert gradient.shape == shape


def derivative_of_gradient(a, b, e, c):
    """The derivative along `e` of the gradient of `<c, x>`, by the normal equations."""
    inverse = np.linalg.inv(a.T @ a)
    x, g = inverse @ (a.T @ b), inverse @ c
    r = b - a @ x
    dx, dg = inverse @ (e.T @ r - a.T @ (e @ x)), -inverse @ (e.T @ (a @ g) + a.T @ (e @ g))
    dr, dag = -e @ x - a @ dx, e @ g + a @ dg
    # The gradient is r g^T - (A g) x^T.
    pairs = [(dr, g), (r, dg), (-dag, x), (-a @ g, dx)]
    return sum(np.outer(u, v) for u, v in pairs)


@pytest.mark.slow
def test_derivatives_sum_over_rows_in_chunks_too(rng):
    m, n = 100_000, 5
    a = rng.uniform(0, 1, (m, n)).astype(np.float32)
    a[:, 0] = 1
    b = (a @ np.arange(1, n + 1) + rng.standard_normal(m)).astype(np.float32)
    e = gaussian(rng, (m, n), np.float32)
    c = gaussian(rng, (n,), np.float32)

    @jax.jit
    def derivatives(a, b, e, c):
        def loss(a):
            return jnp.vdot(jaxpinv.lstsq(a, b, 1e-3, method="svd").solution, c)

        hvp = jax.jvp(jax.grad(loss), (a,), (e,))[1]
        # In this program, too, because it is the same decomposition.
        projected = jax.grad(
            lambda x: jnp.sum(jaxpinv.null_projection(a, x, 1e-3, method="svd"))
        )
        return hvp, projected(jnp.ones_like(c))

    found, gradient = (np.asarray(x, float) for x in derivatives(a, b, e, c))
    exact = derivative_of_gradient(*(np.asarray(x, float) for x in (a, b, e, c)))
    condition = np.linalg.cond(a.astype(float))
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error <= 4 * float(np.finfo(np.float32).eps) * condition
    # The null space is empty, and so the gradient is zero.
    assert np.max(np.abs(gradient)) <= 4 * np.finfo(np.float32).eps * condition


def test_sums_are_in_chunks_for_a_batch_of_symbolic_size():
    (b,) = export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, 4000, 3), np.float32)
    program = export.export(jax.jit(lambda a: jaxpinv.lstsq(a, a[..., :1]).solution))(shape)
    dots = [x for x in program.mlir_module().splitlines() if "dot_general" in x]
    assert dots
    assert not [x for x in dots if "x4000x" in x]
