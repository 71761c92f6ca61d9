"""How libraries decompose matrices of a shape."""

from typing import Literal

from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import Tuning

Route = Literal["svd", "qr, svd", "qr, eigh"]


def route(count: int, m: int, n: int, tuning: Tuning) -> Route:
    """How CUDA decomposes matrices, `m >= n`.

    It decomposes many matrices at a time only if they are small. For larger ones, only
    eigenvectors are computed for many at a time.
    """
    if n > tuning.jacobi and (count > 1 or m > n or n >= tuning.eigenvectors):
        return "qr, eigh"
    return "qr, svd" if m > tuning.jacobi and count > 1 else "svd"


def by_qr_iteration(
    n: int, target: Target, tuning: Tuning, *, is_complex: bool
) -> tuple[bool, bool]:
    """Whether LAPACK finds triplets, and values alone, sooner by QR iteration.

    The shorter sides of the matrices are n. Divide and conquer hands small matrices, and
    values alone, to QR iteration as well, after more copies. Exported programs may call
    only divide and conquer.
    """
    may_iterate = target.is_cpu and not target.is_exported
    most = tuning.qr_iteration_complex if is_complex else tuning.qr_iteration
    return may_iterate and n <= most, may_iterate
