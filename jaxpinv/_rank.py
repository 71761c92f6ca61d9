"""The public function `matrix_rank`."""

from jax import Array
from jax.typing import ArrayLike

from jaxpinv._problem import factored


def matrix_rank(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
) -> Array:
    r"""Number of singular values above the cutoff of `pinv`, the numerical rank.

    $$\#\{ i : s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1) \}$$

    Args:
        a: matrices, `(..., m, n)`, of any numeric dtype.
        rtol: as in `pinv`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.

    Returns:
        The ranks, int32, of batch shape: those of `pinv` and `lstsq`, from the same
        factorisation. A matrix that is not finite has rank 0, and so has one with a NaN
        tolerance.

    Raises:
        TypeError: as `pinv` does.
        ValueError: as `pinv` does.

    **Differentiability.** None: it is a whole number.

    **Cost.** One factorisation, as in `pinv` with `method="auto"`.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> int(jaxpinv.matrix_rank(jnp.ones((3, 2))))
        1

    Source:
        The cutoff is that of `pinv`.
    """
    tolerances = {"rtol": rtol, "atol": atol}
    problem, _ = factored("matrix_rank", a, tolerances, hermitian=hermitian)
    return problem.rank()
