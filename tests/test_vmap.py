"""Mapped functions: by `vmap`, they equal loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.differentiation import hessian_vector_product, loss_by
from tests.matrices import gaussian, matrix
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized

SPECTRUM = [4, 2, 1, 0.5]
MAPPED = {"matrix": (0, None), "tolerance": (None, 0), "both": (0, 0)}
KINDS = {
    "pinv": ("pinv", False),
    "lstsq": ("lstsq", False),
    "pinv_hermitian": ("pinv", True),
    "lstsq_hermitian": ("lstsq", True),
}


class TestVmap:
    """Mapped functions equal loops."""

    @pytest.mark.slow_unless("pinv")
    @pytest.mark.parametrize("in_axis", [0, 1, 2, -1])
    @pytest.mark.parametrize("out_axis", [0, 1, 2, -1])
    def test_any_axes_of_the_matrix(self, pinv, rng, in_axis, out_axis):
        stacked = matrix(rng, (3, 5, 4), SPECTRUM)
        mapped = jax.vmap(pinv, in_axis, out_axis)(np.moveaxis(stacked, 0, in_axis))
        looped = np.stack([pinv(x) for x in stacked], axis=out_axis)
        assert np.array_equal(mapped, looped)

    def test_a_map_over_the_last_axis_has_a_derivative(self, rng):
        a, e = matrix(rng, (3, 5, 4), SPECTRUM), gaussian(rng, (3, 5, 4))
        moved, along = (np.moveaxis(x, 0, 2) for x in (a, e))
        # Not in `jit`, where the mapped axis is already the first one.
        found = jax.jvp(jax.vmap(jaxpinv.pinv, 2), (moved,), (along,))[1]
        expected = jax.jvp(jaxpinv.pinv, (a,), (e,))[1]
        assert relative_error(found, expected) <= bound(np.float64, 10)

    def test_a_direction_that_is_not_mapped_sums_its_gradient(self, rng):
        a, e = matrix(rng, (3, 5, 4), SPECTRUM), gaussian(rng, (5, 4))
        ct = gaussian(rng, (3, 4, 5))

        def paired(e):
            slopes = jax.vmap(lambda a: jax.jvp(jaxpinv.pinv, (a,), (e,))[1])(a)
            return jnp.sum(slopes * ct)

        @jax.jit
        def both(a, e):
            return jax.grad(paired)(e), jax.vjp(jaxpinv.pinv, a)[1](ct)[0]

        found, gradients = both(a, e)
        assert relative_error(found, np.sum(gradients, 0)) <= bound(np.float64, 10)

    # Every kind of mapped argument, under the gradient and the second derivative.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("axes", "pinv", "hermitian", "derive"),
        [
            pytest.param(
                MAPPED[name], *KINDS[kind], derive, id=f"{name}-{kind}-{derive.__name__}"
            )
            for name, kind, derive in [
                ("matrix", "lstsq", jax.grad),
                ("matrix", "pinv_hermitian", hessian_vector_product),
                ("tolerance", "lstsq_hermitian", jax.grad),
                ("tolerance", "pinv", hessian_vector_product),
                ("both", "pinv_hermitian", jax.grad),
                ("both", "pinv", jax.hessian),
            ]
        ],
        indirect=["pinv"],
    )
    def test_over_matrix_or_tolerance_or_both(self, pinv, rng, axes, hermitian, derive):
        matrices = matrix(rng, (3, 4, 4), SPECTRUM)
        rtols = np.array([0.01, 0.3, 0.6])
        f = jax.jit(derive(partial(loss_by(pinv), hermitian=hermitian)))
        args = [
            x if axis == 0 else x[0]
            for x, axis in zip((matrices, rtols), axes, strict=True)
        ]
        looped = np.stack(
            [
                f(*(x[i] if axis == 0 else x for x, axis in zip(args, axes, strict=True)))
                for i in range(3)
            ]
        )
        assert relative_error(jax.vmap(f, axes)(*args), looped) <= bound(np.float64, 1e3)

    @pytest.mark.slow_unless("pinv")
    def test_nested_over_matrix_and_tolerance_gives_the_table(self, pinv, rng):
        matrices, rtols = matrix(rng, (3, 5, 4), SPECTRUM), np.array([0.01, 0.3])
        f = jax.vmap(jax.vmap(pinv, (None, 0)), (0, None))
        table = np.stack([[pinv(x, r) for r in rtols] for x in matrices])
        assert relative_error(f(matrices, rtols), table) <= bound(np.float64)

    def test_over_a_tolerance_factorizes_once(self, rng):
        a = matrix(rng, (5, 4), SPECTRUM)
        f = jax.jit(jax.vmap(jaxpinv.pinv, (None, 0)))
        text = f.lower(a, jnp.array([0.01, 0.3])).as_text()
        [line] = svd_calls(text)
        assert ": (tensor<1x5x4xf64>) -> " in line

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("pinv", "axes"),
        [
            ("pinv", (0, 0)),
            ("pinv", (None, 0)),
            ("lstsq", (0, None)),
        ],
        ids=str,
        indirect=["pinv"],
    )
    def test_of_tangents_and_cotangents(self, pinv, rng, axes):
        shapes = [(3, 5, 4) if axis == 0 else (5, 4) for axis in axes]
        a, e = matrix(rng, shapes[0], SPECTRUM), gaussian(rng, shapes[1])

        def both(a, e):
            _, pullback = jax.vjp(pinv, a)
            return jax.jvp(pinv, (a,), (e,))[1], pullback(e.T)[0]

        both = jax.jit(both)
        mapped = jax.vmap(both, axes)(a, e)
        whole = [
            np.broadcast_to(x, (3, 5, 4)) if axis is None else x
            for x, axis in zip((a, e), axes, strict=True)
        ]
        looped = [both(*pair) for pair in zip(*whole, strict=True)]
        for result, expected in zip(mapped, zip(*looped, strict=True), strict=True):
            assert relative_error(result, np.stack(expected)) <= bound(np.float64, 10)

    @pytest.mark.slow
    def test_of_length_one_and_zero(self, pinv, rng):
        for length in (0, 1):
            x = rng.standard_normal((length, 5, 4))
            assert jax.vmap(pinv)(x).shape == (length, 4, 5)
            assert jax.vmap(jax.grad(loss_by(pinv)))(x).shape == (length, 5, 4)
