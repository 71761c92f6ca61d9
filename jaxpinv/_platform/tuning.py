"""Constants of speed. None of them changes a result by more than rounding."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, repr=False)
class Tuning:
    """What counts as short, small, many and long in a plan.

    `python -m tests.benchmarks.compare` measures their effect, and
    `python -m tests.benchmarks.cliffs` checks that the time does not jump at any of them.

    Attributes:
        tiny: longest side of matrices whose products cost less in plain arithmetic,
            vectorized over the batch, than in a library call for each.
        tiny_complex: the same for complex matrices.
        many: fewest matrices for which that holds.
        repays: a factorization without singular values of m by n matrices saves time like
            `n^2 + m n / repays_rows`. From this sum over a batch on it saves more in about
            a thousand calls than it takes to compile.
        repays_tiny: the same for many tiny matrices.
        repays_few: the same for a few matrices of as few columns, but many rows.
        repays_rows: see `repays`.
        products: scalar products in a batch up to which a library call is faster, counting
            what plain arithmetic takes to compile over a thousand calls.
        thin: most terms of a sum of outer products for which plain arithmetic is faster.
        gram_schmidt: most elements of a matrix that Gram-Schmidt orthonormalizes faster
            than two Gram matrices do: its sums over rows are plain ones.
        chunk: elements of the matrices that go through at a time, so that they stay in a
            cache.
        vector: a chunk of matrices whose arithmetic goes along the batch is a multiple of
            this.
        beyond_caches: fewest elements of a batch whose higher derivatives gain by chunks.
        few: most matrices of a chunk without a certificate that are looked for and
            decomposed one by one, which takes half as long to compile.
        searched: largest batch in which that is done: beyond the search takes longer.
        share: where loops over a batch gain nothing, all its matrices without a certificate
            are decomposed in so many parts, not to decompose all if few are left.
        long: from so many rows for each column singular values are those of the triangular
            factor: LAPACK does the same, with a slower QR factorization.
        rank_rows: most rows of tiny matrices whose rank is certified faster than their
            singular values are computed.
        rank_share: one over the share of a chunk that is to be certified to go on so.
        rank_chunks: fewest chunks of a batch: the time of the first one may be lost.
        by_columns: largest order of LU factors that are inverted by columns.
        by_rows: largest order of those that are inverted by rows, in products; all columns
            at once beyond.
        rows: so many rows at a time then.
        sharp: least order at which norms are computed that take products of matrices. A
            smaller matrix is seldom so near its cutoff that they decide.
        columns: columns of a Gram matrix that are orthonormalized at a time.
        pivoted_qr: fewest columns of matrices of which QR with column pivoting is faster
            than singular vectors.
        repays_pivoted: the same as `repays`, for that.
    """

    tiny: int = 8
    tiny_complex: int = 4
    many: int = 32
    repays: int = 1 << 14
    repays_tiny: int = 1 << 13
    repays_few: int = 1 << 16
    repays_rows: int = 8
    products: int = 1 << 14
    thin: int = 4
    gram_schmidt: int = 512
    chunk: int = 1 << 13
    vector: int = 64
    beyond_caches: int = 1 << 19
    few: int = 8
    searched: int = 1 << 13
    share: int = 8
    long: int = 2
    rank_rows: int = 64
    rank_share: int = 8
    rank_chunks: int = 8
    by_columns: int = 48
    by_rows: int = 300
    rows: int = 16
    sharp: int = 128
    columns: int = 24
    pivoted_qr: int = 32
    repays_pivoted: int = 1 << 15

    def __repr__(self) -> str:
        """What differs from the default: jaxprs print it in each equation."""
        values = ((x.name, getattr(self, x.name), x.default) for x in fields(self))
        changed = (f"{name}={value}" for name, value, usual in values if value != usual)
        return f"Tuning({', '.join(changed)})"


#: The constants that the public functions use.
DEFAULT = Tuning()
