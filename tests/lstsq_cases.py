"""Shapes and spectra for all tests of least squares."""

import numpy as np
import pytest

from tests.comparison import bound

SHAPES = {"tall": (6, 4), "wide": (4, 6), "square": (4, 4)}
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
# One dtype per shape: all pairs would compile twice as many programs.
SHAPES_AND_DTYPES = {
    "tall": (SHAPES["tall"], np.complex128),
    "wide": (SHAPES["wide"], np.complex128),
    "square": (SHAPES["square"], np.float64),
}
TOLERANCE = bound(np.float64, 6**3)


def cutoff(kwargs):
    """The cutoff for the oracle that truncates the same values."""
    return kwargs.get("atol", 1e-6)


def cases_of(**programs):
    """Decorator: all spectra for a few programs, "default" or "tolerance" for each shape.

    A program with a tolerance has a branch for truncated zeros, too.
    """
    cases = {
        f"{shape}-{case}": (*SHAPES_AND_DTYPES[shape], spectrum, kwargs)
        for shape, kinds in programs.items()
        for case, (spectrum, kwargs) in CASES.items()
        if ("tolerance" if kwargs else "default") in kinds
    }
    names = ("shape", "dtype", "spectrum", "kwargs")
    return pytest.mark.parametrize(names, cases.values(), ids=cases)
