"""Newton's method for the dampings of several problems at once."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Dampings stay between these.
LOWEST, HIGHEST = 0.1, 1e3

#: The largest step in the logarithm of a damping, the most of all steps, and the gradient,
#: relative to the error, at which the method ends.
LARGEST_STEP, STEPS, FLAT = 2.0, 60, 1e-8


class Expansion(NamedTuple):
    """Errors of `k` problems, with first and second derivatives, at some dampings.

    Attributes:
        log_dampings: where, `(k, g)`.
        error: `(k,)`.
        coefficients: those of the fit to all rows, `(k, 1 + n)`.
        gradient: `(k, g)`.
        hessian: `(k, g, g)`.
    """

    log_dampings: NDArray
    error: NDArray
    coefficients: NDArray
    gradient: NDArray
    hessian: NDArray

    def is_free(self) -> NDArray:
        """Which dampings may move: those not pushed against an end, `(k, g)`."""
        low = (self.log_dampings <= np.log(LOWEST)) & (self.gradient > 0)
        high = (self.log_dampings >= np.log(HIGHEST)) & (self.gradient < 0)
        return ~(low | high)

    def steepness(self) -> NDArray:
        """The largest gradient of a free damping, relative to the error, `(k,)`."""
        return np.max(np.abs(self.gradient) * self.is_free(), axis=1) / self.error

    def updated(self, other: "Expansion", where: NDArray) -> "Expansion":
        """That with the values of another for some problems, `(k,)`."""
        pairs = zip(self, other, strict=True)
        return Expansion(*(np.where(_beside(where, x), y, x) for x, y in pairs))


class Learned(NamedTuple):
    """What Newton's method found for `k` problems.

    Attributes:
        end: where it ended.
        errors: the least so far after each factorization, `(t, k)`.
        factorizations: how many each problem took, `(k,)`.
    """

    end: Expansion
    errors: NDArray
    factorizations: NDArray


def learn(expand: Callable[[NDArray], Expansion], log_dampings: NDArray) -> Learned:
    """Finds the dampings of least error by Newton's method, for `k` problems at once.

    A step that does not lower the error is taken back and halved. Dampings that are pushed
    against an end of their range stay there (D. P. Bertsekas, "Projected Newton methods for
    optimization problems with simple constraints", SIAM J. Control Optim. 20 (1982)
    221-246).

    Args:
        expand: the errors at some dampings, with derivatives.
        log_dampings: where to begin, `(k, g)`.
    """
    best = expand(log_dampings)
    longest = np.full(len(log_dampings), LARGEST_STEP)
    errors, factorizations = [best.error], np.ones(len(log_dampings), int)
    for _ in range(STEPS):
        unfinished = best.steepness() > FLAT
        if not unfinished.any():
            break
        step = _newton_step(best)
        step *= np.minimum(1, longest / np.max(np.abs(step), axis=1, initial=1e-300))[
            :, None
        ]
        trial = np.clip(best.log_dampings + step, np.log(LOWEST), np.log(HIGHEST))
        found = expand(trial)
        is_lower = found.error < best.error
        taken = np.max(np.abs(step), axis=1)
        longest = np.where(is_lower, LARGEST_STEP, taken / 2)
        factorizations += unfinished
        best = best.updated(found, unfinished & is_lower)
        errors.append(best.error)
    return Learned(best, np.stack(errors), factorizations)


def _newton_step(at: Expansion) -> NDArray:
    """Steps that lower the model of second order, `(k, g)`, for free dampings.

    Where the Hessian has an eigenvalue below zero, its absolute value counts.
    """
    free = at.is_free()
    both = free[:, :, None] & free[:, None, :]
    values, vectors = np.linalg.eigh(np.where(both, at.hessian, np.eye(free.shape[1])))
    steepest = np.einsum("kji,kj->ki", vectors, -at.gradient * free)
    least = 1e-6 * np.max(np.abs(values), axis=1, keepdims=True)
    return np.einsum("kij,kj->ki", vectors, steepest / np.maximum(np.abs(values), least))


def _beside(where: NDArray, x: NDArray) -> NDArray:
    """`where`, `(k,)`, with axes of length 1 for the others of `x`."""
    return where.reshape(-1, *(1,) * (x.ndim - 1))
