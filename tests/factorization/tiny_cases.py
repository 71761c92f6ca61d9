"""Batches of tiny matrices on which a rank, or an orthonormal basis, may go wrong."""

import numpy as np

from tests.matrices import gaussian


def of_mixed_rank(rng, batch, m, n, dtype):
    """Products of two random matrices, of every rank up to the largest, rounded once."""
    k = min(m, n)
    double = np.result_type(dtype, float)
    rank = rng.integers(0, k + 1, batch)
    left = gaussian(rng, (batch, m, k), double) * (np.arange(k) < rank[:, None])[:, None]
    return (left @ gaussian(rng, (batch, k, n), double)).astype(dtype)


def _orthogonal(rng, batch, n, dtype):
    return np.linalg.qr(gaussian(rng, (batch, n, n), np.result_type(dtype, float)))[0]


def _of_values(rng, s, m, dtype):
    """Matrices of given singular values, `(B, n)`."""
    batch, n = s.shape
    u, v = _orthogonal(rng, batch, m, dtype), _orthogonal(rng, batch, n, dtype)
    return ((u[:, :, :n] * s[:, None]) @ v).astype(dtype)


def _graded(rng, batch, m, n, dtype):
    s = np.geomspace(1e-1, 1e-8, n)
    return _of_values(rng, np.tile(s, (batch, 1)), m, dtype)


def _spread(rng, batch, m, n, dtype):
    eps = np.finfo(dtype).eps
    return _of_values(rng, 10 ** rng.uniform(np.log10(eps) - 1, 0, (batch, n)), m, dtype)


def _near(rng, batch, m, n, dtype):
    """One singular value near the cutoff, within a factor of ten."""
    s = np.ones((batch, n))
    s[:, -1] = max(m, n) * np.finfo(dtype).eps * 10 ** rng.uniform(-1, 1, batch)
    return _of_values(rng, s, m, dtype)


def _near_of_many(rng, batch, m, n, dtype):
    s = 10 ** rng.uniform(-3, 0, (batch, n))
    cutoff = max(m, n) * np.finfo(dtype).eps * np.max(s, axis=1)
    s[:, -1] = cutoff * 10 ** rng.uniform(-1, 1, batch)
    return _of_values(rng, s, m, dtype)


def _repeated(rng, batch, m, n, dtype):
    rank = rng.integers(0, n + 1, batch)
    return _of_values(rng, (np.arange(n) < rank[:, None]) * 1.0, m, dtype)


def _integers(rng, batch, m, n, dtype):
    return rng.integers(-2, 3, (batch, m, n)).astype(dtype)


def _integers_of_low_rank(rng, batch, m, n, dtype):
    left, right = (rng.integers(-2, 3, (batch, *shape)) for shape in ((m, 2), (2, n)))
    return (left @ right).astype(dtype)


def _scaled_columns(rng, batch, m, n, dtype):
    scale = 10 ** rng.uniform(-6, 6, (batch, 1, n))
    double = np.result_type(dtype, float)
    return (gaussian(rng, (batch, m, n), double) * scale).astype(dtype)


def _scaled_rows(rng, batch, m, n, dtype):
    return np.swapaxes(_scaled_columns(rng, batch, n, m, dtype), 1, 2)


def _scaled_of_low_rank(rng, batch, m, n, dtype):
    a = of_mixed_rank(rng, batch, m, n, np.result_type(dtype, float))
    rows, columns = (10 ** rng.uniform(-2, 2, (batch, *x)) for x in ((m, 1), (1, n)))
    return (a * rows * columns).astype(dtype)


def _copied(rng, batch, m, n, dtype):
    a = gaussian(rng, (batch, m, n), dtype)
    places = np.arange(batch)
    a[places, :, rng.integers(0, n, batch)] = -2 * a[places, :, rng.integers(0, n, batch)]
    return a


def _parallel(rng, batch, m, n, dtype):
    spread = 10 ** rng.uniform(-8, 0, (batch, 1, 1))
    double = np.result_type(dtype, float)
    column = gaussian(rng, (batch, m, 1), double)
    return (column + spread * gaussian(rng, (batch, m, n), double)).astype(dtype)


def _kahan(rng, batch, m, n, dtype):
    angle = rng.uniform(0.01, 1.5, (batch, 1, 1))
    upper = np.eye(m, n) - np.cos(angle) * np.triu(np.ones((m, n)), 1)
    return (np.sin(angle) ** np.arange(m)[:, None] * upper).astype(dtype)


def _vandermonde(rng, batch, m, n, dtype):
    return (rng.uniform(0, 2, (batch, m, 1)) ** np.arange(n)).astype(dtype)


def _hilbert(rng, batch, m, n, dtype):
    hilbert = 1 / (np.arange(m)[:, None] + np.arange(n) + 1)
    return (hilbert * rng.uniform(0.1, 10, (batch, 1, 1))).astype(dtype)


def _zero_column(rng, batch, m, n, dtype):
    a = gaussian(rng, (batch, m, n), dtype)
    a[np.arange(batch), :, rng.integers(0, n, batch)] = 0
    return a


def _noisy(rng, batch, m, n, dtype):
    noise = max(m, n) * np.finfo(dtype).eps * 10 ** rng.uniform(-2, 1, (batch, 1, 1))
    a = of_mixed_rank(rng, batch, m, n, np.result_type(dtype, float))
    return (a + noise * gaussian(rng, a.shape)).astype(dtype)


#: Matrices `(B, m, n)`, `m >= n`, from a generator, that shape and a dtype.
CLASSES = {
    "full": lambda rng, batch, m, n, dtype: gaussian(rng, (batch, m, n), dtype),
    "mixed": of_mixed_rank,
    "graded": _graded,
    "spread": _spread,
    "near": _near,
    "near_of_many": _near_of_many,
    "repeated": _repeated,
    "integers": _integers,
    "integers_of_low_rank": _integers_of_low_rank,
    "scaled_columns": _scaled_columns,
    "scaled_rows": _scaled_rows,
    "scaled_of_low_rank": _scaled_of_low_rank,
    "copied": _copied,
    "parallel": _parallel,
    "kahan": _kahan,
    "vandermonde": _vandermonde,
    "hilbert": _hilbert,
    "zero_column": _zero_column,
    "noisy": _noisy,
}
