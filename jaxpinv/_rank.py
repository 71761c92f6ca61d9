"""The public function `matrix_rank`."""

from functools import partial

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpinv._eager import compiled
from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._linalg import transpose
from jaxpinv._primitives import kept_p
from jaxpinv._solver import Strategy, promote


def matrix_rank(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
) -> Array:
    r"""Number of singular values above the cutoff of `pinv`, the numerical rank.

    $$\#\{ i : s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1) \}$$

    Args:
        a: matrices, `(..., m, n)`, of any numeric dtype.
        rtol: as in `pinv`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.
        rcond: as in `pinv`.
        method: as in `pinv`.

    Returns:
        The ranks, in the default integer dtype of JAX, of batch shape. The rule is that of
        `pinv` and `lstsq`, but the singular values are computed without vectors, so one
        that is within rounding of the cutoff may be kept here and truncated there, or vice
        versa. A matrix that is not finite, or has a NaN tolerance, has rank 0.

    Raises:
        TypeError: as `pinv` does.
        ValueError: as `pinv` does.

    **Differentiability.** None: the rank is an integer, and its tangent is zero.

    **Cost.** The singular values without vectors, `O(m n min(m, n))`, as in
    `jnp.linalg.matrix_rank`. If one side is at least twice as long as the other, they are
    computed from the triangular factor. Unless `method="svd"`, large batches of matrices
    with at most 64 rows and 8 columns, or vice versa, first go through Gram-Schmidt, which
    may prove the rank without singular values. If `jit` divides such a batch over devices,
    these communicate a single number.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> int(jaxpinv.matrix_rank(jnp.ones((3, 2))))
        1

    Source:
        The cutoff is that of `pinv`.
    """
    tolerances = named_tolerances("matrix_rank", rtol, rcond, atol)
    inputs = prepare("matrix_rank", a, tolerances, hermitian=hermitian, method=method)
    return _matrix_rank(inputs, strategy=Strategy(bool(hermitian), method))


@partial(compiled, options=("strategy",))
def _matrix_rank(inputs: Inputs, *, strategy: Strategy) -> Array:
    """The ranks, compiled once for every shape."""
    given = promote(inputs, strategy)
    # Not conjugated, which takes time and changes no singular value.
    tall = transpose(given.a) if given.is_wide else given.a
    kept = kept_p.bind(
        tall, given.rtol, given.atol, method=strategy.method, tuning=strategy.tuning
    )
    return jnp.sum(kept, axis=-1, dtype=int)
