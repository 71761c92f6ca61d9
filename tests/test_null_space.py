"""`null_space`: bases of static size, and the derivatives of their projectors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from tests.comparison import bound
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.sharded.meshes import collectives

SHAPES = [(4, 6), (6, 4), (5, 5), (1, 7), (3, 9, 12), (2, 3, 12, 12)]
DTYPES = [np.float32, np.complex128, np.float64, np.complex64]


def adjoint(x):
    return np.conj(np.swapaxes(x, -1, -2))


def of_rank(rng, shape, rank, dtype=np.float64):
    *batch, m, n = shape
    return gaussian(rng, (*batch, m, rank), dtype) @ gaussian(rng, (*batch, rank, n), dtype)


# One program for all ranks of a shape.
@jax.jit
def of_given_cutoff(a):
    """Basis and nullity."""
    return jaxpinv.null_space(a, 3e-6)


@pytest.mark.slow_unless(r"\(3, 9.*complex")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        *((shape, DTYPES[i % 4]) for i, shape in enumerate(SHAPES)),
        ((3, 9, 12), np.complex128),
        ((4, 6), np.complex64),
    ],
    ids=lambda x: str(x) if isinstance(x, tuple) else x.__name__,
)
def test_it_spans_what_scipy_finds(rng, shape, dtype):
    *batch, m, n = shape
    for rank in {1, max(min(m, n) - 1, 1), min(m, n)}:
        a = of_rank(rng, shape, rank, dtype)
        basis, nullity = of_given_cutoff(a)
        assert basis.shape == (*batch, n, n)
        assert basis.dtype == dtype
        assert nullity.dtype == jnp.result_type(int)
        assert np.all(nullity == n - rank)
        basis = np.asarray(basis)
        gram = np.diag((np.arange(n) < n - rank).astype(dtype))
        assert np.max(np.abs(adjoint(basis) @ basis - gram)) <= bound(dtype)
        assert not np.any(basis[..., n - rank :])
        for x, y in zip(
            np.reshape(a, (-1, m, n)), np.reshape(basis, (-1, n, n)), strict=True
        ):
            double = x.astype(np.result_type(dtype, np.float64))
            expected = scipy.linalg.null_space(double, 3e-6)
            s = np.linalg.svd(double, compute_uv=False)
            error = np.abs(y @ adjoint(y) - expected @ adjoint(expected))
            assert np.max(error) <= bound(dtype, s[0] / s[rank - 1])


@pytest.mark.unoptimized
@pytest.mark.slow
def test_lower_triangles_alone_are_read(rng):
    a = hermitian_matrix(rng, [2.0, -1.0, 1e-3, 0.0], np.complex128)
    lower = np.where(np.tri(4, dtype=bool), a, np.nan)
    basis, nullity = jaxpinv.null_space(lower, hermitian=True)
    assert nullity == 1
    assert np.max(np.abs(a @ basis)) <= bound(np.float64, 2)
    assert jaxpinv.null_space(lower, 1e-2, hermitian=True).nullity == 2


@pytest.mark.unoptimized
@pytest.mark.slow
def test_tolerances_of_batch_shape(rng):
    a = matrix(rng, (4, 6), [1.0, 0.1, 0.01, 0.001])
    basis, nullity = jaxpinv.null_space(a, np.array([0.5, 0.05, 0.0, 2.0]))
    assert nullity.tolist() == [5, 4, 2, 6]
    assert np.max(np.abs(a @ basis[1])) <= 0.011
    assert basis.shape == (4, 6, 6)
    assert jaxpinv.null_space(a, rcond=0.05).nullity == 4
    assert jaxpinv.null_space(a, atol=0.05, method="svd").nullity == 4


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)], ids=str)
def test_a_matrix_that_is_not_finite_has_a_basis_of_nan(rng, shape):
    a = gaussian(rng, (3, *shape))
    good = jaxpinv.null_space(a)
    a[1, 0, 0] = np.inf
    basis, nullity = jaxpinv.null_space(a)
    assert np.all(np.isnan(basis[1]))
    assert nullity[1] == 0
    for i in (0, 2):
        assert np.array_equal(basis[i], good.basis[i])
        assert nullity[i] == good.nullity[i]
    assert np.all(np.isnan(jaxpinv.null_space(a[0], np.nan).basis))


@pytest.mark.unoptimized
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 0)], ids=str)
def test_the_null_space_of_an_empty_matrix_is_the_whole_space(shape):
    basis, nullity = jaxpinv.null_space(np.ones(shape))
    n = shape[-1]
    assert np.array_equal(np.abs(basis), np.broadcast_to(np.eye(n), (*shape[:-2], n, n)))
    assert np.all(nullity == n)


@pytest.mark.unoptimized
def test_zero_columns_survive_the_function_of_a_layer(rng):
    # A typical use: the solution of A x = 0 that is nearest to a desired vector.
    a, wish = of_rank(rng, (8, 3, 5), 2), gaussian(rng, (8, 5))

    def nearest(a, wish):
        basis = jaxpinv.null_space(a).basis
        return basis @ (basis.T @ wish)

    found = jax.vmap(nearest)(a, wish)
    for x, w, y in zip(a, wish, found, strict=True):
        assert np.allclose(y, w - np.linalg.pinv(x, rcond=1e-10) @ x @ w)


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shape", "by_shard_map"),
    [(AxisType.Auto, (3, 5), True), (AxisType.Explicit, (5, 3), False)],
    ids=str,
)
def test_a_divided_batch_needs_no_collective(rng, kind, shape, by_shard_map):
    a = of_rank(rng, (16, *shape), 2)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))

    def projected(a):
        basis, nullity = jaxpinv.null_space(a)
        return basis @ jnp.swapaxes(basis, -1, -2), nullity

    def both(a):
        gradient = jax.grad(lambda a: jnp.sum(jnp.cumsum(projected(a)[0], axis=1)))(a)
        return *projected(a), gradient

    expected = jax.jit(both)(a)
    with jax.set_mesh(mesh):
        spec = PartitionSpec("x")
        divided = jax.device_put(a, NamedSharding(mesh, spec))
        mapped = jax.shard_map(both, mesh=mesh, in_specs=spec, out_specs=spec)
        f = mapped if by_shard_map else both
        compiled = jax.jit(f).lower(divided).compile()
        assert collectives(compiled) == []
        for x, y in zip(compiled(divided), expected, strict=True):
            assert np.allclose(x, y)


@pytest.mark.unoptimized
def test_it_is_exported_with_a_symbolic_batch(rng):
    [b] = export.symbolic_shape("b")
    argument = jax.ShapeDtypeStruct((b, 3, 5), jnp.float64)
    program = export.export(jax.jit(jaxpinv.null_space))(argument)
    basis, nullity = program.call(a := of_rank(rng, (4, 3, 5), 2))
    assert nullity.tolist() == [3] * 4
    assert np.max(np.abs(a @ basis)) <= bound(np.float64, 1e2)


@pytest.mark.unoptimized
@pytest.mark.slow
def test_few_matrices_are_given_to_a_call_of_lapack():
    text = jax.jit(jaxpinv.null_space).lower(np.ones((50, 20, 40))).compile().as_text()
    batches = [int(x) for x in re.findall(r"f64\[(\d+),40,40\]\S* custom-call", text or "")]
    # jaxlib before 0.12 may deadlock if it divides a call among threads.
    assert batches == [] or jax.__version_info__ >= (0, 12) or max(batches) == 1
