"""Named tuples that public functions return and exported programs can serialize."""

from contextlib import suppress
from typing import Any, NamedTuple

from jax import Array, export


class LstsqResult(NamedTuple):
    """What `lstsq` returns.

    Attributes:
        solution: `(..., n)` or `(..., n, k)`, in the dtype of `a` and `b`.
        residuals: squared 2-norms of the columns of `b - a @ solution`, `(...)` or
            `(..., k)`, real.
        rank: number of singular values that were kept, in the default integer dtype,
            `(...)`.
        singular_values: all of them, descending, `(..., min(m, n))`, real; None if they
            were not computed.
    """

    solution: Array
    residuals: Array
    rank: Array
    # `Any` stands for None, so that callers who keep them need no check for None.
    singular_values: Array | Any


class NullSpaceResult(NamedTuple):
    """What `null_space` returns.

    Attributes:
        basis: `(..., n, n)`, in the floating dtype of `a`. Its first `nullity` columns are
            an orthonormal basis, and the others are zero.
        nullity: the dimension of the null space, in the default integer dtype, `(...)`.
    """

    basis: Array
    nullity: Array


for _result in (LstsqResult, NullSpaceResult):
    # If the module is imported again, the name is taken.
    with suppress(ValueError):
        export.register_namedtuple_serialization(
            _result, serialized_name=f"jaxpinv.{_result.__name__}"
        )
