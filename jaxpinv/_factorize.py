"""The public function `factorize`."""

from functools import partial

from jax.typing import ArrayLike

from jaxpinv import _solver
from jaxpinv._eager import compiled
from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._solver import Strategy
from jaxpinv._stored import Factorization
from jaxpinv._uses import Stored, stored


def factorize(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
) -> Factorization:
    r"""Factors matrices once, for many uses of their pseudo-inverse.

    $$A V = U\,\mathrm{diag}(s), \qquad
    A^+ = \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} s_i^{-1} v_i u_i^H,$$

    with orthonormal columns $u_i$. `pinv`, `lstsq`, `null_projection` and `log_pdet` begin
    with this factorization. Share it if you need two of them, such as a solution and a
    motion in the null space for a robot's step, or if right-hand sides or dampings come one
    by one, as in a regularization path or the search for the step of a trust region.

    Args:
        a: matrices, `(..., m, n)`, of the dtypes of `pinv`.
        rtol: as in `pinv`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.
        rcond: as in `pinv`.
        method: as in `pinv`.

    Returns:
        A `Factorization`, with the methods `pinv`, `solve`, `null_projection`,
        `singular_values` and `log_pdet`, and the property `rank`. The first three take a
        damping, `damp`. The tolerances may enlarge its batch shape.

    Raises:
        TypeError: as `pinv` does.
        ValueError: as `pinv` does.

    **Differentiability.** The results of the methods have the same derivatives in `a` as
    those of the functions: see `Factorization`.

    **Cost.** One factorization as in `pinv`. It keeps `2 m n + n^2 + 2 n + 3` numbers for
    each matrix, n being the shorter side. The methods state their cost. Their derivatives
    cost as much as those of the functions.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> jacobian = jnp.array([[1.0, 1.0, 0.0]])
        >>> factored = jaxpinv.factorize(jacobian)
        >>> motion = factored.solve(jnp.array([4.0]))
        >>> motion = motion + factored.null_projection(jnp.array([2.0, 0.0, 3.0]))
        >>> bool(jnp.allclose(motion, jnp.array([3.0, 1.0, 3.0]), atol=1e-5))
        True
        >>> int(factored.rank)
        1

    Source:
        As `pinv`.
    """
    tolerances = named_tolerances("factorize", rtol, rcond, atol)
    inputs = prepare("factorize", a, tolerances, hermitian=hermitian, method=method)
    return Factorization(_factorize(inputs, strategy=Strategy(bool(hermitian), method)))


@partial(compiled, options=("strategy",))
def _factorize(inputs: Inputs, *, strategy: Strategy) -> Stored:
    """The factorization, compiled once for every shape."""
    return stored(_solver.factorize(inputs, strategy), inputs)
