"""Damped inverses and their derivatives in 50 digits, by mpmath."""

import itertools
from collections.abc import Callable, Iterable

import mpmath
import numpy as np


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
    with mpmath.workdps(50):
        return _array(by_definition(_matrix(a), _matrix(np.asarray(d, float)[None])))


def derivative(a, d, e, dd, order: int) -> np.ndarray:
    """The derivative of `damped`, along `e` in the matrix and `dd` in the damping.

    Central differences of step `h = 1e-9`: their error is of size `h^2`.
    """
    with mpmath.workdps(50):
        step = mpmath.mpf(10) ** -9
        a, e = _matrix(a), _matrix(e)
        d, dd = (_matrix(np.asarray(x, float)[None]) for x in (d, dd))
        total = mpmath.zeros(a.cols, a.rows)
        for signs in itertools.product([1, -1], repeat=order):
            t = sum(signs) * step
            total += int(np.prod(signs)) * by_definition(a + t * e, d + t * dd)
        return _array(total / (2 * step) ** order)


def differences(f: Callable, a, e) -> tuple[float, float, float]:
    """The value of `f`, a number from a matrix, and two derivatives along `e`."""
    with mpmath.workdps(50):
        step, a, e = mpmath.mpf(10) ** -9, _matrix(a), _matrix(e)
        back, value, ahead = (f(a + t * step * e) for t in (-1, 0, 1))
        slope, curvature = (ahead - back) / 2 / step, (ahead - 2 * value + back) / step**2
        return float(value), float(slope), float(curvature)


def by_definition(a: mpmath.matrix, d: Iterable) -> mpmath.matrix:
    """`(A^H A + D^2)^-1 A^H`."""
    squares = mpmath.diag([x**2 for x in d])
    return (a.H * a + squares) ** -1 * a.H


def _matrix(x) -> mpmath.matrix:
    """An array as a matrix with 50 digits."""
    return mpmath.matrix(np.asarray(x).tolist())


def _array(x: mpmath.matrix) -> np.ndarray:
    """A matrix with 50 digits as an array in double precision."""
    is_complex = any(isinstance(y, mpmath.mpc) for y in x)
    return np.array(x.tolist(), complex if is_complex else float)
