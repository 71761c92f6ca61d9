"""The table of features in the documentation: each cell is what a call here returned.

    python -m tests.benchmarks.features

prints the columns of the libraries that are installed. Derivatives are compared with
differences in 50 digits, or in double precision along a curve of constant rank: with no
formula.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

from tests import comparison, matrices, mpmath_oracle
from tests.benchmarks.libraries import Array, Library, installed

YES, NO, NONE, RIGHT = "yes", "no", "-", "right"
#: Of a derivative that is right. The errors of those that are not are 0.1 and more.
EXACT = 1e-6
SHAPE = (6, 4)
#: Singular values that only differ, that are half zero, and half to be truncated.
SIMPLE, ZEROS, SMALL = (3.0, 2.0, 1.0, 0.5), (3.0, 2.0, 0.0, 0.0), (3.0, 2.0, 0.3, 0.2)
#: These did not return from an Inf where this was measured: only another process can see.
MAY_HANG = ("jnp", "NumPy", "lineax")


def takes_both_tolerances(library: Library) -> str:
    """Whether `rtol` and `atol` may be given at once."""
    a = library.array(np.diag([1.0, 0.5, 1e-3, 1e-6]))
    return _kept_two(partial(library.pinv, a, rtol=1e-9, atol=1e-2))


def takes_a_tolerance_for_each_matrix(library: Library) -> str:
    """Whether the matrices of a batch may have cutoffs of their own."""
    a = np.stack([np.diag([1.0, 0.5, 1e-3, 1e-6])] * 2)
    rtol = library.array(np.array([1e-2, 1e-9]))
    try:
        x = np.asarray(library.pinv(library.array(a), rtol=rtol))
    except (TypeError, ValueError):
        return NO
    return YES if np.sum(x > 0, axis=(1, 2)).tolist() == [2, 4] else NO


def returns_the_rank(library: Library) -> str:
    """Whether the rank comes with the pseudo-inverse."""
    if library.rank is None:
        return NO
    assert int(library.rank(library.array(np.ones((3, 2))))) == 1
    return YES


def first_derivative(spectrum: Sequence[float], rtol: float, library: Library) -> str:
    """Whether the derivative is that of the truncated pseudo-inverse."""
    rng = np.random.default_rng(0)
    a, e = matrices.matrix(rng, SHAPE, spectrum), matrices.gaussian(rng, SHAPE)
    cutoff = rtol * spectrum[0]
    return _verdict(library, a, e, mpmath_oracle.exact_derivative(a, [e], cutoff), rtol)


def repeated_values(library: Library) -> str:
    """The same where all singular values are equal."""
    a, e = np.eye(*SHAPE), matrices.gaussian(np.random.default_rng(0), SHAPE)
    return _verdict(library, a, e, mpmath_oracle.exact_derivative(a, [e], 0.1), 1e-8)


def zeros_truncated(library: Library) -> str:
    """The same at a matrix of rank two, along a curve of that rank."""
    a, e, exact = _curve_of_rank_two(lambda a: np.linalg.pinv(a, rtol=1e-8))
    return _verdict(library, a, e, exact, 1e-8)


def least_squares(library: Library) -> str:
    """The same of a least-squares solution."""
    b = matrices.gaussian(np.random.default_rng(1), (SHAPE[0], 1))
    a, e, exact = _curve_of_rank_two(lambda a: np.linalg.pinv(a, rtol=1e-8) @ b)
    if library.solve is None or library.derivative is None:
        return NONE
    solve = partial(library.solve, b=library.array(b))
    return _in_words(library.derivative(solve, a, [e]), exact)


def second_derivative(library: Library) -> str:
    """Median error in float32 at condition 1e4, of the size of twelve matrices."""
    if library.derivative is None:
        return NONE
    errors, pinv = [], partial(library.pinv, rtol=1e-9)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        a = matrices.matrix(rng, (7, 6), np.logspace(0, -4, 6).tolist(), np.float32)
        e = matrices.gaussian(rng, (7, 6), np.float32)
        scale = 2.0**-14
        step = e * np.float32(scale)
        exact = mpmath_oracle.exact_derivative(a, [step, step], 1e-9) / scale**2
        found = library.derivative(pinv, a, [e, e])
        errors.append(comparison.relative_error(found, exact))
    return f"{statistics.median(errors):.0e}".replace("e-0", "e-")


def one_not_finite(value: float, library: Library) -> str:
    """What becomes of a matrix with such an element, and of the other one of its batch."""
    a = matrices.gaussian(np.random.default_rng(0), (2, 4, 4), np.float32)
    a[1] = np.eye(4)
    a[1, 0, 0] = value
    try:
        x = np.asarray(library.pinv(library.array(a)))
    except Exception:
        return "error"
    assert np.isfinite(x[0]).all()
    return "NaN" if np.isnan(x[1]).all() else "zeros" if not x[1, 0].any() else "other"


def no_convergence(library: Library) -> str:
    """The worst that becomes of matrices on which LAPACK's gesdd may give up."""
    found = {_of_low_rank(library, seed) for seed in matrices.SEEDS_OF_NO_CONVERGENCE}
    return next(word for word in ("wrong", "error", "NaN", RIGHT) if word in found)


