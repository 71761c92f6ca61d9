"""Compilation: nothing is compiled twice, neither in one process nor in the next one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._damped_primitives import values_p
from jaxpinv._platform.tuning import DEFAULT
from tests.matrices import gaussian

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent
COMPILED = "/jax/core/compile/backend_compile_duration"


def worker(*arguments):
    """The output of `compilation_worker` in its own process."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.compilation_worker", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        # The workers compile many programs, and nothing is timed. They map as much memory
        # as users' processes do: without the flag of these tests.
        env={**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": ""},
    )
    return json.loads(found.stdout)


@pytest.mark.slow
def test_a_second_process_finds_every_program_in_the_persistent_cache(tmp_path):
    first, second = worker("cache", tmp_path), worker("cache", tmp_path)
    assert first["asked"] >= 4
    assert first["found"] == 0
    assert second == {"asked": first["asked"], "found": first["asked"]}


@pytest.mark.slow
def test_one_process_can_hold_2000_gradients_of_different_shapes():
    # Linux allows 65530 pieces of mapped memory. A gradient of a batch of 1 by 1 matrices
    # takes 12, and of a matrix up to 60. Their number grows with that of programs alone.
    found = worker("maps", 30)
    assert found["programs"] == 30
    assert found["maps"] <= 24


@pytest.fixture
def compilations():
    """How many programs were compiled so far, as JAX reports it."""
    found = []

    def listen(event, duration_secs, **_):
        found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: found.count(COMPILED)
    jax.monitoring.clear_event_listeners()


def loss(a, tolerance):
    """A number that depends on every element."""
    return jnp.sum(jaxpinv.pinv(a, **tolerance) ** 2)


def solution(a, tolerance):
    """A number that depends on every element of a least-squares solution."""
    return jnp.sum(jaxpinv.lstsq(a, a[..., :1], **tolerance).solution ** 2)


def along(f):
    """A Hessian-vector product, with the matrix itself as the vector."""
    return lambda a, tolerance: jax.jvp(lambda a: jax.grad(f)(a, tolerance), (a,), (a,))


CALLS = {
    "value": loss,
    "gradient": jax.grad(loss),
    "hvp": along(loss),
    "lstsq": solution,
    "lstsq gradient": jax.grad(solution),
}
TOLERANCES = {
    "default": [{}, {}],
    "number": [{"rtol": 1e-3}, {"rtol": 1e-4}],
    "both": [{"rtol": 1e-3, "atol": 0.0}, {"rtol": 0.0, "atol": 1e-3}],
    "array": [{"atol": np.array([0.0, 1e-3])}, {"atol": np.array([1e-3, 1e-2])}],
}


# Every call, and every tolerance, both eager and in `jit`. Gradients pass through values.
@pytest.mark.slow_unless("(number|default)-gradient|array-value")
@pytest.mark.parametrize(
    ("tolerance", "name", "way"),
    [
        ("default", "gradient", "jit"),
        ("default", "lstsq", "eager"),
        ("number", "gradient", "eager"),
        ("number", "lstsq gradient", "jit"),
        ("both", "value", "eager"),
        ("both", "hvp", "jit"),
        ("both", "lstsq gradient", "eager"),
        ("array", "value", "jit"),
        ("array", "hvp", "eager"),
        ("array", "lstsq", "jit"),
    ],
)
def test_other_values_and_tolerances_compile_nothing(
    name, way, tolerance, rng, compilations
):
    first, second = TOLERANCES[tolerance]
    f = CALLS[name] if way == "eager" else jax.jit(CALLS[name])
    # Shapes that no other test compiles.
    a, other = (jnp.asarray(gaussian(rng, (2, 9, 5))) for _ in range(2))
    before = compilations()
    jax.block_until_ready(f(a, first))
    after = compilations()
    assert after > before or way == "eager"
    jax.block_until_ready(f(other, second))
    assert compilations() == after


def test_a_primitive_outside_of_jit_is_compiled_once(rng, compilations):
    def values(a):
        return values_p.bind(a, method="svd", tuning=DEFAULT)

    # A shape that no other test compiles.
    a, other = (jnp.asarray(gaussian(rng, (2, 9, 5))) for _ in range(2))
    jax.block_until_ready(values(a))
    before = compilations()
    jax.block_until_ready(values(other))
    assert compilations() == before
