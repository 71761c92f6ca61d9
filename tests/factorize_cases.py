"""Spectra, and all results of a factorization, by its methods and by NumPy."""

import numpy as np

SPECTRA = {"full": [3, 2, 1, 0.5], "truncated": [3, 2, 0.3, 0.2], "deficient": [3, 2, 0, 0]}
RTOL = 0.12


def by_methods(factored, b, x):
    """All results, by the methods of a factorization."""
    return {
        "pinv": factored.pinv(),
        "solve": factored.solve(b),
        "null_projection": factored.null_projection(x),
        "singular_values": factored.singular_values(),
        "log_pdet": factored.log_pdet(),
        "rank": factored.rank,
    }


def by_numpy(a, b, x):
    """All results, by NumPy."""
    inverse = np.linalg.pinv(a, rcond=RTOL)
    values = np.linalg.svd(a, compute_uv=False)
    kept = values > RTOL * values[..., :1]
    return {
        "pinv": inverse,
        "solve": inverse @ b,
        "null_projection": x - inverse @ (a @ x),
        "singular_values": values,
        "log_pdet": np.sum(np.log(np.where(kept, values, 1)), axis=-1),
        "rank": np.sum(kept, axis=-1),
    }
