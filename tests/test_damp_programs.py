"""Damped results in several programs: stored derivatives, mapped options, linear maps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix

# The first Cholesky factors make columns that are orthonormal only to `eps cond^2`.
CONDITION, DAMP = 300, np.float32(1e-4)


def direct(a, **damping):
    """The damped inverse without singular values."""
    return jaxpinv.pinv(a, method="direct", **damping)


def solution(a, b, **damping):
    """The damped solution without singular values."""
    options = {"method": "direct", "return_singular_values": False}
    return jaxpinv.lstsq(a, b, **options, **damping).solution


def ill_conditioned(rng, count, m, n):
    """Matrices in single precision that lose digits if those columns are not corrected."""
    spectrum = np.geomspace(1, 1 / CONDITION, min(m, n)).tolist()
    return np.stack([matrix(rng, (m, n), spectrum, np.float32) for _ in range(count)])


def inverse(a, d):
    """The damped inverses, in double precision by NumPy."""
    u, s, vh = np.linalg.svd(np.asarray(a, float), full_matrices=False)
    filtered = s / (s**2 + np.square(np.asarray(d, float))[..., None])
    return (vh.swapaxes(-1, -2) * filtered[..., None, :]) @ u.swapaxes(-1, -2)


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 7)])
def test_a_stored_pullback_is_right_in_other_programs(rng, m, n):
    # One matrix has Cholesky factors. A program for many of this size has others.
    a, ct = ill_conditioned(rng, 3, m, n), gaussian(rng, (3, n, m)).astype(np.float32)

    def pullback(a, damp):
        return jax.vjp(lambda a, damp: direct(a, damp=damp), a, damp)[1]

    @jax.jit
    def gradients(a, damp, ct):
        return jax.vmap(lambda a, damp, ct: pullback(a, damp)(ct))(a, damp, ct)

    compiled = jax.jit(pullback)
    for damps in (DAMP * np.ones(3, np.float32), np.zeros(3, np.float32)):
        pulls = [compiled(x, d) for x, d in zip(a, damps, strict=True)]
        stacked = jax.tree.map(lambda *x: np.stack(x), *pulls)
        found = jax.jit(jax.vmap(lambda pull, ct: pull(ct)))(stacked, ct)
        for x, y in zip(found, gradients(a, damps, ct), strict=True):
            assert relative_error(x, y) <= bound(np.float32, 30)


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(20, 12), (12, 20)])
def test_a_map_over_tolerances_equals_a_loop(rng, m, n):
    [a], b = ill_conditioned(rng, 1, m, n), gaussian(rng, (m, 2)).astype(np.float32)

    def results(a, b, rtol):
        options = {"damp": DAMP, "rtol": rtol}
        x, pullback = jax.vjp(lambda a: direct(a, **options), a)
        return x, pullback(jnp.ones_like(x))[0], solution(a, b, **options)

    # The last one truncates half of the values.
    rtols = np.array([1e-6, 1e-5, CONDITION**-0.5], np.float32)
    mapped = jax.device_get(jax.jit(jax.vmap(results, (None, None, 0)))(a, b, rtols))
    one = jax.jit(results)
    for i, rtol in enumerate(rtols):
        for x, y in zip(mapped, one(a, b, rtol), strict=True):
            assert relative_error(x[i], y) <= bound(np.float32, CONDITION)
    assert relative_error(mapped[0][0], inverse(a, DAMP)) <= bound(np.float32, CONDITION)


class TestLinearMaps:
    """Solutions as linear maps of the right-hand sides."""

    @pytest.mark.unoptimized
    @pytest.mark.slow
    # Each factorization with two of three dampings, and each of these with all maps.
    @pytest.mark.parametrize(
        ("m", "n", "first", "second"),
        [
            (20, 12, "known", "for each unknown"),
            (6, 6, "traced", "known"),
            (12, 20, "for each unknown", "traced"),
        ],
        ids=["tall", "tiny", "wide"],
    )
    def test_they_can_be_transposed(self, rng, m, n, first, second):
        dtype = np.complex128
        a, b, ct = (gaussian(rng, shape, dtype) for shape in [(m, n), (m, 2), (n, 2)])
        scales = np.linspace(0.5, 2, n)

        @jax.jit
        def maps(a, b, ct, damp, scale):
            def solve(name, b):
                given: dict[str, dict] = {
                    "known": {"damp": 0.3},
                    "traced": {"damp": damp},
                    "for each unknown": {"damp": damp, "damp_scale": scale},
                }
                return solution(a, b, **given[name])

            def transposed(solve, ct):
                return jax.linear_transpose(solve, b)(ct)[0]

            one, other = partial(solve, first), partial(solve, second)
            [twice] = jax.linear_transpose(partial(transposed, one), ct)(b)
            jacobian = jax.jacrev(one, holomorphic=True)(b[:, 0])
            mapped = transposed(jax.vmap(other, 1, 1), ct)
            return twice, jacobian, transposed(other, ct), mapped

        def inverse(name):
            damps = 0.3 * (scales if name == "for each unknown" else np.ones(n))
            return np.linalg.solve(a.conj().T @ a + np.diag(damps**2), a.conj().T)

        x, y = inverse(first), inverse(second)
        known = x @ b, x, y.T @ ct, y.T @ ct
        for found, exact in zip(maps(a, b, ct, 0.3, scales), known, strict=True):
            assert relative_error(found, exact) <= bound(dtype, 100)

    @pytest.mark.unoptimized
    def test_gradients_pass_through_linear_solvers(self, rng):
        a, b = matrix(rng, (6, 6), [3, 2, 2, 1, 1, 1]), gaussian(rng, (6,))

        @jax.jit
        @jax.grad
        def slope(b):
            # The inverse of the map `x -> x + A_D^+ x`.
            found = jax.lax.custom_linear_solve(
                lambda x: x + solution(a, x, damp=0.3),
                b,
                lambda matvec, b: jax.scipy.sparse.linalg.gmres(matvec, b, tol=1e-12)[0],
                lambda matvec, b: jax.scipy.sparse.linalg.gmres(matvec, b, tol=1e-12)[0],
            )
            return jnp.sum(found)

        exact = np.linalg.solve((np.eye(6) + inverse(a, 0.3)).T, np.ones(6))
        assert relative_error(slope(b), exact) <= 1e-9


@pytest.mark.slow_unless("9-7")
@pytest.mark.parametrize(("m", "n"), [(40, 33), (9, 7), (5, 12)])
def test_no_damping_leaves_the_range(rng, m, n):
    spectrum = np.linspace(2, 1, min(m, n)).tolist()
    damps = np.logspace(-30, 30, 11, dtype=np.float32)
    a = np.stack([matrix(rng, (m, n), spectrum, np.float32) for _ in damps])
    # The solutions have the size of 1 although the inverses may be too small for it.
    b = gaussian(rng, (len(damps), m, 1)) * np.maximum(damps, 1)[:, None, None]
    b = b.astype(np.float32)
    exact = inverse(a, damps) @ b.astype(float)
    together = jax.jit(lambda a, b, d: solution(a, b, damp=d))
    found = np.asarray(together(a, b, damps))
    for x, y in zip(found, exact, strict=True):
        assert relative_error(x, y) <= bound(np.float32, 2)
    # No matrix depends on the others of its batch.
    usual = np.where(damps > 1e3, 1, damps)
    others = np.asarray(together(a, b, usual))
    assert np.array_equal(found[damps <= 1e3], others[damps <= 1e3])
