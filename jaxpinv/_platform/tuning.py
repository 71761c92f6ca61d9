"""Constants of speed. None of them changes a result by more than rounding errors."""

from dataclasses import dataclass, fields
from functools import cached_property


@dataclass(frozen=True, repr=False)
class Tuning:
    """What counts as tiny, few, many and long in a plan.

    `python -m tests.benchmarks.compare` measures their effect, and
    `python -m tests.benchmarks.cliffs` checks that the time does not jump at any of them.
    Those of GPUs come from `python -m tests.benchmarks.accelerator`.

    Attributes:
        tiny: longest side of matrices whose products cost less in plain arithmetic,
            vectorized over the batch, than in a library call for each.
        tiny_complex: `tiny` for complex matrices.
        many: fewest matrices in a batch for which plain arithmetic costs less.
        repays: a factorization of m by n matrices without singular values saves time in
            proportion to `n^2 + m n / repays_rows`. If the sum over a batch is at least
            `repays`, about a thousand calls save more time than compiling takes.
        repays_tiny: `repays` for matrices of at most `tiny` columns.
        repays_rows: see `repays`.
        tall_columns: for tall matrices, whose singular values are those of a triangular
            factor, it saves time in proportion to `m n (n - tall_columns) / tall_products`.
        tall_products: see `tall_columns`.
        tall_vectors: if vectors of tall matrices are orthonormalized, it saves time in
            proportion to `n^2 tall_vectors`.
        cached: most elements of a matrix, or of the tall matrices in a LAPACK call, that
            fit in a cache together with what is computed from them.
        streams_from: fewest elements of a batch of tall matrices that is larger than every
            cache.
        streamed: for such a batch, it also saves time in proportion to `m n / streamed`.
        large_columns: `tall_columns` for matrices with more elements than `cached`.
        large_products: `tall_products` for these.
        tall_complex: `tall_columns` for complex matrices.
        large_complex: `large_columns` for complex matrices.
        products: most scalar multiplications in a batch for which a library call is faster
            than plain arithmetic, including its compilation over a thousand calls.
        compiled: XLA compiles a real product, and calls no library for it, if a factor is
            a vector, if it has at most this many rows and columns, or if its sums have at
            most this many terms.
        summed: most scalar multiplications of such a product for which one reduction in
            plain arithmetic is better. It compiles faster and takes longer.
        short: XLA's CPU backend reduces an axis of up to so many elements one matrix at a
            time.
        many_short: fewest matrices for which another reduction repays its compilation.
        long_axis: fewest rows of matrices whose largest elements are found faster in
            several steps: see `workarounds.largest_of_matrices`.
        sums: longest side of a product in single precision, the sum over a chunk of rows,
            for which plain arithmetic is faster than a library call for each chunk.
        sums_complex: most elements of a complex product of which that is true.
        thin: most terms of a sum of outer products for which plain arithmetic is faster.
        outer: most scalar multiplications of such a sum that is isolated from what uses
            it. That compiles faster, but takes longer for large arrays.
        joint: most columns in a batch for which derivatives along several directions
            repeat products with directions that all matrices share. That compiles faster,
            but takes longer if there are more columns.
        columns: most columns of real matrices that Gram-Schmidt orthonormalizes on a CPU;
            elsewhere, and of complex ones, it takes `tiny`.
        gram_schmidt: most elements of a matrix that Gram-Schmidt orthonormalizes faster
            than two Gram matrices do, because it sums over rows in plain arithmetic. On a
            CPU, real matrices may have more.
        short_columns: most rows of a matrix that Gram-Schmidt orthonormalizes on a CPU. A
            single column may have half as many more.
        rows_at_once: most rows that a sum of Gram-Schmidt reads at a time. LLVM vectorizes
            no loop that reads too many arrays, whose overlaps it would have to rule out.
        chunk: elements of the matrices processed at a time, so that they fit in a cache.
        tall_chunk: `chunk` for matrices with two Gram matrices, whose parts are smaller.
        vector_chunk: `chunk` for Gram-Schmidt on vectors of matrices, which makes more
            arrays: see `workarounds.STARTS_SLOWLY`.
        volumes: how many times the elements of a chunk the matrices have whose log-volumes
            are computed at a time, because that makes few arrays.
        volumes_rows: most rows of real matrices whose log-volumes are computed faster on
            vectors of matrices than by a library.
        volumes_vector: most matrices in such a vector. A power of two would put the rows of
            matrices where they compete for the same lines of a cache.
        sharp_volumes: `sharp` for log-volumes, if that repays its compilation.
        repays_sharp: fewest elements of a batch for which it does.
        vector: where arithmetic is vectorized over the batch, chunks are multiples of this,
            or for larger matrices half or a quarter of it.
        short_vectors: fewest columns of matrices for which a quarter is enough.
        beyond_caches: fewest elements of a batch whose higher derivatives gain from chunks.
        few: matrices without a certificate are searched for and decomposed one by one if
            a chunk of them would have at most this many. That takes half as long to
            compile.
        searched: largest batch for which `few` applies. In larger ones the search takes
            longer.
        sorted: most indices that a CPU brings into order by sorting, which compiles much
            faster than a cumulative sum, and takes little longer.
        at_once: most terms of a sum that CUDA computes in one kernel.
        parts: most parts of a longer sum that are added first, because that is unrolled.
        share: where loops over a batch gain nothing, only the matrices without a
            certificate are decomposed if they are at most 1 / `share` of the batch.
        rows_of_few: or if they have at most this many rows in all.
        jacobi: longest side of matrices that CUDA decomposes many of at a time.
        eigenvectors: on CUDA, shortest side of a single matrix for which eigenvectors are
            faster than singular vectors.
        qr_iteration: most rows or columns, whichever are fewer, of real matrices for which
            LAPACK finds singular vectors sooner by QR iteration than by divide and conquer.
        qr_iteration_complex: `qr_iteration` for complex matrices.
        long: fewest rows per column for which singular values are computed from the
            triangular factor. LAPACK does the same, with a slower QR factorization.
        tall: fewest rows per column for which singular vectors are computed from it, too.
        rows_of_qr: fewest rows per column in each of several QR factorizations of one
            matrix, so that the triangular factors of all are a much shorter matrix.
        repays_tall: fewest elements of a batch for which this repays its compilation.
        rank_rows: most rows of tiny matrices whose rank is certified faster than their
            singular values are computed.
        rank_share: certificates of ranks go on after a chunk if more than one matrix in
            `rank_share` has one.
        rank_chunks: fewest chunks for which ranks are certified: the first may be wasted.
        uncounted: most elements of a matrix whose rank is found sooner if XLA counts hardly
            any operation: see `workarounds.is_handed_over`. A complex number is three.
        sharp: least order at which certificates use norms that need products of matrices.
            A smaller matrix is seldom so near its cutoff that these norms decide.
        halves: fewest columns for which a product with a triangular or Hermitian matrix is
            computed by halves of the columns. For fewer, joining them takes as long as the
            zeros save.
        pivoted_qr: fewest columns for which QR with column pivoting is faster than singular
            vectors.
        repays_pivoted: `repays` for QR with column pivoting.
    """

    tiny: int = 8
    tiny_complex: int = 4
    many: int = 32
    repays: int = 1 << 14
    repays_tiny: int = 1 << 13
    repays_rows: int = 8
    tall_columns: int = 4
    tall_products: int = 140
    tall_vectors: int = 2
    cached: int = 1 << 17
    streams_from: int = 1 << 21
    streamed: int = 64
    large_columns: int = 6
    large_products: int = 190
    tall_complex: int = 12
    large_complex: int = 64
    products: int = 1 << 14
    compiled: int = 3
    summed: int = 1 << 11
    short: int = 8
    many_short: int = 256
    long_axis: int = 512
    sums: int = 15
    sums_complex: int = 15
    thin: int = 4
    outer: int = 1 << 16
    joint: int = 32
    columns: int = 12
    gram_schmidt: int = 768
    short_columns: int = 128
    rows_at_once: int = 32
    chunk: int = 1 << 13
    tall_chunk: int = 1 << 15
    vector_chunk: int = 1 << 10
    volumes: int = 4
    volumes_rows: int = 40
    volumes_vector: int = 80
    sharp_volumes: int = 80
    repays_sharp: int = 1 << 18
    vector: int = 64
    short_vectors: int = 5
    beyond_caches: int = 1 << 19
    few: int = 8
    searched: int = 1 << 13
    sorted: int = 1 << 15
    at_once: int = 1 << 14
    parts: int = 16
    share: int = 64
    rows_of_few: int = 1 << 12
    jacobi: int = 32
    eigenvectors: int = 128
    qr_iteration: int = 25
    qr_iteration_complex: int = 6
    long: int = 2
    tall: int = 32
    rows_of_qr: int = 8
    repays_tall: int = 1 << 15
    rank_rows: int = 64
    rank_share: int = 8
    rank_chunks: int = 8
    uncounted: int = 1 << 12
    sharp: int = 128
    halves: int = 128
    pivoted_qr: int = 32
    repays_pivoted: int = 1 << 15

    def most_columns(self, *, is_complex: bool, is_cpu: bool) -> int:
        """The most columns of matrices in batches that Gram-Schmidt orthonormalizes."""
        return self.columns if is_cpu and not is_complex else self.tiny

    def __hash__(self) -> int:
        """Kept, because each eager call looks for its program by this number."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash of all constants."""
        return hash(tuple(getattr(self, field.name) for field in fields(self)))

    def __repr__(self) -> str:
        """Only what differs from the default, because jaxprs print it in each equation."""
        values = ((x.name, getattr(self, x.name), x.default) for x in fields(self))
        changed = (f"{name}={value}" for name, value, usual in values if value != usual)
        return f"Tuning({', '.join(changed)})"


#: The constants that the public functions use.
DEFAULT = Tuning()
