"""What is measured: shapes, dtypes, ranks, operations, and the matrices themselves."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VALUE, GRADIENT, HVP = OPERATIONS = ("value", "gradient", "hvp")
FULL, DEFICIENT, MIXED = RANKS = ("full", "deficient", "mixed")

#: Share of rank-deficient matrices in a mixed batch.
MIXED_SHARE = 0.02

#: Different inputs that a method gets in turn.
INPUTS = 4

BATCHES = (
    (100_000, 3, 3),
    (20_000, 6, 7),
    (4_000, 8, 8),
    (2_000, 32, 32),
    (2_000, 64, 16),
    (100, 100, 100),
)
SINGLE = ((500, 500), (1000, 1000), (2000, 400), (20_000, 64))
GPU_SHAPES = ((10_000, 64, 6), (2_000, 33, 33), (1024, 32, 32), (512, 512))
QUICK_SHAPES = ((4_000, 6, 7), (2_000, 8, 8), (200, 200))

#: Where the rank and `hermitian` vary.
VARIED_SHAPES = ((20_000, 6, 7), (2_000, 32, 32), (500, 500))
HERMITIAN_SHAPES = ((4_000, 8, 8), (2_000, 32, 32), (500, 500))

#: The shapes that are complex.
COMPLEX_SHAPES = ((4_000, 8, 8), (2_000, 8, 8))


class Case(NamedTuple):
    """One row of the table: an operation on one kind of matrices."""

    shape: tuple[int, ...]
    dtype: str
    rank: str = FULL
    operation: str = VALUE
    hermitian: bool = False

    @property
    def rtol(self) -> float:
        """The cutoff that every method is given: the default of torch and ours."""
        return max(self.shape[-2:]) * float(np.finfo(self.dtype).eps)

    @property
    def size(self) -> str:
        """Name of the shape."""
        return size_name(self.shape)

    @property
    def label(self) -> str:
        """Name of the case."""
        kind = ["hermitian"] if self.hermitian else []
        return " ".join([self.size, self.dtype, self.rank, *kind, self.operation])


def size_name(shape: Sequence[int]) -> str:
    """Name of a shape."""
    *batch, m, n = shape
    return f"{batch[0]} x {m}x{n}" if batch else f"{m}x{n}"


def grid(platform: str, *, quick: bool) -> list[Case]:
    """All cases, the most telling first: single precision, then the other axes in turn.

    Deficient, mixed and Hermitian matrices are measured in single precision, at few
    shapes, value and gradient: the whole product would take hours and teach nothing new.
    """
    shapes: Sequence[tuple[int, ...]] = QUICK_SHAPES if quick else BATCHES + SINGLE
    if platform == "gpu" and not quick:
        shapes = (*shapes, *GPU_SHAPES)

    def full(bits: int) -> list[Case]:
        return [
            Case(shape, _dtype(shape, bits), FULL, operation)
            for operation in OPERATIONS
            for shape in (shapes[:1] if quick and operation == HVP else shapes)
        ]

    found = full(32)
    for operation in (GRADIENT,) if quick else (VALUE, GRADIENT):
        for shape in QUICK_SHAPES[:1] if quick else VARIED_SHAPES:
            dtype = _dtype(shape, 32)
            if not quick:
                found.append(Case(shape, dtype, DEFICIENT, operation))
            if len(shape) > 2:
                found.append(Case(shape, dtype, MIXED, operation))
        for shape in QUICK_SHAPES[1:2] if quick else HERMITIAN_SHAPES:
            dtype = _dtype(shape, 32)
            found.append(Case(shape, dtype, FULL, operation, hermitian=True))
    return found if quick else found + full(64)


def matrices(case: Case, seed: int = 0) -> list[NDArray]:
    """The inputs of a case, which every method gets in the same order."""
    rng = np.random.default_rng(seed)
    return [_matrices(case, rng) for _ in range(INPUTS)]


def directions(case: Case, seed: int = 1) -> tuple[NDArray, NDArray]:
    """A cotangent of the result and a tangent of the input."""
    rng = np.random.default_rng(seed)
    *batch, m, n = case.shape
    cotangent = _gaussian(rng, (*batch, n, m), case.dtype)
    tangent = _gaussian(rng, case.shape, case.dtype)
    if case.hermitian:
        cotangent, tangent = _symmetric(cotangent), _symmetric(tangent)
    return cotangent.astype(case.dtype), tangent.astype(case.dtype)


def _matrices(case: Case, rng: np.random.Generator) -> NDArray:
    """One input of a case."""
    *batch, m, n = case.shape
    a = _gaussian(rng, case.shape, case.dtype)
    if case.hermitian:
        a = _symmetric(a)
    count = {FULL: 0, DEFICIENT: 1, MIXED: MIXED_SHARE}[case.rank]
    if count:
        rank = max(1, 3 * min(m, n) // 4)
        left = _gaussian(rng, (*batch, m, rank), case.dtype)
        right = _gaussian(rng, (*batch, rank, n), case.dtype)
        deficient = (
            rng.permutation(np.arange(batch[0]) < count * batch[0]) if batch else True
        )
        a = np.where(np.asarray(deficient)[..., None, None], left @ right, a)
    return a.astype(case.dtype)


def _gaussian(rng: np.random.Generator, shape: Sequence[int], dtype: str) -> NDArray:
    """Standard normal numbers in double precision, real or complex."""
    x = rng.standard_normal(shape)
    return x + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else x


def _symmetric(x: NDArray) -> NDArray:
    """Hermitian part."""
    return (x + np.swapaxes(x, -1, -2).conj()) / 2


def _dtype(shape: tuple[int, ...], bits: int) -> str:
    """Name of the dtype of a shape in single or double precision."""
    return f"complex{2 * bits}" if shape in COMPLEX_SHAPES else f"float{bits}"
