"""Every public function on meshes of two axes, under `pmap`, and in `shard_map`."""

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

BOTH, ONE = PartitionSpec(("x", "y")), PartitionSpec("x")
SIZE, DEVICES = 64, 8


def everything(a, b, ct):
    """Values, gradients against cotangents, and all that goes without a derivative."""
    x, pullback = jax.vjp(jaxpinv.pinv, a)
    solution, pull_solution = jax.vjp(lambda a, b: jaxpinv.lstsq(a, b).solution, a, b)
    return {
        "pinv": x,
        "gradient": pullback(ct)[0],
        "lstsq": solution,
        "lstsq_gradients": pull_solution(ct[..., :1]),
        "null_projection": jaxpinv.null_projection(a, ct),
        "matrix_rank": jaxpinv.matrix_rank(a, 0.1),
    }


@pytest.fixture(scope="module")
def arguments():
    """Matrices, right-hand sides and cotangents."""
    rng = np.random.default_rng(3)
    return [gaussian(rng, (SIZE, *shape)) for shape in [(3, 5), (3, 1), (5, 3)]]


@pytest.fixture(scope="module")
def reference(arguments):
    """The same on one device."""
    return jax.jit(everything)(*arguments)


def mesh_of(kind):
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind, kind))


def check(found, reference):
    """Compares every result."""
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(reference), strict=True):
        assert relative_error(np.reshape(x, y.shape), y) <= bound(np.float64, 1e3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "spec"),
    [(AxisType.Auto, BOTH), (AxisType.Explicit, ONE)],
    ids=["auto_over_both", "explicit_over_one"],
)
def test_a_mesh_of_two_axes_needs_no_collective(arguments, reference, kind, spec):
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(x, NamedSharding(mesh, spec)) for x in arguments]
        compiled = jax.jit(everything).lower(*sharded).compile()
        found = compiled(*sharded)
    assert collectives(compiled) == []
    parts = 8 if spec == BOTH else 4
    for x in jax.tree.leaves(found):
        assert x.sharding.shard_shape(x.shape)[0] == SIZE // parts
    check(found, reference)


@pytest.mark.slow
def test_solutions_on_an_explicit_mesh_have_second_derivatives(arguments):
    a, b, _ = arguments

    def second(a, b):
        def loss(a):
            return jnp.sum(jaxpinv.lstsq(a, b).solution ** 2)

        return jax.jvp(jax.grad(loss), (a,), (a,))[1]

    expected = jax.jit(second)(a, b)
    mesh = mesh_of(AxisType.Explicit)
    with jax.set_mesh(mesh):
        sharded = (jax.device_put(x, NamedSharding(mesh, ONE)) for x in (a, b))
        check(jax.jit(second)(*sharded), expected)


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False], ids=["checked", "unchecked"])
def test_shard_map_over_two_axes_needs_no_collective(arguments, reference, check_vma):
    mesh = mesh_of(AxisType.Auto)
    mapped = jax.shard_map(
        everything, mesh=mesh, in_specs=BOTH, out_specs=BOTH, check_vma=check_vma
    )
    compiled = jax.jit(mapped).lower(*arguments).compile()
    assert collectives(compiled) == []
    check(compiled(*arguments), reference)


@pytest.mark.slow
def test_pmap_gives_the_results_of_one_device(arguments, reference):
    split = [x.reshape(DEVICES, SIZE // DEVICES, *x.shape[1:]) for x in arguments]
    check(jax.pmap(everything)(*split), reference)


@pytest.mark.parametrize("function", [jaxpinv.pinv, jaxpinv.matrix_rank])
def test_a_batch_that_does_not_divide_is_refused_by_its_sizes(arguments, function):
    mesh = mesh_of(AxisType.Auto)
    uneven = jnp.asarray(arguments[0][:9])
    # The words are JAX's own: those of JAX 0.9 come last.
    words = r"size is 9 .* should evenly divide|divisible by 8, but it is equal to 9"
    with pytest.raises(ValueError, match=words):
        jax.jit(function, in_shardings=NamedSharding(mesh, BOTH))(uneven)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=BOTH, out_specs=BOTH)
    with pytest.raises(ValueError, match="evenly divi"):
        mapped(uneven)
