"""Random matrices of given singular values or eigenvalues, and some LAPACK fails on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike


def gaussian(
    rng: np.random.Generator, shape: Sequence[int], dtype: DTypeLike = np.float64
) -> np.ndarray:
    """Standard normal array, real or complex."""
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def unitary(
    rng: np.random.Generator, m: int, n: int, dtype: DTypeLike = np.float64
) -> np.ndarray:
    """Matrix with orthonormal columns, `(m, n)`, `m >= n`, in double precision."""
    double = np.result_type(dtype, np.float64)
    return np.linalg.qr(gaussian(rng, (m, n), double))[0]


def matrix(
    rng: np.random.Generator,
    shape: Sequence[int],
    spectrum: Sequence[float],
    dtype: DTypeLike = np.float64,
) -> np.ndarray:
    """Matrix, or batch of them, with these singular values and random singular vectors."""
    *batch, m, n = shape
    if batch:
        rows = [matrix(rng, shape[1:], spectrum, dtype) for _ in range(batch[0])]
        return np.stack(rows)
    k = min(m, n)
    u, v = unitary(rng, m, k, dtype), unitary(rng, n, k, dtype)
    return ((u * np.asarray(spectrum)[:k]) @ v.conj().T).astype(dtype)


def hermitian_matrix(
    rng: np.random.Generator, eigenvalues: Sequence[float], dtype: DTypeLike = np.float64
) -> np.ndarray:
    """Hermitian matrix with these eigenvalues and random eigenvectors."""
    v = unitary(rng, len(eigenvalues), len(eigenvalues), dtype)
    a = (v * np.asarray(eigenvalues)) @ v.conj().T
    return ((a + a.conj().T) / 2).astype(dtype)


#: Seeds of matrices of low rank on which LAPACK's divide and conquer does not converge: in
#: OpenBLAS with AVX-512, on one thread and on two. On other machines it may converge.
SEEDS_OF_NO_CONVERGENCE = (912, 1738, 2058, 2769, 3050)


def factors_of_no_convergence(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors, 222 by 42 and 42 by 222, of a matrix of rank 42 and condition about 1e3.

    They and their product are integers, so rounding does not change the matrix.
    """
    rng = np.random.default_rng(seed)
    n, rank, bits = 222, 42, 10
    left, right = (rng.integers(-127, 128, shape) for shape in ((n, rank), (rank, n)))
    return (left * 2 ** (bits - np.arange(rank) * bits // rank)).astype(float), right * 1.0


def pinv_of_factors(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The pseudo-inverse of `left @ right`, both of full rank, without singular values."""
    q, r = np.linalg.qr(left)
    p, t = np.linalg.qr(right.conj().T)
    return p @ np.linalg.solve(t.conj().T, np.linalg.solve(r, q.conj().T))


def of_values(rng, shape, values, dtype):
    """Matrix with these singular values, in the precision of the dtype."""
    wide = np.result_type(dtype, np.float64)
    u, v = (np.linalg.qr(gaussian(rng, (k, len(values)), wide))[0] for k in shape)
    return (u * values @ v.conj().T).astype(dtype)
