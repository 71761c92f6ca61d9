"""Singular triplets with more digits than a batch of matrices, by Jacobi rotations."""

from typing import NamedTuple

import numpy as np

_SWEEPS = 12


class Triplets(NamedTuple):
    """Singular triplets `(B, m, k)`, `(B, k)`, `(B, n, k)`, values descending."""

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray


def triplets(a: np.ndarray) -> Triplets:
    """Singular triplets with more digits than `a` has, by one-sided Jacobi rotations."""
    if a.shape[1] < a.shape[2]:
        v, s, u = triplets(np.conj(np.swapaxes(a, 1, 2)))
        return Triplets(u, s, v)
    if np.finfo(a.dtype).eps > 1e-10:
        u, s, vh = np.linalg.svd(
            a.astype(np.result_type(a, np.float64)), full_matrices=False
        )
        return Triplets(u, s, np.conj(np.swapaxes(vh, 1, 2)))
    # The batch goes last: `A` on top of the identity, of which columns are rotated.
    batch, m, n = a.shape
    identity = np.broadcast_to(np.eye(n)[..., None], (n, n, batch))
    top = np.moveaxis(a, 0, -1).astype(np.result_type(a, np.longdouble))
    largest = np.max(np.abs(top), axis=(0, 1), initial=0)
    scale = np.where(largest > 0, largest, 1)
    z = np.concatenate([top / scale, identity.astype(top.dtype)])
    for _ in range(_SWEEPS):
        if not any([_rotate(z, m, i, j) for i in range(n) for j in range(i + 1, n)]):
            break
    s = np.sqrt(np.sum(np.abs(z[:m]) ** 2, axis=0))
    order = np.argsort(-s, axis=0)
    s, z = np.take_along_axis(s, order, 0), np.take_along_axis(z, order[None], 1)
    u = z[:m] / np.where(s > 0, s, 1)
    return Triplets(np.moveaxis(u, -1, 0), (s * scale).T, np.moveaxis(z[m:], -1, 0))


def _rotate(z: np.ndarray, m: int, i: int, j: int) -> bool:
    """Makes two columns orthogonal in the first m rows; whether any was not."""
    x, y = z[:, i].copy(), z[:, j].copy()
    p, q = (np.sum(np.abs(c[:m]) ** 2, axis=0) for c in (x, y))
    overlap = np.sum(np.conj(x[:m]) * y[:m], axis=0)
    size = np.abs(overlap)
    needs = size > np.finfo(size.dtype).eps * np.sqrt(p) * np.sqrt(q)
    if not np.any(needs):
        return False
    safe = np.where(needs, size, 1)
    phase = np.where(needs, overlap / safe, 1)
    tau = (q - p) / (2 * safe)
    t = np.where(tau < 0, -1, 1) / (np.abs(tau) + np.hypot(1, tau))
    t = np.where(needs, t, 0)
    c = 1 / np.hypot(1, t)
    z[:, i] = c * x - c * t * np.conj(phase) * y
    z[:, j] = c * t * phase * x + c * y
    return True


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products of batches, for NumPy has none with so many digits that is fast."""
    return np.sum(x[:, :, :, None] * y[:, None], axis=2)


def norms(x: np.ndarray) -> np.ndarray:
    """Frobenius norms of a batch."""
    return np.sqrt(np.sum(np.abs(x) ** 2, axis=(1, 2)))
