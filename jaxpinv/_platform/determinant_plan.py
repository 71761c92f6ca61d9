"""The plan for determinants of a batch."""

import math
from dataclasses import dataclass

from jaxpinv._platform import workarounds
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._shapes import evenly, is_static_shape


@dataclass(frozen=True)
class DeterminantPlan:
    """How determinants of a batch are computed.

    Attributes:
        by_gram_schmidt: whether Gram-Schmidt computes them, or else LU.
        chunk: matrices processed at a time, or None for all.
    """

    by_gram_schmidt: bool = False
    chunk: int | None = None


def determinant(
    shape: tuple, target: Target, *, is_complex: bool, tuning: Tuning = DEFAULT
) -> DeterminantPlan:
    """The plan for the determinants of matrices `(..., n, n)`.

    Args:
        shape: shape of the batch.
        target: where the program runs.
        is_complex: whether the matrices are complex.
        tuning: constants of speed.
    """
    if not is_static_shape(shape) or not math.prod(shape) or not target.is_local:
        return DeterminantPlan()
    *batch, n, _ = shape
    count = math.prod(batch)
    by_gram_schmidt = n <= tuning.tiny and count >= tuning.many
    if not target.is_cpu:
        return DeterminantPlan(by_gram_schmidt)
    if by_gram_schmidt:
        most = max(1, tuning.chunk // (n * n))
        return DeterminantPlan(by_gram_schmidt, evenly(count, most, tuning.vector))
    flops = n**3 * (3 if is_complex else 1)
    return DeterminantPlan(chunk=workarounds.matrices_of_one_call(count, flops))


def volumes_in_vectors(
    shape: tuple, tuning: Tuning = DEFAULT, *, is_complex: bool
) -> int | None:
    """How many matrices `(..., m, n)`, `m >= n`, are made into vectors for log-volumes.

    None if there are few, or if a library factors them faster.
    """
    *batch, m, _ = shape
    count = math.prod(batch)
    if is_complex or m > tuning.volumes_rows or count < tuning.vector:
        return None
    return evenly(count, tuning.volumes_vector, tuning.vector // 4)
