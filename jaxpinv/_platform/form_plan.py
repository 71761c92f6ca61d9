"""The plan of a derivative, and of small products."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._shapes import is_static_shape

Formula = Literal["matrices", "vectors", "either"]
Product = Literal["dot", "summed", "unrolled", "isolated"]


@dataclass(frozen=True)
class FormPlan:
    """How a derivative is computed for a batch.

    Attributes:
        may_branch: whether the program may branch on a property of the whole batch.
        chunk: elements of the matrices processed at a time, or None for all.
        identity: whether products with U are skipped if U is the identity for "all"
            matrices of the batch, for "each" such matrix, or "never".
        each: products with U taken at a time if `identity` is "each".
        gram: whether products with the Gram matrix of V are taken "always", or "if any"
            matrix needs them. "apart" branches on this once for the whole derivative.
        broadcasts: whether the terms of all directions get all batch axes. For a few small
            matrices this takes fewer kernels, and the products that it repeats cost little.
    """

    may_branch: bool
    chunk: int | None = None
    identity: Literal["never", "all", "each"] = "never"
    each: int = 1
    gram: Literal["always", "if any", "apart"] = "always"
    broadcasts: bool = False


def form(
    shape: tuple,
    target: Target,
    *,
    formula: Formula,
    order: int,
    is_complex: bool = False,
    tuning: Tuning = DEFAULT,
) -> FormPlan:
    """The plan for a derivative of matrices `(..., m, n)`, `m >= n`.

    Args:
        shape: joint shape of the matrices and the directions.
        target: where the program runs.
        formula: products of matrices, products of matrices with vectors, or "either" if
            values decide.
        order: order of the derivative.
        is_complex: whether the matrices are complex.
        tuning: constants of speed.
    """
    may_branch, may_loop = target.is_whole, target.is_cpu and target.is_local
    *_, m, n = shape
    if not is_static_shape(shape) or not math.prod(shape):
        return FormPlan(may_branch)
    gram = _gram(shape, order, tuning) if may_branch and target.is_cpu else "always"
    is_small = target.is_local and math.prod(shape[:-2]) * n <= tuning.joint
    plan = partial(FormPlan, may_branch, gram=gram, broadcasts=is_small)
    # Gram-Schmidt, which factors batches of few columns, leaves no identity.
    is_batch = math.prod(shape[:-2]) > 1
    columns = tuning.most_columns(is_complex=is_complex, is_cpu=target.is_cpu)
    can_be_identity = may_branch and m == n > (columns if is_batch else tuning.tiny)
    # A first derivative makes few arrays and gains nothing from chunks; a higher one does.
    # Also, if a matrix is truncated, only its chunk takes the longer formula.
    if may_loop and (formula == "either" or (formula == "matrices" and order > 1)):
        is_large = math.prod(shape) >= tuning.beyond_caches
        identity = "all" if can_be_identity else "never"
        return plan(tuning.chunk if is_large else None, identity)
    if not can_be_identity:
        return plan()
    # With "all", a few matrices without a certificate would slow down all others.
    identity = "each" if may_loop and len(shape) > 2 else "all"
    return plan(None, identity, max(1, tuning.chunk // (m * n)))


def _gram(shape: tuple, order: int, tuning: Tuning) -> Literal["always", "if any", "apart"]:
    """When a derivative takes products with the Gram matrix of V."""
    *batch, _, n = shape
    if math.prod(batch) * n**3 <= tuning.products:
        return "always"
    # Within plain arithmetic a branch takes longer than all the rest, because it needs
    # arrays as operands and results that fusion would avoid.
    is_plain = n <= tuning.tiny and order == 1
    return "apart" if is_plain else "if any"


def product(
    x: tuple,
    y: tuple,
    *,
    is_complex: bool,
    has_long: bool = False,
    tuning: Tuning = DEFAULT,
) -> Product:
    """How the product `X^T Y` of batches `(..., m, k)` and `(..., m, j)` is computed.

    By a library ("dot"), or in plain arithmetic: "summed" in one reduction over the rows,
    or "unrolled" into products of a row of each. On CPUs an unrolled product may be
    "isolated" from what uses it. For many tiny matrices it is then one loop over the batch.

    Args:
        x: shape of `X`.
        y: shape of `Y`, with as many axes.
        is_complex: whether the product is complex.
        has_long: whether a product in its derivative sums over a long axis.
        tuning: constants of speed.
    """
    (*x_batch, m, k), (*y_batch, _, j) = x, y
    is_thin = isinstance(m, int) and 0 < m <= tuning.thin
    if not is_static_shape((*x, *y)):
        return "unrolled" if is_thin else "dot"
    many = max(*x_batch, *y_batch, 1, 1) >= tuning.many
    count = math.prod(map(max, x_batch, y_batch)) * m * k * j
    tiny = tuning.tiny_complex if is_complex else tuning.tiny
    if not is_complex and count <= tuning.summed and _is_compiled(m, k, j, tuning):
        return "summed"
    # Not for vectors: XLA would fuse chains of their products and recompute each link.
    if many and count > tuning.products and 1 < j and max(m, k, j) <= tiny:
        return "isolated"
    if not is_thin:
        return "dot"
    # XLA compiles a fused product again for each of its uses.
    return "isolated" if has_long and count <= tuning.outer else "unrolled"


def _is_compiled(m: int, k: int, j: int, tuning: Tuning) -> bool:
    """Whether XLA compiles each such product of real matrices, and calls no library."""
    return min(k, j) == 1 or min(m, max(k, j)) <= tuning.compiled


def sums_products(
    k: int,
    j: int,
    *,
    is_complex: bool,
    is_single: bool,
    is_cpu: bool,
    tuning: Tuning = DEFAULT,
) -> bool:
    """Whether sums over a few rows of products, `(k, j)` for each row, use no library.

    A call for each sum takes longer than a sum of few products, if these are complex or,
    on a CPU, in single precision. XLA compiles a real product of few columns, and calls no
    library.
    """
    if is_complex:
        return k * j <= tuning.sums_complex
    is_compiled = min(k, j) == 1 or max(k, j) <= tuning.compiled
    return is_cpu and is_single and not is_compiled and max(k, j) <= tuning.sums
