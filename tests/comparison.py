"""The differences of results, and bounds on those that rounding may cause."""

import numpy as np
from numpy.typing import DTypeLike

# The constant of every bound `C * eps * condition`, relative to the largest element.
C = 10


def bound(dtype: DTypeLike, condition: float = 1.0, c: float = C) -> float:
    """The error that rounding may cause: `c * eps * condition`."""
    return c * float(np.finfo(dtype).eps) * condition


def relative_error(x, reference) -> float:
    """Largest difference of two arrays, relative to the largest element of the second."""
    x, reference = np.asarray(x), np.asarray(reference)
    assert x.shape == reference.shape
    scale = np.max(np.abs(reference), initial=0)
    difference = np.max(np.abs(x - reference), initial=0)
    return float(difference / scale if scale else difference)


def pair(x, y) -> float:
    """The pairing of cotangents and tangents in JAX: real, without conjugation."""
    return float(np.sum(np.asarray(x) * np.asarray(y)).real)
