"""Matrices of full rank, and whether `pinv` takes their singular values."""

from functools import partial

import jax
import numpy as np

import jaxpinv
from jaxpinv._inputs import prepare
from jaxpinv._solver import Strategy, factorize
from tests.matrices import matrix
from tests.numpy_oracle import adjoint

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


def known_gradient(a, ct):
    """The pseudo-inverse, and the gradient of `<ct, X>`.

    By NumPy in double precision, from the derivative of G. H. Golub and V. Pereyra,
    `-X E X + X X^H E^H (I - A X) + (I - X A) E^H X^H X`, for matrices of full rank. For
    others it holds where only zeros are truncated.
    """
    return known_derivatives(a, ct, np.zeros_like(a))[:2]


def known_derivatives(a, ct, e):
    """The same, and the derivative of the gradient along `e`."""
    a, ct, e = (x.astype(np.result_type(x, float)) for x in (a, ct, e))
    x, xh, eh = np.linalg.pinv(a), adjoint(np.linalg.pinv(a)), adjoint(e)
    c = np.swapaxes(ct, -1, -2)
    off_range, off_corange = np.eye(a.shape[-2]) - a @ x, np.eye(a.shape[-1]) - x @ a
    dx = -x @ e @ x + x @ xh @ eh @ off_range + off_corange @ eh @ xh @ x
    dxh, of_range, of_corange = adjoint(dx), -e @ x - a @ dx, -dx @ a - x @ e

    def summed(*terms):
        """The transpose of the first, and the conjugates of the others."""
        first, *others = terms
        return np.swapaxes(first, -1, -2) + sum(np.conj(others))

    first = summed(-x @ c @ x, off_range @ c @ x @ xh, xh @ x @ c @ off_corange)
    second = summed(
        -dx @ c @ x - x @ c @ dx,
        of_range @ c @ x @ xh + off_range @ c @ (dx @ xh + x @ dxh),
        (dxh @ x + xh @ dx) @ c @ off_corange + xh @ x @ c @ of_corange,
    )
    return x, first, second
