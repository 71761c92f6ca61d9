"""What stays in memory: no arrays, and not more with every call."""

import gc
import re
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv import _inner, _pinv_form, _primitives, _rules

pytestmark = pytest.mark.unoptimized

# A shape that no other test compiles.
A = np.random.default_rng(0).standard_normal((6, 5))


def loss(a):
    """A number that is computed by both primitives."""
    return jnp.sum(jaxpinv.lstsq(a, a[:, :1]).solution)


@pytest.mark.slow
def test_no_cache_keeps_arguments_residuals_or_results_alive():
    a = jnp.asarray(A)
    value, pullback = jax.vjp(loss, a)
    [gradient] = pullback(jnp.ones_like(value))
    arrays = [a, value, gradient, *jax.tree.leaves(pullback)]
    references = [weakref.ref(x) for x in arrays if isinstance(x, jax.Array)]
    assert len(references) > 4
    del a, value, gradient, pullback, arrays
    gc.collect()
    assert [r for r in references if r() is not None] == []


@pytest.mark.slow
def test_calls_leave_no_array_behind_without_the_garbage_collector():
    derive = jax.grad(loss)
    derive(A)
    gc.collect()
    gc.disable()
    try:
        before = len(jax.live_arrays())
        for _ in range(5):
            jax.block_until_ready(derive(A))
        assert len(jax.live_arrays()) == before
    finally:
        gc.enable()


@pytest.mark.slow
def test_calls_leave_no_python_object_behind():
    derive = jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a)))

    def objects():
        gc.collect()
        return len(gc.get_objects())

    for _ in range(20):
        derive(A)
    before = objects()
    for _ in range(50):
        derive(A)
    # One object for every call would be 50.
    assert objects() - before < 25


@pytest.mark.slow
def test_the_cache_of_types_is_bounded():
    cache = _rules._types.cache_info
    limit = cache().maxsize
    assert limit is not None
    before = cache().misses
    for m in range(1, limit + 3):
        jax.eval_shape(jaxpinv.pinv, jax.ShapeDtypeStruct((3, m, 1), np.float64))
    assert cache().misses - before > limit
    assert cache().currsize <= limit


@pytest.mark.slow
def test_eager_calls_of_new_shapes_make_no_new_compiled_function():
    """`_eager` keeps one function for each of a few parameters, not one for each shape."""
    before = len(jit_functions())
    jaxpinv.pinv(A)
    once = len(jit_functions())
    for n in (3, 4):
        jaxpinv.pinv(A[:, :n])
    assert len(jit_functions()) == once
    assert once - before <= 1


def jit_functions():
    """The compiled functions of the primitives of this package."""
    gc.collect()
    # By type, because `isinstance` reads attributes of foreign objects, and some warn.
    kept = [x for x in gc.get_objects() if issubclass(type(x), partial)]
    ours = [_primitives.factor_p, _pinv_form.pinv_form_p, _inner.inner_p]
    return [x for x in kept if getattr(x.func, "__self__", None) in ours]


def test_the_backward_pass_of_lstsq_keeps_the_factors_and_the_columns():
    (m, n), b = A.shape, np.ones((A.shape[0], 1))
    _, pullback = jax.vjp(lambda a, b: jaxpinv.lstsq(a, b).solution, A, b)
    numbers = sum(x.size for x in jax.tree.leaves(pullback) if hasattr(x, "size"))
    assert numbers == m * n + n * n + 2 * n + 1 + m


def real_gradient(f):
    """The gradient of the sum of what `f` returns for a real matrix."""
    return jax.grad(lambda a: jnp.sum(f(a)))


OF_FLOAT32 = {
    "pinv": jaxpinv.pinv,
    "by SVD": partial(jaxpinv.pinv, method="svd"),
    "tolerance": partial(jaxpinv.pinv, rtol=0.1),
    "gradient": real_gradient(jaxpinv.pinv),
    "lstsq": lambda a: jaxpinv.lstsq(a, a[..., :1]),
    "values": real_gradient(lambda a: jaxpinv.lstsq(a, a[..., :1]).singular_values),
    "rank": jaxpinv.matrix_rank,
    "volume": jaxpinv.log_pdet,
    "damped": partial(jaxpinv.pinv, damp=0.1),
    "damped gradient": real_gradient(partial(jaxpinv.pinv, damp=0.1)),
    "damped solution": real_gradient(
        lambda a: jaxpinv.lstsq(a, a[..., :1], damp=0.1).solution
    ),
    "null space": jaxpinv.null_space,
    "stored": lambda a: jaxpinv.factorize(a).solve(a[..., :1], damp=0.1),
}


# Large ones are factored without singular values, in batches and alone.
@pytest.mark.slow_unless("pinv.*6|by SVD.*5, 4")
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("by SVD", (5, 4)),
        ("tolerance", (5, 4)),
        ("values", (5, 4)),
        ("null space", (5, 4)),
        ("damped gradient", (5, 4)),
        ("gradient", (5, 4)),
        ("pinv", (2000, 6, 7)),
        ("gradient", (2000, 6, 7)),
        ("lstsq", (2000, 6, 7)),
        ("rank", (2000, 6, 7)),
        ("volume", (2000, 6, 7)),
        ("tolerance", (500, 500)),
        ("gradient", (500, 500)),
        ("volume", (500, 500)),
        ("damped", (500, 500)),
        ("damped solution", (500, 500)),
        ("stored", (500, 500)),
    ],
    ids=str,
)
def test_programs_of_float32_make_no_array_of_float64(name, shape):
    a = jax.ShapeDtypeStruct(shape, np.float32)
    program = jax.jit(OF_FLOAT32[name]).trace(a).lower(lowering_platforms=("cpu",))
    assert not re.findall(r"tensor<\d[^>]*f64>", program.as_text())
