"""One matrix of rows on several devices: derivatives however it is called, and options."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxpinv import sharded
from jaxpinv._tolerances import default_rtol
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix
from tests.sharded.meshes import mesh_of, put

pytestmark = pytest.mark.unoptimized

M, N, DEVICES = 16, 3, 2
KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
# Each two of a kind of mesh, a call and a source. All products are 16.
WAYS = [
    (AUTO, "eager", "array"),
    (EXPLICIT, "jit", "array"),
    (AUTO, "jit", "array, axis"),
    (EXPLICIT, "eager", "array, axis"),
    (AUTO, "jit", "context"),
    (EXPLICIT, "eager", "context"),
    (AUTO, "eager", "argument"),
    (EXPLICIT, "jit", "argument"),
]
# Every source, and each two of a kind of mesh and a call: what calls do is the same for all
# functions, and two of them share the ways.
OTHER_WAYS, FEW_WAYS = ([WAYS[i] for i in few] for few in ((0, 3, 4, 7), (1, 2, 5, 6)))
OTHER_CASES, FEW_CASES = (
    pytest.mark.parametrize(
        ("kind", "call", "source"),
        ways,
        ids=lambda x: x.name if isinstance(x, AxisType) else x,
    )
    for ways in (OTHER_WAYS, FEW_WAYS)
)
TOLERANCE = bound(np.float64, 1e2)


class Case(NamedTuple):
    """A kind of mesh, "eager" or "jit", and what says where the matrix lies."""

    kind: AxisType
    call: str
    source: str

    @property
    def mesh(self):
        """The mesh, which the source tells of."""
        return mesh_of(DEVICES, self.kind)

    @property
    def keywords(self):
        """Arguments of the function under test."""
        given = {"argument": {"mesh": self.mesh}, "array, axis": {"axis": "rows"}}
        return given.get(self.source, {})

    def compiled(self, f):
        """The function itself, or its program."""
        return jax.jit(f) if self.call == "jit" else f

    def context(self):
        """The mesh as that of the context, if that is its source."""
        if self.source == "context":
            return jax.set_mesh(self.mesh)
        return contextlib.nullcontext()

    def place(self, x):
        """An array on the mesh, if that is the source of it."""
        if self.source.startswith("array"):
            return put(x, mesh=self.mesh)
        return jnp.asarray(x)

    def value_and_grad(self, f, *args):
        """Value and gradient of a scalar function of an array, as users take them."""
        if (self.kind, self.call) != (AxisType.Explicit, "eager") or (
            self.source == "context"
        ):
            return self.compiled(jax.value_and_grad(f))(*args)
        # There `jax.grad` fails in JAX, also for `jnp.sum`: it puts a 1 on one device.
        value, pullback = jax.vjp(f, *args)
        one = jax.device_put(np.ones(()), NamedSharding(self.mesh, PartitionSpec()))
        return value, *pullback(one)


def gradient_of_pinv(a, c):
    """That of `sum(c * pinv(a))`, for a matrix of full column rank."""
    x = np.linalg.pinv(a)
    residual = c.T - a @ (x @ c.T)
    return -x.T @ c @ x.T + residual @ x @ x.T


def gradients_of_lstsq(a, b):
    """Those of the sum of all fields of `lstsq` that have any, in `a` and `b`."""
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    ones = np.ones(a.shape[1])
    x = np.linalg.pinv(a)
    r = b - a @ (x @ b)
    of_a = gradient_of_pinv(a, np.outer(ones, b)) - 2 * np.outer(r, x @ b) + u @ vh
    return of_a, x.T @ ones + 2 * r


def check_jvp(case, f, a, e, gradient):
    """Compares a tangent of a scalar function with the gradient that is expected."""
    value, tangent = case.compiled(lambda a, e: jax.jvp(f, (a,), (e,)))(
        case.place(a), case.place(e)
    )
    assert np.shape(value) == ()
    scale = np.sum(np.abs(gradient * e))
    assert abs(float(tangent) - np.sum(gradient * e)) <= TOLERANCE * scale


@pytest.mark.slow_unless("Explicit-jit")
@OTHER_CASES
def test_pinv_has_its_derivatives_however_it_is_called(rng, kind, call, source):
    case = Case(kind, call, source)
    a, e = gaussian(rng, (2, M, N))

    def total(a):
        return sharded.pinv(a, **case.keywords).sum()

    expected = gradient_of_pinv(a, np.ones((N, M)))
    with case.context():
        value, gradient = case.value_and_grad(total, case.place(a))
        assert relative_error(value, np.linalg.pinv(a).sum()) <= TOLERANCE
        assert relative_error(gradient, expected) <= TOLERANCE
        check_jvp(case, total, a, e, expected)


@pytest.mark.slow
@FEW_CASES
def test_lstsq_has_its_derivatives_however_it_is_called(rng, kind, call, source):
    case = Case(kind, call, source)
    a, e = gaussian(rng, (2, M, N))
    b = gaussian(rng, (M,))

    def total(a, b):
        found = sharded.lstsq(a, b, **case.keywords)
        fields = found.solution, found.residuals, found.singular_values
        return sum(x.sum() for x in fields)

    of_a, of_b = gradients_of_lstsq(a, b)
    with case.context():
        # The other argument is no part of the transformation: on the mesh, or not at all.
        placed = case.place(a)
        _, found = case.value_and_grad(lambda a: total(a, b), placed)
        assert relative_error(found, of_a) <= TOLERANCE
        _, found = case.value_and_grad(lambda b: total(placed, b), case.place(b))
        assert relative_error(found, of_b) <= TOLERANCE
        other = case.place(b)
        check_jvp(case, lambda a: total(a, other), a, e, of_a)


@pytest.mark.slow
@FEW_CASES
def test_lstsq_maps_over_columns_however_it_is_called(rng, kind, call, source):
    case = Case(kind, call, source)
    # As many columns as the devices do not divide.
    a, b = gaussian(rng, (M, N)), gaussian(rng, (M, DEVICES + 1))
    with case.context():
        placed = case.place(a)
        solve = jax.vmap(lambda b: sharded.lstsq(placed, b, **case.keywords).solution, 1, 1)
        found = case.compiled(solve)(case.place(b))
    assert relative_error(found, np.linalg.pinv(a) @ b) <= TOLERANCE


@pytest.mark.slow_unless("Explicit")
@KINDS
def test_a_cotangent_may_lie_on_one_device(rng, kind):
    a, ct = gaussian(rng, (M, N)), gaussian(rng, (N, M))
    _, pullback = jax.vjp(sharded.pinv, put(a, mesh=mesh_of(DEVICES, kind)))
    [found] = pullback(jnp.asarray(ct))
    assert found.sharding.shard_shape(found.shape) == (M // DEVICES, N)
    assert relative_error(found, gradient_of_pinv(a, ct)) <= TOLERANCE


@pytest.mark.slow
@KINDS
def test_an_array_that_is_bound_to_one_device_is_moved(rng, kind):
    a, b = gaussian(rng, (M, N)), gaussian(rng, (M,))
    first, second = (jax.device_put(x, jax.devices()[3]) for x in (a, b))
    found = sharded.lstsq(first, second, mesh=mesh_of(DEVICES, kind))
    assert relative_error(found.solution, np.linalg.pinv(a) @ b) <= TOLERANCE


@pytest.mark.slow
def test_rcond_is_another_name_of_rtol(rng):
    a = matrix(rng, (M, N), [3, 2, 0.3])
    b = gaussian(rng, (M,))
    expected = np.linalg.pinv(a, rcond=0.2)
    x, rank = sharded.pinv(a, rcond=0.2, mesh=mesh_of(DEVICES), return_rank=True)
    found = sharded.lstsq(a, b, rcond=0.2, mesh=mesh_of(DEVICES))
    assert int(rank) == int(found.rank) == 2
    assert relative_error(x, expected) <= TOLERANCE
    assert relative_error(found.solution, expected @ b) <= TOLERANCE


CALLABLES = {
    "pinv": sharded.pinv,
    "lstsq": lambda a, *args, **kwargs: sharded.lstsq(a, a[:, 0], *args, **kwargs),
}


@pytest.mark.parametrize("name", CALLABLES)
def test_rcond_is_refused_under_its_own_name(name):
    f, a = CALLABLES[name], np.ones((M, N))
    with pytest.raises(ValueError, match=rf"sharded\.{name}: expected rtol or rcond"):
        f(a, 0.1, rcond=0.2, mesh=mesh_of(DEVICES))
    with pytest.raises(ValueError, match=rf"sharded\.{name}: expected rcond >= 0"):
        f(a, rcond=-0.1, mesh=mesh_of(DEVICES))
    with pytest.raises(ValueError, match=rf"sharded\.{name}: expected rcond to be a num"):
        f(a, rcond=np.ones(2), mesh=mesh_of(DEVICES))


@pytest.mark.slow
@KINDS
def test_singular_values_that_are_not_wanted_are_left_out(rng, kind):
    mesh = mesh_of(DEVICES, kind)
    a, b = gaussian(rng, (M, N)), gaussian(rng, (M,))

    def solve(a, b, **kwargs):
        return sharded.lstsq(a, b, mesh=mesh, **kwargs)

    with_values = solve(a, b)
    without = solve(a, b, return_singular_values=False)
    assert without.singular_values is None
    for x, y in zip(without[:3], with_values[:3], strict=True):
        assert np.array_equal(x, y)

    def operations(**kwargs):
        """The number of operations in an eager tangent."""
        text = str(
            jax.make_jaxpr(
                lambda a, b: jax.jvp(lambda a: solve(a, b, **kwargs), (a,), (a,))
            )(put(a, mesh=mesh), put(b, mesh=mesh))
        )
        return text.count(" = ")

    # The derivative of singular values takes two products and a sum.
    assert operations(return_singular_values=False) <= operations() - 3


def test_the_default_cutoff_does_not_truncate_everything_of_many_rows():
    def default(rows, dtype, *, capped):
        return float(default_rtol(rows, np.dtype(dtype), np.dtype(dtype), capped=capped))

    eps = 2.0**-23
    for rows in (1, 100, 2896):
        assert default(rows, np.float32, capped=True) == rows * eps
    for rows in (2897, 10**5, 2**23, 10**9):
        assert default(rows, np.complex64, capped=True) == np.float32(np.sqrt(eps))
    assert default(2**23, np.float32, capped=False) == 1
    assert default(10**7, np.float64, capped=True) == 1e7 * 2.0**-52


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLABLES)
def test_the_default_cutoff_of_a_long_matrix_is_below_its_rows_times_eps(rng, name):
    eps, m = 2.0**-23, 80_000
    # The cap is 3.5e-4, and m * eps is 9.5e-3.
    spectrum = [1, 0.5, 3e-3, 1e-4]
    assert spectrum[2] < m * eps
    a = matrix(rng, (m, 4), spectrum, np.float32)

    def rank(*args, **kwargs):
        kwargs |= {"mesh": mesh_of(DEVICES)}
        if name == "pinv":
            return int(sharded.pinv(a, *args, return_rank=True, **kwargs)[1])
        return int(sharded.lstsq(a, a[:, 0], *args, **kwargs).rank)

    assert rank() == 3
    # Where it is given, zero is the default, and a tolerance of its own is not touched.
    assert rank(atol=0.0) == 3
    assert rank(m * eps) == 2
