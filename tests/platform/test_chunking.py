"""Loops over chunks do what one call for the whole batch does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._factorization import certificate
from jaxpinv._factors import Cutoff
from jaxpinv._platform import chunking, replacing, workarounds
from jaxpinv._platform.tuning import DEFAULT, Tuning

BATCH = 11
SIZES = [1, 3, 5, BATCH, 2 * BATCH]


@pytest.fixture
def arrays(rng):
    return jnp.asarray(rng.standard_normal((BATCH, 4, 3))), jnp.arange(BATCH, dtype=float)


def squares(calls):
    """A function of two arrays that writes down how many matrices it was given."""

    def f(a, i):
        calls.append(a.shape[0])
        return jnp.square(a), i * i, a[:, 0, 0] > 0

    return f


@pytest.mark.parametrize("size", SIZES)
def test_chunks_give_what_the_whole_batch_does(arrays, size):
    calls = []
    found = jax.jit(lambda *x: chunking.in_chunks(squares(calls), size, *x))(*arrays)
    assert set(calls) == {min(size, BATCH)}
    for x, y in zip(found, squares([])(*arrays), strict=True):
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)


@partial(jax.jit, static_argnums=0)
def replaced(size, is_chosen, found, a, i):
    """The results, of so many matrices at a time."""
    f = squares([])
    return replacing.replace(lambda a, i: f(a, i)[:2], size, is_chosen, found, a, i)


@pytest.mark.slow_unless("-3|-4")
@pytest.mark.parametrize("chosen", [[], [4], [0, 3, 4, 10], range(BATCH)], ids=len)
@pytest.mark.parametrize("size", [*SIZES, None])
def test_only_the_chosen_matrices_are_replaced(arrays, size, chosen):
    is_chosen = np.isin(np.arange(BATCH), list(chosen))
    found = tuple(-jnp.ones_like(x) for x in arrays)
    results = replaced(size, is_chosen, found, *arrays)
    assert_replaced(results, arrays, is_chosen, found)


def assert_replaced(results, arrays, is_chosen, found):
    """Only the chosen ones have new results."""
    for x, old, new in zip(results, found, squares([])(*arrays)[:2], strict=True):
        shape = (BATCH, *[1] * (x.ndim - 1))
        assert np.array_equal(x, np.where(is_chosen.reshape(shape), new, old))


@pytest.mark.parametrize("few", [1, 3, BATCH - 1, BATCH])
def test_all_are_computed_only_if_more_than_a_few_are_chosen(arrays, few):
    found = tuple(-jnp.ones_like(x) for x in arrays)
    given = []

    def f(a, i):
        jax.debug.callback(given.append, a.shape[0])
        return squares([])(a, i)[:2]

    replace = replacing.replacing(few, None, is_local=True, loops=False)
    replaced = jax.jit(lambda c, *x: replace(f, c, found, *x))
    for chosen in ([], [4], [0, 3, 10], range(1, BATCH), range(BATCH)):
        is_chosen = np.isin(np.arange(BATCH), list(chosen))
        results = replaced(is_chosen, *arrays)
        assert_replaced(results, arrays, is_chosen, found)
        jax.effects_barrier()
        count = len(chosen)
        assert given == ([] if not count else [few if count <= few else BATCH])
        given.clear()


@pytest.mark.parametrize(
    ("dtype", "flops", "count"),
    [
        (np.float32, 10 * 64 * 16 * 16, 2),
        (np.float64, 32**3, 7),
        (np.complex64, 32**3, 3),
        (np.float64, 100**3, 1),
    ],
    ids=["64x16 svd", "32x32 lu", "complex 32x32 lu", "100x100 lu"],
)
def test_a_single_lapack_call_stays_on_one_thread(dtype, flops, count):
    # What jaxlib divides among threads: more matrices than 200000 over their flops.
    flops *= 3 if np.dtype(dtype).kind == "c" else 1
    assert workarounds.matrices_of_one_call(1000, flops, shares=True) == count
    assert workarounds.matrices_of_one_call(1000, flops, shares=False) == 1000


def test_calls_take_equally_many_matrices():
    flops = 10 * 7 * 6 * 6
    assert workarounds.matrices_of_one_call(80, flops, shares=True) == 80
    assert workarounds.matrices_of_one_call(81, flops, shares=True) == 41
    assert workarounds.matrices_of_one_call(161, flops, shares=True) == 54


in_front = jax.jit(replacing._in_front)


@pytest.mark.parametrize("batch", [100, 2 * DEFAULT.sorted])
@pytest.mark.parametrize("share", [0, 0.1, 1])
def test_chosen_matrices_come_first_and_in_order(rng, batch, share):
    chosen = rng.random(batch) < share
    order = np.asarray(in_front(chosen))
    count = chosen.sum()
    np.testing.assert_array_equal(order[:count], np.flatnonzero(chosen))
    assert np.all(order[count:] == batch)


@pytest.mark.parametrize("batch", [1, 7, 64, 65, 3 * 64 + 1, 20 * 64])
def test_every_chosen_matrix_is_counted(rng, batch):
    chosen = rng.random(batch) < 0.5
    chosen[-1] = True
    tuning = Tuning(at_once=64)
    assert int(replacing._count(jnp.asarray(chosen), tuning)) == chosen.sum()


@pytest.mark.parametrize("pivot", [0, np.nan])
def test_a_pivot_that_is_not_positive_rules_out_full_rank(rng, pivot):
    a = jnp.asarray(rng.standard_normal((64, 16, 16)))
    pivots = np.ones((64, 16))
    pivots[5, 3] = pivot
    cutoff, norm = Cutoff(jnp.zeros(64), jnp.zeros(64)), jnp.full(64, 16.0)
    ruled_out = jax.jit(certificate.rules_out_full_rank)(a, norm, pivots, cutoff)
    assert np.flatnonzero(ruled_out).tolist() == [5]


@pytest.mark.slow
def test_a_second_eager_call_compiles_nothing(rng, caplog):
    # So many and so tiny that their products are in plain arithmetic.
    a = jnp.asarray(rng.standard_normal((256, 6, 5)))
    b = jnp.asarray(rng.standard_normal((256, 6, 3)))

    def calls():
        jax.block_until_ready((jaxpinv.lstsq(a, b), jaxpinv.null_projection(a, b[:, :5])))

    calls()
    with jax.log_compiles():
        calls()
        assert not [r for r in caplog.records if "ompil" in r.getMessage()]
        jax.jit(lambda x: x + 1)(a)
    assert [r for r in caplog.records if "ompil" in r.getMessage()]
