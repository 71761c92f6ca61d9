"""Logarithms of determinants, however they are taken."""

import jax
import numpy as np
import pytest

from jaxpinv._factorization import log_det
from jaxpinv._platform import determinant_plan
from jaxpinv._platform.target import ANYWHERE, Target
from tests.comparison import bound
from tests.matrices import gaussian, matrix, unitary

pytestmark = pytest.mark.unoptimized

CPU = Target(is_cpu=True, is_whole=True)
WAYS = {"lu": log_det.by_lu, "gram_schmidt": log_det.by_gram_schmidt}


@pytest.mark.parametrize("dtype", [np.float64, np.complex64], ids=["real", "complex"])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_that_of_numpy(rng, way, dtype):
    f = jax.jit(WAYS[way])
    for batch in ((), (40,), (2, 3)):
        a = gaussian(rng, (*batch, 5, 5), dtype)
        expected = np.linalg.slogdet(a.astype(complex))[1]
        limit = bound(dtype, np.max(np.linalg.cond(a)))
        assert np.max(np.abs(np.asarray(f(a)) - expected)) <= limit
    graded = matrix(rng, (5, 5), list(np.geomspace(1, 1e-6, 5)))
    expected = np.sum(np.log(np.geomspace(1, 1e-6, 5)))
    assert abs(float(f(graded.astype(dtype))) - expected) <= bound(dtype, 1e6)
    assert abs(float(f(unitary(rng, 5, 5, dtype).astype(dtype)))) <= bound(dtype)


@pytest.mark.parametrize(
    ("shape", "target", "by_gram_schmidt"),
    [
        ((6, 6), CPU, False),
        ((31, 6, 6), CPU, False),
        ((32, 6, 6), CPU, True),
        ((4, 8, 8, 8), CPU, True),
        ((32, 9, 9), CPU, False),
        ((32, 6, 6), Target(is_cpu=False, is_whole=True), True),
        ((32, 6, 6), ANYWHERE, False),
    ],
    ids=str,
)
def test_many_tiny_determinants_use_gram_schmidt(shape, target, by_gram_schmidt):
    planned = determinant_plan.determinant(shape, target, is_complex=False)
    assert planned.by_gram_schmidt == by_gram_schmidt
    assert target.is_cpu or planned.chunk is None
