"""The public function `log_pdet`."""

from functools import partial
from typing import Literal, overload

from jax import Array
from jax.typing import ArrayLike

from jaxpinv._eager import compiled
from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._solver import Strategy, factorize


@overload
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: Literal[False] = False,
) -> Array: ...
@overload
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: Literal[True],
) -> tuple[Array, Array]: ...
@overload
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: bool = False,
) -> Array | tuple[Array, Array]: ...
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: bool = False,
) -> Array | tuple[Array, Array]:
    r"""Logarithm of the pseudo-determinant, or of the volume of a rectangular matrix.

    $$\sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} \log s_i ,$$

    which is $\log |\det A|$ if $A$ is square and nothing is truncated, and
    $\tfrac12 \log\det A A^H$ or $\tfrac12 \log\det A^H A$ if $A$ has full row or column
    rank, but computed without these products, which would lose half of the digits.

    Args:
        a: matrices, `(..., m, n)`, of the dtypes of `pinv`.
        rtol: as in `pinv`.
        hermitian: as in `pinv`. The sum is over absolute values of eigenvalues.
        atol: as in `pinv`.
        rcond: as in `pinv`.
        method: as in `pinv`.
        return_rank: whether to return the rank as well.

    Returns:
        The logarithms, real, of batch shape, in the precision of the floating dtype of
        `a`; the tolerances may enlarge the batch shape. With `return_rank=True` also the
        number of singular values that were kept, in JAX's default integer dtype. A zero
        matrix, or one without rows or columns, gives 0 and rank 0: singular values that are
        zero are always left out, so ask for the rank if they matter. Very large and very
        small elements neither overflow nor underflow, if the singular values do not. A
        matrix with an element that is not finite, or with a NaN tolerance, gives NaN and
        rank 0, as does one on which LAPACK fails, as in `pinv`.

    Raises:
        TypeError: as `pinv` does.
        ValueError: as `pinv` does.

    **Differentiability.** In `a`, to every order and in both modes, as `pinv`: the
    derivative along $E$ is $\mathrm{Re}\,\mathrm{tr}(A^+ E)$, even if nonzero singular
    values are truncated. So the gradient at a real matrix is the transpose of `pinv(a)`.
    Where the rank changes, the value jumps, and the derivative is the one for the rank that
    was found. With `hermitian=True`, gradients are Hermitian.

    **Cost.** On a CPU, without derivatives, a square matrix takes LU factors, and any other
    its Gram matrix, or two if it is not well-conditioned. Many real ones with sides of up
    to 40 take Gram-Schmidt. Random directions then show full rank, wrongly with a
    probability of 1e-13; if they do not, singular values without vectors follow. With
    derivatives, for many matrices with a side of up to 12, for small ones alone, on other
    platforms and on divided batches: the factorization of `pinv`, and if that is not a
    singular value decomposition, also the determinant of an n by n matrix, n being the
    shorter side. The gradient takes one more product of `2 m n^2` flops. Higher derivatives
    cost as much as those of `pinv`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> jacobian = jnp.array([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
        >>> bool(jnp.allclose(jaxpinv.log_pdet(jacobian), jnp.log(6.0)))
        True
        >>> gradient = jax.grad(jaxpinv.log_pdet)(jacobian)
        >>> bool(jnp.allclose(gradient, jaxpinv.pinv(jacobian).T))
        True

    Source:
        T. Yoshikawa, "Manipulability of robotic mechanisms", Int. J. Robotics Research 4
        (1985) 3-9, for the volume of a Jacobian; A. Holbrook, "Differentiating the pseudo
        determinant", Linear Algebra Appl. 548 (2018) 293-304, for the derivative.
    """
    tolerances = named_tolerances("log_pdet", rtol, rcond, atol)
    inputs = prepare("log_pdet", a, tolerances, hermitian=hermitian, method=method)
    strategy = Strategy(bool(hermitian), method)
    value, rank = _log_pdet(inputs, strategy=strategy, with_rank=bool(return_rank))
    return (value, rank) if return_rank else value


@partial(compiled, options=("strategy", "with_rank"))
def _log_pdet(
    inputs: Inputs, *, strategy: Strategy, with_rank: bool
) -> tuple[Array, Array | None]:
    """The logarithms, and the ranks if wanted, compiled once for every shape."""
    value, rank = factorize(inputs, strategy).log_pdet()
    return value, rank if with_rank else None
