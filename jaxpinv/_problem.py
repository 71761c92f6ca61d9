"""What every public function begins with: a matrix checked, promoted and factored."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxpinv import _checks
from jaxpinv._arrays import adjoint, mirror_lower
from jaxpinv._factors import Factors, off_corange, off_range
from jaxpinv._form import Outer
from jaxpinv._primitives import factor_p, pinv_form

Method = Literal["auto", "svd"]
Tolerances = dict[str, ArrayLike | None]


class Problem(NamedTuple):
    """Matrices, factored in their tall orientation.

    Attributes:
        a: `(..., m, n)`, in the dtype that is computed in.
        factors: those of `a`, or of its adjoint if it is wide.
        x: the pseudo-inverse, `(..., n, m)`, if it was asked for.
        batch: the batch shape of the factors, without axes of length one in front.
        is_wide: whether `m < n`.
        cuts: whether the tolerances may cut more than zeros.
        dtype: that of the results.
    """

    a: Array
    factors: Factors
    x: Array | None
    batch: tuple
    is_wide: bool
    cuts: bool
    dtype: np.dtype

    def pinv(self) -> Array:
        """The pseudo-inverse in the dtype of the results."""
        assert self.x is not None
        return self.x.astype(self.dtype)

    def solve(self, b: Array) -> Array:
        """The pseudo-inverse times `b`, `(..., m, k)`."""
        if not self.is_wide:
            return pinv_form(self.factors, [Outer(b, None)], cuts=self.cuts)
        # pinv(A) b is the conjugate of the transpose of pinv(A^H) times that of b.
        x = pinv_form(self.factors, [Outer(None, jnp.conj(b))], cuts=self.cuts)
        return jnp.conj(x)

    def null_projection(self, x: Array) -> Array:
        """The projection of `x`, `(..., n, k)`, on the null space."""
        project = off_range if self.is_wide else off_corange
        undefined = jnp.any(jnp.isnan(self.factors.s), axis=-1)[..., None, None]
        return jnp.where(undefined, jnp.nan, project(self.factors, x))

    def rank(self) -> Array:
        """Number of kept singular values, int32, of batch shape."""
        defined = self.factors.kept & ~jnp.isnan(self.factors.s)
        return self.in_batch(jnp.sum(defined, axis=-1, dtype=jnp.int32), 0)

    def in_batch(self, x: Array, rank: int) -> Array:
        """`x`, of that rank but for its batch, without needless axes in front."""
        return jax.lax.squeeze(x, range(x.ndim - rank - len(self.batch)))


def named_tolerances(
    function: str,
    rtol: ArrayLike | None,
    rcond: ArrayLike | None,
    atol: ArrayLike | None,
) -> Tolerances:
    """The relative tolerance, under the name it was given by, and the absolute one.

    Raises:
        ValueError: if both names of the relative one are given.
    """
    if rtol is not None and rcond is not None:
        raise ValueError(
            f"{function}: expected rtol or rcond, two names of one tolerance, "
            f"got rtol={rtol} and rcond={rcond}"
        )
    return {"rtol": rtol, "atol": atol} if rcond is None else {"rcond": rcond, "atol": atol}


def factored(
    function: str,
    a: ArrayLike,
    tolerances: Tolerances,
    *,
    hermitian: bool,
    method: Method = "auto",
    with_pinv: bool = False,
    columns: tuple[str, ArrayLike, Literal["rows", "columns"]] | None = None,
    capped: bool = False,
    factorise: Callable[[Array, Array, Array], Sequence[Array]] | None = None,
) -> tuple[Problem, list[Array]]:
    """The problem of a public function, and the columns that it is applied to, if any.

    Args:
        function: its name, for errors.
        a: the matrices.
        tolerances: the relative and the absolute one, in this order, by their names.
        hermitian: whether only the lower triangle of `a` is read.
        method: "auto" or "svd".
        with_pinv: whether the pseudo-inverse itself is wanted.
        columns: name and value of what is multiplied, a vector or `(..., length, k)`, and
            what of the matrix its length is the number of.
        capped: whether the default of the relative tolerance has an upper bound.
        factorise: what makes the factors, and the pseudo-inverse if wanted, of the tall
            matrices, `rtol` and `atol`. `factor_p` if it is not given.
    """
    _checks.check_method(function, method)
    a = _checks.as_matrices(function, a, hermitian=hermitian)
    given = {
        name: _checks.as_tolerance(function, name, value)
        for name, value in tolerances.items()
        if value is not None
    }
    batch = _checks.batch_shape(function, a, given)
    rtol, atol = (given.get(name) for name in tolerances)
    m, n = a.shape[-2:]
    arrays = [a]
    if columns is not None:
        name, value, along = columns
        length = {"rows": m, "columns": n}[along]
        arrays.append(_checks.as_columns(function, name, value, length, batch))
    dtype = _floating(jnp.result_type(*arrays))
    rank = max(len(batch) + 2, *(x.ndim for x in arrays))
    arrays = [_prepend_axes(x.astype(_at_least_float32(dtype)), rank) for x in arrays]
    a, *rest = _varying_alike(arrays, given.values())
    a = mirror_lower(a) if hermitian else a
    real = jnp.finfo(a.dtype)
    default = jnp.asarray(default_rtol(max(m, n), a.dtype, capped=capped), real.dtype)
    rtol, atol = (
        _prepend_axes(tolerance.astype(real.dtype), rank - 2)
        for tolerance in _with_defaults(rtol, atol, default)
    )
    # pinv(A) = pinv(A^H)^H: past this line every matrix is tall.
    tall = a if m >= n else adjoint(a)
    if factorise is None:
        factorise = partial(
            factor_p.bind,
            hermitian=bool(hermitian),
            direct=method == "auto",
            with_pinv=with_pinv,
        )
    results = factorise(tall, rtol, atol)
    *factors, x = results if with_pinv else (*results, None)
    x = adjoint(x) if x is not None and m < n else x
    is_wide, cuts = m < n, bool(given)
    return Problem(a, Factors(*factors), x, batch, is_wide, cuts, dtype), rest


def default_rtol(size: int, dtype: np.dtype, *, capped: bool) -> float:
    """The default of the relative tolerance for matrices of that many rows or columns."""
    eps = float(jnp.finfo(dtype).eps)
    return min(size * eps, eps**0.5) if capped else size * eps


def _with_defaults(
    rtol: Array | None, atol: Array | None, default: Array
) -> tuple[Array, Array]:
    """Both tolerances, of which `rtol` defaults to 0 where a positive `atol` is given."""
    if atol is None:
        return default if rtol is None else rtol, jnp.zeros_like(default)
    if rtol is None:
        rtol = jnp.where(atol > jnp.zeros_like(atol), 0, default)
    return rtol, atol


def _floating(dtype: np.dtype) -> np.dtype:
    """The dtype itself if it is floating or complex, else the default floating one."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)


def _at_least_float32(dtype: np.dtype) -> np.dtype:
    """The dtype, or float32 for a shorter one, which no factorisation takes."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _varying_alike(arrays: list[Array], others: Iterable[Array]) -> list[Array]:
    """Arrays, in `shard_map` cast to vary over all mesh axes that they or others vary over.

    The result varies over them. Only if an operand does too is there a place, this cast,
    where reverse mode sums the cotangents of the devices.
    """
    every = [*arrays, *others]
    if len(every) == 1:
        return arrays
    # The type of an array has no documented name for its varying axes: hence it is asked
    # only where there are several arrays.
    axes = {axis for x in every for axis in jax.typeof(x).mat.varying}
    missing = [tuple(sorted(axes - jax.typeof(x).mat.varying)) for x in arrays]
    return [
        jax.lax.pcast(x, names, to="varying") if names else x
        for x, names in zip(arrays, missing, strict=True)
    ]


def _prepend_axes(x: Array, rank: int) -> Array:
    """`x` with axes of length one in front, up to that rank."""
    return jax.lax.expand_dims(x, range(rank - x.ndim))
