"""The public functions `pinv` and `pinverse`."""

import warnings
from functools import partial
from typing import Literal, overload

from jax import Array
from jax.typing import ArrayLike

from jaxpinv import _damped
from jaxpinv._damping import is_everywhere
from jaxpinv._eager import compiled
from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._solver import Strategy, factorize


@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: Literal[False] = False,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> Array: ...
@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: Literal[True],
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> tuple[Array, Array]: ...
@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: bool = False,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> Array | tuple[Array, Array]: ...
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    hermitian: bool = False,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    method: Method = "auto",
    return_rank: bool = False,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> Array | tuple[Array, Array]:
    r"""Moore-Penrose pseudo-inverse of a matrix or of a batch of matrices.

    With the singular value decomposition $A = \sum_i s_i u_i v_i^H$,

    $$A^+ = \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} s_i^{-1} v_i u_i^H .$$

    Args:
        a: matrices, `(..., m, n)`, of integers, bools, float16, bfloat16, float32,
            float64, complex64 or complex128. Integers and bools are computed in the
            default floating dtype, float16 and bfloat16 in float32.
        rtol: singular values up to `rtol` times the largest one are truncated. A number or
            an array that broadcasts against the batch shape of `a`, traced or not. If
            neither tolerance is given, the default is `max(m, n) * eps`, with the `eps` of
            the dtype of the computation, but at least the `eps` of the dtype of `a`, which
            is larger for bfloat16 and float16: rounding to these turns zeros into singular
            values of up to about `eps / 3` times the largest one. If only `atol` is given,
            `rtol` is this default where `atol` is zero, and zero elsewhere. A default above
            0.1, which truncates singular values that are not small, gives a `UserWarning`.
        hermitian: whether the matrices are Hermitian. Then only their lower triangles
            are read, and the cutoff is on the absolute values of the eigenvalues.
        atol: singular values up to `atol`, in the unit of `a`, are truncated. Zero by
            default.
        rcond: NumPy's name for `rtol`.
        method: "svd" computes the singular values of every matrix. "direct" first tries a
            cheaper factorization, and computes singular values only if that does not prove
            which ones are truncated. "auto" is "direct" if its longer compilation pays off
            within about a thousand calls, else "svd".
        return_rank: whether to return the rank as well.
        damp: with a damping the result is $(A^H A + D^2)^{-1} A^H$, with $D$ the diagonal
            matrix of `damp * damp_scale`: the first m columns of `pinv` of $[A; D]$. If all
            unknowns have the damping d, $1 / s_i$ becomes $s_i / (s_i^2 + d^2)$. A number
            or an array that broadcasts against the batch shape, in the unit of `a`, traced
            or not, not negative. With 0 the result is the ordinary pseudo-inverse.
        damp_scale: a factor for the damping of each unknown, `(..., n)`, traced or not, not
            negative, 0 for an unknown that is not damped. Ones by default.

    Returns:
        The pseudo-inverses, `(..., n, m)`, in the floating dtype of `a`; tolerances and
        damping may enlarge the batch shape. With `return_rank=True` also the number of
        singular values that were kept, in JAX's default integer dtype, of batch shape. A
        matrix with an element that is not finite, or a NaN tolerance, gives NaN and rank 0;
        the other matrices of the batch are not affected. A finite matrix with more than 25
        columns and rows also gives NaN and rank 0 if LAPACK converges neither on it nor on
        any of eight multiples of it.

    Raises:
        TypeError: if `a` has another dtype or is sparse, or if a tolerance is not a real
            number. A bool is not a tolerance: `hermitian` is the third argument, and it
            cannot be traced.
        ValueError: if `a` has fewer than two axes, both `rtol` and `rcond` are given, a
            tolerance is negative and not traced, shapes do not broadcast, `hermitian`
            matrices are not square, or `method` is not one of the three.

    **Damping.** If every unknown is damped, no singular value is truncated by default;
    tolerances that you pass refer to `[A; D]`. If some unknowns are not damped, the default
    is the usual one, and a damping larger than the largest element of the matrix does not
    raise it. The rank is that of `a`. If `a` is of deficient rank and the damping is tiny,
    rounding errors in its zero singular values are amplified to `eps * s_1 / d^2`. If `d^2`
    underflows, below about 1e-19 for elements of size 1 in float32, derivatives at such a
    matrix are NaN. A positive damping below 3e-29 of the largest element in float32, or
    1e-231 in float64, counts as that. A damping that is not finite gives NaN, and the rank
    remains that of `a`. A negative damping raises an error unless it is traced.

    **Differentiability.** In `a`, to every order and in both modes, wherever no singular
    value sits on the cutoff. The derivative is that of the function above, even if nonzero
    singular values are truncated, if singular values are repeated, or if the matrix is
    zero. Where the rank changes, the pseudo-inverse jumps, and the derivative is the one
    for the rank that was found. If every unknown is damped, nothing jumps: the value and
    its derivatives, also in `damp` and `damp_scale`, exist for every matrix. With
    `hermitian=True`, tangents and gradients are Hermitian up to rounding. The derivative
    with respect to a tolerance is zero.

    **Cost.** `method="svd"` computes a thin singular value decomposition of every matrix,
    or `eigh` if `hermitian`. `method="direct"` first tries a factorization without singular
    values, and keeps the result if it proves which singular values are truncated:

    - batches of matrices with one side of at most 8 and at most 768 elements: pivoted
      Gram-Schmidt, for any rank. On a CPU, the other side is at most 128 (192 for a single
      row or column), and real matrices may have one side of up to 12 and more elements;
    - other square matrices: LU, for full rank;
    - other matrices: two Gram matrices, for full rank;
    - on a CPU, matrices with both sides of at least 32 that do not have full rank, unless
      `hermitian` or one side is 32 times the other: QR with column pivoting, if only
      rounding errors are truncated.

    A matrix without such a proof is decomposed as with `method="svd"`. So are all matrices
    in programs with symbolic sizes and, except by Gram-Schmidt, in programs that the
    compiler divides over devices. Inside `jax.shard_map`, everything is tried.

    The direct program takes longer to compile. `method="auto"` uses it if it saves more
    than that in about a thousand calls. With n the shorter side, this is the case if the
    number of matrices times `n^2 + m n / 8` is at least 16384 (8192 for Gram-Schmidt and
    n up to 8), or 32768 for pivoted QR. Other limits hold if one side is 32 times the
    other: `python -m jaxpinv plan` prints the reason for a shape. Outside
    `jit`, one program is compiled for every shape, dtype and set of options.

    The result for a matrix does not depend on the others in its batch. With several
    tolerances for one matrix, the proof uses the largest. On a CPU, batches are divided
    into chunks. With jaxlib before 0.12, each LAPACK call gets so few matrices that it does
    not divide them among threads, because such calls may wait for each other forever. If
    LAPACK does not converge on a matrix, a CPU decomposes a multiple of it, except in a
    program that the compiler divides over devices. Other platforms do not try again.

    The value and all derivatives share one factorization. A first derivative of tall
    matrices takes four products of `2 m n^2` flops, or two if all matrices are square and
    proven to have full rank. It keeps `m n + n^2 + 2 n + 1` numbers. A second derivative
    takes as many flops as about twenty such products, a third as about ninety.

    With a damping, `method="direct"` tries a Cholesky factorization of `A^H A + D^2` with
    one correction of its error. Otherwise it computes the singular values of `a`, or of
    `[A; D]` with `damp_scale`. Derivatives take products with `m + n` rows, or with `m`
    rows if the damping is not traced and nowhere zero.

    Example:
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> a = jnp.array([[1.0, 2.0], [2.0, 4.0], [0.0, 0.0]])
        >>> x, rank = jaxpinv.pinv(a, return_rank=True)
        >>> int(rank), bool(jnp.allclose(x, a.T / 25, atol=1e-6))
        (1, True)

    Source:
        R. Penrose, "A generalized inverse for matrices", Proc. Camb. Phil. Soc. 51 (1955)
        406-413, for the definition; V. Noferini, "A formula for the Fréchet derivative of
        a generalized matrix function", SIAM J. Matrix Anal. Appl. 38 (2017) 434-457, for
        the derivative.
    """
    tolerances = named_tolerances("pinv", rtol, rcond, atol)
    damping = (damp, damp_scale)
    inputs = prepare(
        "pinv", a, tolerances, hermitian=hermitian, method=method, damping=damping
    )
    strategy = Strategy(
        bool(hermitian), method, with_pinv=True, is_damped=is_everywhere(damping)
    )
    x, rank = _pinv(inputs, strategy=strategy, with_rank=bool(return_rank))
    return (x, rank) if return_rank else x


