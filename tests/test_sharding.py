"""A batch over eight devices: no collective, sharded results, in every mode."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from tests.helpers import bound, gaussian, relative_error

COLLECTIVES = re.compile(
    r"all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast|reduce-scatter"
)


def collectives(compiled):
    """The collectives in the text of a compiled program."""
    return COLLECTIVES.findall(compiled.as_text())


BATCH = PartitionSpec("batch")


def value(pinv, a, ct):
    """The pseudo-inverse."""
    return pinv(a)


def gradient(pinv, a, ct):
    """The gradient against a cotangent."""
    return jax.vjp(pinv, a)[1](ct)[0]


def curvature(pinv, a, ct):
    """The gradient of the gradient, along the matrix itself."""
    return jax.jvp(lambda a: gradient(pinv, a, ct), (a,), (a,))[1]


def hermitian(pinv, a, ct):
    """Value and gradient of the Hermitian case."""
    gram = jnp.matmul(ct, a)
    x, pullback = jax.vjp(lambda a: pinv(a, hermitian=True), gram)
    return pullback(x)[0]


def per_matrix_rtol(pinv, a, ct):
    """The pseudo-inverse with one tolerance per matrix."""
    return pinv(a, jnp.abs(a[:, 0, 0]) * 0.1)


FUNCTIONS = [value, gradient, curvature, hermitian, per_matrix_rtol]


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(request.param,))
    with jax.set_mesh(mesh):
        yield mesh


@pytest.mark.parametrize(
    ("pinv", "shape"),
    [
        ("pinv", (16, 5, 3)),
        ("pinv", (16, 3, 5)),
        ("pinv", (16, 4, 4)),
        ("lstsq", (16, 3, 5)),
    ],
    ids=str,
    indirect=["pinv"],
)
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
class TestShardedBatch:
    """Nothing leaves its device."""

    def test_jit_needs_no_collective_and_stays_sharded(self, pinv, rng, mesh, f, shape):
        f = partial(f, pinv)
        self.check(rng, mesh, jax.jit(f), f, shape)

    def test_vmap_needs_no_collective_and_stays_sharded(self, pinv, rng, mesh, f, shape):
        f = partial(value if f is per_matrix_rtol else f, pinv)
        self.check(rng, mesh, jax.jit(jax.vmap(f)), f, shape)

    def test_shard_map_with_its_checks_needs_no_collective(self, pinv, rng, mesh, f, shape):
        f = partial(f, pinv)
        mapped = jax.shard_map(f, mesh=mesh, in_specs=(BATCH, BATCH), out_specs=BATCH)
        self.check(rng, mesh, jax.jit(mapped), f, shape)

    def check(self, rng, mesh, sharded, f, shape):
        """Compiled text, sharding and value against those of one device."""
        a = gaussian(rng, shape)
        ct = gaussian(rng, (shape[0], shape[2], shape[1]))
        args = [jax.device_put(x, NamedSharding(mesh, BATCH)) for x in (a, ct)]
        compiled = sharded.lower(*args).compile()
        result = compiled(*args)
        assert collectives(compiled) == []
        assert not result.sharding.is_fully_replicated
        assert result.sharding.shard_shape(result.shape)[0] == shape[0] // 8
        with jax.set_mesh(jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))):
            reference = jax.jit(f)(a, ct)
        assert relative_error(result, reference) <= bound(np.float64, 1e3)


def test_avals_carry_the_explicit_sharding(pinv, rng):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        a = jax.device_put(gaussian(rng, (16, 5, 3)), NamedSharding(mesh, BATCH))
        x, pullback = jax.vjp(pinv, a)
        assert jax.typeof(x).sharding.spec[0] == "batch"
        assert jax.typeof(pullback(x)[0]).sharding.spec[0] == "batch"


def test_two_mesh_axes_need_no_collective(rng):
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("x", "y"))
        a = jax.device_put(gaussian(rng, (4, 4, 5, 3)), sharding)
        ct = jax.device_put(gaussian(rng, (4, 4, 3, 5)), sharding)
        compiled = jax.jit(partial(gradient, jaxpinv.pinv)).lower(a, ct).compile()
        assert collectives(compiled) == []
        assert compiled(a, ct).sharding.shard_shape(a.shape) == (1, 2, 5, 3)


@pytest.mark.parametrize("order", [1, 2])
def test_tolerances_that_vary_over_devices_sum_the_gradient_over_them(
    pinv, rng, mesh, order
):
    a = gaussian(rng, (1, 5, 3))
    rtol = np.linspace(0, 0.5, 16)

    def total(a, rtol):
        return jnp.sum(pinv(a, rtol) ** 2)

    def total_over_devices(a, rtol):
        return jax.lax.psum(total(a, rtol), "batch")

    def derive(f, a, rtol):
        f = jax.grad(f)
        if order == 2:
            return jax.jvp(lambda a: f(a, rtol), (a,), (a,))[1]
        return f(a, rtol)

    replicated = PartitionSpec()
    mapped = jax.shard_map(
        total_over_devices, mesh=mesh, in_specs=(replicated, BATCH), out_specs=replicated
    )
    sharded_a = jax.device_put(a, NamedSharding(mesh, replicated))
    sharded_rtol = jax.device_put(rtol, NamedSharding(mesh, BATCH))
    result = jax.jit(lambda a, r: derive(mapped, a, r))(sharded_a, sharded_rtol)
    reference = sum(derive(total, a, r) for r in rtol)
    assert relative_error(result, reference) <= bound(np.float64, 1e3)


@pytest.mark.parametrize("case", ["tangents", "tolerances", "cotangents"])
def test_one_matrix_with_sharded_operands_has_second_derivatives(pinv, rng, mesh, case):
    a = gaussian(rng, (5, 3))
    batch = gaussian(rng, (16, 5, 3))
    rtols = np.abs(batch[:, 0, 0]) / 10

    def second(a, e, rtol):
        f = jax.grad(lambda a: jnp.sum(jnp.sin(pinv(a, rtol))))
        return jax.jvp(f, (a,), (e,))[1]

    def total(a, e, rtol):
        return jnp.sum(jax.vmap(second, in_axes)(a, e, rtol) ** 2)

    args, in_axes = {
        "tangents": ((a, batch, 0.0), (None, 0, None)),
        "tolerances": ((a, batch[0], rtols), (None, None, 0)),
        "cotangents": ((a, batch, rtols), (None, 0, 0)),
    }[case]
    # The residuals of `lstsq` are a product of JAX's, which wants all arrays on the mesh.
    on_mesh = PartitionSpec() if pinv is not jaxpinv.pinv else None
    specs = [BATCH if axis == 0 else on_mesh for axis in in_axes]
    sharded = [
        x if spec is None else jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip(args, specs, strict=True)
    ]
    f = jax.grad(total) if case == "cotangents" else jax.vmap(second, in_axes)
    result = jax.jit(f)(*sharded)
    with jax.set_mesh(jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))):
        reference = jax.jit(f)(*args)
    assert relative_error(result, reference) <= bound(np.float64, 1e3)


@pytest.mark.parametrize(
    "kind", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"]
)
@pytest.mark.parametrize(
    "specs",
    [(BATCH, BATCH), (PartitionSpec(), BATCH), (BATCH, PartitionSpec())],
    ids=["both", "b", "a"],
)
@pytest.mark.parametrize("kwargs", [{}, {"rtol": 0.3}], ids=["default", "rtol"])
class TestShardedArgumentsOfLstsq:
    """Batches of one argument or both over eight devices."""

    def total(self, a, b, **kwargs):
        """A number that depends on everything that can be differentiated."""
        x, residuals, _, s = jaxpinv.lstsq(a, b, **kwargs)
        return jnp.sum(jnp.sin(x)) + jnp.sum(residuals) + jnp.sum(s)

    def test_only_what_is_replicated_is_summed_over_devices(self, rng, kind, specs, kwargs):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
        args = [
            gaussian(rng, (16 if spec == BATCH else 1, *shape))
            for spec, shape in zip(specs, [(5, 4), (5, 2)], strict=True)
        ]
        derive = jax.grad(partial(self.total, **kwargs), (0, 1))
        reference = derive(*args)
        with jax.set_mesh(mesh):
            sharded = [
                jax.device_put(x, NamedSharding(mesh, spec))
                for x, spec in zip(args, specs, strict=True)
            ]
            compiled = jax.jit(derive).lower(*sharded).compile()
            result = compiled(*sharded)
        for x, y in zip(result, reference, strict=True):
            assert relative_error(x, y) <= bound(np.float64, 1e3)
        text = compiled.as_text() or ""
        assert "all-gather" not in text
        assert ("all-reduce" in text) == (specs != (BATCH, BATCH))

    def test_gradients_in_shard_map_are_summed_over_devices(self, rng, kind, specs, kwargs):
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(kind,))
        args = [
            gaussian(rng, (16 if spec == BATCH else 1, *shape))
            for spec, shape in zip(specs, [(5, 4), (5, 2)], strict=True)
        ]

        def over_devices(a, b):
            return jax.lax.psum(self.total(a, b, **kwargs), "batch")

        mapped = jax.shard_map(
            over_devices, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()
        )

        def by_parts(a, b):
            parts = [
                [x[2 * i : 2 * i + 2] if len(x) > 1 else x for x in (a, b)]
                for i in range(8)
            ]
            return sum(self.total(*part, **kwargs) for part in parts)

        with jax.set_mesh(mesh):
            sharded = [
                jax.device_put(x, NamedSharding(mesh, spec))
                for x, spec in zip(args, specs, strict=True)
            ]
            result = jax.jit(jax.grad(mapped, (0, 1)))(*sharded)
        for x, y in zip(result, jax.grad(by_parts, (0, 1))(*args), strict=True):
            assert relative_error(x, y) <= bound(np.float64, 1e3)
