"""Damped inverses and their derivatives in 50 digits, by mpmath and FLINT."""

import itertools
from collections.abc import Callable, Iterable

import flint
import mpmath
import numpy as np

#: Bits of numbers of FLINT: a few more than 50 digits.
_BITS = 200


def filtered(a, d: float) -> np.ndarray:
    """The sum of `s / (s^2 + d^2) v u^H` over all singular triplets of a matrix."""
    with mpmath.workdps(50):
        a = _matrix(a)
        is_complex = any(isinstance(x, mpmath.mpc) for x in a)
        u, s, vh = (mpmath.svd_c if is_complex else mpmath.svd_r)(a)
        x = mpmath.zeros(a.cols, a.rows)
        for i in range(len(s)):
            x += vh[i, :].H * u[:, i].H * (s[i] / (s[i] ** 2 + mpmath.mpf(float(d)) ** 2))
        return _array(x)


def damped(a, d) -> np.ndarray:
    """The damped inverse of a matrix by its definition, with one damping per unknown."""
    with flint.ctx.workprec(_BITS):
        return _rounded(by_definition(_exact(a), _exact(np.asarray(d)[None]).entries()))


def derivative(a, d, e, dd, order: int) -> np.ndarray:
    """The derivative of `damped`, along `e` in the matrix and `dd` in the damping.

    Central differences of step `h = 1e-9`: their error is of size `h^2`.
    """
    with flint.ctx.workprec(_BITS):
        step = flint.acb(10) ** -9
        a, d, e, dd = (_exact(np.atleast_2d(x)) for x in (a, d, e, dd))
        total = flint.acb_mat(a.ncols(), a.nrows())
        for signs in itertools.product([1, -1], repeat=order):
            t = sum(signs) * step
            moved = by_definition(a + e * t, (d + dd * t).entries())
            total += moved * int(np.prod(signs))
        return _rounded(total * (1 / (2 * step) ** order))


def differences(f: Callable, a, e) -> tuple[float, float, float]:
    """The value of `f`, a number from a matrix, and two derivatives along `e`."""
    with flint.ctx.workprec(_BITS):
        step, a, e = flint.acb(10) ** -9, _exact(a), _exact(e)
        back, value, ahead = (f(a + e * (t * step)) for t in (-1, 0, 1))
        slope, curvature = (ahead - back) / 2 / step, (ahead - 2 * value + back) / step**2
        value, slope, curvature = (float(x.real.mid()) for x in (value, slope, curvature))
        return value, slope, curvature


def by_definition(a: flint.acb_mat, d: Iterable) -> flint.acb_mat:
    """`(A^H A + D^2)^-1 A^H`."""
    a_h, squares = a.conjugate().transpose(), flint.acb_mat(a.ncols(), a.ncols())
    for i, x in enumerate(d):
        squares[i, i] = x * x
    return (a_h * a + squares).solve(a_h)


def _exact(x) -> flint.acb_mat:
    """An array as a matrix of FLINT."""
    return flint.acb_mat(np.asarray(x, complex).tolist())


def _rounded(x: flint.acb_mat) -> np.ndarray:
    """A matrix of FLINT as an array, real if all numbers are."""
    numbers = np.asarray(np.array(x.tolist(), complex))
    return numbers if np.any(np.imag(numbers)) else np.real(numbers)


def _matrix(x) -> mpmath.matrix:
    """An array as a matrix with 50 digits."""
    return mpmath.matrix(np.asarray(x).tolist())


def _array(x: mpmath.matrix) -> np.ndarray:
    """A matrix with 50 digits as an array in double precision."""
    is_complex = any(isinstance(y, mpmath.mpc) for y in x)
    return np.array(x.tolist(), complex if is_complex else float)
