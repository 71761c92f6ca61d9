"""Derivatives of a large batch go through in chunks, and are what they are one by one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxpinv
from jaxpinv import _blocks, _form
from tests import matrices
from tests.comparison import bound, relative_error
from tests.matrices import gaussian

BATCH = 5
AT_A_TIME = 2
SHAPE = (4, 3)


@pytest.fixture
def sizes(monkeypatch):
    """Chunks of two 4 by 3 matrices, and the batches that evaluations are then given."""
    monkeypatch.setattr(_blocks, "_BEYOND_CACHES", 0)
    monkeypatch.setattr(_blocks, "_OF_CACHE", AT_A_TIME * SHAPE[0] * SHAPE[1])
    given = set()
    evaluations = {name: getattr(_form, name) for name in ("_by_matrices", "_by_vectors")}
    for name, f in evaluations.items():

        def evaluation(factors, slots, *ways, f=f):
            rank = factors.u.ndim - 2
            shapes = (x.shape[:rank] for x in jax.tree.leaves((factors, slots)))
            given.add(np.broadcast_shapes(*shapes))
            return f(factors, slots, *ways)

        monkeypatch.setattr(_form, name, evaluation)
    # What was compiled with other chunks must not be found, nor this afterwards.
    jax.clear_caches()
    yield given
    jax.clear_caches()


def by_pinv(a, b):
    return jaxpinv.pinv(a)


def by_truncating_lstsq(a, b):
    return jaxpinv.lstsq(a, b, atol=0.5).solution


@partial(jax.jit, static_argnums=0)
def second(f, a, b, e):
    """The derivative of the gradient along `e`."""

    def loss(a):
        return jnp.sum(jnp.abs(f(a, b)) ** 2)

    return jax.jvp(jax.grad(loss), (a,), (e,))[1]


def problem(rng, dtype=np.float64):
    """Matrices, right sides and directions; 0.5 truncates a value of one matrix."""
    a = np.array([matrices.matrix(rng, SHAPE, [3, 2, 1], dtype) for _ in range(BATCH)])
    a[3] = matrices.matrix(rng, SHAPE, [3, 2, 0.1], dtype)
    others = (gaussian(rng, (BATCH, 4, k), dtype) for k in (2, 3))
    return tuple(map(jnp.asarray, (a, *others)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("f", "dtype"),
    [
        (by_pinv, np.float64),
        (by_pinv, np.complex128),
        (by_truncating_lstsq, np.float64),
    ],
    ids=["pinv", "complex pinv", "lstsq"],
)
def test_second_derivatives_in_chunks_are_those_of_each_matrix(rng, sizes, f, dtype):
    a, b, e = problem(rng, dtype)
    found = second(f, a, b, e)
    assert (AT_A_TIME,) in sizes
    for i in range(BATCH):
        alone = second(f, a[i], b[i], e[i])
        assert relative_error(found[i], alone) < bound(dtype, 1e3)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "chunk"), [(3, (3, 1)), (7, (1, BATCH))])
def test_directions_for_all_matrices_go_along_the_longer_axis(rng, sizes, count, chunk):
    a, b, _ = problem(rng)
    directions = jnp.asarray(gaussian(rng, (count, BATCH, *SHAPE)))
    along = jax.jit(jax.vmap(lambda e: second(by_pinv, a, b, e)))
    found = along(directions)
    assert chunk in sizes
    for i in range(count):
        expected = second(by_pinv, a, b, directions[i])
        assert relative_error(found[i], expected) < bound(np.float64, 1e3)


@pytest.mark.slow
def test_what_is_truncated_makes_only_its_chunk_pay(rng, sizes):
    # Derivatives by vectors take what is truncated for zero: where 0.1 is, they differ.
    a, b, e = problem(rng)
    others = a.at[3].set(a[4])
    found, expected = (second(by_truncating_lstsq, x, b, e) for x in (a, others))
    assert np.array_equal(found[:2], expected[:2])


@pytest.mark.slow
def test_each_device_goes_through_its_chunks_in_shard_map(rng, sizes):
    a, b, e = (jnp.concatenate([x, x[:1]]) for x in problem(rng))
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def f(*x):
        return second(by_truncating_lstsq, *x)

    specs = (P("x"),) * 3
    found = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=P("x")))(a, b, e)
    assert (AT_A_TIME,) in sizes
    assert relative_error(found, f(a, b, e)) < bound(np.float64, 1e3)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(6,), (2, 3)], ids=str)
def test_gradients_of_proven_and_of_other_square_matrices_are_those_of_each(rng, batch):
    # Of the third and the sixth a singular value is truncated: they alone have a range.
    a = np.array([matrices.matrix(rng, (9, 9), [*np.linspace(2, 1, 9)]) for _ in range(6)])
    a[[2, 5]] = matrices.matrix(rng, (2, 9, 9), [*np.linspace(2, 1, 8), 0])
    a = jnp.asarray(a)

    @jax.jit
    def gradient(a):
        return jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a) ** 2))(a)

    found = gradient(jnp.reshape(a, (*batch, 9, 9)))
    expected = jnp.stack([gradient(x) for x in a])
    for x, y in zip(jnp.reshape(found, a.shape), expected, strict=True):
        assert relative_error(x, y) < bound(np.float64, 10)


def test_a_batch_that_fits_into_a_cache_goes_at_once(rng, sizes, monkeypatch):
    monkeypatch.setattr(_blocks, "_BEYOND_CACHES", BATCH * SHAPE[0] * SHAPE[1] + 1)
    a, b, e = problem(rng)
    second(by_pinv, a, b, e)
    assert sizes == {(BATCH,)}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_nothing_has_no_chunks(sizes, shape):
    a = jnp.ones(shape)
    b = jnp.ones((*shape[:-1], 1))
    assert second(by_pinv, a, b, a).shape == shape
    assert second(by_truncating_lstsq, a, b, a).shape == shape


def test_no_directions_for_many_matrices_are_no_error():
    a, b = jnp.ones((100_000, 3, 2)), jnp.ones((3, 1))
    along = jax.vmap(lambda e: second(by_pinv, a, b, e))
    assert jax.eval_shape(along, jnp.ones((0, *a.shape))).shape == (0, *a.shape)
    assert along(jnp.ones((0, *a.shape))).shape == (0, *a.shape)
