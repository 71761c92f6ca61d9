"""Tiny matrices of any rank: what Gram-Schmidt certifies, and what it finds then."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._factorization import gram_schmidt
from jaxpinv._factors import Cutoff
from jaxpinv._platform import plan
from jaxpinv._primitives import gram_schmidt_of_plan
from tests.comparison import bound, relative_error
from tests.factorization.tiny_cases import CLASSES, of_mixed_rank
from tests.matrices import gaussian
from tests.platform.targets import CPU

# Errors over `eps * condition`, or over those of a singular value decomposition.
WORST = 4
BATCH = 400
direct = jax.jit(partial(jaxpinv.pinv, method="direct"))


@jax.jit
def attempt(a, rtol):
    """Gram-Schmidt of a batch, as it runs on a CPU."""
    cutoff = Cutoff(
        jnp.full(a.shape[0], rtol, rtol.dtype), jnp.zeros(a.shape[0], rtol.dtype)
    )
    return gram_schmidt_of_plan(plan.Plan(), CPU)(a, cutoff)


def default_rtol(a):
    """The default tolerance, in the precision of the matrices."""
    limits = np.finfo(a.dtype)
    return np.asarray(max(a.shape[-2:]) * limits.eps, limits.dtype)


def exact(a):
    """Pseudo-inverse in double precision, rank and condition."""
    return by_values(a.astype(np.result_type(a, float)), default_rtol(a))


def by_values(a, rtol):
    """The same in the precision of the matrices."""
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    kept = s > s.dtype.type(rtol) * s[:, :1]
    x = (vh.conj().swapaxes(1, 2) * np.divide(1, s, where=kept, out=0 * s)[:, None]) @ (
        u.conj().swapaxes(1, 2)
    )
    rank = kept.sum(1)
    last = np.where(rank > 0, s[np.arange(len(s)), np.maximum(rank, 1) - 1], 1)
    return x, rank, np.where(rank > 0, s[:, 0] / last, 1)


def norms(x):
    """Frobenius norms of a batch."""
    return np.linalg.norm(x, axis=(1, 2))


def errors(x, reference):
    """Relative errors over eps, of a batch."""
    eps = np.finfo(x.dtype).eps
    size = norms(reference)
    return norms(x - reference) / np.where(size > 0, size, 1) / eps


@pytest.mark.parametrize(
    ("m", "dtype"),
    [(4, np.float32), (6, np.complex128)],
    ids=["square-float32", "tall-complex128"],
)
class TestMixedRanks:
    """Matrices of rank 0 to 4."""

    @pytest.fixture
    def a(self, rng, m, dtype):
        return of_mixed_rank(rng, BATCH, m, 4, dtype)

    def test_every_rank_is_certified_and_right(self, a):
        found = attempt(a, default_rtol(a))
        assert np.mean(np.asarray(found.certified)) > 0.98
        ranks = np.sum(np.asarray(found.s) > 0, axis=-1)
        assert set(ranks.tolist()) == set(range(5))
        assert np.array_equal(ranks, exact(a)[1])

    @pytest.mark.slow_unless("complex")
    def test_the_penrose_equations_hold(self, a):
        x = np.asarray(direct(a))
        limit = bound(a.dtype) * exact(a)[2]
        double = a.astype(np.result_type(a, float))
        ax, xa = double @ x, x @ double
        assert np.all(norms(ax @ double - double) <= limit * norms(double))
        assert np.all(norms(xa @ x - x) <= limit * norms(x))
        assert np.all(norms(ax - ax.conj().swapaxes(1, 2)) <= limit)
        assert np.all(norms(xa - xa.conj().swapaxes(1, 2)) <= limit)

    def test_the_factors_are_what_their_contract_says(self, a):
        found = attempt(a, default_rtol(a))[:5]
        u, v, _, certified, s = (np.asarray(x) for x in found)
        kept = (s > 0)[:, None]
        limit = bound(a.dtype)
        size = norms(a) * norms(v * kept)
        assert np.all(certified)
        assert np.all(norms((a @ v - u * s[:, None]) * kept) <= limit * np.maximum(size, 1))
        identity = np.eye(4)
        if a.shape[1] > 4:
            assert not np.any(u * ~kept)
            identity = identity * (s > 0)[..., None]
        assert np.max(np.abs(u.conj().swapaxes(1, 2) @ u - identity)) <= limit
        null = v * ~kept
        gram = null.conj().swapaxes(1, 2) @ v
        scale = np.maximum(norms(v * kept), 1)[:, None, None]
        expected = np.eye(4) * ~kept
        assert np.max(np.abs(gram - expected) / scale) <= limit


@pytest.mark.slow_unless(r"(near|copied)-\(4, 4\)")
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((4, 4), np.float32),
        ((7, 6), np.complex64),
        ((8, 8), np.float32),
        ((5, 2), np.complex64),
    ],
    ids=["(4, 4)", "(7, 6)", "(8, 8)", "(5, 2)"],
)
@pytest.mark.parametrize("name", CLASSES)
def test_what_is_certified_has_the_rank_and_accuracy_of_singular_values(
    rng, name, shape, dtype
):
    a = CLASSES[name](rng, BATCH, *shape, dtype)
    found = attempt(a, default_rtol(a))
    certified = np.asarray(found.certified)
    x, rank, condition = exact(a)
    assert np.array_equal(
        np.sum(np.asarray(found.s) > 0, axis=-1)[certified], rank[certified]
    )
    limit = np.maximum(
        WORST * condition, WORST * errors(by_values(a, default_rtol(a))[0], x)
    )
    assert np.all((errors(np.asarray(found.x), x) <= limit)[certified])


@pytest.mark.parametrize("others", ["full", "graded", "nan"])
def test_a_result_does_not_depend_on_the_rest_of_the_batch(rng, others):
    # More than one chunk, of a shape that other tests compile as well.
    a = of_mixed_rank(rng, BATCH, 6, 4, np.complex128)
    b = a.copy()
    if others == "nan":
        b[::2, 0, 0] = np.nan
    else:
        b[::2] = CLASSES[others](rng, BATCH // 2, 6, 4, np.dtype(np.complex128))
    x, y = np.asarray(direct(a)), np.asarray(direct(b))
    assert np.array_equal(x[1::2], y[1::2])
    assert np.all(np.isfinite(y[1::2]))
    assert np.all(np.isnan(y[::2])) == (others == "nan")


@pytest.mark.slow_unless("128")
@pytest.mark.parametrize("shape", [(40, 192, 1), (40, 128, 12), (40, 60, 12)], ids=str)
def test_sums_of_equal_terms_are_exact_to_a_few_roundings(rng, shape):
    # A running sum rounds equal terms alike: of 128 it is off by 6 roundings.
    a = rng.uniform(size=shape)
    a[..., 0] = 0.1
    a = a.astype(np.float32)
    exact = np.linalg.pinv(a.astype(float))
    found = attempt(a, default_rtol(a))
    assert np.all(found.certified)
    error = np.linalg.norm(np.asarray(found.x, float) - exact, axis=(-2, -1))
    size = np.linalg.norm(exact, axis=(-2, -1)) * np.linalg.cond(a.astype(float))
    assert np.max(error / size) <= 4 * np.finfo(np.float32).eps


def test_sums_read_as_many_rows_at_a_time_as_planned():
    def parts(rows_at_once):
        """How many arrays are computed apart from what uses them."""
        found = []

        def isolate(x):
            found.append(x)
            return x

        factor = partial(
            gram_schmidt.factor,
            isolate=isolate,
            may_branch=True,
            by_folds=True,
            rows_at_once=rows_at_once,
        )
        cutoff = Cutoff(*(jnp.zeros(2, np.float32) for _ in Cutoff._fields))
        jax.eval_shape(factor, jax.ShapeDtypeStruct((2, 20, 3), np.float32), cutoff)
        return len(found)

    # Each step has two sums over all rows.
    assert parts(None) == parts(20) == parts(32)
    assert parts(8) - parts(None) == 2 * 3


def test_zero_matrices_have_rank_zero_and_the_zero_inverse():
    a = np.zeros((BATCH, 6, 4), np.complex128)
    found = attempt(a, default_rtol(a))
    assert np.all(np.asarray(found.certified))
    assert not np.any(np.asarray(found.x))
    assert not np.any(np.asarray(found.s))


@pytest.mark.unoptimized
@pytest.mark.parametrize("shape", [(4, 6), (4, 4)], ids=str)
@pytest.mark.slow
def test_derivatives_along_a_curve_of_one_rank(rng, shape):
    m, n = shape
    batch = 40
    a = gaussian(rng, (batch, m, 2)) @ gaussian(rng, (batch, 2, n))
    left, right = gaussian(rng, (batch, m, m)) / 4, gaussian(rng, (batch, n, n)) / 4

    def moved(t):
        before, after = np.eye(m)[None] + t * left, np.eye(n)[None] + t * right
        return before @ a @ after

    @partial(jax.jit, static_argnames="method")
    def derivatives(method):
        def along(f):
            return lambda t: jax.jvp(f, (t,), (jnp.ones(()),))[1]

        def value(t):
            return jaxpinv.pinv(moved(t), method=method)

        first = along(value)
        return first(jnp.zeros(())), along(first)(jnp.zeros(()))

    def differences(h):
        below, here, above = (np.linalg.pinv(moved(t), 1e-10) for t in (-h, 0, h))
        return (above - below) / (2 * h), (above - 2 * here + below) / h**2

    found, by_svd = derivatives("direct"), derivatives("svd")
    condition = np.max(exact(a)[2])
    for order, (x, y, z) in enumerate(zip(found, by_svd, differences(1e-4), strict=True)):
        assert relative_error(x, y) <= bound(np.float64, condition ** (order + 2))
        assert relative_error(x, z) <= 1e-4


@pytest.mark.unoptimized
@pytest.mark.slow
def test_gradients_and_their_derivatives_are_those_by_singular_values(rng):
    shape = (6, 4)
    # In single precision, and the reference in double precision.
    a = of_mixed_rank(rng, 100, shape[0], shape[1], np.complex64)
    e, ct = gaussian(rng, a.shape, a.dtype), gaussian(rng, (100, *shape[::-1]), a.dtype)

    @partial(jax.jit, static_argnums=0)
    def both(method, a, e, ct):
        pinv = partial(jaxpinv.pinv, rtol=max(shape) * 2.0**-23, method=method)
        return jax.jvp(lambda a: jax.vjp(pinv, a)[1](ct)[0], (a,), (e,))

    condition = exact(a)[2]
    expected = both("svd", *(x.astype(np.complex128) for x in (a, e, ct)))
    for order, (x, y) in enumerate(zip(both("direct", a, e, ct), expected, strict=True)):
        limit = 10 * condition ** (order + 1)
        assert np.all(errors(np.asarray(x), np.asarray(y)) <= limit)


@pytest.mark.unoptimized
def test_each_of_several_tolerances_truncates_separately(rng):
    a = gaussian(rng, (40, 6, 2)) @ gaussian(rng, (40, 2, 5))
    a = a + 1e-15 * gaussian(rng, a.shape)
    # The rank is 2 for one of them and 5, of rounding, for the other.
    rtol = np.array([[1e-12], [0.0]])
    _, rank = jaxpinv.pinv(a, rtol, method="direct", return_rank=True)
    assert np.array_equal(rank, np.broadcast_to([[2], [5]], (2, 40)))


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(7000, 4, 4), (3000, 5, 7)], ids=["square", "wide"])
def test_ranks_of_many_are_certified(rng, shape):
    a = of_mixed_rank(rng, shape[0], shape[1], shape[2], np.float64)
    a[5] = np.inf
    rank = np.asarray(jaxpinv.matrix_rank(a))
    s = np.linalg.svd(np.delete(a, 5, 0), compute_uv=False)
    kept = s > float(default_rtol(a)) * s[:, :1]
    assert np.array_equal(np.delete(rank, 5), kept.sum(1))
    assert rank[5] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dtype", "small"),
    [((40, 2, 2), np.float32, 1e-23), ((64, 64), np.float64, 1e-200)],
    ids=str,
)
def test_without_a_cutoff_a_value_whose_square_vanishes_is_kept(shape, dtype, small):
    a = np.zeros(shape, dtype) + np.eye(shape[-1], dtype=dtype)
    a[..., -1, -1] = small
    _, rank = jaxpinv.pinv(a, rtol=0.0, method="direct", return_rank=True)
    assert np.all(rank == shape[-1])


def test_without_a_cutoff_no_value_is_certified_to_be_zero_because_its_square_is():
    # By a program that other tests compile as well.
    a = np.zeros((BATCH, 4, 4), np.float32) + np.eye(4, dtype=np.float32)
    a[:, -1, -1] = np.geomspace(1e-30, 1e-18, BATCH)
    found = attempt(a, np.float32(0))
    ranks = np.sum(np.asarray(found.s) > 0, axis=-1)
    assert np.all((ranks == 4) | ~np.asarray(found.certified))