def _of_low_rank(library: Library, seed: int) -> str:
    left, right = matrices.factors_of_no_convergence(seed)
    try:
        x = np.asarray(library.pinv(library.array(left @ right), rtol=1e-9))
    except Exception:
        return "error"
    if np.isnan(x).all():
        return "NaN"
    error = comparison.relative_error(x, matrices.pinv_of_factors(left, right))
    return RIGHT if error < EXACT else "wrong"


ROWS: dict[str, Callable[[Library], str]] = {
    "`rtol` and `atol` at once": takes_both_tolerances,
    "a tolerance for each matrix": takes_a_tolerance_for_each_matrix,
    "returns the rank": returns_the_rank,
    "derivative, full rank": partial(first_derivative, SIMPLE, 1e-8),
    "derivative, zeros truncated": zeros_truncated,
    "derivative, repeated values": repeated_values,
    "derivative, more than zeros truncated": partial(first_derivative, SMALL, 0.2),
    "error of the second derivative": second_derivative,
    "least squares, derivative, zeros truncated": least_squares,
    "a matrix with NaN in a batch": partial(one_not_finite, np.nan),
    "a matrix with Inf in a batch": partial(one_not_finite, np.inf),
    "a matrix on which LAPACK's gesdd fails": no_convergence,
}
INF = "a matrix with Inf in a batch"
#: A row in which LAPACK may converge on another machine.
NO_CONVERGENCE = "a matrix on which LAPACK's gesdd fails"


def cell(row: str, library: Library) -> str | None:
    """What the table says there, or None where it may not be asked in this process."""
    return None if row == INF and library.name in MAY_HANG else ROWS[row](library)


def _verdict(library: Library, a, e, exact, rtol: float) -> str:
    if library.derivative is None:
        return NONE
    return _in_words(library.derivative(partial(library.pinv, rtol=rtol), a, [e]), exact)


def _in_words(found: NDArray, exact: NDArray) -> str:
    error = comparison.relative_error(found, exact)
    if not np.isfinite(error):
        return "NaN"
    return "exact" if error < EXACT else f"{100 * error:.0f}% off"


def _kept_two(call: Callable[[], Array]) -> str:
    try:
        return YES if np.sum(np.asarray(call()) > 0) == 2 else NO
    except TypeError:
        return NO


def _curve_of_rank_two(f: Callable) -> tuple[NDArray, NDArray, NDArray]:
    """A matrix, its direction on the curve `(I + t L) A (I + t R)`, and the derivative."""
    rng = np.random.default_rng(0)
    a = np.zeros(SHAPE)
    a[[0, 1], [0, 1]] = ZEROS[:2]
    left, right = (matrices.gaussian(rng, (n, n)) for n in SHAPE)
    identities = [np.eye(n) for n in SHAPE]

    def moved(t: float) -> NDArray:
        return (identities[0] + t * left) @ a @ (identities[1] + t * right)

    step = 1e-5
    return a, left @ a + a @ right, (f(moved(step)) - f(moved(-step))) / (2 * step)


def main() -> None:
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    libraries = list(installed())
    print("|", *(f"| {library.name} " for library in libraries), "|")
    for row in ROWS:
        cells = [cell(row, library) or "not asked" for library in libraries]
        print(f"| {row} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
