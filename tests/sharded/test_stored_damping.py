"""Dampings of a `Factorization` on meshes: of batches, and of one matrix on all devices."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian
from tests.sharded.meshes import BY_ROWS, collectives, mesh_of, put

pytestmark = pytest.mark.unoptimized

COUNT = 16
REPLICATED = PartitionSpec()
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
# The last is tiny, and is factored anew unless the method is "svd".
SHAPES = {"tall": (12, 9), "wide": (9, 12), "tiny": (6, 4)}


def methods(factored, b, x, damp):
    """All results of a factorization with a damping."""
    return (
        factored.pinv(damp=damp),
        factored.solve(b, damp=damp),
        factored.null_projection(x, damp=damp),
    )


def by_definition(a, b, x, damp):
    """The same results, by the normal equations."""
    t = jnp.swapaxes(a, -1, -2)
    one = jnp.broadcast_to(jnp.eye(a.shape[-1]), (*a.shape[:-2], *[a.shape[-1]] * 2))
    inverse = jnp.linalg.solve(t @ a + damp[..., None, None] ** 2 * one, t)
    return inverse, inverse @ b, x - inverse @ (a @ x)


def total(f, *args):
    """One number that depends on all results."""
    return sum(jnp.sum(jnp.sin(y)) for y in f(*args))


def values_and_gradients(f, *args):
    """The results, and the gradients of their total in all arguments."""
    return *f(*args), *jax.grad(partial(total, f), argnums=(0, 1, 2, 3))(*args)


@functools.cache
def batch(shape):
    """Matrices, right-hand sides, vectors and dampings, and what they give."""
    rng, (m, n) = np.random.default_rng(20), shape
    sizes = [(COUNT, m, n), (COUNT, m, 1), (COUNT, n, 2)]
    args = *(gaussian(rng, size) for size in sizes), np.linspace(0.3, 2, COUNT)
    return args, jax.device_get(
        jax.jit(partial(values_and_gradients, by_definition))(*args)
    )


def everywhere(make, mesh):
    """Made and used by one program whose batch `jit` divides."""
    return lambda a, *args: methods(make(a), *args)


def in_shard_map(make, mesh):
    """Made and used inside of `shard_map`."""
    f = everywhere(make, mesh)
    return jax.shard_map(f, mesh=mesh, in_specs=(BY_ROWS,) * 4, out_specs=BY_ROWS)


def made_in_shard_map(make, mesh):
    """Made inside of `shard_map`, used outside."""
    make = jax.shard_map(make, mesh=mesh, in_specs=BY_ROWS, out_specs=BY_ROWS)
    return lambda a, *args: methods(make(a), *args)


def used_in_shard_map(make, mesh):
    """Made outside of `shard_map`, used inside."""
    use = jax.shard_map(methods, mesh=mesh, in_specs=(BY_ROWS,) * 4, out_specs=BY_ROWS)
    return lambda a, *args: use(make(a), *args)


# Each way and method on each kind of mesh, each shape with each method.
CASES = {
    "auto-svd-wide-everywhere": everywhere,
    "explicit-svd-tall-in_shard_map": in_shard_map,
    "auto-svd-tiny-made_in_shard_map": made_in_shard_map,
    "explicit-svd-wide-used_in_shard_map": used_in_shard_map,
    "explicit-direct-tall-everywhere": everywhere,
    "auto-direct-tiny-in_shard_map": in_shard_map,
    "explicit-direct-wide-made_in_shard_map": made_in_shard_map,
    "auto-direct-tall-used_in_shard_map": used_in_shard_map,
    "explicit-direct-tiny-used_in_shard_map": used_in_shard_map,
}


@pytest.mark.slow_unless("explicit-svd-wide")
@pytest.mark.parametrize("case", CASES)
def test_a_batch_needs_no_collective_and_stays_divided(case):
    kind, method, shape, _ = case.split("-")
    args, expected = batch(SHAPES[shape])
    mesh = mesh_of(8, KINDS[kind])
    with jax.set_mesh(mesh):
        divided = [put(x, BY_ROWS, mesh) for x in args]
        f = CASES[case](partial(jaxpinv.factorize, method=method), mesh)
        compiled = jax.jit(partial(values_and_gradients, f)).lower(*divided).compile()
        results = compiled(*divided)
    assert collectives(compiled) == []
    for found, known in zip(results, expected, strict=True):
        assert found.sharding.shard_shape(found.shape)[0] == COUNT // 8
        assert relative_error(found, known) <= bound(np.float64, 100)


@functools.cache
def path():
    """A matrix, a right-hand side, vectors and many dampings, and what they give."""
    rng = np.random.default_rng(21)
    sizes = [(12, 9), (12, 1), (9, 2)]
    args = *(gaussian(rng, size) for size in sizes), np.linspace(0.3, 2, COUNT)
    f = jax.vmap(by_definition, (None, None, None, 0))
    return args, jax.device_get(jax.jit(partial(values_and_gradients, f))(*args))


def divided_by_jit(make, mesh):
    """Total of many dampings of one factorization, which `jit` divides over devices."""

    def f(a, *args):
        return jax.vmap(methods, (None, None, None, 0))(make(a), *args)

    return partial(total, f)


def divided_by_shard_map(make, mesh):
    """The same total; each device has a factorization, and some of the dampings."""
    f = divided_by_jit(make, mesh)
    return jax.shard_map(
        lambda *args: jax.lax.psum(f(*args), "rows"),
        mesh=mesh,
        in_specs=(*[REPLICATED] * 3, BY_ROWS),
        out_specs=REPLICATED,
    )


def passed_to_shard_map(make, mesh):
    """The same total; the factorization is made outside of `shard_map`."""
    mapped = divided_by_shard_map(lambda factored: factored, mesh)
    return lambda a, *args: mapped(make(a), *args)


PATHS = {
    "explicit-svd-divided_by_shard_map": divided_by_shard_map,
    "auto-svd-passed_to_shard_map": passed_to_shard_map,
    "auto-svd-divided_by_jit": divided_by_jit,
    "auto-direct-divided_by_shard_map": divided_by_shard_map,
    "explicit-direct-passed_to_shard_map": passed_to_shard_map,
    "explicit-direct-divided_by_jit": divided_by_jit,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", PATHS)
def test_gradients_are_summed_over_the_devices_that_have_the_dampings(case):
    kind, method, _ = case.split("-")
    args, (inverses, solutions, projections, *slopes) = path()
    exact = sum(np.sum(np.sin(y)) for y in (inverses, solutions, projections))
    mesh = mesh_of(8, KINDS[kind])
    with jax.set_mesh(mesh):
        specs = *[REPLICATED] * 3, BY_ROWS
        given = [put(x, spec, mesh) for x, spec in zip(args, specs, strict=True)]
        f = PATHS[case](partial(jaxpinv.factorize, method=method), mesh)
        f = jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2, 3)))
        compiled = f.lower(*given).compile()
        value, gradients = compiled(*given)
    assert set(collectives(compiled)) == {"all-reduce"}
    assert relative_error(value, exact) <= bound(np.float64, 100)
    for found, known in zip(gradients, slopes, strict=True):
        assert relative_error(found, known) <= bound(np.float64, 100)
