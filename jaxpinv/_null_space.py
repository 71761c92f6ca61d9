"""The public functions `null_projection` and `null_space`."""

from functools import partial

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxpinv import _damped, _rules
from jaxpinv._damping import is_everywhere
from jaxpinv._eager import compiled
from jaxpinv._factorization.complement import in_front
from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._linalg import matmul
from jaxpinv._primitives import complement_p
from jaxpinv._results import NullSpaceResult
from jaxpinv._solver import FactoredMatrix, Strategy, factorize


def null_projection(
    a: ArrayLike,
    x: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> Array:
    r"""Orthogonal projection of vectors onto the null space, `(I - pinv(a) @ a) @ x`.

    $$P x = x - \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} v_i\, (v_i^H x),$$

    the part of a joint motion $x$ of a redundant arm that does not move its hand. Truncated
    singular values count as zero.

    Args:
        a: matrices, `(..., m, n)`, of any numeric dtype.
        x: a vector, `(n,)`, or an array of matrices, `(..., n, k)`, as `b` of `lstsq`.
        rtol: as in `lstsq`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.
        rcond: as in `pinv`.
        method: as in `pinv`.
        damp: as in `pinv`. The result is then $x - A_D^+ A x$ with the damped inverse: no
            projection, but it does not jump where the rank changes.
        damp_scale: as in `pinv`.

    Returns:
        The projections, in the shape of `x`, except that batch shapes broadcast, and in the
        common dtype of `a` and `x`. A matrix that is not finite gives NaN, as does one on
        which LAPACK fails, as in `pinv`.

    Raises:
        TypeError: as `lstsq` does.
        ValueError: as `lstsq` does, for the columns of `a`.

    **Differentiability.** As the solution of `lstsq`, in `a` and `x`. Derivatives, unlike
    the value, lose digits if the kept singular values are ill-conditioned.

    **Cost.** As `lstsq`. The n by n projector is never formed.

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
    tolerances = named_tolerances("null_projection", rtol, rcond, atol)
    damping = (damp, damp_scale)
    inputs = prepare(
        "null_projection",
        a,
        tolerances,
        hermitian=hermitian,
        method=method,
        columns=("x", x, "columns"),
        damping=damping,
    )
    strategy = Strategy(bool(hermitian), method, is_damped=is_everywhere(damping))
    return _null_projection(inputs, strategy=strategy)


@partial(compiled, options=("strategy",))
def _null_projection(inputs: Inputs, *, strategy: Strategy) -> Array:
    """The projections, compiled once for every shape."""
    matrix = (factorize if inputs.damp is None else _damped.factorize)(inputs, strategy)
    projected = matrix.null_projection(matrix.columns).astype(matrix.dtype)
    is_vector = inputs.columns is not None and inputs.columns.ndim == 1
    return projected[..., 0] if is_vector else projected


def null_space(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
) -> NullSpaceResult:
    r"""Orthonormal basis of the null space, of static size, and its dimension.

    $$A_k N = 0, \qquad N^H N = \mathrm{diag}(1, \dots, 1, 0, \dots, 0), \qquad
    N N^H = I - A^+ A,$$

    where $A_k$ is $A$ without the singular values that `pinv` truncates.

    Args:
        a: matrices, `(..., m, n)`, of any numeric dtype.
        rtol: as in `pinv`.
        hermitian: as in `pinv`.
        atol: as in `pinv`.
        rcond: as in `pinv`.
        method: as in `pinv`.

    Returns:
        The basis, `(..., n, n)`, in the floating dtype of `a`, and the nullity, n minus the
        rank, in the default integer dtype, of batch shape. The first `nullity` columns of
        the basis are orthonormal; the others are zero. Outside `jit`, `basis[:, :nullity]`
        has the shape and the span of `scipy.linalg.null_space`. A matrix that is not
        finite, or has a NaN tolerance, gives a basis of NaN and nullity 0.

    Raises:
        TypeError: as `pinv` does.
        ValueError: as `pinv` does.

    **Differentiability.** The basis is defined up to a rotation, the same for the value and
    the derivative, so only functions of the projector $N N^H$ have meaningful derivatives.
    These are exact to every order and in both modes, wherever `pinv` is differentiable.
    With the derivative $dP$ of the projector $P = I - A^+ A$, the derivative of the basis
    is $dN = dP\, N$. If only zeros are truncated, this is $-A^+ E N$ along $E$.

    **Cost.** One factorization as in `pinv`, and if `m < n` a QR factorization of an n by m
    matrix with the full `Q`. The derivative costs as much as that of the solution of
    `lstsq` with n right-hand sides.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> a = jnp.array([[1.0, 1.0, 0.0]])
        >>> basis, nullity = jaxpinv.null_space(a)
        >>> int(nullity), bool(jnp.allclose(a @ basis, 0, atol=1e-6))
        (2, True)
        >>> bool(jnp.allclose(basis @ basis.T, jnp.eye(3) - jaxpinv.pinv(a) @ a, atol=1e-6))
        True

    Source:
        G. H. Golub and V. Pereyra, "The differentiation of pseudo-inverses and nonlinear
        least squares problems whose variables separate", SIAM J. Numer. Anal. 10 (1973)
        413-432, for the derivative of the projector.
    """
    tolerances = named_tolerances("null_space", rtol, rcond, atol)
    inputs = prepare("null_space", a, tolerances, hermitian=hermitian, method=method)
    return _null_space(inputs, strategy=Strategy(bool(hermitian), method))


@partial(compiled, options=("strategy",))
def _null_space(inputs: Inputs, *, strategy: Strategy) -> NullSpaceResult:
    """The basis and the nullity, compiled once for every shape."""
    matrix = factorize(inputs, strategy)
    basis, nullity = _basis(matrix)
    onto_corange = matrix.solve(matrix.given.a)
    basis = _moving_off(basis, onto_corange).astype(matrix.dtype)
    nullity = nullity.astype(jnp.result_type(int))
    return NullSpaceResult(matrix.in_batch(basis, 2), matrix.in_batch(nullity, 0))


def _basis(matrix: FactoredMatrix) -> tuple[Array, Array]:
    """The basis, `(..., n, n)`, and the nullity, without derivatives."""
    u, s, v, kept, _ = matrix.factors
    if matrix.given.is_wide:
        basis, nullity = complement_p.bind(u, kept)
    else:
        basis, nullity = in_front(v, ~kept)
    undefined = jnp.any(jnp.isnan(s), axis=-1)
    basis = jnp.where(undefined[..., None, None], jnp.nan, basis)
    return basis, jnp.where(undefined, 0, nullity)


def _moving_off(basis: Array, projector: Array) -> Array:
    """`basis` of the null space of an orthogonal projector, both `(..., n, n)`."""
    [basis] = moving_off_p.bind(basis, projector)
    return basis


def _moving_off_change(results, primals, dp):
    # Of the result, which moves too, or second derivatives would be wrong.
    [basis] = results
    return [-matmul(dp, basis)]


moving_off_p = _rules.attached("moving_off", 1, 1, _moving_off_change)
