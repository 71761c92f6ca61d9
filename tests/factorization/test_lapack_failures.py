"""Matrices on which LAPACK gives up are decomposed once more, and no others are."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from jaxpinv import sharded
from jaxpinv._factorization import svd
from jaxpinv._platform import chunking
from tests.comparison import bound, relative_error
from tests.matrices import (
    SEEDS_OF_NO_CONVERGENCE,
    factors_of_no_convergence,
    gaussian,
    hermitian_matrix,
    matrix,
    pinv_of_factors,
)

pytestmark = pytest.mark.unoptimized

RANK = 42


class Hard:
    """One such matrix, its pseudo-inverse, and both along a curve of that rank."""

    def __init__(self, seed):
        """`seed` is one of `SEEDS_OF_NO_CONVERGENCE`."""
        self.left, self.right = factors_of_no_convergence(seed)
        self.a = self.left @ self.right
        self.x = pinv_of_factors(self.left, self.right)
        condition = np.linalg.norm(self.a, 2) * np.linalg.norm(self.x, 2)
        self.limit = bound(np.float64, float(condition))
        n, rng = len(self.a), np.random.default_rng(seed)
        self.turn = gaussian(rng, (2, n, n)) / n
        self.e = self.turn[0] @ self.a + self.a @ self.turn[1]

    def factors_at(self, t):
        """The factors of a point of the curve."""
        identity = np.eye(len(self.a))
        first, second = (identity + t * turn for turn in self.turn)
        return first @ self.left, self.right @ second

    def slope(self, f, step=1e-4):
        """The derivative of a function of factors along the curve, by differences."""
        ahead, behind = (f(*self.factors_at(t)) for t in (step, -step))
        return (ahead - behind) / (2 * step)


@partial(jax.jit, static_argnames="method")
def every_result(a, b, method):
    """All results, from one factorization."""
    found = jaxpinv.factorize(a, method=method)
    products = found.pinv(), found.solve(b), found.null_projection(b)
    return *products, found.singular_values(), found.rank


@pytest.fixture(scope="module")
def hard():
    return Hard(SEEDS_OF_NO_CONVERGENCE[0])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS_OF_NO_CONVERGENCE[:2])
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_values_of_a_matrix_on_which_lapack_gives_up(rng, seed, method):
    hard = Hard(seed)
    b = gaussian(rng, (len(hard.a), 2))
    x, solution, projected, values, rank = every_result(hard.a, b, method)
    assert {int(rank), int(jaxpinv.matrix_rank(hard.a))} == {RANK}
    assert relative_error(x, hard.x) <= hard.limit
    assert relative_error(solution, hard.x @ b) <= hard.limit
    assert relative_error(projected, b - hard.x @ (hard.a @ b)) <= hard.limit
    exact = np.linalg.svd(hard.a, compute_uv=False)
    assert relative_error(values, exact) <= bound(np.float64, 10)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_the_others_of_a_batch_are_unchanged(rng, hard, method):
    others = np.stack([np.eye(len(hard.a)), hard.a.T, gaussian(rng, hard.a.shape)])
    batch = np.insert(others, 2, hard.a, axis=0)
    # By the same program: a batch of another length is compiled again.
    find = partial(jaxpinv.pinv, method=method, return_rank=True)
    (x, rank), (without, _) = find(batch), find(np.insert(others, 2, np.eye(222), axis=0))
    assert rank.tolist() == [222, RANK, RANK, 222]
    assert relative_error(x[2], hard.x) <= hard.limit
    assert np.array_equal(np.delete(x, 2, axis=0), np.delete(without, 2, axis=0))


@pytest.mark.slow
def test_derivatives_of_a_matrix_on_which_lapack_gives_up(rng, hard):
    b = gaussian(rng, (len(hard.a), 1))

    def fields(a):
        found = jaxpinv.factorize(a)
        return found.pinv(), found.solve(b), found.singular_values()[:RANK]

    dx, dy, ds = jax.jit(lambda a, e: jax.jvp(fields, (a,), (e,))[1])(hard.a, hard.e)
    slope = hard.slope(pinv_of_factors)
    assert relative_error(dx, slope) <= 1e-6
    assert relative_error(dy, slope @ b) <= 1e-6
    exact = hard.slope(lambda x, y: np.linalg.svd(x @ y, compute_uv=False)[:RANK])
    assert relative_error(ds, exact) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_the_rows_of_such_a_matrix_on_many_devices(hard, count):
    devices = jax.devices()[:count]
    mesh = jax.make_mesh((count,), ("rows",), (AxisType.Auto,), devices=devices)
    a, e = jax.device_put((hard.a, hard.e), NamedSharding(mesh, PartitionSpec("rows")))
    f = partial(sharded.pinv, mesh=mesh, axis="rows", return_rank=True)
    (x, rank), (dx, _) = jax.jit(lambda a, e: jax.jvp(f, (a,), (e,)))(a, e)
    assert int(rank) == RANK
    assert relative_error(x, hard.x) <= hard.limit
    assert relative_error(dx, hard.slope(pinv_of_factors)) <= 1e-6


@pytest.mark.slow
def test_a_batch_within_shard_map(rng, hard):
    mesh = jax.make_mesh((2,), ("batch",), (AxisType.Auto,), devices=jax.devices()[:2])
    spec = PartitionSpec("batch")
    f = partial(jaxpinv.pinv, method="svd")
    mapped = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=spec, out_specs=spec))
    batch = np.stack([hard.a.T, hard.a, np.eye(222), hard.a])
    x = mapped(jax.device_put(batch, NamedSharding(mesh, spec)))
    for found, exact in zip(x, (hard.x.T, hard.x, np.eye(222), hard.x), strict=True):
        assert relative_error(found, exact) <= hard.limit


@pytest.mark.slow
def test_a_batch_of_an_exported_program_with_a_symbolic_size(hard):
    (b,) = export.symbolic_shape("b")
    exported = export.export(jax.jit(jaxpinv.pinv))(
        jax.ShapeDtypeStruct((b, *hard.a.shape), np.float64)
    )
    # An Inf must not reach LAPACK the second time either.
    x = exported.call(np.stack([np.eye(222), np.full((222, 222), np.inf), hard.a]))
    assert np.array_equal(x[0], np.eye(222))
    assert np.all(np.isnan(x[1]))
    assert relative_error(x[2], hard.x) <= hard.limit


CALLS = {"svd": svd._svd, "eigh": svd._eigh}
#: Two eigenvalues are equal but for their signs.
EIGENVALUES = [3.0, -3.0, 2.0, 2.0, -0.5]


def failing(decompose, attempts, note):
    """A decomposition that fails on matrices with zeros in the first row but for a 3.

    In any power of two. It fails with `3^j` for j up to `attempts` in place of that number,
    and so succeeds with the multiple after so many attempts. `note` is told the sizes of
    the matrices that it is given.
    """
    mantissas = np.frexp(3.0 ** np.arange(1, min(attempts, 15) + 1))[0]

    def f(a):
        size = jnp.abs(a[..., 0, 0])
        jax.debug.callback(note, size)
        mantissa, _ = jnp.frexp(size)
        is_power = jnp.isin(mantissa, mantissas.astype(size.dtype))
        failed = is_power & jnp.all(a[..., 0, 1:] == 0, axis=-1)
        return tuple(
            jnp.where(
                jnp.expand_dims(failed, range(failed.ndim, x.ndim)),
                jnp.asarray(jnp.nan, x.dtype),
                x,
            )
            for x in decompose(a)
        )

    return f


def batch_of(rng, kind, dtype, chosen, count=7):
    """Matrices, of which the decomposition of the chosen ones is to fail."""
    if kind == "svd":
        a = np.stack([matrix(rng, (6, 4), [3, 2, 2, 0.5], dtype) for _ in range(count)])
    else:
        a = np.stack([hermitian_matrix(rng, EIGENVALUES, dtype) for _ in range(count)])
    for i in chosen:
        a[i, 0] = 0
        a[i, :, 0] = 0
        a[i, 0, 0] = 3
    return a


#: The sizes of the matrices that the decompositions of a program were given.
GIVEN = []


@functools.cache
def program(kind, attempts):
    """Triplets `u`, `s`, `v`, decomposed again where that fails so many times."""
    calls = partial(chunking.in_calls, 3)
    decompose = failing(CALLS[kind], attempts, GIVEN.append)
    return jax.jit(partial(svd.decomposed, decompose, calls=calls, retries=True))


def run(kind, attempts, a):
    """The results of a program, and what its decompositions were given."""
    GIVEN.clear()
    found = program(kind, attempts)(a)
    jax.effects_barrier()
    return [np.asarray(x) for x in found], list(GIVEN)


@pytest.mark.slow_unless("3-complex128")
@pytest.mark.parametrize(
    ("kind", "chosen", "dtype"),
    [
        ("svd", [], np.float32),
        ("svd", [0], np.float32),
        ("svd", [2, 3, 6], np.complex128),
        ("svd", range(7), np.float32),
        ("eigh", [], np.float64),
        ("eigh", [0], np.float64),
        ("eigh", [2, 3, 6], np.complex128),
        ("eigh", range(7), np.float64),
    ],
    ids=lambda x: x if isinstance(x, str) else getattr(x, "__name__", None) or str(len(x)),
)
def test_those_that_fail_are_redone_and_the_others_are_unchanged(rng, kind, chosen, dtype):
    a = batch_of(rng, kind, dtype, chosen)
    (s, u, last), given = run(kind, 2, a)
    again = [x for x in given if x.shape == (1,)]
    first = [x for x in given if x.shape != (1,)]
    assert [x.item() for x in again] == [3 * 3, 9 * 3] * len(chosen)
    assert sum(x.size for x in first) >= len(a)
    vh = last if kind == "svd" else last.conj().mT
    for gram in (u.conj().mT @ u, vh @ vh.conj().mT):
        identity = np.broadcast_to(np.eye(s.shape[-1]), gram.shape)
        assert relative_error(gram, identity) <= bound(dtype)
    assert relative_error(u * s[:, None, :] @ vh, a) <= bound(dtype)
    # As next to matrices on which nothing fails.
    kept, b = np.delete(np.arange(len(a)), list(chosen)), a.copy()
    b[list(chosen), 0, 1] = b[list(chosen), 1, 0] = 1
    others, given = run(kind, 2, b)
    assert all(x.shape != (1,) for x in given)
    for x, y in zip((s, u, last), others, strict=True):
        assert np.array_equal(x[kept], y[kept])
    assert s.dtype == np.finfo(dtype).dtype
    assert u.dtype == last.dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "batch", "exponent"),
    [
        ("svd", (), -600),
        ("svd", (2, 2), 600),
        ("eigh", (), 600),
        ("eigh", (1, 1), -600),
    ],
    ids=str,
)
def test_matrices_of_any_size_and_batch_are_redone(rng, kind, batch, exponent):
    count = int(np.prod(batch))
    a = batch_of(rng, kind, np.float64, range(count), count) * 2.0**exponent
    a = a.reshape(*batch, *a.shape[1:])
    (s, u, last), _ = run(kind, 1, a)
    vh = last if kind == "svd" else last.mT
    assert relative_error(u * s[..., None, :] @ vh, a) <= bound(np.float64)


@pytest.mark.slow_unless("5")
@pytest.mark.parametrize("count", [1, 5])
def test_nan_remains_where_all_multiples_fail_as_well(rng, count):
    a = batch_of(rng, "svd", np.float64, [0], count)
    for x in run("svd", 100, a)[0]:
        assert np.all(np.isnan(x[0]))
        assert np.all(np.isfinite(x[1:]))


@pytest.mark.slow_unless(r"1e\+300")
@pytest.mark.parametrize("size", [3e-308, 1e300])
def test_no_multiple_of_a_finite_matrix_is_infinite(rng, size):
    # LAPACK may loop forever on an Inf.
    a = batch_of(rng, "svd", np.float64, [0], 1) * 2.0 ** np.round(np.log2(size / 3))
    sizes = np.concatenate(run("svd", 100, a)[1])
    assert len(sizes) > 8
    assert np.all(np.isfinite(sizes))
