"""The public function `lstsq`."""

from functools import partial

from jax.typing import ArrayLike

from jaxpinv import _damped
from jaxpinv._damping import is_everywhere
from jaxpinv._eager import compiled
from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._results import LstsqResult
from jaxpinv._solver import Strategy, factorize


def lstsq(
    a: ArrayLike,
    b: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_singular_values: bool = True,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> LstsqResult:
    r"""Least-squares solution of minimum norm, `pinv(a) @ b`, without forming `pinv(a)`.

    It is the shortest $x$ that minimizes $\|b - A_k x\|_2$, where $A_k$ is $A$ without the
    singular values that `pinv` truncates:

    $$x = A^+ b = \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)}
    s_i^{-1} v_i\, (u_i^H b) .$$

    Args:
        a: matrices, `(..., m, n)`, of the dtypes of `pinv`: overdetermined, square or
            underdetermined, of any rank.
        b: a vector, `(m,)`, or an array of matrices, `(..., m, k)`. As in
            `numpy.linalg.solve` of NumPy 2 it is a vector only if it has one axis: write
            `b[..., None]` for a batch of vectors. Batch shapes broadcast.
        rtol: as in `pinv`, computed in the common dtype of `a` and `b`. If the dtype of `a`
            is shorter, the default is at least its `eps`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.
        rcond: as in `pinv`.
        method: as in `pinv`.
        return_singular_values: whether to compute the singular values.
        damp: as in `pinv`. The solution then minimizes $\|b - A x\|^2 + \|D x\|^2$: ridge
            regression, Tikhonov regularization, or a Levenberg-Marquardt step.
        damp_scale: as in `pinv`; for instance, 0 for an intercept.

    Returns:
        The solution, residuals, rank and singular values, in the order of PyTorch. With
        `return_singular_values=False` the last one is None. The shapes depend only on the
        shapes of the arguments: unlike in NumPy and PyTorch, there are residuals for every
        rank and shape. A matrix that is not finite gives NaN and rank 0, as does one on
        which LAPACK fails, as in `pinv`. A column of `b` that is not finite gives a column
        of NaN. All other results are not affected. With a damping, the residuals, rank and
        singular values are still those of `a` alone, and the rank is found as by
        `matrix_rank`.

    Raises:
        TypeError: if an argument is not numeric or a tolerance is not real.
        ValueError: as `pinv` does, and if `a` and `b` differ in their number of rows.

    **Differentiability.** The solution and the residuals have derivatives in `a` and `b`,
    as in `pinv`. The singular values are differentiable as in `jnp.linalg.svd`: beyond
    first order not where they are repeated. With the default `max(m, n) * eps`, truncated
    values count as zero, so the derivative may differ from that of `pinv` by the error of
    rounding `a`.

    **Cost.** One factorization as in `pinv`, shared by the solution and its derivatives.
    The solution takes products of matrices with vectors, `O(m n k)`. So do its derivatives,
    which form nothing n by m but the gradient itself. They cost as much as those of `pinv`
    if a tolerance truncates more than rounding errors in any matrix of the batch, or of its
    chunk if the batch is divided into chunks, and always if there is a tolerance and the
    compiler divides the program over devices. In `jax.shard_map`, each device decides for
    itself. If matrices are factored directly, the singular values take a decomposition of
    their own; their derivatives always do. `jit` removes what is not used; outside `jit`,
    `return_singular_values=False` does. A program is compiled once for every shape, dtype
    and set of options.

    With a damping and no tolerance, matrices that are factored directly take a Cholesky
    factor of the normal equations. Corrections recover the digits that it lacks. Where they
    might not converge, a second Cholesky factor replaces the first. Where they still might
    not, near a singular `[A; D]`, the solution and its first derivatives each take a
    decomposition.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> a = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
        >>> x, residuals, rank, _ = jaxpinv.lstsq(a, jnp.array([1.0, 2.0, 4.0]))
        >>> bool(jnp.allclose(x, jnp.array([5 / 6, 1.5]), atol=1e-5)), int(rank)
        (True, 2)
        >>> bool(jnp.allclose(residuals, 1 / 6, atol=1e-5))
        True

    Source:
        R. Penrose, "On best approximate solutions of linear matrix equations", Proc. Camb.
        Phil. Soc. 52 (1956) 17-19; G. H. Golub and V. Pereyra, "The differentiation of
        pseudo-inverses and nonlinear least squares problems whose variables separate",
        SIAM J. Numer. Anal. 10 (1973) 413-432, eq. 4.12, for the derivative.
    """
    tolerances = named_tolerances("lstsq", rtol, rcond, atol)
    damping = (damp, damp_scale)
    inputs = prepare(
        "lstsq",
        a,
        tolerances,
        hermitian=hermitian,
        method=method,
        columns=("b", b, "rows"),
        damping=damping,
    )
    strategy = Strategy(bool(hermitian), method, is_damped=is_everywhere(damping))
    return _lstsq(inputs, strategy=strategy, with_values=bool(return_singular_values))


@partial(compiled, options=("strategy", "with_values"))
def _lstsq(inputs: Inputs, *, strategy: Strategy, with_values: bool) -> LstsqResult:
    """The result, compiled once for every shape, its singular values if wanted."""
    matrix = (factorize if inputs.damp is None else _damped.factorize)(inputs, strategy)
    b = matrix.columns
    x = matrix.solve(b)
    residuals = matrix.given.residuals(b, x)
    if inputs.columns is not None and inputs.columns.ndim == 1:
        x, residuals = x[..., 0], residuals[..., 0]
    values = matrix.singular_values() if with_values else None
    return LstsqResult(x.astype(matrix.dtype), residuals, matrix.rank(), values)
