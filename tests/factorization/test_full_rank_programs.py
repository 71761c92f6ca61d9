"""The direct way where programs are divided, exported, or not compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.comparison import bound, relative_error
from tests.factorization.full_rank_cases import (
    CONDITION,
    direct_pinv,
    known_gradient,
    random,
)

pytestmark = pytest.mark.unoptimized


@jax.jit
def gradient(a):
    """That of a number that depends on the whole pseudo-inverse."""
    return jax.grad(lambda a: jnp.sum(jnp.sin(direct_pinv(a))))(a)


def exact_gradient(a):
    """The same by NumPy."""
    return known_gradient(a, np.cos(np.linalg.pinv(a)))[1]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(33, 3, 2), (2, 13, 13)], ids=str)
def test_works_with_jit_disabled(rng, shape):
    a = random(rng, shape, np.float64)
    with jax.disable_jit():
        x = direct_pinv(a)
    assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, CONDITION)


@pytest.mark.slow_unless("cuda|tpu-.64")
@pytest.mark.parametrize("shape", [(64, 3, 2), (12, 12), (3, 16, 13)], ids=str)
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_lowers_for_other_platforms(shape, platform):
    exported = export.export(gradient, platforms=[platform])
    assert exported(jax.ShapeDtypeStruct(shape, np.float32)).platforms == (platform,)


@pytest.mark.slow_unless("3, 3")
class TestOverDevices:
    """A divided batch takes singular values unless it is tiny or within `shard_map`."""

    @pytest.mark.parametrize(
        ("kind", "shape"),
        [
            (AxisType.Auto, (512, 3, 2)),
            (AxisType.Explicit, (16, 13, 13)),
        ],
        ids=str,
    )
    def test_shard_map_needs_no_collective_and_others_at_most_one_number(
        self, rng, shape, kind
    ):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
        spec = PartitionSpec("batch")
        a = random(rng, shape, np.float64)
        a[1, :, 0] = 0
        expected = exact_gradient(a)
        with jax.set_mesh(mesh):
            mapped = jax.jit(
                jax.shard_map(gradient, mesh=mesh, in_specs=spec, out_specs=spec)
            )
            b = jax.device_put(a, NamedSharding(mesh, spec))
            for g, is_direct in ((mapped, True), (gradient, False)):
                lowered = g.lower(b)
                compiled = lowered.compile()
                text = str(compiled.as_text())
                assert not any(x in text for x in ("all-gather", "permute"))
                # Of tiny matrices, whether any is left for singular values.
                asks = shape[-1] <= 8 and not is_direct
                assert ("all-reduce" in text) == asks
                assert ("while" in lowered.as_text()) == (is_direct or asks)
                error = relative_error(compiled(b), expected)
                assert error <= bound(np.float64, CONDITION**2)

    @pytest.mark.parametrize("shape", [(40, 3, 3), (6, 13, 13), (6, 20, 13)], ids=str)
    def test_an_explicit_mesh_of_one_device_works_too(self, rng, shape):
        a = random(rng, shape, np.float64)
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Explicit,))
        with jax.set_mesh(mesh):
            b = jax.device_put(a, NamedSharding(mesh, PartitionSpec("batch")))
            x = jax.jit(direct_pinv)(b)
        assert relative_error(x, np.linalg.pinv(a)) <= bound(np.float64, CONDITION)


@pytest.mark.slow_unless("^m, 9")
@pytest.mark.parametrize(
    ("spec", "constraints", "shape"),
    [
        ("n, n", [], (12, 12)),
        ("m, 9", ["m >= 10"], (12, 9)),
        ("2, m, 9", ["m >= 10"], (2, 12, 9)),
        ("b, 12, 12", [], (3, 12, 12)),
        ("b, 3, 3", [], (40, 3, 3)),
    ],
)
def test_sizes_may_be_symbols_of_an_exported_program(rng, spec, constraints, shape):
    sizes = export.symbolic_shape(spec, constraints=constraints)
    exported = export.export(gradient)(jax.ShapeDtypeStruct(sizes, np.float64))
    a = random(rng, shape, np.float64)
    expected = exact_gradient(a)
    assert relative_error(exported.call(a), expected) <= bound(np.float64, CONDITION**2)
