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
SHAPES = {"tall": (14, 13), "wide": (13, 14), "tiny": (6, 4)}


def inverse(factored, b, x, damp):
    """Damped inverses by a factorization."""
    return factored.pinv(damp=damp)


def solution(factored, b, x, damp):
    """Damped solutions."""
    return factored.solve(b, damp=damp)


def projection(factored, b, x, damp):
    """What is left of vectors."""
    return factored.null_projection(x, damp=damp)


RESULTS = {f.__name__: f for f in (inverse, solution, projection)}


def by_definition(a, b, x, damp):
    """All results, by the normal equations."""
    inverse = jnp.linalg.solve(a.T @ a + damp**2 * jnp.eye(a.shape[1]), a.T)
    found = {"inverse": inverse, "solution": inverse @ b, "projection": x - inverse @ a @ x}
    return tuple(found[name] for name in RESULTS)


def total(f, *args):
    """One number that depends on all of a result, and this."""
    result = f(*args)
    return jnp.sum(jnp.sin(result)), result


def result_and_gradients(f, *args):
    """The result, and the gradients of its total in all arguments."""
    gradients, result = jax.grad(partial(total, f), (0, 1, 2, 3), has_aux=True)(*args)
    return result, *gradients


@jax.jit
def by_definition_with_gradients(*args):
    """Each result and the gradients of its total, on one device."""
    results, pullback = jax.vjp(jax.vmap(by_definition), *args)
    zeros = [jnp.zeros_like(x) for x in results]
    return {
        name: (x, *pullback((*zeros[:i], jnp.cos(x), *zeros[i + 1 :])))
        for i, (name, x) in enumerate(zip(RESULTS, results, strict=True))
    }


@functools.cache
def batch(shape):
    """Matrices, right-hand sides, vectors and dampings, and what they give."""
    rng, (m, n) = np.random.default_rng(20), shape
    sizes = [(COUNT, m, n), (COUNT, m, 1), (COUNT, n, 2)]
    args = *(gaussian(rng, size) for size in sizes), np.linspace(0.3, 2, COUNT)
    return args, jax.device_get(by_definition_with_gradients(*args))


def everywhere(make, use, mesh):
    """Made and used by one program whose batch `jit` divides."""
    return lambda a, *args: use(make(a), *args)


def in_shard_map(make, use, mesh):
    """Made and used inside of `shard_map`."""
    f = everywhere(make, use, mesh)
    return jax.shard_map(f, mesh=mesh, in_specs=(BY_ROWS,) * 4, out_specs=BY_ROWS)


def in_two_shard_maps(make, use, mesh):
    """Made inside of one `shard_map`, handed out, and used inside of another one."""
    make = jax.shard_map(make, mesh=mesh, in_specs=BY_ROWS, out_specs=BY_ROWS)
    use = jax.shard_map(use, mesh=mesh, in_specs=(BY_ROWS,) * 4, out_specs=BY_ROWS)
    return lambda a, *args: use(make(a), *args)


