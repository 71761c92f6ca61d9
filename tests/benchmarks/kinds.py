"""Kinds of long matrices: what `tests.benchmarks.shapes` measures errors on."""

from collections.abc import Callable

import numpy as np

from tests.matrices import gaussian, unitary

#: An orthonormal matrix takes time: most elements of one.
MOST_ORTHONORMAL = 1_000_000


def _random(rng, m: int, n: int, dtype: str) -> np.ndarray:
    return gaussian(rng, (m, n), dtype) / np.sqrt(m)


def _intercept(rng, m: int, n: int, dtype: str) -> np.ndarray:
    """Equal numbers, a straight line, and other regressors between 0 and 1.

    Sums of ones would be exact. Those of 0.1 show how a running sum rounds equal terms.
    """
    a = rng.uniform(size=(m, n))
    a[:, 0] = 0.1
    if n > 1:
        a[:, 1] = np.linspace(0, 1, m)
    return a if np.dtype(dtype).kind == "f" else a * np.exp(0.3j)


def _indicators(rng, m: int, n: int, dtype: str) -> np.ndarray:
    """Columns of equal numbers and zeros: in most rows, or from a threshold on."""
    in_most = rng.random((m, n)) < 0.9
    beyond = np.arange(m)[:, None] * n // m >= np.arange(n)
    a = 0.3 * (in_most if rng.integers(2) else beyond)
    return a if np.dtype(dtype).kind == "f" else a * np.exp(0.3j)


def _common_mean(rng, m: int, n: int, dtype: str) -> np.ndarray:
    a = rng.uniform(size=(m, n)) + rng.choice([0, 0.5, 1, 10])
    return a if np.dtype(dtype).kind == "f" else a + 0.5j * rng.uniform(size=(m, n))


def _polynomial(rng, m: int, n: int, dtype: str) -> np.ndarray:
    """Powers of a straight line, and in complex ones of a wave."""
    t = np.linspace(0, 1, m) if n < 4 else np.linspace(-1, 1, m)
    powers = np.vander(t, n, increasing=True)
    return powers if np.dtype(dtype).kind == "f" else powers * np.exp(1j * t)[:, None]


def _orthonormal(rng, m: int, n: int, dtype: str) -> np.ndarray | None:
    return unitary(rng, m, n, dtype) if m * n <= MOST_ORTHONORMAL else None


def _graded(rng, m: int, n: int, dtype: str) -> np.ndarray | None:
    """Condition 1000."""
    left = _orthonormal(rng, m, n, dtype)
    if left is None or n == 1:
        return None
    return (left * np.geomspace(1, 1e-3, n)) @ unitary(rng, n, n, dtype)


KINDS: dict[str, Callable[..., np.ndarray | None]] = {
    "gaussian": _random,
    "intercept": _intercept,
    "indicators": _indicators,
    "common mean": _common_mean,
    "polynomial": _polynomial,
    "orthonormal": _orthonormal,
    "graded": _graded,
}
