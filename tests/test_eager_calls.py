"""Calls outside of `jit`: one program for every shape, and no hidden transfers."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix

pytestmark = pytest.mark.unoptimized


def lstsq(a, **kwargs):
    """`lstsq` of a vector of ones."""
    return jaxpinv.lstsq(a, jnp.ones(a.shape[-2], a.dtype), **kwargs)


CALLS = {
    "pinv": jaxpinv.pinv,
    "with rank": lambda a: jaxpinv.pinv(a, return_rank=True),
    "hermitian": lambda a: jaxpinv.pinv(a, hermitian=True),
    "atol": lambda a: jaxpinv.pinv(a, atol=0.1),
    "svd": lambda a: jaxpinv.pinv(a, method="svd"),
    "lstsq": lstsq,
    "short lstsq": lambda a: lstsq(a, return_singular_values=False),
}


@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_runs_what_the_first_one_compiled(name, rng, caplog):
    f = CALLS[name]
    # A shape that no other test compiles.
    a = jnp.asarray(gaussian(rng, (13, 13)))
    jax.block_until_ready(f(a))
    other = a + 1
    with jax.log_compiles():
        found = jax.tree.leaves(f(other))[0]
        assert not caplog.records
        jax.jit(lambda x: x + 1)(a)
    assert caplog.records
    assert relative_error(found, jax.tree.leaves(jax.jit(f)(a + 1))[0]) <= bound(
        np.float64, 1e3
    )


GUARDED = {name: f for name, f in CALLS.items() if name != "atol"}


@pytest.mark.slow_unless("pinv")
@pytest.mark.parametrize("name", GUARDED)
@pytest.mark.parametrize("shape", [(5, 4, 4)], ids=str)
def test_default_tolerances_need_no_transfer(name, shape, rng):
    a = jnp.asarray(gaussian(rng, shape))
    # The right-hand sides are made before transfers are forbidden.
    b = jnp.ones((*shape[:-1], 1))
    f: Any = {
        "lstsq": lambda a: jaxpinv.lstsq(a, b),
        "short lstsq": lambda a: jaxpinv.lstsq(a, b, return_singular_values=False),
    }.get(name, GUARDED[name])
    with jax.transfer_guard("disallow"):
        found = jax.tree.leaves(f(a))
        again = jax.tree.leaves(f(a))
    for x, y in zip(found, again, strict=True):
        assert np.array_equal(x, y)


def test_left_out_singular_values_are_none_and_not_computed(rng):
    a, b = gaussian(rng, (6, 4)), gaussian(rng, (6,))

    def decompositions(**kwargs):
        jaxpr = jax.make_jaxpr(lambda a: jaxpinv.lstsq(a, b, **kwargs))(a)
        return str(jaxpr).count("= singular_values")

    assert decompositions() == 1
    assert decompositions(return_singular_values=False) == 0
    whole, short = (
        jaxpinv.lstsq(a, b, return_singular_values=flag) for flag in (True, False)
    )
    assert short.singular_values is None
    for x, y in zip(short[:3], whole[:3], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_lstsq_takes_rcond_for_rtol(rng):
    a, b = matrix(rng, (6, 4), [4, 2, 1, 0.5]), gaussian(rng, (6,))
    by_name, by_place = jaxpinv.lstsq(a, b, rcond=0.2), jaxpinv.lstsq(a, b, 0.2)
    assert int(by_name.rank) == 3
    assert np.array_equal(by_name.solution, by_place.solution)
    expected = np.linalg.lstsq(a, b, rcond=0.2)[0]
    assert relative_error(by_name.solution, expected) <= bound(np.float64, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["value", "first"])
def test_an_operand_may_be_on_a_mesh_that_the_matrix_is_not_on(kind, rng):
    # JAX 0.12 caches eager operations without regard to the mesh of their arguments: after
    # an eager gradient on an Auto mesh, `x[None]` of any number lies on that mesh.
    jax.clear_caches()
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Explicit,))
    a, e = gaussian(rng, (5, 3)), gaussian(rng, (16, 5, 3))
    rtols = np.linspace(0.01, 0.6, 16)

    def value(a, e, rtol):
        return jaxpinv.pinv(a, rtol)

    def first(a, e, rtol):
        return jax.jvp(lambda a: jaxpinv.pinv(a, rtol), (a,), (e,))[1]

    f = jax.vmap({"value": value, "first": first}[kind], (None, 0, 0))
    by_batch = NamedSharding(mesh, PartitionSpec("batch"))
    found = f(jnp.asarray(a), *(jax.device_put(x, by_batch) for x in (e, rtols)))
    assert relative_error(found, jax.jit(f)(a, e, rtols)) <= bound(np.float64, 1e3)


RANKS = {
    "pinv": lambda a: jaxpinv.pinv(a, return_rank=True)[1],
    "lstsq": lambda a: lstsq(a).rank,
    "matrix_rank": jaxpinv.matrix_rank,
}


@pytest.mark.slow_unless("True")
@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("x64", [True, False])
def test_ranks_fit_into_a_branch_next_to_those_of_jnp(name, x64):
    a = np.diag([2, 1, 0]).astype(np.float32)

    def either(take_ours, a):
        return jax.lax.cond(take_ours, RANKS[name], jnp.linalg.matrix_rank, a)

    jax.config.update("jax_enable_x64", x64)
    try:
        ours, theirs = (jax.jit(either)(flag, a) for flag in (True, False))
    finally:
        jax.config.update("jax_enable_x64", True)
    assert int(ours) == int(theirs) == 2
    assert ours.dtype == (np.int64 if x64 else np.int32)


LONG = 900_000


@pytest.mark.slow
def test_a_default_cutoff_that_truncates_much_gives_a_warning():
    a = jnp.ones((LONG, 1), jnp.float32)
    for f in (jaxpinv.pinv, jaxpinv.matrix_rank, lstsq, lambda a: jaxpinv.pinv(a.T)):
        with pytest.warns(
            UserWarning, match=r"default rtol, 900000 \* eps = 0.11"
        ) as found:
            f(a)
        assert [warning.filename for warning in found] == [__file__]
        assert "pass rtol" in str(found[0].message)


@pytest.mark.parametrize(
    ("kwargs", "warned"),
    [
        ({}, True),
        ({"atol": 0.0}, True),
        ({"atol": np.array([0.0, 1.0])}, True),
        ({"atol": 1e-3}, False),
        ({"rtol": 0.5}, False),
        ({"rcond": 1e-3}, False),
        ({"rtol": 1e-3, "atol": 0.0}, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_warning_comes_only_where_the_default_is_used(kwargs, warned, dtype):
    a = jnp.ones((LONG, 1), dtype)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        jax.eval_shape(lambda a: jaxpinv.pinv(a, **kwargs), a)
    assert len(found) == (warned and dtype == np.float32)


KINDS_OF_INPUT = {
    "fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "negative_strides": lambda a: np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1],
    "strided": lambda a: np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3],
    "broadcast": lambda a: np.broadcast_to(a, (2, *a.shape))[1],
    "read_only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
    "lists": lambda a: a.tolist(),
    "tuples": lambda a: tuple(map(tuple, a.tolist())),
}


@pytest.mark.parametrize("kind", KINDS_OF_INPUT)
def test_the_memory_layout_of_the_input_does_not_matter(rng, kind):
    for rank in range(4):
        left, right = rng.integers(-8, 9, (4, rank)), rng.integers(-8, 9, (rank, 3))
        a = (left @ right).astype(np.float64)
        x, found = jaxpinv.pinv(a, return_rank=True)
        y, other = jaxpinv.pinv(KINDS_OF_INPUT[kind](a), return_rank=True)
        assert found == other == rank
        assert np.array_equal(x, y)