# Each two of a way, a shape and a result, and each of them with each method and mesh.
CASES = {
    "auto-svd-wide-inverse-everywhere": everywhere,
    "explicit-direct-tall-solution-everywhere": everywhere,
    "explicit-svd-tiny-projection-everywhere": everywhere,
    "explicit-svd-tall-inverse-in_shard_map": in_shard_map,
    "auto-direct-tiny-solution-in_shard_map": in_shard_map,
    "auto-direct-wide-projection-in_shard_map": in_shard_map,
    "auto-direct-tiny-inverse-in_two_shard_maps": in_two_shard_maps,
    "explicit-svd-wide-solution-in_two_shard_maps": in_two_shard_maps,
    "auto-svd-tall-projection-in_two_shard_maps": in_two_shard_maps,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_batch_needs_no_collective_and_stays_divided(case):
    kind, method, shape, result, _ = case.split("-")
    args, expected = batch(SHAPES[shape])
    mesh = mesh_of(8, KINDS[kind])
    with jax.set_mesh(mesh):
        divided = [put(x, BY_ROWS, mesh) for x in args]
        make = partial(jaxpinv.factorize, method=method)
        f = partial(result_and_gradients, CASES[case](make, RESULTS[result], mesh))
        compiled = jax.jit(f).lower(*divided).compile()
        results = compiled(*divided)
    assert collectives(compiled) == []
    for found, known in zip(results, expected[result], strict=True):
        # Zeros, where a result does not depend on an argument, may be anywhere.
        assert not np.any(known) or found.sharding.shard_shape(found.shape)[0] == COUNT // 8
        assert relative_error(found, known) <= bound(np.float64, 100)


@functools.cache
def path():
    """A matrix, a right-hand side, vectors and many dampings, and what they give."""
    rng, (m, n) = np.random.default_rng(21), SHAPES["tall"]
    given = [gaussian(rng, size) for size in [(m, n), (m, 1), (n, 2)]]
    damps = np.linspace(0.3, 2, COUNT)
    # In the program of a batch, each damping has a matrix of its own.
    each = (np.broadcast_to(x, (COUNT, *x.shape)) for x in given)
    known = jax.device_get(by_definition_with_gradients(*each, damps))
    summed = {
        name: (x, *(np.sum(slope, 0) for slope in slopes), of_damps)
        for name, (x, *slopes, of_damps) in known.items()
    }
    return (*given, damps), summed


def divided_by_jit(make, use, mesh):
    """Total of many dampings of one factorization, which `jit` divides over devices."""

    def f(a, *args):
        return jax.vmap(use, (None, None, None, 0))(make(a), *args)

    return lambda *args: total(f, *args)[0]


def divided_by_shard_map(make, use, mesh):
    """The same total; each device has a factorization, and some of the dampings."""
    f = divided_by_jit(make, use, mesh)
    return jax.shard_map(
        lambda *args: jax.lax.psum(f(*args), "rows"),
        mesh=mesh,
        in_specs=(*[REPLICATED] * 3, BY_ROWS),
        out_specs=REPLICATED,
    )


def passed_to_shard_map(make, use, mesh):
    """The same total; the factorization is made outside of `shard_map`."""
    mapped = divided_by_shard_map(lambda factored: factored, use, mesh)
    return lambda a, *args: mapped(make(a), *args)


# Each method with each way and result, and all of these on each kind of mesh.
PATHS = {
    "auto-svd-inverse-divided_by_jit": divided_by_jit,
    "explicit-direct-inverse-divided_by_jit": divided_by_jit,
    "explicit-svd-solution-divided_by_shard_map": divided_by_shard_map,
    "auto-direct-projection-divided_by_shard_map": divided_by_shard_map,
    "explicit-svd-projection-passed_to_shard_map": passed_to_shard_map,
    "auto-direct-solution-passed_to_shard_map": passed_to_shard_map,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", PATHS)
def test_gradients_are_summed_over_the_devices_that_have_the_dampings(case):
    kind, method, result, _ = case.split("-")
    args, expected = path()
    known, *slopes = expected[result]
    mesh = mesh_of(8, KINDS[kind])
    with jax.set_mesh(mesh):
        specs = *[REPLICATED] * 3, BY_ROWS
        given = [put(x, spec, mesh) for x, spec in zip(args, specs, strict=True)]
        f = PATHS[case](partial(jaxpinv.factorize, method=method), RESULTS[result], mesh)
        f = jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2, 3)))
        compiled = f.lower(*given).compile()
        value, gradients = compiled(*given)
    assert set(collectives(compiled)) == {"all-reduce"}
    assert relative_error(value, np.sum(np.sin(known))) <= bound(np.float64, 100)
    for found, slope in zip(gradients, slopes, strict=True):
        assert relative_error(found, slope) <= bound(np.float64, 100)
