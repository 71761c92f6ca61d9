"""Gradients of `lstsq`, one or both of whose arguments are batches over eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian

pytestmark = pytest.mark.unoptimized

BATCH = PartitionSpec("batch")
BOTH, ONLY_B, ONLY_A = (BATCH, BATCH), (PartitionSpec(), BATCH), (BATCH, PartitionSpec())
# Each argument is divided on each kind of mesh, and with and without a tolerance. Both are
# divided only on an automatic mesh, without one.
DIVIDED = {
    "auto-both-default": (AxisType.Auto, BOTH, None),
    "auto-b-rtol": (AxisType.Auto, ONLY_B, 0.3),
    "explicit-b-default": (AxisType.Explicit, ONLY_B, None),
    "explicit-a-rtol": (AxisType.Explicit, ONLY_A, 0.3),
}


def total(a, b, rtol, weight=1.0):
    """A number that depends on everything in `lstsq` that can be differentiated."""
    x, residuals, _, s = jaxpinv.lstsq(a, b, rtol)
    return jnp.sum(jnp.sin(x)) + jnp.sum(residuals) + weight * jnp.sum(s)


gradients = jax.jit(jax.grad(total, (0, 1)))


def gradients_on_one_device(args, rtol, copies=1):
    """The same, where so many devices add the singular values of a single matrix."""
    # In one program for all cases: both arguments are batches of 16.
    a, b = (np.broadcast_to(x, (16, *x.shape[1:])) for x in args)
    found = gradients(a, b, rtol, copies / 16 if len(args[0]) == 1 else 1.0)
    pairs = zip(found, args, strict=True)
    return [np.sum(x, 0, keepdims=True) if len(of) == 1 else x for x, of in pairs]


def on_arguments(*names):
    """Some cases of what is divided."""
    values = [DIVIDED[name] for name in names]
    return pytest.mark.parametrize(("kind", "specs", "rtol"), values, ids=names)


@pytest.mark.slow
class TestShardedArgumentsOfLstsq:
    """Batches of one argument or both over eight devices."""

    @on_arguments(*DIVIDED)
    def test_only_what_is_replicated_is_summed_over_devices(self, rng, kind, specs, rtol):
        args, mesh, sharded = self.arguments(rng, kind, specs)
        with jax.set_mesh(mesh):
            compiled = gradients.lower(*sharded, rtol).compile()
            result = compiled(*sharded, rtol)
        for x, y in zip(result, gradients_on_one_device(args, rtol), strict=True):
            assert relative_error(x, y) <= bound(np.float64, 1e3)
        text = compiled.as_text() or ""
        assert "all-gather" not in text
        assert ("all-reduce" in text) == (specs != (BATCH, BATCH))

    @on_arguments("auto-both-default", "explicit-b-default", "explicit-a-rtol")
    def test_gradients_in_shard_map_are_summed_over_devices(self, rng, kind, specs, rtol):
        args, mesh, sharded = self.arguments(rng, kind, specs)
        mapped = jax.shard_map(
            lambda a, b: jax.lax.psum(total(a, b, rtol), "batch"),
            mesh=mesh,
            in_specs=specs,
            out_specs=PartitionSpec(),
        )
        with jax.set_mesh(mesh):
            result = jax.jit(jax.grad(mapped, (0, 1)))(*sharded)
        expected = gradients_on_one_device(args, rtol, copies=8)
        for x, y in zip(result, expected, strict=True):
            assert relative_error(x, y) <= bound(np.float64, 1e3)

    def arguments(self, rng, kind, specs):
        """Both, as they are and divided over a mesh."""
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
        args = [
            gaussian(rng, (16 if spec == BATCH else 1, *shape))
            for spec, shape in zip(specs, [(5, 4), (5, 2)], strict=True)
        ]
        sharded = [
            jax.device_put(x, NamedSharding(mesh, spec))
            for x, spec in zip(args, specs, strict=True)
        ]
        return args, mesh, sharded
