"""The public function `null_projection`."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpinv._arrays import matmul
from jaxpinv._problem import factored


def null_projection(
    a: ArrayLike,
    x: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
) -> Array:
    r"""Orthogonal projection of vectors onto the null space, `(I - pinv(a) @ a) @ x`.

    $$P x = x - \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} v_i\, (v_i^H x),$$

    the motion $x$ of a redundant arm as far as it leaves its hand where it is. Singular
    values that are cut count as zero.

    Args:
        a: matrices, `(..., m, n)`, of any numeric dtype.
        x: a vector, `(n,)`, or an array of matrices, `(..., n, k)`, as `b` of `lstsq`.
        rtol: as in `lstsq`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.

    Returns:
        The projections, in the shape of `x` but for the batch, which broadcasts, and in the
        dtype that `a` and `x` have in common. A matrix that is not finite gives NaN.

    Raises:
        TypeError: as `lstsq` does.
        ValueError: as `lstsq` does, for the columns of `a`.

    **Differentiability.** As the solution of `lstsq`, in `a` and `x`. Derivatives lose
    digits with the condition of the kept singular values, which the value does not.

    **Cost.** As `lstsq`, with `method="auto"`. The n by n projector is never formed.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> a = jnp.array([[1.0, 1.0, 0.0]])
        >>> p = jaxpinv.null_projection(a, jnp.array([2.0, 0.0, 3.0]))
        >>> bool(jnp.allclose(p, jnp.array([1.0, -1.0, 3.0]), atol=1e-5))
        True

    Source:
        A. Liégeois, "Automatic supervisory control of the configuration and behavior of
        multibody mechanisms", IEEE Trans. Syst. Man Cybern. 7 (1977) 868-871.
    """
    tolerances = {"rtol": rtol, "atol": atol}
    problem, [columns] = factored(
        "null_projection", a, tolerances, hermitian=hermitian, columns=("x", x, "columns")
    )
    formula = columns - problem.solve(matmul(problem.a, columns))
    # The formula loses digits with the condition, which the singular vectors do not.
    exact = jax.lax.stop_gradient(problem.null_projection(columns))
    projected = _with_derivative_of(exact, formula).astype(problem.dtype)
    return projected[..., 0] if jnp.ndim(x) == 1 else projected


@jax.custom_jvp
def _with_derivative_of(x: Array, formula: Array) -> Array:
    """`x`, with the derivatives of a formula that is less accurate."""
    return x


@_with_derivative_of.defjvp
def _with_derivative_of_jvp(primals, tangents):
    return _with_derivative_of(*primals), tangents[1]
