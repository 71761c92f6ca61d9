"""`matrix_rank`: singular values without vectors, and the cutoff of other functions."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from jaxpinv._platform.tuning import DEFAULT
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.sharded.meshes import collectives

#: Square, long, wide; chunks of one and of many matrices; by Gram-Schmidt and not.
SHAPES = [(5, 5), (40, 6), (6, 40), (3, 30, 30), (2, 3, 30, 4), (4400, 4, 5), (1100, 70, 3)]
#: Fewest 6 by 4 matrices whose ranks are certified.
MANY = DEFAULT.rank_chunks * (DEFAULT.chunk // (6 * 4))


def of_rank(rng, shape, rank, dtype=np.float64):
    """Random matrices of that rank."""
    *batch, m, n = shape
    return gaussian(rng, (*batch, m, rank), dtype) @ gaussian(rng, (*batch, rank, n), dtype)


DTYPES = [np.float32, np.complex128, np.float64, np.complex64]
CASES = [(shape, DTYPES[i % 4], "direct") for i, shape in enumerate(SHAPES)]
CASES += [((5, 5), np.complex64, "svd"), ((2, 3, 30, 4), np.float32, "svd")]


@pytest.mark.unoptimized
@pytest.mark.slow_unless("5, 5.*float32")
@pytest.mark.parametrize(
    ("shape", "dtype", "method"),
    CASES,
    ids=lambda x: x.__name__ if isinstance(x, type) else str(x),
)
def test_it_is_that_of_numpy(rng, shape, dtype, method):
    for rank in {1, min(shape[-2:]) - 1, min(shape[-2:])}:
        a = of_rank(rng, shape, rank, dtype)
        expected = np.linalg.matrix_rank(a, rtol=1e-5)
        found = jaxpinv.matrix_rank(a, 1e-5, method=method)
        assert found.dtype == jnp.result_type(int)
        assert np.array_equal(found, expected)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("1100")
@pytest.mark.parametrize("shape", [SHAPES[i] for i in (1, 3, 6)], ids=str)
def test_a_compiled_call_has_the_rank_of_an_eager_one(rng, shape):
    compiled = jax.jit(jaxpinv.matrix_rank)
    for rank in {1, min(shape[-2:]) - 1, min(shape[-2:])}:
        a = of_rank(rng, shape, rank)
        assert np.array_equal(compiled(a), jaxpinv.matrix_rank(a))


@pytest.mark.unoptimized
def test_default_dtype_without_double_precision(rng):
    with jax.enable_x64(False):
        assert jaxpinv.matrix_rank(np.eye(3, dtype=np.float32)).dtype == jnp.int32


@pytest.mark.slow
@pytest.mark.parametrize("size", [4400, 40])
def test_matrices_of_one_batch_have_ranks_of_their_own(rng, size):
    # In several orders, because a chunk without full rank ends the search for it.
    for share in (0, 0.02, 0.5, 0.98):
        deficient = rng.random(size) < share
        for order in (deficient, np.sort(deficient), np.sort(deficient)[::-1]):
            a = gaussian(rng, (size, 6, 4))
            a[order, :, 1] = a[order, :, 0]
            assert np.array_equal(jaxpinv.matrix_rank(a), np.where(order, 3, 4))


@pytest.mark.unoptimized
def test_lower_triangles_alone_are_read(rng):
    a = hermitian_matrix(rng, [2.0, -1.0, 1e-3, 0.0], np.complex128)
    lower = np.where(np.tri(4, dtype=bool), a, np.nan)
    assert jaxpinv.matrix_rank(lower, hermitian=True) == 3
    assert jaxpinv.matrix_rank(lower, 1e-2, hermitian=True) == 2
    # The sign does not matter: the cutoff applies to absolute values.
    assert jaxpinv.matrix_rank(lower, 0.4, hermitian=True) == 2


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("size", [3, MANY])
def test_tolerances_are_of_batch_shape_and_enlarge_it(rng, size):
    a = matrix(rng, (6, 4), [1.0, 0.1, 0.01, 0.001])
    batch = np.broadcast_to(a, (size, 6, 4))
    rtols = np.array([0.5, 0.05, 0.005, 0.0005, np.nan])
    assert jaxpinv.matrix_rank(a, rtols).tolist() == [1, 2, 3, 4, 0]
    assert jaxpinv.matrix_rank(a, rcond=0.05) == 2
    assert jaxpinv.matrix_rank(a, atol=0.05, rtol=0.5) == 1
    found = jaxpinv.matrix_rank(batch, rtols[:, None])
    assert np.array_equal(found, np.tile([[1], [2], [3], [4], [0]], size))
    # Two tolerances: full rank is proven for one, and not for the other.
    for others in ([0.05], [np.nan]):
        found = jaxpinv.matrix_rank(batch, np.array([[1e-6], others]))
        assert np.array_equal(found[0], np.full(size, 4))
        assert np.array_equal(found[1], np.full(size, 2 if others == [0.05] else 0))
    each = np.resize(rtols, size)
    expected = np.resize([1, 2, 3, 4, 0], size)
    assert np.array_equal(jaxpinv.matrix_rank(batch, each), expected)
    assert np.array_equal(jaxpinv.matrix_rank(batch, atol=each), expected)


@pytest.mark.unoptimized
def test_what_one_tolerance_truncates_as_rounding_another_one_keeps(rng):
    a = gaussian(rng, (6, 2)) @ gaussian(rng, (2, 4))
    rtols = np.array([[1e-12], [0.0]])
    found = jaxpinv.matrix_rank(np.broadcast_to(a, (MANY, 6, 4)), rtols)
    assert np.array_equal(found, np.tile([[2], [4]], MANY))


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("size", [3, 4400])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_has_rank_0_alone(rng, size, value):
    a = gaussian(rng, (size, 5, 4))
    a[1, 2, 2] = value
    expected = np.full(size, 4)
    expected[1] = 0
    assert np.array_equal(jaxpinv.matrix_rank(a), expected)
    assert jaxpinv.matrix_rank(a[1]) == 0


@pytest.mark.slow_unless("30, 4")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("shape", [(30, 4), (4400, 5, 4)], ids=str)
def test_no_size_of_the_elements_changes_it(rng, shape, scale):
    a = of_rank(rng, shape, 3).astype(np.float32) * np.float32(scale)
    # Without a positive atol, the default rtol counts: the same program.
    assert np.all(jaxpinv.matrix_rank(a, atol=0.0) == 3)
    assert np.all(jaxpinv.matrix_rank(a, atol=1e-3 * scale) == 3)
    m, n = shape[-2:]
    full = matrix(rng, (m, n), [1.0, 0.1, 0.01, 0.001]).astype(np.float32)
    full = np.broadcast_to(full, shape) * np.float32(scale)
    assert np.all(jaxpinv.matrix_rank(full, atol=0.003 * scale) == 3)


@pytest.mark.slow_unless("20.*float32")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((20, 20), np.float32), ((300, 3), np.complex64), ((1, 9, 40), np.complex128)],
    ids=["20, 20, float32", "300, 3, complex64", "1, 9, 40, complex128"],
)
def test_one_matrix_of_any_size_with_few_counted_operations(rng, shape, dtype):
    compiled = jax.jit(jaxpinv.matrix_rank)
    a = of_rank(rng, shape, 2, dtype)
    # XLA runs a program with fewer operations in the calling thread.
    costs = compiled.lower(a).compile().cost_analysis()
    assert costs is not None
    assert costs["flops"] < 1000
    limits = np.finfo(dtype)
    for size in (1, limits.tiny**0.5, limits.tiny * 1e3, limits.max**0.5, limits.max / 99):
        assert np.all(compiled((a * size).astype(dtype)) == 2)
    for size in (0, np.nan, np.inf):
        assert np.all(compiled(a * size) == 0)
        changed = a.copy()
        changed[..., -1, 1] = size
        assert np.all(compiled(changed) == (0 if size else 3))


@pytest.mark.unoptimized
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 0), (0, 3, 3)], ids=str)
def test_an_empty_matrix_has_rank_0(shape):
    found = jaxpinv.matrix_rank(np.ones(shape))
    assert found.shape == shape[:-2]
    assert not np.any(found)


@pytest.mark.unoptimized
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (50, 4), (4400, 4, 4)], ids=str)
def test_no_singular_vectors_are_computed(rng, shape):
    text = jax.jit(jaxpinv.matrix_rank).lower(gaussian(rng, shape)).as_text()
    # LAPACK's modes: values alone, or both factors.
    modes = set(re.findall(r"mode = (\d+) : ui8", text))
    assert modes == {str(ord("N"))}


@pytest.mark.unoptimized
@pytest.mark.slow
def test_it_passes_through_derivatives_and_vmap(rng):
    a = of_rank(rng, (7, 5, 4), 3)

    def loss(a):
        return jnp.sum(a**2) * jaxpinv.matrix_rank(a).astype(float)

    @jax.jit
    def mapped(a, rtols):
        derivatives = [jax.vmap(f(loss))(a) for f in (jax.grad, jax.jacfwd)]
        return *derivatives, jax.vmap(jaxpinv.matrix_rank, (None, 0))(a, rtols)

    *derivatives, found = mapped(a, np.array([1e-6, 2.0]))
    for x in derivatives:
        assert np.allclose(x, 6 * a)
    assert jax.vmap(jaxpinv.matrix_rank)(a).tolist() == [3] * 7
    assert found.tolist() == [[3] * 7, [0] * 7]
    branch = jax.lax.cond(True, jaxpinv.matrix_rank, jnp.linalg.matrix_rank, a[0])
    assert branch == 3


@pytest.mark.unoptimized
@pytest.mark.slow_unless("16, 5.*Explicit")
@pytest.mark.parametrize(
    ("shape", "kind"),
    [((16, 5, 4), AxisType.Explicit), ((16, 40, 4), AxisType.Auto)],
    ids=str,
)
def test_a_divided_batch_needs_no_collective(rng, kind, shape):
    a = of_rank(rng, shape, 2)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        divided = jax.device_put(a, NamedSharding(mesh, PartitionSpec("x")))
        compiled = jax.jit(jaxpinv.matrix_rank).lower(divided).compile()
        assert collectives(compiled) == []
        assert np.all(compiled(divided) == 2)
        mapped = jax.shard_map(
            jaxpinv.matrix_rank,
            mesh=mesh,
            in_specs=PartitionSpec("x"),
            out_specs=PartitionSpec("x"),
        )
        assert np.all(jax.jit(mapped)(divided) == 2)


@pytest.mark.unoptimized
@pytest.mark.slow
def test_each_device_has_one_matrix(rng):
    a = of_rank(rng, (8, 20, 20), 2)
    spec = PartitionSpec("x")
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    f = jax.shard_map(jaxpinv.matrix_rank, mesh=mesh, in_specs=spec, out_specs=spec)
    assert np.all(jax.jit(f)(a) == 2)


@pytest.mark.unoptimized
@pytest.mark.slow
def test_it_is_exported_with_a_symbolic_batch(rng):
    [b] = export.symbolic_shape("b")
    argument = jax.ShapeDtypeStruct((b, 9, 4), jnp.float64)
    program = export.export(jax.jit(jaxpinv.matrix_rank))(argument)
    assert np.all(program.call(of_rank(rng, (3, 9, 4), 2)) == 2)
