"""The pseudo-inverse, the log-volume and their derivatives in 50 digits, by mpmath."""

import functools
import itertools

import mpmath
import numpy as np


def exact_pinv(a: mpmath.matrix, cutoff: float) -> mpmath.matrix:
    """Sum over the singular triplets above the cutoff, in the precision of mpmath."""
    is_complex = any(isinstance(x, mpmath.mpc) for x in a)
    u, s, vh = (mpmath.svd_c if is_complex else mpmath.svd_r)(a)
    x = mpmath.zeros(a.cols, a.rows)
    for i in range(len(s)):
        if s[i] > cutoff:
            x += vh[i, :].H * u[:, i].H / s[i]
    return x


def exact_derivative(a, directions, cutoff: float) -> np.ndarray:
    """Mixed derivative of the truncated pseudo-inverse, by differences in 50 digits.

    Central differences of step `h = 1e-12`: their error is of size `h^2`.
    """
    a = np.asarray(a)
    if a.ndim > 2:
        rows = zip(a, *directions, strict=True)
        return np.stack([exact_derivative(x, e, cutoff) for x, *e in rows])
    arrays = [np.ascontiguousarray(x) for x in (a, *directions)]
    frozen = [(x.tobytes(), x.dtype.str, x.shape) for x in arrays]
    return _exact_derivative(tuple(frozen), cutoff)


@functools.cache
def _exact_derivative(frozen, cutoff: float) -> np.ndarray:
    """The mixed derivative for one matrix, cached for all tests."""
    a, *directions = (np.frombuffer(x, d).reshape(shape) for x, d, shape in frozen)
    with mpmath.workdps(50):
        step = mpmath.mpf(10) ** -12
        a, *directions = (mpmath.matrix(np.asarray(x).tolist()) for x in (a, *directions))
        total = mpmath.zeros(a.cols, a.rows)
        for signs in itertools.product([1, -1], repeat=len(directions)):
            moved = sum(
                (sign * step * e for sign, e in zip(signs, directions, strict=True)), a
            )
            total += int(np.prod(signs)) * exact_pinv(moved, cutoff)
        total = total / (2 * step) ** len(directions)
        is_complex = any(isinstance(x, mpmath.mpc) for x in total)
        dtype = complex if is_complex else float
        return np.array(total.tolist(), dtype).reshape(total.rows, total.cols)


def exact_log_pdet(a, directions, cutoff: float) -> float:
    """The log-volume of one matrix, or its mixed derivative by the same differences."""
    with mpmath.workdps(50):
        step = mpmath.mpf(10) ** -12
        a, *directions = (mpmath.matrix(np.asarray(x).tolist()) for x in (a, *directions))
        total = mpmath.mpf(0)
        for signs in itertools.product([1, -1], repeat=len(directions)):
            moved = sum(
                (sign * step * e for sign, e in zip(signs, directions, strict=True)), a
            )
            is_complex = any(isinstance(x, mpmath.mpc) for x in moved)
            decompose = mpmath.svd_c if is_complex else mpmath.svd_r
            values = decompose(moved, compute_uv=False)
            logs = (mpmath.log(s) for s in values if s > cutoff)
            total += int(np.prod(signs)) * mpmath.fsum(logs)
        return float(total / (2 * step) ** len(directions))
