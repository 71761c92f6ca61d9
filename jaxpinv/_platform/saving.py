"""Whether a factorization without singular values repays its compilation."""

from jaxpinv._platform.tuning import DEFAULT, Tuning


def compared(
    count: int,
    m: int,
    n: int,
    tuning: Tuning = DEFAULT,
    *,
    is_tall: bool,
    is_complex: bool,
    in_vectors: bool,
) -> tuple[float, float]:
    """The work saved by not computing singular values, and that which compilation costs.

    Both are in units of the same time.

    Args:
        count: number of matrices.
        m: their rows.
        n: their columns, no more than rows.
        tuning: constants of speed.
        is_tall: whether singular values would be those of a triangular factor.
        is_complex: whether the matrices are complex.
        in_vectors: whether the factorization is arithmetic on vectors of matrices.
    """
    needed = tuning.repays_tiny if n <= tuning.tiny or in_vectors else tuning.repays
    if not is_tall:
        return count * (n * n + m * n / tuning.repays_rows), needed
    if in_vectors:
        return tuning.tall_vectors * count * n * n, needed
    columns, products = tuning.tall_columns, tuning.tall_products
    if is_complex:
        columns = tuning.tall_complex
    if m * n > tuning.cached:
        columns = tuning.large_complex if is_complex else tuning.large_columns
        products = tuning.large_products
    saved = count * m * n * max(0, n - columns) / products
    if min(count, n) > 1 and count * m * n >= tuning.streams_from:
        # Each chunk stays in a cache, from the matrices to their pseudo-inverses.
        saved += count * m * n / tuning.streamed
    return saved, needed
