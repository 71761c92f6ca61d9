"""The plan of a program: chosen once, from shapes, dtype and where it runs.

Lowering rules make a plan and carry it out with factorizations, derivatives and loops that
know nothing about plans.
"""

import math
from dataclasses import dataclass
from typing import Literal

from jaxpinv._platform import decompositions, saving, workarounds
from jaxpinv._platform.decompositions import Route
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._shapes import evenly, is_static_shape

Method = Literal["auto", "direct", "svd"]
FullRank = Literal["lu", "cholesky_qr", "gram_schmidt"]


@dataclass(frozen=True)
class Plan:
    """How a batch of tall matrices is factored. A size of None means the whole batch.

    Attributes:
        full_rank: the factorization without singular values that is tried first, if any.
        sharply: whether certificates use norms that need products of matrices.
        halves: fewest columns of which products with triangular or Hermitian matrices are
            computed by halves.
        rows_at_once: most rows that a sum of Gram-Schmidt reads at a time.
        chunk: matrices on which `full_rank` is tried at a time.
        pivoted_qr: whether matrices not of full rank are tried by QR with column pivoting.
        by_halves: whether this QR branches on the rank, because it takes single matrices.
        remainder: matrices without a certificate that are decomposed at a time. If it is 1,
            they are also searched for one by one. If None, one without a certificate makes
            the program decompose the whole batch.
        loops: whether a loop decomposes them. If not, and more than `remainder` are left,
            the program decomposes the whole batch.
        packs: whether the factors of a matrix are replaced as one array, in one kernel.
        groups: number of parts of a batch divided over devices. Each part decomposes its
            own matrices without a certificate. If None, one without a certificate makes the
            program decompose the whole batch.
        triplets: how singular triplets are computed: by the library, by the library from a
            shorter matrix, or from eigenvectors of a Hermitian matrix made of that.
        values: how singular values alone are computed.
        by_qr_iteration: whether LAPACK computes triplets by QR iteration.
        values_by_qr_iteration: whether it computes singular values alone in that way.
        rows: most rows of a matrix that a QR factorization takes at a time.
        rows_call: such chunks of rows in each LAPACK call.
        svd_call: matrices in each LAPACK call for a decomposition.
        values_call: matrices in each LAPACK call for singular values alone.
        qr_call: matrices in each LAPACK call for a QR factorization with a square Q.
        retries: whether a matrix on which LAPACK fails is decomposed again.
        by_rank: whether ranks of tiny matrices are certified before values are computed.
        rank_chunk: matrices whose ranks are certified at a time.
        rank_remainder: matrices without a certified rank whose values are found at a time.
        uncounted: whether the rank of a matrix is found in hardly any operations that XLA
            counts.
        work: what not computing singular values saves, and the least that repays it.
    """

    full_rank: FullRank | None = None
    sharply: bool = False
    halves: int = DEFAULT.halves
    rows_at_once: int = DEFAULT.rows_at_once
    chunk: int | None = None
    pivoted_qr: bool = False
    by_halves: bool = False
    remainder: int | None = None
    loops: bool = True
    packs: bool = False
    groups: int | None = None
    triplets: Route = "svd"
    values: Route = "svd"
    by_qr_iteration: bool = False
    values_by_qr_iteration: bool = False
    rows: int | None = None
    rows_call: int | None = None
    svd_call: int | None = None
    values_call: int | None = None
    qr_call: int | None = None
    retries: bool = False
    by_rank: bool = False
    rank_chunk: int | None = None
    rank_remainder: int | None = None
    uncounted: bool = False
    work: tuple[float, float] = (0, 0)


