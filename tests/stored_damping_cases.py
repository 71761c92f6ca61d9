"""Shapes, ranks and matrices for all tests of a `Factorization` with a damping."""

import numpy as np

from tests.matrices import matrix

# Sides of more than eight, so that the matrices are not factored anew.
SHAPES = {"tall": (12, 9), "square": (9, 9), "wide": (9, 10)}
RANKS = {"full": 9, "deficient": 4, "zero": 0}
DTYPES = {"real": np.float64, "complex": np.complex128}


def of_rank(rng, shape, rank, dtype=np.float64):
    """A matrix with singular values from 2 to 0.5, and zeros."""
    zeros = [0.0] * (min(shape) - rank)
    return matrix(rng, shape, [*np.linspace(2, 0.5, rank), *zeros], dtype)
