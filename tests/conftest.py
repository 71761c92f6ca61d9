"""Settings for every test: double precision, no silent promotion, eight devices."""

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


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers for every test."""
    return np.random.default_rng(20)


WAYS = {"pinv": jaxpinv.pinv, "lstsq": by_lstsq}


@pytest.fixture(params=WAYS)
def pinv(request):
    """Both ways to a pseudo-inverse: one set of tests holds for them."""
    return WAYS[request.param]