def factorization(
    shape: tuple,
    target: Target,
    *,
    is_complex: bool,
    method: Method,
    tuning: Tuning = DEFAULT,
) -> Plan:
    """The plan for matrices `(..., m, n)`, `m >= n` unless only values are needed.

    Args:
        shape: shape of the batch.
        target: where the program runs.
        is_complex: whether the matrices are complex.
        method: whether a factorization without singular values is tried. With "auto" it is
            tried if this repays its compilation in about a thousand calls. If the
            partitioner divides the program, no factorization that loops over matrices is
            tried, because it would move them between devices.
        tuning: constants of speed.
    """
    *batch, m, n = shape
    may_loop = target.is_cpu and target.is_local
    # On other platforms each step of a loop would wait for the host.
    retries = may_loop and workarounds.may_not_converge(m, n)
    if not is_static_shape(shape):
        return Plan(retries=retries)
    if not math.prod(shape):
        return Plan()
    count = math.prod(batch)
    shorter = min(m, n)
    rows = max(workarounds.ROWS_OF_QR, tuning.rows_of_qr * n)
    # Many rows need it for accuracy (`ROWS_OF_QR`). A complex number counts as four.
    is_tall = m >= tuning.tall * n and (
        m > rows or count * m * n * (4 if is_complex else 1) >= tuning.repays_tall
    )
    full_rank = _full_rank(count, m, n, target, tuning, is_complex=is_complex)
    in_vectors = full_rank == "gram_schmidt"
    saved, needed = saving.compared(
        count,
        m,
        n,
        tuning,
        is_tall=is_tall and may_loop,
        is_complex=is_complex,
        in_vectors=in_vectors,
    )
    is_tried = method == "direct" or (method == "auto" and saved >= needed)
    # The decomposition of one column takes its norm: nothing else is faster.
    is_tried = is_tried and not (count == 1 == shorter)
    if not (is_tried and (target.is_local or (target.is_divided and in_vectors))):
        full_rank = None
    iterates, iterates_for_values = decompositions.by_qr_iteration(
        shorter, target, tuning, is_complex=is_complex
    )
    chunk = max(1, tuning.chunk // (m * n))
    columns = tuning.most_columns(is_complex=is_complex, is_cpu=target.is_cpu)
    is_few = n <= columns and m <= tuning.rank_rows
    by_rank = method != "svd" and is_few and count >= tuning.rank_chunks * chunk
    if not may_loop:
        few = max(count // tuning.share, tuning.rows_of_few // m, 1)
        some = few if target.is_local else 2 * tuning.vector
        is_cuda = target.is_cuda and target.is_local
        route: Route = "svd"
        if is_cuda:
            route = decompositions.route(count, max(m, n), shorter, tuning)
        return Plan(
            full_rank,
            sharply=n >= tuning.sharp,
            halves=tuning.halves,
            rows_at_once=tuning.rows_at_once,
            remainder=some,
            # A loop waits for the host at each step, a branch once.
            loops=not target.is_local,
            # Not a square U: packing would complete it to a basis even for values alone.
            packs=target.is_local and full_rank == "gram_schmidt" and m > n,
            # Typed axes would require the type of a group to name its devices.
            groups=None if target.has_typed_axes else target.devices,
            triplets=route,
            values=route,
            by_qr_iteration=iterates,
            values_by_qr_iteration=iterates_for_values,
            by_rank=by_rank and (target.is_local or target.is_divided),
            rank_remainder=some,
            work=(saved, needed),
        )

    def call(flops: int, matrices: int = count) -> int:
        # jaxlib counts complex arithmetic three times.
        return workarounds.matrices_of_one_call(matrices, flops * (3 if is_complex else 1))

    svd_call, is_long = call(10 * m * n * shorter), m >= tuning.long * n
    values_call = call(max(10 * n**3, 2 * m * n**2)) if is_long else svd_call
    if is_tall and count * m * n >= tuning.beyond_caches:
        svd_call = min(svd_call, evenly(count, max(1, tuning.cached // (m * n))))
    small = tuning.chunk if workarounds.STARTS_SLOWLY else tuning.vector_chunk
    vectors, rank_vectors = (
        evenly(count, _whole_vectors(size // (m * n), n, tuning), tuning.vector)
        for size in (small, tuning.chunk)
    )
    tried = chunk if m == n else max(1, tuning.tall_chunk // (m * n))
    # Gram-Schmidt seldom leaves more than a few matrices.
    left = 2 * tuning.vector if full_rank == "gram_schmidt" else chunk
    rest = min(chunk, left, svd_call)
    is_pivoted = (
        not target.is_exported
        # The triangular factor of a tall matrix has singular vectors that cost little.
        and not is_tall
        and n >= tuning.pivoted_qr
        and (method == "direct" or saved >= tuning.repays_pivoted)
    )
    remainder = 1 if rest <= tuning.few and count <= tuning.searched else rest
    return Plan(
        full_rank=full_rank,
        pivoted_qr=full_rank is not None and is_pivoted,
        by_halves=min(remainder, count) == 1,
        sharply=n >= tuning.sharp,
        halves=tuning.halves,
        rows_at_once=tuning.rows_at_once,
        chunk=vectors
        if full_rank == "gram_schmidt"
        else evenly(count, min(tried, call(n**3))),
        remainder=remainder,
        triplets="qr, svd" if is_tall else "svd",
        values="qr, svd" if is_long else "svd",
        by_qr_iteration=iterates,
        values_by_qr_iteration=iterates_for_values,
        rows=rows,
        rows_call=call(4 * rows * n**2, count * max(1, 2 * m // rows)),
        svd_call=svd_call,
        values_call=values_call,
        qr_call=call(4 * m**3),
        retries=retries,
        by_rank=by_rank,
        # One chunk decides whether the next is tried, so it is not too small.
        rank_chunk=rank_vectors,
        rank_remainder=min(chunk, 2 * tuning.vector, values_call),
        uncounted=count == 1
        and m * n * (3 if is_complex else 1) <= tuning.uncounted
        and workarounds.is_handed_over((12 if is_complex else 6) * m * n),
        work=(saved, needed),
    )


def is_tiny(
    m: int, n: int, tuning: Tuning = DEFAULT, *, columns: int | None = None
) -> bool:
    """Whether batches of m by n matrices, `m >= n`, are factored by Gram-Schmidt.

    They have at most `columns` columns, by default as many as on every platform.
    """
    if not is_static_shape((m, n)):
        return False
    most = tuning.tiny if columns is None else columns
    return n <= most and m * n <= tuning.gram_schmidt


def _whole_vectors(chunk: int, n: int, tuning: Tuning) -> int:
    """About `chunk` matrices of n columns: part of a vector takes as long as several."""
    if chunk >= tuning.vector:
        return chunk // tuning.vector * tuning.vector
    is_half = n < tuning.short_vectors or chunk >= tuning.vector // 2
    return max(1, tuning.vector // (2 if is_half else 4))


def _full_rank(
    count: int, m: int, n: int, target: Target, tuning: Tuning, *, is_complex: bool
) -> FullRank:
    """The factorization without singular values that suits a shape."""
    columns = tuning.most_columns(is_complex=is_complex, is_cpu=target.is_cpu)
    is_short = m <= tuning.short_columns * (1.5 if n == 1 else 1)
    if count > 1 and (is_short or not (target.is_cpu and target.is_local)):
        is_small = is_short and n <= columns and target.is_cpu and not is_complex
        if is_small or is_tiny(m, n, tuning, columns=columns):
            return "gram_schmidt"
    return "lu" if m == n else "cholesky_qr"
