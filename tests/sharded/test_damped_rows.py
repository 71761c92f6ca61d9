"""A damped matrix of rows on several devices: that of one device, with no more sent."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxpinv
from jaxpinv import sharded
from tests import damping_oracle
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix
from tests.sharded.meshes import collectives, mesh_of, put

pytestmark = pytest.mark.unoptimized

M, N = 48, 3
SCALE = np.array([0.0, 0.5, 2.0])
SPECTRA = {"full": [3, 2, 1], "deficient": [3, 1, 0], "zero": [0, 0, 0]}
ON_ROWS = {"mesh": mesh_of(8), "axis": "rows"}


def everything(pinv, lstsq, a, b, damp, scale):
    """Values, and gradients in all arguments, of both functions."""

    def total(a, b, damp, scale):
        x, rank = pinv(a, damp=damp, damp_scale=scale, return_rank=True)
        found = lstsq(a, b, damp=damp, damp_scale=scale, return_singular_values=False)
        fields = x, found.solution, found.residuals
        return sum(jnp.sum(jnp.sin(y)) for y in fields), (*fields, rank, found.rank)

    scale_alone = () if scale is None else (3,)
    gradients, found = jax.grad(total, (0, 1, 2, *scale_alone), has_aux=True)(
        a, b, damp, scale
    )
    return *gradients, *found


ROWS = jax.jit(
    partial(everything, partial(sharded.pinv, **ON_ROWS), partial(sharded.lstsq, **ON_ROWS))
)
WHOLE = jax.jit(
    partial(
        everything,
        partial(jaxpinv.pinv, method="svd"),
        partial(jaxpinv.lstsq, method="svd"),
    )
)


@pytest.mark.slow_unless("full-scaled")
@pytest.mark.parametrize("scale", [None, SCALE, SCALE + 1], ids=["one", "scaled", "all"])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA)
def test_it_is_that_of_the_whole_matrix(rng, spectrum, scale):
    if spectrum[2] == 0 and scale is SCALE:
        # The first unknown alone is not damped, and may not be all that has no rank.
        spectrum = [3, 2, 1]
    a, b = matrix(rng, (M, N), spectrum), gaussian(rng, (M,))
    found = ROWS(put(a), put(b), 0.3, scale)
    for x, y in zip(found, WHOLE(a, b, 0.3, scale), strict=True):
        assert np.max(np.abs(x - y)) <= bound(np.float64, 1e3) * max(1, np.max(np.abs(y)))


@pytest.mark.slow
def test_second_derivatives_in_the_damping_are(rng):
    a, b = matrix(rng, (M, N), [3, 2, 1]), gaussian(rng, (M,))

    @jax.jit
    def curvature(a, b):
        def total(damp):
            options = {**ON_ROWS, "damp": damp, "return_singular_values": False}
            return jnp.sum(jnp.sin(sharded.lstsq(a, b, **options).solution))

        return jax.grad(jax.grad(total))(0.3)

    # The derivative of `G = (A^T A + d^2)^-1` is `-2 d G^2`.
    d, g = 0.3, np.linalg.inv(a.T @ a + 0.3**2 * np.eye(N))
    x = g @ a.T @ b
    slope, change = -2 * d * g @ x, 8 * d**2 * g @ g @ x - 2 * g @ x
    known = np.sum(np.cos(x) * change - np.sin(x) * slope**2)
    assert relative_error(curvature(put(a), put(b)), known) <= bound(np.float64, 100)


def test_zero_damping_gives_the_plain_result(rng):
    a = put(matrix(rng, (M, N), [3, 1, 0]))
    damped = jax.jit(partial(sharded.pinv, **ON_ROWS))
    assert relative_error(damped(a, damp=0.0), damped(a)) <= bound(np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, [1.0, 1.5, 2.0]], ids=["one", "scaled"])
@pytest.mark.parametrize("damp", [1e-3, 3e4])
def test_no_digits_are_lost(rng, damp, scale):
    a = matrix(rng, (M, N), [3, 2, 1]).astype(np.float32)
    scale = None if scale is None else np.array(scale, np.float32)
    exact = damping_oracle.damped(a, damp * (np.ones(N) if scale is None else scale))
    found = sharded.pinv(put(a), damp=np.float32(damp), damp_scale=scale)
    assert relative_error(found, exact) <= bound(np.float32, 3)


def test_a_large_damping_does_not_truncate_other_unknowns(rng):
    a = gaussian(rng, (M, N)).astype(np.float32)
    a[:, 0] *= 1e-2
    scale = np.array([0, 1, 1], np.float32)
    exact = damping_oracle.damped(a, 1e7 * scale)
    found = sharded.pinv(put(a), damp=np.float32(1e7), damp_scale=scale)
    assert relative_error(found, exact) <= bound(np.float32, 100)


def test_a_given_tolerance_applies_and_singular_values_are_those_of_the_matrix(rng):
    a, b = matrix(rng, (M, N), [3, 1, 0.1]), gaussian(rng, (M,))
    scale, values = np.ones(N), np.hypot([3, 1, 0.1], 0.3)
    options = {"rtol": 0.2, "damp": 0.3, "damp_scale": scale}
    found = sharded.lstsq(put(a), put(b), **options)
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    kept = np.where(values > 0.2 * values[0], s / values**2, 0)
    assert relative_error(found.solution, vh.T * kept @ (u.T @ b)) <= bound(np.float64, 100)
    assert relative_error(found.singular_values, s) <= bound(np.float64)
    assert found.rank == 2


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, SCALE], ids=["one", "scaled"])
def test_meshes_with_explicit_axes_do_as_well(rng, scale):
    mesh = mesh_of(8, AxisType.Explicit)
    a, b = matrix(rng, (M, N), [3, 2, 1]), gaussian(rng, (M,))
    found = sharded.lstsq(put(a, mesh=mesh), put(b, mesh=mesh), damp=0.3, damp_scale=scale)
    d = 0.3 * (np.ones(N) if scale is None else scale)
    solution = np.linalg.solve(a.T @ a + np.diag(d**2), a.T @ b)
    known = solution, np.sum((b - a @ solution) ** 2), N, [3, 2, 1]
    for x, y in zip(found, known, strict=True):
        assert relative_error(x, y) <= bound(np.float64, 100)


def with_gradient(damping):
    """The program of a solution and a gradient, with these dampings as arguments."""

    def f(a, b, damping):
        def total(a):
            found = sharded.lstsq(a, b, **ON_ROWS, **damping).solution
            return jnp.sum(jnp.sin(found)), found

        return jax.grad(total, has_aux=True)(a)

    return jax.jit(f).lower(put(np.zeros((M, N))), put(np.zeros(M)), damping).compile()


@pytest.mark.slow
@pytest.mark.parametrize("scale", [None, SCALE], ids=["one", "scaled"])
def test_devices_send_no_more_than_without_it(scale):
    damped = with_gradient({"damp": 0.3, "damp_scale": scale})
    assert sorted(collectives(damped)) == sorted(collectives(with_gradient({})))
    assert "f64[48,3]" not in str(damped.as_text())


def test_a_batch_of_dampings_is_refused():
    a = put(np.zeros((M, N)))
    for damp, scale in ((np.ones(1), None), (1.0, np.ones((1, N)))):
        with pytest.raises(ValueError, match=r"sharded.pinv: expected damp to be a number"):
            sharded.pinv(a, damp=damp, damp_scale=scale)


def test_nan_anywhere_gives_nan(rng):
    a, b = put(gaussian(rng, (M, N))), put(gaussian(rng, (M,)))
    *_, x, solution, residuals, rank, _ = ROWS(a, b, np.nan, SCALE)
    for y in (x, solution, residuals):
        assert np.all(np.isnan(y))
    assert rank == N
