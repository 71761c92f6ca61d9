"""Matrices of full rank, and whether `pinv` takes their singular values."""

from functools import partial

import jax
import numpy as np

import jaxpinv
from jaxpinv._inputs import prepare
from jaxpinv._solver import Strategy, factorize
from tests.matrices import matrix

CONDITION = 20
direct_pinv = partial(jaxpinv.pinv, method="direct")


def random(rng, shape, dtype, spectrum=None):
    """Matrices with singular values from 1 to 20, or with given ones."""
    *batch, m, n = shape
    if spectrum is None:
        spectrum = list(np.geomspace(1, CONDITION, min(m, n)))
    a = [matrix(rng, (m, n), spectrum, dtype) for _ in range(int(np.prod(batch)))]
    return np.stack(a).reshape(shape)


def solved(a, rtol=None, atol=None, hermitian=False):
    """The pseudo-inverse, the rank and the factors that `pinv` finds, by one program."""
    # A `jit` tells defaults from the same values given.
    return _solved(a, rtol, atol, hermitian)


@partial(jax.jit, static_argnames="hermitian")
def _solved(a, rtol, atol, hermitian):
    tolerances = {"rtol": rtol, "atol": atol}
    inputs = prepare("pinv", a, tolerances, hermitian=hermitian)
    found = factorize(inputs, Strategy(hermitian, "direct", with_pinv=True))
    return found.pinv(), found.rank(), found.factors


def directly(a, rtol=None, *, hermitian=False, atol=None):
    """The factors that `pinv` finds."""
    return solved(a, rtol, atol, hermitian)[2]


def directly_inverted(a, rtol=None, *, atol=None):
    """The pseudo-inverse, by the program that finds the factors."""
    return np.asarray(solved(a, rtol, atol)[0])


def singular_values_taken(a, rtol=None, *, hermitian=False, atol=None):
    """For every matrix, whether `pinv` takes singular values."""
    factors = directly(a, rtol, hermitian=hermitian, atol=atol)
    # A direct factorization has one number instead of them, which is a power of two.
    return np.ptp(np.asarray(factors.s), axis=-1) > 0
