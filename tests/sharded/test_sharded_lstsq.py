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


def total(a, b, rtol):
    """A number that depends on everything in `lstsq` that can be differentiated."""
    x, residuals, _, s = jaxpinv.lstsq(a, b, rtol)
    return jnp.sum(jnp.sin(x)) + jnp.sum(residuals) + jnp.sum(s)


gradients = jax.jit(jax.grad(total, (0, 1)))


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
        for x, y in zip(result, gradients(*args, rtol), strict=True):
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
        parts = [
            gradients(*(x[2 * i : 2 * i + 2] if len(x) > 1 else x for x in args), rtol)
            for i in range(8)
        ]
        for x, arg, of_parts in zip(result, args, zip(*parts, strict=True), strict=True):
            expected = np.concatenate(of_parts) if len(arg) > 1 else sum(of_parts)
            assert relative_error(x, expected) <= bound(np.float64, 1e3)

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
