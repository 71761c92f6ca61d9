"""Matrices of a given spectrum, the one tolerance formula, and an oracle in 50 digits."""

import functools
import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from numpy.typing import DTypeLike

import jaxpinv

# Of every bound `C * eps * condition`, in norms relative to the largest element.
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
    """Matrix `(m, n)` with orthonormal columns, `m >= n`, in double precision."""
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


#: Seeds of matrices of low rank on which LAPACK's divide and conquer gives up: OpenBLAS,
#: with AVX-512, on one thread and on two. Elsewhere it may converge.
SEEDS_OF_NO_CONVERGENCE = (912, 1738, 2058, 2769, 3050)


def factors_of_no_convergence(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Factors, 222 by 42 and 42 by 222, of a matrix of rank 42 and condition 1e3 or so.

    They and their product are integers, so that no rounding makes another matrix of them.
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
    """The same for one matrix, once for all tests that ask."""
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


def pair(x, y) -> float:
    """The pairing of cotangents and tangents in JAX: real, without conjugation."""
    return float(np.sum(np.asarray(x) * np.asarray(y)).real)


def by_lstsq(a, rtol=None, hermitian=False, *, atol=None, rcond=None, return_rank=False):
    """The pseudo-inverse as what `lstsq` does to the columns of the identity."""
    a = jnp.asarray(a)
    b = jnp.eye(a.shape[-2], dtype=a.dtype)
    rtol = rtol if rcond is None else rcond
    x, rank = _solution_and_rank(a, b, rtol, atol, hermitian=hermitian)
    return (x, rank) if return_rank else x


# One program, without the fields that nobody looks at: else the tests would compile more
# than they run.
@partial(jax.jit, static_argnames="hermitian")
def _solution_and_rank(a, b, rtol, atol, *, hermitian):
    """Two fields of `lstsq`."""
    found = jaxpinv.lstsq(a, b, rtol, hermitian, atol=atol)
    return found.solution, found.rank
