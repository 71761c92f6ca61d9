"""A batch over eight devices: no collective, sharded results, in every mode."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian
from tests.sharded.meshes import collectives

pytestmark = pytest.mark.unoptimized

BATCH = PartitionSpec("batch")


def everything(pinv, a, ct):
    """Value, gradient against a cotangent, its derivative along the matrix, and more.

    One program for all of them, which share what takes the time to compile.
    """

    def gradient(a):
        x, pullback = jax.vjp(pinv, a)
        return pullback(ct)[0], x

    gradient, curvature, x = jax.jvp(gradient, (a,), (a,), has_aux=True)
    y, pullback = jax.vjp(lambda a: pinv(a, hermitian=True), jnp.matmul(ct, a))
    return {
        "value": x,
        "gradient": gradient,
        "curvature": curvature,
        "hermitian": pullback(y)[0],
        "per_matrix_rtol": pinv(a, jnp.abs(a[..., 0, 0]) * 0.1),
    }


@functools.cache
def arguments(*shape):
    """Matrices and cotangents."""
    rng = np.random.default_rng(20)
    m, n = shape[-2:]
    return gaussian(rng, shape), gaussian(rng, (*shape[:-2], n, m))


@functools.cache
def reference(*shape):
    """The same on one device, by singular values."""
    f = partial(everything, partial(jaxpinv.pinv, method="svd"))
    with on_one_device():
        return jax.device_get(jax.jit(f)(*arguments(*shape)))


def on_one_device():
    """A context without the mesh of the fixture."""
    return jax.set_mesh(jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,)))


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
def mesh(request):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(request.param,))
    with jax.set_mesh(mesh):
        yield mesh


CASES = {
    "tall": ("pinv", (16, 5, 3)),
    "wide": ("pinv", (16, 3, 5)),
    "square": ("pinv", (16, 4, 4)),
    "lstsq": ("lstsq", (16, 3, 5)),
}


def on_meshes(auto, explicit):
    """Some cases on a mesh of either kind."""
    cases = {f"auto-{x}": (AxisType.Auto, *CASES[x]) for x in auto}
    cases |= {f"explicit-{x}": (AxisType.Explicit, *CASES[x]) for x in explicit}
    return pytest.mark.parametrize(
        ("mesh", "pinv", "shape"), cases.values(), ids=cases, indirect=["mesh", "pinv"]
    )


@pytest.mark.slow
class TestShardedBatch:
    """Nothing leaves its device.

    Every case is compiled as it is, and under one transformation; every transformation is
    on both kinds of mesh, and of either function.
    """

    @on_meshes(auto=["tall", "lstsq"], explicit=["wide", "square"])
    def test_jit_needs_no_collective_and_stays_sharded(self, pinv, mesh, shape):
        self.check(mesh, partial(everything, pinv), shape)

    @on_meshes(auto=["wide"], explicit=["lstsq"])
    def test_vmap_needs_no_collective_and_stays_sharded(self, pinv, mesh, shape):
        self.check(mesh, jax.vmap(partial(everything, pinv)), shape)

    @on_meshes(auto=["lstsq"], explicit=["tall"])
    def test_shard_map_with_its_checks_needs_no_collective(self, pinv, mesh, shape):
        f = partial(everything, pinv)
        mapped = jax.shard_map(f, mesh=mesh, in_specs=(BATCH, BATCH), out_specs=BATCH)
        self.check(mesh, mapped, shape)

    def check(self, mesh, sharded, shape):
        """Compiled text, sharding and value against those of one device."""
        args = [jax.device_put(x, NamedSharding(mesh, BATCH)) for x in arguments(*shape)]
        compiled = jax.jit(sharded).lower(*args).compile()
        results = compiled(*args)
        assert collectives(compiled) == []
        for name, expected in reference(*shape).items():
            result = results[name]
            assert not result.sharding.is_fully_replicated, name
            assert result.sharding.shard_shape(result.shape)[0] == shape[0] // 8, name
            assert relative_error(result, expected) <= bound(np.float64, 1e3), name


@pytest.mark.slow_unless("pinv")
def test_avals_carry_the_explicit_sharding(pinv, rng):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Explicit,))
    with jax.set_mesh(mesh):
        a = jax.device_put(gaussian(rng, (16, 5, 3)), NamedSharding(mesh, BATCH))
        x, pullback = jax.vjp(pinv, a)
        assert jax.typeof(x).sharding.spec[0] == "batch"
        assert jax.typeof(pullback(x)[0]).sharding.spec[0] == "batch"


def test_two_mesh_axes_need_no_collective(rng):
    def gradient(a, ct):
        return jax.vjp(jaxpinv.pinv, a)[1](ct)[0]

    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec("x", "y"))
        a = jax.device_put(gaussian(rng, (4, 4, 5, 3)), sharding)
        ct = jax.device_put(gaussian(rng, (4, 4, 3, 5)), sharding)
        compiled = jax.jit(gradient).lower(a, ct).compile()
        assert collectives(compiled) == []
        assert compiled(a, ct).sharding.shard_shape(a.shape) == (1, 2, 5, 3)


def total_of(pinv):
    """A number of a matrix and tolerances."""
    return lambda a, rtol: jnp.sum(pinv(a, rtol) ** 2)


def derivatives_of(f):
    """The gradient in the matrix, and its derivative along it."""
    return jax.jit(lambda a, r: jax.jvp(lambda a: jax.grad(f)(a, r), (a,), (a,)))


@functools.cache
def derivatives_by_tolerance():
    """A matrix, sixteen tolerances, and the sum over them on one device."""
    a, rtol = arguments(1, 5, 3)[0], np.linspace(0, 0.5, 16)
    f = derivatives_of(total_of(jaxpinv.pinv))
    with on_one_device():
        rows = jax.device_get([f(a, r) for r in rtol])
    return a, rtol, [sum(parts) for parts in zip(*rows, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "pinv"),
    [(AxisType.Explicit, "pinv"), (AxisType.Auto, "lstsq")],
    ids=["explicit-pinv", "auto-lstsq"],
    indirect=True,
)
def test_tolerances_that_vary_over_devices_sum_the_gradient_over_them(pinv, mesh):
    a, rtol, expected = derivatives_by_tolerance()
    replicated, total = PartitionSpec(), total_of(pinv)
    mapped = jax.shard_map(
        lambda a, rtol: jax.lax.psum(total(a, rtol), "batch"),
        mesh=mesh,
        in_specs=(replicated, BATCH),
        out_specs=replicated,
    )
    sharded_a = jax.device_put(a, NamedSharding(mesh, replicated))
    sharded_rtol = jax.device_put(rtol, NamedSharding(mesh, BATCH))
    results = derivatives_of(mapped)(sharded_a, sharded_rtol)
    for result, reference in zip(results, expected, strict=True):
        assert relative_error(result, reference) <= bound(np.float64, 1e3)


# The axes that are mapped, of a matrix, a direction and a tolerance.
OPERANDS = {"tangents": (None, 0, None), "tolerances": (None, None, 0)}
OPERANDS["cotangents"] = (None, 0, 0)


def second_derivative_of(pinv):
    """That of a number, as a function of one matrix, a direction and a tolerance."""

    def second(a, e, rtol):
        f = jax.grad(lambda a: jnp.sum(jnp.sin(pinv(a, rtol))))
        return jax.jvp(f, (a,), (e,))[1]

    return second


def operands(case):
    """One matrix, and directions and tolerances, of which some are batches."""
    rng = np.random.default_rng(20)
    a, batch = gaussian(rng, (5, 3)), gaussian(rng, (16, 5, 3))
    rtols = np.abs(batch[:, 0, 0]) / 10
    axes = OPERANDS[case]
    return a, batch if axes[1] == 0 else batch[0], rtols if axes[2] == 0 else 0.0


def second_derivatives(pinv, case):
    """A function of these operands.

    For "cotangents" it is the gradient of the sum of squares of second derivatives.
    """
    mapped = jax.vmap(second_derivative_of(pinv), OPERANDS[case])
    if case == "cotangents":
        return jax.jit(jax.grad(lambda *args: jnp.sum(mapped(*args) ** 2)))
    return jax.jit(mapped)


one_second_derivative = jax.jit(second_derivative_of(jaxpinv.pinv))


@functools.cache
def second_derivatives_on_one_device(case):
    """What they are, of second order one after the other, by one program."""
    a, directions, tolerances = operands(case)
    with on_one_device():
        if case == "cotangents":
            f = second_derivatives(jaxpinv.pinv, case)
            return jax.device_get(f(a, directions, tolerances))
        each = np.broadcast_to(directions, (16, 5, 3)), np.broadcast_to(tolerances, 16)
        pairs = zip(*each, strict=True)
        return np.stack([one_second_derivative(a, e, rtol) for e, rtol in pairs])


# Every kind of mesh, function and operand that is divided; of third order, one.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mesh", "pinv", "case"),
    [
        (AxisType.Auto, "pinv", "tangents"),
        (AxisType.Explicit, "lstsq", "tangents"),
        (AxisType.Auto, "lstsq", "tolerances"),
        (AxisType.Explicit, "pinv", "cotangents"),
    ],
    ids=lambda x: x.name if isinstance(x, AxisType) else x,
    indirect=["mesh", "pinv"],
)
def test_one_matrix_with_sharded_operands_has_second_derivatives(pinv, mesh, case):
    f, args = second_derivatives(pinv, case), operands(case)
    # The residuals of `lstsq` are a product of JAX's, which wants all arrays on the mesh.
    on_mesh = PartitionSpec() if pinv is not jaxpinv.pinv else None
    specs = [BATCH if axis == 0 else on_mesh for axis in OPERANDS[case]]
    sharded = [
        x if spec is None else jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip(args, specs, strict=True)
    ]
    reference = second_derivatives_on_one_device(case)
    assert relative_error(f(*sharded), reference) <= bound(np.float64, 1e3)
