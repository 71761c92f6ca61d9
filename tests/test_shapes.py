"""Axes of length one."""

import jax.numpy as jnp
import pytest

from jaxpinv._shapes import without_unit_axes


@pytest.mark.parametrize(
    ("x", "y", "seen"),
    [
        ((1, 3, 1, 2, 4), (1, 1, 1, 2), [(3, 2, 4), (1, 2)]),
        ((3, 1, 1, 1), (1, 2, 1), [(3, 1, 1, 1), (1, 2, 1)]),
        ((2, 4), (2,), [(2, 4), (2,)]),
    ],
)
def test_only_batch_axes_of_length_one_in_all_operands_are_left_out(x, y, seen):
    shapes, batch = [], len(y) - 1

    def f(x, y):
        shapes.extend([x.shape, y.shape])
        return x * y[..., :, None], {"sum": jnp.sum(x, axis=-1) + y}

    x, y = jnp.ones(x), jnp.ones(y)
    product, others = without_unit_axes(f, batch, x, y)
    assert shapes == seen
    assert product.shape == (x * y[..., :, None]).shape
    assert others["sum"].shape == product.shape[:-1]
