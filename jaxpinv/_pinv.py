"""The public functions `pinv` and `pinverse`."""

import warnings
from functools import partial
from typing import Literal, overload

from jax import Array
from jax.typing import ArrayLike

from jaxpinv._inputs import Inputs, Method, named_tolerances, prepare
from jaxpinv._solver import Strategy, compiled, factorize


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
) -> Array | tuple[Array, Array]:
    r"""Moore-Penrose pseudo-inverse of a matrix or of a batch of matrices.

    With the singular value decomposition $A = \sum_i s_i u_i v_i^H$,

    $$A^+ = \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} s_i^{-1} v_i u_i^H .$$

    Args:
        a: matrices, `(..., m, n)`, of integers, bools, float16, bfloat16, float32,
            float64, complex64 or complex128. Integers and bools are computed in the
            default floating dtype, floats shorter than float32 in float32.
        rtol: singular values up to `rtol` times the largest one are truncated. A number or
            an array that broadcasts against the batch shape of `a`, traced or not. If
            neither tolerance is given it is `max(m, n) * eps` of the dtype that is computed
            in, or `eps` of the dtype of `a` if that is larger, as for bfloat16 and float16:
            rounding to it turns zeros into singular values of up to about a third of that
            times the largest one. If only `atol` is given it is this default where
            `atol` is zero, and zero elsewhere. A default above 0.1, which truncates
            singular values that are not small, gives a `UserWarning`.
        hermitian: whether the matrices are Hermitian. Then only their lower triangles
            are read, and the cutoff is on the absolute values of the eigenvalues.
        atol: singular values up to `atol`, in the unit of `a`, are truncated. Zero by
            default.
        rcond: NumPy's name for `rtol`.
        method: "svd" takes singular values of every matrix. "direct" first tries a cheaper
            factorization, and takes singular values only where that does not prove that
            none is truncated. "auto" does as "direct" where that repays its compilation in
            about a thousand calls, and else as "svd".
        return_rank: whether to return the rank as well.

    Returns:
        The pseudo-inverses, `(..., n, m)`, in the floating dtype of `a`; the tolerances
        may enlarge the batch shape. With `return_rank=True` also the number of singular
        values that were kept, in JAX's default integer dtype, of batch shape. A matrix
        with an element that is not finite gives NaN and rank 0, and so does a NaN
        tolerance; the other matrices of a batch are not touched by it. So does a finite
        matrix, of more than 25 columns and rows, on which LAPACK does not converge, nor on
        any of eight multiples.

    Raises:
        TypeError: if `a` is not of an accepted dtype, or sparse, or a tolerance is not
            real. A bool is no tolerance: `hermitian` is the third argument.
        ValueError: if `a` has fewer than two axes, both `rtol` and `rcond` are given, a
            tolerance is negative and not traced, shapes do not broadcast, `hermitian`
            matrices are not square, or `method` is not one of the three.

    **Differentiability.** In `a`, to every order and in both modes, wherever no singular
    value sits on the cutoff. The derivative is that of the function above, also where
    values that are not zero are truncated; repeated singular values and zero matrices are
    no exceptions. Where the rank changes the pseudo-inverse jumps, and the derivative is
    that of the rank that was found. With `hermitian=True` tangents and gradients are
    Hermitian, to rounding. Tolerances have derivative zero.

    **Cost.** With `method="direct"` a matrix is first factored without singular values, and
    if that proves that none is truncated it is enough: by LU if the matrix is square, by
    two Gram matrices if not, and by Gram-Schmidt in batches of matrices of at most 512
    elements of which one side is at most 8. On a CPU another matrix of 32 columns and rows
    or more, unless `hermitian`, goes by QR with column pivoting, and a second QR, if that
    proves that the cutoff truncates rounding alone. What is not proven takes one thin
    singular value decomposition (`eigh` if `hermitian`). That program takes longer to
    compile, so `method="auto"` chooses it where about a thousand calls repay that: where
    the number of matrices times `n^2 + m n / 8`, n being the shorter side, is at least
    16384, or 32768 for pivoting. If n is at most 8, 8192 are enough, but then for 32
    matrices or more. On a CPU batches go through in chunks. With jaxlib before 0.12 a call
    of LAPACK gets so few matrices that it does not divide them among threads, because such
    calls may wait for each other forever. The result for a matrix does not depend on the
    others of its batch; one with several tolerances goes by the largest. Where LAPACK does
    not converge on a matrix the decomposition is taken again on a CPU, of a multiple, but
    not in a program that the compiler divides over devices, nor on other platforms, where
    the host would have to be asked. A program that the compiler divides over devices, and
    one of symbolic sizes, takes singular values of every matrix; inside `jax.shard_map` it
    need not. There is one factorization for the value and all derivatives. Outside of `jit`
    a program is compiled once for every shape, dtype and set of options. A first derivative
    of tall matrices takes four products of `2 m n^2` flops, or two if the matrices are
    square and all proven, and keeps `m n + n^2 + 2 n + 1` numbers. A second one takes the
    flops of some twenty such products, a third of some ninety.

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
    inputs = prepare("pinv", a, tolerances, hermitian=hermitian, method=method)
    strategy = Strategy(bool(hermitian), method, with_pinv=True)
    x, rank = _pinv(inputs, strategy=strategy, with_rank=bool(return_rank))
    return (x, rank) if return_rank else x


def pinverse(input: ArrayLike, rcond: ArrayLike = 1e-15) -> Array:
    r"""Pseudo-inverse under the name and with the default cutoff of `torch.pinverse`.

    $$A^+ = \sum_{s_i > \mathrm{rcond}\, s_1} s_i^{-1} v_i u_i^H$$

    Deprecated, as it is in PyTorch: `pinverse(a, rcond)` is `pinv(a, rtol=rcond)`, and a
    call gives a `DeprecationWarning`.

    Args:
        input: matrices, `(..., m, n)`, of any numeric dtype.
        rcond: the `rtol` of `pinv`. Its default is below the rounding of float32, where it
            truncates next to nothing.

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
    matrix = factorize(inputs, strategy)
    return matrix.pinv(), matrix.rank() if with_rank else None
