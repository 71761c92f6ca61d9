"""Programs as they are planned for an accelerator, on a CPU, which runs them as well."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxpinv
from jaxpinv._factors import Cutoff
from jaxpinv._platform import plan, target
from jaxpinv._primitives import gram_schmidt_of_plan
from tests import jacobi_oracle
from tests.comparison import bound
from tests.factorization.tiny_cases import CLASSES, of_mixed_rank
from tests.matrices import gaussian, of_values
from tests.numpy_oracle import adjoint

pytestmark = pytest.mark.unoptimized

GPU = target.Target(is_cpu=False, is_whole=True, is_cuda=True)
of_lowering = target.of_lowering


@pytest.fixture(autouse=True)
def planned_for_accelerator(monkeypatch):
    """Nothing that is lowered knows that it runs on a CPU."""

    def elsewhere(ctx, *, platform):
        return of_lowering(ctx, platform="cuda")

    monkeypatch.setattr(target, "of_lowering", elsewhere)


on_gpu = jax.jit(gram_schmidt_of_plan(plan.Plan(), GPU))


def default_cutoff(count, dtype=np.float32):
    """About the default tolerances in single precision."""
    return Cutoff(*(jnp.full(count, x, np.finfo(dtype).dtype) for x in (1e-6, 0)))


def square(a, **options):
    """A number to differentiate."""
    return jnp.sum(jnp.abs(jaxpinv.pinv(a, **options)) ** 2)


def hessian_times(a):
    """The product of the Hessian matrix of that with `a`."""
    return jax.jvp(jax.grad(square), (a,), (a,))[1]


@pytest.mark.parametrize(
    ("f", "reductions"),
    [
        (jaxpinv.pinv, 4),
        (jax.grad(square), 5),
        (hessian_times, 6),
        (jaxpinv.matrix_rank, 11),
    ],
    ids=["value", "gradient", "hvp", "rank"],
)
@pytest.mark.slow_unless("value|rank")
def test_the_host_waits_for_one_branch_alone(f, reductions):
    # A loop that ends after a known number of steps asks nothing.
    a = jax.ShapeDtypeStruct((20_000, 6, 7), jnp.float32)
    text = export.export(jax.jit(f), platforms=["cuda"])(a).mlir_module()
    assert len(re.findall(r"stablehlo\.(?:case|if)\b", text)) == 1
    assert len(re.findall(r"stablehlo\.while\b", text)) == 1
    # Each of these takes a kernel of its own, or several.
    assert len(re.findall(r'"stablehlo\.sort"', text)) == 1
    assert len(re.findall(r'"stablehlo\.scatter"', text)) == 1
    assert len(re.findall(r"stablehlo\.(?:reduce|dot_general)\b", text)) <= reductions


@pytest.mark.parametrize("others", [10, 1900], ids=["few", "many"])
def test_a_result_does_not_depend_on_the_rest_of_the_batch(rng, others):
    a = of_mixed_rank(rng, 2000, 4, 6, np.float32)
    b = a.copy()
    near = CLASSES["near"](rng, others, 6, 4, np.dtype(np.float32))
    b[:others] = near.swapaxes(1, 2)
    b[others - 1, 0, 0] = np.inf

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient_of_size(a):
        x = jaxpinv.pinv(a, method="direct")
        return jnp.sum(jnp.abs(x) ** 2), x

    certified = np.asarray(on_gpu(b.swapaxes(1, 2), default_cutoff(2000)).certified)
    planned = plan.factorization((2000, 6, 4), GPU, is_complex=False, method="direct")
    assert planned.remainder is not None
    assert (np.sum(~certified) > planned.remainder) == (others > 10)
    assert not np.all(certified)
    for x, y in zip(gradient_of_size(a), gradient_of_size(b), strict=True):
        assert np.array_equal(x[others:], y[others:])


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((300, 4, 6), np.complex64),
        ((300, 5, 5), np.float64),
        ((60, 36, 33), np.complex64),
    ],
    ids=["wide", "square", "larger"],
)
@pytest.mark.slow_unless("wide")
def test_values_and_gradients_of_every_rank_are_right(rng, shape, dtype):
    batch, m, n = shape
    a = of_mixed_rank(rng, batch, m, n, dtype)
    # What is left to singular values, and what is not finite.
    near = CLASSES["near_of_many"](rng, 20, max(m, n), min(m, n), np.dtype(dtype))
    a[:20] = near if m >= n else near.swapaxes(1, 2)
    a[20, 1, 2] = np.nan

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient_of_size(a):
        x, rank = jaxpinv.pinv(a, 1e-5, method="direct", return_rank=True)
        return jnp.sum(jnp.abs(x) ** 2), (x, rank)

    gradient, (x, rank) = jax.tree.map(np.asarray, gradient_of_size(a))
    assert np.all(np.isnan(x[20]) & np.isnan(gradient[20]).T)
    assert rank[20] == 0
    x, rank, gradient, a = (np.delete(y, 20, 0) for y in (x, rank, gradient, a))
    u, s, v = jacobi_oracle.triplets(a)
    kept = s > 1e-5 * s[:, :1]
    assert np.array_equal(rank, np.sum(kept, axis=1))
    exact = v * np.where(kept, 1 / np.where(kept, s, 1), 0)[:, None] @ adjoint(u)
    # The change of X off its range and corange leaves its size as it is.
    known = -2 * np.conj(adjoint(exact) @ exact @ adjoint(exact))
    last = s[np.arange(len(s)), np.maximum(rank, 1) - 1]
    condition = np.where(rank > 0, s[:, 0] / np.where(rank > 0, last, 1), 1)
    for y, z, power in ((x, exact, 1), (gradient, known, 2)):
        error, size = (np.sum(np.abs(w) ** 2, axis=(1, 2)) ** 0.5 for w in (y - z, z))
        assert np.all(error <= 2 * bound(dtype) * condition**power * size)


def test_pseudo_inverses_of_huge_matrices_keep_their_digits(rng):
    # A quotient of `U` by the scale would be denormal here.
    values = np.geomspace(1, 1e-3, 4)
    a = np.stack([of_values(rng, (6, 4), values, float) for _ in range(300)]) * 2.0**122
    x = np.asarray(jax.jit(partial(jaxpinv.pinv, method="direct"))(a.astype(np.float32)))
    exact = np.linalg.pinv(a.astype(np.float32).astype(float))
    error, size = (np.linalg.norm(y, axis=(1, 2)) for y in (x - exact, exact))
    assert np.all(error <= bound(np.float32, 1e3) * size)


@pytest.mark.slow_unless("complex128")
@pytest.mark.parametrize("dtype", [np.float32, np.complex128], ids=lambda x: x.__name__)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_settled_without_singular_values(rng, dtype, bad):
    a = of_mixed_rank(rng, 300, 6, 4, dtype)
    a[7, 5, 2] = bad
    found = on_gpu(a, default_cutoff(300, dtype))
    assert np.all(found.certified)
    assert np.all(np.isnan(found.x[7]))
    assert np.all(np.isfinite(np.delete(found.x, 7, 0)))


@pytest.mark.slow_unless("3000")
@pytest.mark.parametrize("shape", [(3000, 5, 7), (30, 100, 5, 5)], ids=str)
def test_ranks_are_those_of_numpy(rng, shape):
    m, n = shape[-2:]
    flat = of_mixed_rank(rng, 3000, m, n, np.float64)
    # Left to singular values.
    k = min(m, n)
    u, v = (np.linalg.qr(gaussian(rng, (size, k)))[0] for size in (m, n))
    flat[7] = (u * [*[3] * (k - 1), 1e-15 * max(m, n)]) @ v.T
    flat[11, 0, 0] = np.inf
    rank = np.asarray(jax.jit(jaxpinv.matrix_rank)(flat.reshape(shape))).ravel()
    assert rank[11] == 0
    known = np.linalg.matrix_rank(np.delete(flat, 11, 0), rtol=max(m, n) * 2.0**-52)
    assert np.array_equal(np.delete(rank, 11), known)
