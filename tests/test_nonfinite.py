"""Inf and NaN: they return at once and stay in their own matrix."""

import subprocess
import sys
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpinv._derivatives import derivative
from jaxpinv._factorisation import factor
from tests.helpers import gaussian

BAD = [np.inf, -np.inf, np.nan]
SHAPES = [(1, 1), (4, 4), (5, 4), (4, 5), (30, 30), (40, 3)]


def test_every_bad_element_of_every_shape_returns_at_once():
    # In a process of its own: jnp.linalg.pinv never returns for some of these, and
    # cannot be interrupted.
    script = f"""
        import itertools
        import numpy as np
        import jaxpinv

        for bad, shape in itertools.product({[str(x) for x in BAD]}, {SHAPES}):
            for dtype in (np.float32, np.complex64):
                # Every element of the small shapes, some of the larger ones.
                for i, j in list(np.ndindex(shape))[:: max(1, np.prod(shape) // 20)]:
                    a = np.random.default_rng(0).standard_normal(shape).astype(dtype)
                    a[i, j] = float(bad)
                    x, rank = jaxpinv.pinv(a, return_rank=True)
                    assert np.all(np.isnan(x)) and rank == 0
                    if shape[0] == shape[1]:
                        a[j, i] = a[i, j]
                        x, rank = jaxpinv.pinv(a, hermitian=True, return_rank=True)
                        assert np.all(np.isnan(x)) and rank == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=300)


@partial(jax.jit, static_argnames=("pinv", "order", "hermitian"))
def derived(pinv, a, order, hermitian=False):
    """Value, gradient or Hessian-vector product of a number, per matrix of the batch."""
    f = partial(pinv, hermitian=hermitian)

    def gradient(a):
        x, pullback = jax.vjp(f, a)
        return pullback(jnp.cos(x))[0]

    return [f, gradient, lambda a: jax.jvp(gradient, (a,), (jnp.ones_like(a),))[1]][order](
        a
    )


@pytest.mark.parametrize("hermitian", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("order", [0, 1, 2], ids=["value", "gradient", "hvp"])
def test_batch_mates_of_a_bad_matrix_are_bit_for_bit_unchanged(
    pinv, rng, hermitian, dtype, bad, order
):
    shape = (4, 5, 5) if hermitian else (4, 5, 3)
    good = gaussian(rng, shape, dtype)
    spoiled = good.copy()
    spoiled[2, 3, 1] = bad
    f = partial(derived, pinv, order=order, hermitian=hermitian)
    reference, result = np.asarray(f(good)), np.asarray(f(spoiled))
    assert np.all(np.isfinite(reference))
    assert np.all(np.isnan(result[2]))
    assert np.array_equal(np.delete(result, 2, 0), np.delete(reference, 2, 0))


def test_a_bad_element_above_the_diagonal_of_a_hermitian_matrix_is_not_read(pinv, rng):
    a = gaussian(rng, (4, 4))
    a = a + a.T
    spoiled = a.copy()
    spoiled[0, 2] = np.nan
    assert np.array_equal(pinv(spoiled, hermitian=True), pinv(a, hermitian=True))


@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_nan_tolerance_gives_nan_for_its_matrix_alone(pinv, rng, name):
    a = gaussian(rng, (3, 5, 4))
    tolerance = np.array([0.1, np.nan, 0.1])
    f = partial(pinv, a, return_rank=True)
    x, rank = f(rtol=tolerance) if name == "rtol" else f(atol=tolerance)
    assert np.all(np.isnan(x[1]))
    assert rank[1] == 0
    assert np.all(np.isfinite(x[jnp.array([0, 2])]))


def test_an_infinite_rtol_cuts_everything_also_of_a_zero_matrix(pinv):
    x = pinv(np.stack([np.zeros((3, 2)), np.ones((3, 2))]), rtol=np.inf)
    assert np.array_equal(x, np.zeros((2, 2, 3)))


def test_zero_matrix_has_finite_derivatives(pinv):
    def total(a):
        return jnp.sum(pinv(a))

    for derive in (jax.grad, jax.hessian):
        assert not np.any(jax.jit(derive(total))(jnp.zeros((3, 4))))


def test_no_mask_hides_a_division_by_zero():
    with jax.disable_jit(), jax.debug_infs(True):
        a, zero = jnp.diag(jnp.array([2.0, 0.0])), jnp.zeros(())
        factors, x = factor(a, zero, zero, hermitian=False, direct=False, in_blocks=False)
        dx = derivative(factors, [jnp.ones((2, 2))] * 2, may_branch=False)
    assert np.array_equal(x, np.diag([0.5, 0]))
    assert np.all(np.isfinite(dx))
