"""The log-volume of one matrix of rows on several devices, and of divided batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import jaxpinv
from jaxpinv import sharded
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix
from tests.mpmath_oracle import exact_log_pdet
from tests.sharded.meshes import BY_ROWS, collectives, mesh_of, put

pytestmark = pytest.mark.unoptimized

KINDS = [AxisType.Auto, AxisType.Explicit]


@functools.cache
def derive(kind):
    """Value, rank, gradient and its derivative on one kind of mesh, compiled."""

    @jax.jit
    def along(a, f, rtol):
        value = functools.partial(sharded.log_pdet, rtol=rtol, return_rank=True)
        found, rank = value(a)
        gradient = jax.grad(lambda a: value(a)[0])
        return found, rank, *jax.jvp(gradient, (a,), (f,))

    return along


SPECTRA = {
    "full": ([3, 2, 1, 0.5], 0.1),
    "truncated": ([3, 2, 0.3, 0.2], 0.2),
    "deficient": ([3, 2, 0, 0], 1e-9),
    "default": ([3, 2, 1, 0], None),
}
# Without a tolerance the program is another one.
CASES = [(AxisType.Auto, x) for x in ("full", "truncated", "deficient")]
CASES += [(AxisType.Explicit, x) for x in ("truncated", "deficient", "default")]


@pytest.mark.slow_unless("Auto.*truncated")
@pytest.mark.parametrize(("kind", "case"), CASES, ids=lambda x: getattr(x, "name", x))
def test_value_and_derivatives_are_exact(rng, kind, case):
    spectrum, rtol = SPECTRA[case]
    a = matrix(rng, (24, 4), spectrum)
    # A deficient matrix keeps its rank along such directions.
    e, f = (gaussian(rng, (2, 24, 4)) @ a.T) @ a
    mesh, cutoff = mesh_of(8, kind), 3 * (rtol or 1e-9)
    exact = [exact_log_pdet(a, [e, f][:k], cutoff) for k in range(3)]

    with jax.set_mesh(mesh):
        args = [put(x, BY_ROWS, mesh) for x in (a, f)]
        found, rank, gradient, hvp = derive(kind)(*args, rtol)
        eager = sharded.log_pdet(args[0], rtol)
    assert rank == np.sum(np.array(spectrum) > cutoff)
    results = [found, np.vdot(e, gradient), np.vdot(e, hvp)]
    for result, expected in zip(results, exact, strict=True):
        assert abs(result - expected) <= bound(np.float64, 1e3) * max(1, abs(expected))
    assert relative_error(eager, found) <= bound(np.float64)
    assert gradient.sharding.is_equivalent_to(args[0].sharding, 2)


def test_an_element_that_is_not_finite_gives_nan_and_rank_0(rng):
    a = gaussian(rng, (24, 4))
    a[20, 1] = np.inf
    value, rank = sharded.log_pdet(put(a), return_rank=True)
    assert np.isnan(value)
    assert rank == 0


def test_errors_name_the_function():
    with pytest.raises(ValueError, match=r"^sharded\.log_pdet: expected one matrix"):
        sharded.log_pdet(np.ones((2, 3, 3)))
    with pytest.raises(ValueError, match=r"^sharded\.log_pdet: expected rtol to be a num"):
        sharded.log_pdet(np.ones((3, 3)), np.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_divided_batches_need_no_collective(rng, kind):
    a, b = gaussian(rng, (16, 5, 4)), gaussian(rng, (16, 5, 1))
    mesh, spec = mesh_of(8, kind), PartitionSpec("rows")

    def total(a, b):
        factored = jaxpinv.factorize(a)
        found = factored.solve(b), factored.null_projection(factored.pinv() @ b)
        return *found, factored.singular_values(), factored.log_pdet(), factored.rank

    def gradient(a, b):
        return jax.grad(lambda a: jnp.sum(jaxpinv.factorize(a).log_pdet()))(a)

    for f in (total, gradient):
        with jax.set_mesh(mesh):
            args = [put(x, spec, mesh) for x in (a, b)]
            compiled = jax.jit(f).lower(*args).compile()
            found = compiled(*args)
        assert collectives(compiled) == []
        expected = jax.jit(f)(a, b)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert np.max(np.abs(x - y)) <= bound(np.float64, 1e3)


@pytest.mark.slow
def test_what_is_made_outside_of_shard_map_may_be_used_inside(rng):
    a, b = gaussian(rng, (6, 4)), gaussian(rng, (8, 6))
    mesh = mesh_of(8)

    def by_devices(a, b):
        factored = jaxpinv.factorize(a)

        def use(factored, b):
            return factored.solve(b[0])[None]

        spec = PartitionSpec("rows")
        specs = (PartitionSpec(), spec)
        mapped = jax.shard_map(use, mesh=mesh, in_specs=specs, out_specs=spec)
        return jnp.sum(jnp.sin(mapped(factored, b)))

    def at_once(a, b):
        return jnp.sum(jnp.sin(jaxpinv.lstsq(a, b.T).solution))

    for derive in (lambda f: f, jax.grad):
        found, expected = jax.jit(derive(by_devices))(a, b), jax.jit(derive(at_once))(a, b)
        assert relative_error(found, expected) <= bound(np.float64, 1e3)
