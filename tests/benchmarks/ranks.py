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
from jaxpinv._factors import Cutoff
from jaxpinv._platform import plan
from jaxpinv._primitives import gram_schmidt_of_plan
from tests.factorization.tiny_cases import CLASSES
from tests.jacobi_oracle import Triplets, norms, product, triplets
from tests.platform.targets import CPU

DTYPES = ("float32", "float64", "complex64", "complex128")
SHAPES = ((2, 2), (3, 3), (4, 3), (5, 5), (6, 7), (7, 2), (4, 8), (8, 6), (6, 6), (8, 8))
#: Besides the default; each matrix has one of them.
TOLERANCES = (0.1, 1e-3)
#: Largest error over eps times the condition, or over that of singular triplets.
WORST = 4
#: Beyond this condition times eps no digit is left to compare.
NO_DIGITS = 1e-2


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
    exact = product(known.v * inverse[:, None], np.conj(np.swapaxes(known.u, 1, 2)))
    size = norms(exact)
    is_same = (found == rank) & (found_by_svd == rank) & (condition * eps < NO_DIGITS)
    unit = np.where(size > 0, size, 1) * eps
    error, error_by_svd = (
        np.where(is_same, norms(y - exact) / unit, 0) for y in (x, by_svd)
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
    found = gram_schmidt_of_plan(plan.Plan(), CPU)(tall, cutoff)
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
