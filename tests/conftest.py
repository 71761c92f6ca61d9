"""Settings for every test: double precision, no silent promotion, eight devices."""

import gc
import os
import re
from functools import partial
from pathlib import Path

# Idle threads of OpenBLAS spin, and take the cores from other workers. It reads this as it
# is loaded, by NumPy and SciPy, here and in the processes that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Small programs compile faster in one piece than divided among threads.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_parallel_codegen_split_count=1")

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# On other platforms only some tests hold: `tests.benchmarks.accelerator` runs these.
if os.environ.get("JAXPINV_TESTS_ON", "cpu") == "cpu":
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)

# Tracing makes many objects, and the collector would visit all programs again and again.
gc.freeze()
gc.set_threshold(100_000, 50, 100)

# Linux allows a process 65530 pieces of mapped memory, and each kernel is one.
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 15_000


def pytest_configure(config):
    """Keeps the order of modules among the workers of pytest-xdist."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks as slow the cases of `slow_unless` whose id does not match its pattern.

    Tests compiled without optimizations come first, so that they share programs: first
    those of modules that have no others.
    """
    for item in items:
        for mark in item.iter_markers("slow_unless"):
            if not re.search(mark.args[0], item.callspec.id):
                item.add_marker(pytest.mark.slow)
    optimized = {item.path for item in items if not is_unoptimized(item)}
    items.sort(key=lambda item: (item.path in optimized) + (not is_unoptimized(item)))


def is_unoptimized(item):
    """Whether the programs of a test are compiled without optimizations."""
    return item.get_closest_marker("unoptimized") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Compiles a test without optimizations if it is marked so."""
    without = is_unoptimized(item)
    if jax.config.read("jax_disable_most_optimizations") != without:
        jax.config.update("jax_disable_most_optimizations", without)
        # JAX's in-memory caches do not distinguish programs by this setting.
        jax.clear_caches()


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Clears the compiled programs when there are too many: otherwise LLVM may crash."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers for every test."""
    return np.random.default_rng(20)


def by_lstsq(a, rtol=None, hermitian=False, *, atol=None, rcond=None, return_rank=False):
    """The pseudo-inverse as the solution of `lstsq` for the columns of the identity."""
    a = jnp.asarray(a)
    b = np.eye(a.shape[-2], dtype=a.dtype)
    rtol = rtol if rcond is None else rcond
    x, rank = _solution_and_rank(a, b, rtol, atol, hermitian=hermitian)
    return (x, rank) if return_rank else x


# One program, without the unused fields: otherwise compilation would take longer than the
# tests.
@partial(jax.jit, static_argnames="hermitian")
def _solution_and_rank(a, b, rtol, atol, *, hermitian):
    """Two fields of `lstsq`."""
    found = jaxpinv.lstsq(a, b, rtol, hermitian, atol=atol)
    return found.solution, found.rank


WAYS = {"pinv": jaxpinv.pinv, "lstsq": by_lstsq}


@pytest.fixture(params=WAYS)
def pinv(request):
    """Both ways to compute a pseudo-inverse: the same tests hold for both."""
    return WAYS[request.param]
