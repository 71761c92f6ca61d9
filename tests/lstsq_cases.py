"""Shapes and spectra for all tests of least squares."""

import numpy as np
import pytest

from tests.comparison import bound

SHAPES = {"tall": (6, 4), "wide": (4, 6), "square": (4, 4)}
# One dtype per shape: all pairs would compile twice as many programs.
SHAPES_AND_DTYPES = pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        (SHAPES["tall"], np.complex128),
        (SHAPES["wide"], np.complex128),
        (SHAPES["square"], np.float64),
    ],
    ids=["tall-complex", "wide-complex", "square-real"],
)
# Spectrum and keyword arguments. If only zeros are truncated, as with the default cutoff,
# derivatives are products with vectors; otherwise they are those of the matrix.
CASES = {
    "full_rank": ([3, 2, 1, 0.5], {}),
    "deficient": ([3, 2, 0, 0], {}),
    "zero": ([0, 0, 0, 0], {}),
    "nothing_truncated": ([3, 2, 1, 0.5], {"atol": 0.1}),
    "zeros_truncated": ([2, 2, 0, 0], {"atol": 0.1}),
    "more_truncated": ([3, 2, 0.3, 0.2], {"atol": 0.25}),
}
TOLERANCE = bound(np.float64, 6**3)


def cutoff(kwargs):
    """The cutoff for the oracle that truncates the same values."""
    return kwargs.get("atol", 1e-6)
