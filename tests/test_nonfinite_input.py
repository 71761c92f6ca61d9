"""Inf and NaN: calls return at once, and other matrices of the batch are not affected."""

import os
import subprocess
import sys
import textwrap
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._calculus.matrix_derivative import derivative
from jaxpinv._factors import Factors, product_with_u, times_gram
from jaxpinv._solver import Strategy
from tests.conftest import WAYS
from tests.matrices import gaussian

BAD = [np.inf, -np.inf, np.nan]
# For 4 by 4 and 5 by 4 matrices, jnp.linalg.pinv never returns.
SHAPES = {
    (1, 1): "complex64",
    (4, 4): "float32",
    (5, 4): "float32",
    (4, 5): "complex64",
    (30, 30): "complex64",
    (40, 3): "float32",
}


@pytest.mark.unoptimized
@pytest.mark.slow
def test_every_bad_element_of_every_shape_returns_at_once():
    # In its own process, because jnp.linalg.pinv never returns for some of these and cannot
    # be interrupted.
    script = f"""
        import itertools
        import numpy as np
        import jaxpinv

        for bad, shape in itertools.product({[str(x) for x in BAD]}, {SHAPES}):
            # Every element of the small shapes, some of the larger ones.
            for i, j in list(np.ndindex(shape))[:: max(1, np.prod(shape) // 20)]:
                a = np.random.default_rng(0).standard_normal(shape)
                a = a.astype({SHAPES}[shape])
                a[i, j] = float(bad)
                x, rank = jaxpinv.pinv(a, return_rank=True)
                assert np.all(np.isnan(x)) and rank == 0
                if shape[0] == shape[1]:
                    a[j, i] = a[i, j]
                    x, rank = jaxpinv.pinv(a, hermitian=True, return_rank=True)
                    assert np.all(np.isnan(x)) and rank == 0
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=True,
        timeout=300,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )


@partial(jax.jit, static_argnames=("pinv", "hermitian"))
def derived(pinv, a, hermitian):
    """Value, gradient and Hessian-vector product of a loss, for each matrix of a batch."""

    def gradient(a):
        x, pullback = jax.vjp(partial(pinv, hermitian=hermitian), a)
        return pullback(jnp.cos(x))[0], x

    gradient, hvp, x = jax.jvp(gradient, (a,), (jnp.ones_like(a),), has_aux=True)
    return {"value": x, "gradient": gradient, "hvp": hvp}


# Optimized for one way, because XLA could make matrices of a batch depend on others.
@pytest.mark.slow_unless("pinv-float32")
@pytest.mark.parametrize(
    ("way", "hermitian", "dtype"),
    [
        ("pinv", False, np.float32),
        pytest.param("lstsq", False, np.complex128, marks=pytest.mark.unoptimized),
        pytest.param("pinv", True, np.complex64, marks=pytest.mark.unoptimized),
    ],
    ids=["pinv-float32", "lstsq-complex128", "pinv-hermitian-complex64"],
)
@pytest.mark.parametrize("bad", BAD)
def test_batch_mates_of_a_bad_matrix_are_bit_for_bit_unchanged(
    rng, way, hermitian, dtype, bad
):
    shape = (4, 5, 5) if hermitian else (4, 5, 3)
    good = gaussian(rng, shape, dtype)
    spoiled = good.copy()
    spoiled[2, 3, 1] = bad
    references, results = (derived(WAYS[way], x, hermitian) for x in (good, spoiled))
    for name, reference in references.items():
        result = np.asarray(results[name])
        assert np.all(np.isfinite(reference)), name
        assert np.all(np.isnan(result[2])), name
        mates, expected = (np.delete(x, 2, 0) for x in (result, reference))
        assert np.array_equal(mates, expected), name


@jax.jit
def gradient_and_rank(a):
    """The gradient of the sum of the pseudo-inverse, and the rank."""

    def loss(a):
        x, rank = jaxpinv.pinv(a, method="direct", return_rank=True)
        # Linear, because a NaN of the value would make the cotangent NaN.
        return jnp.sum(x), rank

    return jax.grad(loss, has_aux=True)(a)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("shape2-inf")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(40, 4, 3), (3, 16, 16), (3, 18, 16)])
def test_without_singular_values_a_bad_matrix_has_rank_0_and_derivatives_nan(
    rng, shape, bad
):
    a = rng.standard_normal(shape)
    a[0, 1, 2] = bad

    gradient, rank = gradient_and_rank(a)
    assert np.all(np.isnan(gradient[0]))
    assert np.all(np.isfinite(gradient[1:]))
    assert rank.tolist() == [0, *[shape[-1]] * (len(a) - 1)]


def test_a_bad_element_above_the_diagonal_of_a_hermitian_matrix_is_not_read(pinv, rng):
    a = gaussian(rng, (4, 4))
    a = a + a.T
    spoiled = a.copy()
    spoiled[0, 2] = np.nan
    assert np.array_equal(pinv(spoiled, hermitian=True), pinv(a, hermitian=True))


@pytest.mark.slow_unless("pinv-atol")
@pytest.mark.parametrize("name", ["rtol", "atol"])
def test_a_nan_tolerance_gives_nan_for_its_matrix_alone(pinv, rng, name):
    a = gaussian(rng, (3, 5, 4))
    tolerance = np.array([0.1, np.nan, 0.1])
    f = partial(pinv, a, return_rank=True)
    x, rank = f(rtol=tolerance) if name == "rtol" else f(atol=tolerance)
    assert np.all(np.isnan(x[1]))
    assert rank[1] == 0
    assert np.all(np.isfinite(x[jnp.array([0, 2])]))


def test_an_infinite_rtol_truncates_everything_also_of_a_zero_matrix(pinv):
    x = pinv(np.stack([np.zeros((3, 2)), np.ones((3, 2))]), rtol=np.inf)
    assert np.array_equal(x, np.zeros((2, 2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "dtype"),
    [
        ("pinv", np.float32),
        pytest.param("lstsq", np.complex128, marks=pytest.mark.unoptimized),
    ],
)
def test_zero_matrix_has_finite_derivatives(way, dtype):
    # By programs of the test above.
    results = derived(WAYS[way], np.zeros((4, 5, 3), dtype), False)
    assert not any(np.any(x) for x in results.values())


@pytest.mark.unoptimized
@pytest.mark.slow
def test_no_mask_hides_a_division_by_zero():
    with jax.disable_jit(), jax.debug_infs(True):
        a, zero = jnp.diag(jnp.array([2.0, 0.0])), jnp.zeros(())
        strategy = Strategy(method="svd", with_pinv=True)
        *factors, x = strategy.factors(a, zero, zero)
        dx = derivative(
            Factors(*factors),
            {1 << i: jnp.ones((2, 2)) for i in range(2)},
            product_with_u,
            times_gram,
        )
    assert np.array_equal(x, np.diag([0.5, 0]))
    assert np.all(np.isfinite(dx))
