"""Ranks and errors of random tiny matrices: `python -m tests.benchmarks.ranks`.

Many matrices of sides from 2 to 8, of every rank, and of spectra on which a rank may go
wrong, with the default tolerance and with larger ones. The reference has twice as many
digits, or 11 more bits for double precision. A rank may differ from it only if a singular
value is within `2 max(m, n) eps s_1` of the cutoff, and an error may be 4, or 4 times that
of `method="svd"`, in units of `eps` times the condition. The status is 1 if any is beyond.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxpinv
from jaxpinv._factorization import gram_schmidt
from jaxpinv._factors import Cutoff
from jaxpinv._platform import workarounds
from tests.factorization.tiny_cases import CLASSES

DTYPES = ("float32", "float64", "complex64", "complex128")
SHAPES = ((2, 2), (3, 3), (4, 3), (5, 5), (6, 7), (7, 2), (4, 8), (8, 6), (6, 6), (8, 8))
#: Besides the default; each matrix has one of them.
TOLERANCES = (0.1, 1e-3)
#: Largest error over eps times the condition, or over that of singular triplets.
WORST = 4
#: Beyond this condition times eps no digit is left to compare.
NO_DIGITS = 1e-2
_SWEEPS = 12


class Triplets(NamedTuple):
    """Singular triplets `(B, m, k)`, `(B, k)`, `(B, n, k)`, values descending."""

    u: np.ndarray
    s: np.ndarray
    v: np.ndarray


class Counts(NamedTuple):
    """What was found of the matrices of one dtype.

    Attributes:
        tried: so many matrices.
        near: of these, with a value near the cutoff.
        near_differ: of these, with another rank, by `pinv` or by `matrix_rank`.
        near_differ_by_svd: the same by singular triplets.
        wrong: other ranks where no value is near the cutoff.
        certified: matrices of which no singular values are computed.
        certified_differ: of these, with another rank than the reference.
        compared: matrices whose pseudo-inverses were compared.
        too_large: errors beyond the limit.
        error: the largest error over eps times the condition.
        excess: the largest error over its limit.
    """

    tried: int = 0
    near: int = 0
    near_differ: int = 0
    near_differ_by_svd: int = 0
    wrong: int = 0
    certified: int = 0
    certified_differ: int = 0
    compared: int = 0
    too_large: int = 0
    error: float = 0.0
    excess: float = 0.0

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        """Of both."""
        sums = (x + y for x, y in zip(self[:9], other[:9], strict=True))
        largest = (max(x, y) for x, y in zip(self[9:], other[9:], strict=True))
        return Counts(*sums, *largest)

    @property
    def is_right(self) -> bool:
        """Whether nothing is beyond the limits."""
        return not (self.wrong or self.too_large)

    def sentence(self) -> str:
        """One line."""
        return (
            f"{self.tried} matrices, {self.wrong} wrong ranks; "
            f"{self.near / self.tried:.1%} near the cutoff, where {self.near_differ} ranks "
            f'differ ({self.near_differ_by_svd} by method="svd"); '
            f"{self.certified / self.tried:.1%} certified, where {self.certified_differ} "
            f"ranks differ; {self.compared} compared, {self.too_large} errors too large, "
            f"the largest {self.error:.2f} eps cond, or {self.excess:.2f} of its limit"
        )


def geometric(rng, batch: int, m: int, n: int, dtype: str) -> np.ndarray:
    """Any rank, values of which in any order some are alike, and any condition."""
    k = min(m, n)
    exponents = np.sort(rng.uniform(0, 1, (batch, k)))
    exponents = np.where(rng.random((batch, 1)) < 0.5, np.linspace(0, 1, k), exponents)
    # Repeated values: rounded to a few steps.
    steps = rng.integers(1, 4, (batch, 1))
    is_repeated = rng.random((batch, 1)) < 0.3
    exponents = np.where(is_repeated, np.round(exponents * steps) / steps, exponents)
    digits = rng.uniform(0, -1.1 * np.log10(np.finfo(dtype).eps), (batch, 1))
    s = 10 ** (-digits * exponents)
    s = np.where(np.arange(k) < rng.integers(0, k + 1, (batch, 1)), s, 0)
    double = np.result_type(dtype, np.float64)
    u, v = (_orthonormal(rng, batch, rows, k, double) for rows in (m, n))
    scale = 10 ** rng.uniform(-3, 3, (batch, 1, 1))
    return ((u * s[:, None]) @ v.conj().swapaxes(1, 2) * scale).astype(dtype)


def matrices(rng, batch: int, m: int, n: int, dtype: str) -> np.ndarray:
    """A batch of matrices of all kinds, in random order."""
    kinds: list[Callable[..., np.ndarray]] = list(CLASSES.values())
    some = -(-batch // (2 * len(kinds)))
    tall, wide = max(m, n), min(m, n)
    found = [kind(rng, some, tall, wide, np.dtype(dtype)) for kind in kinds]
    a = np.concatenate(found)[: batch // 2]
    a = a if m >= n else np.swapaxes(a, 1, 2)
    rest = geometric(rng, batch - len(a), m, n, dtype)
    return rng.permutation(np.concatenate([a, rest]))


def tolerances(rng, batch: int, m: int, n: int, dtype: str) -> np.ndarray:
    """Of half of the matrices the default, and of the others larger ones."""
    limits = np.finfo(dtype)
    default = max(m, n) * limits.eps
    chosen = rng.choice([default, *TOLERANCES], batch, p=[0.5, 0.25, 0.25])
    return chosen.astype(limits.dtype)


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


def kept_of(known: Triplets, rtol: np.ndarray) -> np.ndarray:
    """Ranks, `(B,)`."""
    return np.sum(known.s > rtol[:, None].astype(known.s.dtype) * known.s[:, :1], axis=1)


def measure(a: np.ndarray, rtol: np.ndarray) -> Counts:
    """What is found of a batch."""
    eps, (batch, m, n) = float(np.finfo(a.dtype).eps), a.shape
    known = triplets(a)
    rank = kept_of(known, rtol)
    cutoff = rtol.astype(known.s.dtype) * known.s[:, 0]
    band = 2 * max(m, n) * eps * known.s[:, 0]
    near = np.any(np.abs(known.s - cutoff[:, None]) <= band[:, None], axis=1)
    x, found = map(np.asarray, _solved(a, rtol, "direct"))
    by_svd, found_by_svd = map(np.asarray, _solved(a, rtol, "svd"))
    alone = np.asarray(_ranks(a, rtol))
    certified, found_certified = map(np.asarray, _certified(a, rtol))
    differ = (found != rank) | (alone != rank)
    s = np.concatenate([known.s, np.zeros((batch, 1))], axis=1)
    rows, is_kept = np.arange(batch), np.arange(min(m, n)) < rank[:, None]
    gap = s[rows, np.maximum(rank, 1) - 1] - np.where(rank > 0, s[rows, rank], 0)
    unit = np.where(gap > 0, gap, 1)
    condition = np.where(rank > 0, np.where(gap > 0, s[:, 0] / unit, np.inf), 1)
    inverse = np.where(is_kept, 1, 0) / np.where(is_kept, known.s, 1)
    exact = _product(known.v * inverse[:, None], np.conj(np.swapaxes(known.u, 1, 2)))
    size = _norms(exact)
    is_same = (found == rank) & (found_by_svd == rank) & (condition * eps < NO_DIGITS)
    unit = np.where(size > 0, size, 1) * eps
    error, error_by_svd = (
        np.where(is_same, _norms(y - exact) / unit, 0) for y in (x, by_svd)
    )
    condition = np.where(is_same, condition, 1)
    excess = error / np.maximum(WORST * condition, WORST * error_by_svd)
    return Counts(
        tried=batch,
        near=int(near.sum()),
        near_differ=int(np.sum(near & differ)),
        near_differ_by_svd=int(np.sum(near & (found_by_svd != rank))),
        wrong=int(np.sum(~near & differ)),
        certified=int(certified.sum()),
        certified_differ=int(np.sum(certified & (found_certified != rank))),
        compared=int(is_same.sum()),
        too_large=int(np.sum(~(excess <= 1))),
        error=float(np.max(error / condition)),
        excess=float(np.max(excess)),
    )


@partial(jax.jit, static_argnames="method")
def _solved(a, rtol, method):
    """The pseudo-inverses and the ranks."""
    return jaxpinv.pinv(a, rtol, method=method, return_rank=True)


@jax.jit
def _certified(a, rtol):
    """Where Gram-Schmidt alone certifies a rank, and which."""
    tall = a if a.shape[1] >= a.shape[2] else jnp.conj(jnp.swapaxes(a, 1, 2))
    cutoff = Cutoff(rtol, jnp.zeros_like(rtol))
    found = gram_schmidt.factor(
        tall, cutoff, isolate=workarounds.prevent_fusion, may_branch=True, by_folds=True
    )
    assert found.s is not None
    return found.certified, jnp.sum(found.s > 0, axis=-1)


@jax.jit
def _ranks(a, rtol):
    """The ranks alone."""
    return jaxpinv.matrix_rank(a, rtol)


def _orthonormal(rng, batch: int, m: int, k: int, dtype) -> np.ndarray:
    """`(B, m, k)` with orthonormal columns."""
    x = rng.standard_normal((batch, m, k))
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(x.shape)
    return np.linalg.qr(x)[0]


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


def _product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Products of batches, for NumPy has none with so many digits that is fast."""
    return np.sum(x[:, :, :, None] * y[:, None], axis=2)


def _norms(x: np.ndarray) -> np.ndarray:
    """Frobenius norms of a batch."""
    return np.sqrt(np.sum(np.abs(x) ** 2, axis=(1, 2)))


def of_dtype(dtype: str, count: int, shapes: Sequence[tuple[int, int]] = SHAPES) -> Counts:
    """So many matrices of a dtype, as many of each shape."""
    found = Counts()
    for m, n in shapes:
        rng = np.random.default_rng([m, n, len(dtype), ord(dtype[0])])
        batch = -(-count // len(shapes))
        given = (batch, m, n, dtype)
        one = measure(matrices(rng, *given), tolerances(rng, *given))
        found = found + one
        if not one.is_right:
            print(f"beyond the limit: {dtype} {m}x{n}: {one.sentence()}", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line for each dtype. Returns 1 if a rank or an error is beyond the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ranks",
        description="ranks and errors of random tiny matrices against more digits",
    )
    parser.add_argument("--count", type=int, default=100_000, help="matrices of each dtype")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    is_right = True
    for dtype in options.dtypes:
        found = of_dtype(dtype, options.count)
        print(f"{dtype}: {found.sentence()}", flush=True)
        is_right &= found.is_right
        jax.clear_caches()
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
