"""Settings for every test: double precision, no silent promotion, eight devices."""

import gc
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxpinv
from tests.helpers import by_lstsq

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)


# Linux allows a process 65530 pieces of mapped memory, and each kernel is one.
_MAPS, _MOST_MAPS = Path("/proc/self/maps"), 15_000


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Forgets what was compiled when there is too much of it: else LLVM may crash."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers for every test."""
    return np.random.default_rng(20)


WAYS = {"pinv": jaxpinv.pinv, "lstsq": by_lstsq}


@pytest.fixture(params=WAYS)
def pinv(request):
    """Both ways to a pseudo-inverse: one set of tests holds for them."""
    return WAYS[request.param]
