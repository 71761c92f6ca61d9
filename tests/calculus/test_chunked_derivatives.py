"""Derivatives of a large batch go through in chunks, and are what they are one by one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxpinv
from jaxpinv._inputs import prepare
from jaxpinv._platform.tuning import Tuning
from jaxpinv._solver import Strategy, factorize
from tests import matrices
from tests.comparison import bound, relative_error
from tests.matrices import gaussian

pytestmark = pytest.mark.unoptimized

BATCH = 5
AT_A_TIME = 2
SHAPE = (4, 3)


#: Chunks of two 4 by 3 matrices, whatever the size of the batch.
TUNING = Tuning(chunk=AT_A_TIME * SHAPE[0] * SHAPE[1], beyond_caches=0)


def by_pinv(a, b, tuning=TUNING):
    inputs = prepare("pinv", a, {"rtol": None, "atol": None}, hermitian=False)
    return factorize(inputs, Strategy(with_pinv=True, tuning=tuning)).pinv()


def by_truncating_lstsq(a, b, tuning=TUNING):
    tolerances = {"rtol": None, "atol": 0.5}
    inputs = prepare("lstsq", a, tolerances, hermitian=False, columns=("b", b, "rows"))
    matrix = factorize(inputs, Strategy(tuning=tuning))
    return matrix.solve(matrix.columns)


def by_public_pinv(a, b):
    return jaxpinv.pinv(a)


def takes_slices(shape, f, *args):
    """Whether a program takes slices of matrices, in batches of that shape."""
    return text_takes_slices(shape, jax.jit(f).lower(*args).as_text())


def text_takes_slices(shape, text):
    """Whether the text of a program says so."""
    found = f"-> tensor<{'x'.join(map(str, (*shape, *SHAPE)))}x"
    return any("dynamic_slice" in x and found in x for x in text.splitlines())


@partial(jax.jit, static_argnums=0)
def second(f, a, b, e):
    """The derivative of the gradient along `e`."""

    def loss(a):
        return jnp.sum(jnp.abs(f(a, b)) ** 2)

    return jax.jvp(jax.grad(loss), (a,), (e,))[1]


def problem(rng, dtype=np.float64):
    """Matrices of which one has a value that 0.5 truncates, right sides and directions."""
    a = np.array([matrices.matrix(rng, SHAPE, [3, 2, 1], dtype) for _ in range(BATCH)])
    a[3] = matrices.matrix(rng, SHAPE, [3, 2, 0.1], dtype)
    others = (gaussian(rng, (BATCH, 4, k), dtype) for k in (2, 3))
    return tuple(map(jnp.asarray, (a, *others)))


@pytest.mark.slow_unless("lstsq")
@pytest.mark.parametrize(
    ("f", "dtype"),
    [
        (by_pinv, np.complex128),
        (by_truncating_lstsq, np.float64),
    ],
    ids=["complex pinv", "lstsq"],
)
def test_second_derivatives_in_chunks_are_those_of_each_matrix(rng, f, dtype):
    a, b, e = problem(rng, dtype)
    program = second.lower(f, a, b, e)
    assert text_takes_slices((AT_A_TIME,), program.as_text())
    found = program.compile()(a, b, e)
    for i in range(BATCH):
        alone = second(f, a[i], b[i], e[i])
        assert relative_error(found[i], alone) < bound(dtype, 1e3)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "chunk"), [(3, (3, 1)), (7, (1, BATCH))])
def test_directions_for_all_matrices_go_along_the_longer_axis(rng, count, chunk):
    a, b, _ = problem(rng)
    directions = jnp.asarray(gaussian(rng, (count, BATCH, *SHAPE)))
    along = jax.vmap(lambda e: second(by_pinv, a, b, e))
    assert takes_slices(chunk, along, directions)
    found = jax.jit(along)(directions)
    for i in range(count):
        expected = second(by_pinv, a, b, directions[i])
        assert relative_error(found[i], expected) < bound(np.float64, 1e3)


@pytest.mark.slow
def test_a_truncated_matrix_makes_only_its_chunk_take_the_longer_formula(rng):
    # Derivatives by vectors take what is truncated for zero: they differ where 0.1 is.
    a, b, e = problem(rng)
    others = a.at[3].set(a[4])
    found, expected = (second(by_truncating_lstsq, x, b, e) for x in (a, others))
    assert np.array_equal(found[:2], expected[:2])


@pytest.mark.slow
def test_each_device_processes_its_chunks_in_shard_map(rng):
    a, b, e = (jnp.concatenate([x, x[:1]]) for x in problem(rng))
    mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))

    def f(*x):
        return second(by_truncating_lstsq, *x)

    specs = (P("x"),) * 3
    mapped = jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=P("x"))
    assert takes_slices((AT_A_TIME,), mapped, a, b, e)
    assert relative_error(jax.jit(mapped)(a, b, e), f(a, b, e)) < bound(np.float64, 1e3)


@jax.jit
def gradient(a):
    """That of the squared norm of the pseudo-inverses."""
    return jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a, method="direct") ** 2))(a)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [(6,), (2, 3)], ids=str)
def test_gradients_of_certified_and_of_other_square_matrices_are_those_of_each(rng, batch):
    # Of the third and the sixth a singular value is truncated: they alone have a range.
    a = np.array(
        [matrices.matrix(rng, (13, 13), [*np.linspace(2, 1, 13)]) for _ in range(6)]
    )
    a[[2, 5]] = matrices.matrix(rng, (2, 13, 13), [*np.linspace(2, 1, 12), 0])
    a = jnp.asarray(a)

    found = gradient(jnp.reshape(a, (*batch, 13, 13)))
    expected = jnp.stack([gradient(x) for x in a])
    for x, y in zip(jnp.reshape(found, a.shape), expected, strict=True):
        assert relative_error(x, y) < bound(np.float64, 10)


def test_a_batch_that_fits_into_a_cache_is_one_chunk(rng):
    a, b, e = problem(rng)
    tuning = Tuning(chunk=TUNING.chunk, beyond_caches=a.size + 1)
    f = partial(by_pinv, tuning=tuning)
    assert not takes_slices((AT_A_TIME,), partial(second, f), a, b, e)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_an_empty_batch_has_no_chunks(shape):
    a = jnp.ones(shape)
    b = jnp.ones((*shape[:-1], 1))
    assert second(by_pinv, a, b, a).shape == shape
    assert second(by_truncating_lstsq, a, b, a).shape == shape


def test_no_directions_for_many_matrices_are_no_error():
    a, b = jnp.ones((100_000, 3, 2)), jnp.ones((3, 1))
    along = jax.vmap(lambda e: second(by_public_pinv, a, b, e))
    assert jax.eval_shape(along, jnp.ones((0, *a.shape))).shape == (0, *a.shape)
    assert along(jnp.ones((0, *a.shape))).shape == (0, *a.shape)