def pinverse(input: ArrayLike, rcond: ArrayLike = 1e-15) -> Array:
    r"""Pseudo-inverse with the name and the default cutoff of `torch.pinverse`.

    $$A^+ = \sum_{s_i > \mathrm{rcond}\, s_1} s_i^{-1} v_i u_i^H$$

    Deprecated, as in PyTorch: `pinverse(a, rcond)` is `pinv(a, rtol=rcond)`, and a
    call gives a `DeprecationWarning`.

    Args:
        input: matrices, `(..., m, n)`, of any numeric dtype.
        rcond: the `rtol` of `pinv`. Its default is below the rounding of float32 and
            truncates almost nothing there.

    Returns:
        The pseudo-inverses, `(..., n, m)`, in the floating dtype of `input`.

    Raises:
        TypeError: as `pinv` does.
        ValueError: as `pinv` does.

    **Differentiability.** As `pinv`.

    **Cost.** As `pinv`.

    Example:
        >>> import warnings
        >>> import jax.numpy as jnp
        >>> import jaxpinv
        >>> with warnings.catch_warnings(action="ignore"):
        ...     x = jaxpinv.pinverse(jnp.array([[2.0, 0.0]]))
        >>> x.tolist()
        [[0.5], [0.0]]

    Source:
        `torch.pinverse` of PyTorch.
    """
    warnings.warn(
        "jaxpinv.pinverse is deprecated: use jaxpinv.pinv(input, rtol=rcond)",
        DeprecationWarning,
        stacklevel=2,
    )
    tolerances = {"rcond": rcond, "atol": None}
    inputs = prepare("pinverse", input, tolerances, hermitian=False)
    return _pinv(inputs, strategy=Strategy(with_pinv=True), with_rank=False)[0]


@partial(compiled, options=("strategy", "with_rank"))
def _pinv(
    inputs: Inputs, *, strategy: Strategy, with_rank: bool
) -> tuple[Array, Array | None]:
    """The pseudo-inverse, and the rank if wanted, compiled once for every shape."""
    matrix = (factorize if inputs.damp is None else _damped.factorize)(inputs, strategy)
    return matrix.pinv(), matrix.rank() if with_rank else None
