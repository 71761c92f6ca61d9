"""Tiny matrices of any rank, divided over devices by `jit`: plain arithmetic on each."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxpinv
from tests.comparison import bound, relative_error
from tests.factorization.tiny_cases import of_mixed_rank
from tests.sharded.meshes import BY_ROWS, collectives, mesh_of, put

pytestmark = pytest.mark.unoptimized


@jax.jit
def value_and_gradient(a):
    """The pseudo-inverses, and the gradient of the sum of their squares."""
    x, pullback = jax.vjp(jaxpinv.pinv, a)
    return x, pullback(2 * x)[0]


def exact_gradient(a, x):
    """The same gradient by the formula of Golub and Pereyra."""
    t = x.swapaxes(1, 2)
    ct = 2 * t
    off_range, off_corange = np.eye(a.shape[1]) - a @ x, np.eye(a.shape[2]) - x @ a
    return off_range @ ct @ x @ t + t @ x @ ct @ off_corange - t @ (2 * x) @ t


@pytest.mark.slow
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda x: x.name)
@pytest.mark.parametrize("left", [0, 3], ids=["none", "left"])
def test_devices_communicate_only_whether_any_matrix_is_left(rng, left, kind):
    a = of_mixed_rank(rng, 1600, 4, 4, np.float64)
    # Of a value next to the cutoff only singular values tell on which side it is.
    u, v = np.linalg.qr(rng.standard_normal((2, 4, 4)))[0]
    chosen = np.arange(100, 100 + 500 * left, 500)
    a[chosen] = (u * [3, 2, 1, 5e-15]) @ v
    mesh = mesh_of(8, kind)
    with jax.set_mesh(mesh):
        divided = put(a, BY_ROWS, mesh)
        compiled = value_and_gradient.lower(divided).compile()
        results = compiled(divided)
    assert set(collectives(compiled)) == {"all-reduce"}
    [shape] = re.findall(r"= (\S+) all-reduce\(", str(compiled.as_text()))
    assert re.fullmatch(r"\w+\[\]", shape)
    for y in results:
        assert y.sharding.shard_shape(y.shape)[0] == 200
    x, gradient = (np.asarray(y) for y in results)
    by_values = np.asarray(jaxpinv.pinv(a[chosen], method="svd"))
    assert relative_error(x[chosen], by_values) <= bound(np.float64)
    a, x, gradient = (np.delete(y, chosen, axis=0) for y in (a, x, gradient))
    exact = np.linalg.pinv(a, 1e-14)
    s = np.linalg.svd(a, compute_uv=False)
    rank = np.sum(s > 1e-14 * s[:, :1], axis=1)
    last = s[np.arange(len(s)), np.maximum(rank, 1) - 1]
    condition = np.where(rank > 0, s[:, 0] / np.where(rank > 0, last, 1), 1)
    assert not np.any(x[rank == 0])
    for y, z, power in ((x, exact, 1), (gradient, exact_gradient(a, exact), 2)):
        error = np.linalg.norm(y - z, axis=(1, 2))
        limit = 2 * bound(np.float64) * condition**power
        assert np.all(error <= limit * np.linalg.norm(z, axis=(1, 2)))


@pytest.mark.slow_unless("left-Auto")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=lambda x: x.name)
@pytest.mark.parametrize("left", [0, 3], ids=["none", "left"])
def test_ranks_communicate_at_most_one_number(rng, left, kind):
    a = of_mixed_rank(rng, 8000, 6, 3, np.float64)
    u, v = (np.linalg.qr(rng.standard_normal((k, 3)))[0] for k in (6, 3))
    a[100 : 100 + 500 * left : 500] = (u * [3, 2, 5e-15]) @ v
    mesh = mesh_of(8, kind)
    with jax.set_mesh(mesh):
        divided = put(a, BY_ROWS, mesh)
        compiled = jax.jit(jaxpinv.matrix_rank).lower(divided).compile()
        rank = compiled(divided)
    assert set(collectives(compiled)) == {"all-reduce"}
    [shape] = re.findall(r"= (\S+) all-reduce\(", str(compiled.as_text()))
    assert re.fullmatch(r"\w+\[\]", shape)
    assert rank.sharding.shard_shape(rank.shape) == (1000,)
    assert np.array_equal(rank, np.linalg.matrix_rank(a, rtol=6 * 2.0**-52))
