"""The arguments of the public functions: checked before anything is computed."""

import functools
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxpinv import _damping, _tolerances
from jaxpinv._damping import Damping
from jaxpinv._platform.plan import Method as Method
from jaxpinv._tolerances import is_known

Tolerances = dict[str, ArrayLike | None]
Columns = tuple[str, ArrayLike, Literal["rows", "columns"]]

_INEXACT = (
    "bfloat16",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
)
_ACCEPTED = f"integers, bools, {', '.join(_INEXACT[:-1])} or {_INEXACT[-1]}"


class Inputs(NamedTuple):
    """The arguments of a public function, checked, in their own dtypes.

    Attributes:
        a: `(..., m, n)`.
        rtol: of any shape that broadcasts against the batch, or None for the default.
        atol: of any shape that broadcasts against the batch, or None for zero.
        columns: a vector or matrices `(..., length, k)`, if any.
        damp: of any shape that broadcasts against the batch, or None.
        damp_scale: `(..., n)`, or None for ones.
    """

    a: Array
    rtol: Array | None
    atol: Array | None
    columns: Array | None
    damp: Array | None = None
    damp_scale: Array | None = None


def named_tolerances(
    function: str,
    rtol: ArrayLike | None,
    rcond: ArrayLike | None,
    atol: ArrayLike | None,
) -> Tolerances:
    """Both tolerances by name, the relative one under the name that the caller used.

    Raises:
        ValueError: if both `rtol` and `rcond` are given.
    """
    if rtol is not None and rcond is not None:
        raise ValueError(
            f"{function}: expected rtol or rcond, two names of one tolerance, "
            f"got rtol={rtol} and rcond={rcond}"
        )
    return {"rtol": rtol, "atol": atol} if rcond is None else {"rcond": rcond, "atol": atol}


def prepare(
    function: str,
    a: ArrayLike,
    tolerances: Tolerances,
    *,
    hermitian: bool,
    method: Method = "auto",
    columns: Columns | None = None,
    damping: Damping = (None, None),
    stacklevel: int = 3,
) -> Inputs:
    """The arguments of a public function, checked. Nothing is computed.

    Call it outside `jit`, where the values of tolerances can be read.

    Args:
        function: its name, for errors.
        a: the matrices.
        tolerances: the relative and the absolute one, in this order, by name.
        hermitian: whether only the lower triangle of `a` is read.
        method: "auto", "direct" or "svd".
        columns: name and value of the vector or matrices `(..., length, k)` to multiply,
            and whether `length` is the number of rows or of columns of `a`.
        damping: `damp` and `damp_scale`.
        stacklevel: of the caller of the public function, counted from here, for warnings.
    """
    check_method(function, method)
    a = as_matrices(function, a, hermitian=hermitian)
    given = {
        name: as_tolerance(function, name, value)
        for name, value in tolerances.items()
        if value is not None
    }
    batch = batch_shape(function, a, given)
    damp, scale = _damping.check(function, damping, a.shape[-1], batch, as_tolerance)
    batch = _damping.batch_shape(batch, damp, scale)
    rtol, atol = (given.get(name) for name in tolerances)
    x = None
    if columns is not None:
        name, value, along = columns
        length = a.shape[{"rows": -2, "columns": -1}[along]]
        x = as_vector_or_columns(function, name, value, length, batch)
    inputs = Inputs(a, rtol, atol, x, damp, scale)
    if rtol is None and damp is None:
        *_, atol = tolerances.values()
        _tolerances.warn_if_large(function, a, x, atol, stacklevel)
    return inputs


def as_matrices(function: str, a: ArrayLike, *, hermitian: bool) -> Array:
    """`a` as an array of matrices, `(..., m, n)`, of any numeric dtype.

    Raises:
        TypeError: if `a` is not numeric, or `hermitian` is traced.
        ValueError: if `a` has fewer than two axes, or `hermitian` is set and the matrices
            are not square.
    """
    a = _as_numeric(f"{function}: expected a numeric array", a)
    if a.ndim < 2:
        raise ValueError(
            f"{function}: expected a matrix or a batch of matrices, shape (..., m, n), "
            f"got shape {a.shape}"
        )
    if isinstance(hermitian, Tracer):
        raise TypeError(
            f"{function}: expected hermitian to be True or False, got a traced value; "
            'pass static_argnames="hermitian" to jax.jit'
        )
    if hermitian and a.shape[-2] != a.shape[-1]:
        raise ValueError(
            f"{function}: expected square matrices, shape (..., n, n), with "
            f"hermitian=True, got shape {a.shape}"
        )
    return a


def check_method(function: str, method: object) -> None:
    """Rejects anything but the name of a method.

    Raises:
        ValueError: if `method` is not one of the three.
    """
    if method not in get_args(Method):
        raise ValueError(
            f'{function}: expected method "auto", "direct" or "svd", got {method!r}'
        )


def as_tolerance(function: str, name: str, value: ArrayLike) -> Array:
    """A tolerance as an array; for a number, a NumPy one, which takes less time to make.

    Raises:
        TypeError: if `value` is not a real number or an array of them.
        ValueError: if `value` is negative. A traced value cannot be checked.
    """
    expected = f"{function}: expected {name} to be a real number or an array of them"
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            tolerance: Any = np.asarray(float(value))
        except OverflowError as error:
            raise TypeError(f"{expected}, got int: {error}") from error
    else:
        tolerance = _as_numeric(expected, value)
    if not _is_real_number(tolerance.dtype):
        # In pinv(a, True), the flag is meant for the third argument.
        is_flag = name == "rtol" and tolerance.dtype == bool
        hint = "; pass hermitian by name, hermitian=True" if is_flag else ""
        raise TypeError(f"{expected}, got dtype {tolerance.dtype}{hint}")
    if is_known(value) and np.any(np.asarray(value) < 0):
        raise ValueError(f"{function}: expected {name} >= 0, got {value}")
    return tolerance


def batch_shape(function: str, a: Array, tolerances: dict[str, Array]) -> tuple:
    """The batch shape of the result: that of `a` broadcast against those of `tolerances`.

    Raises:
        ValueError: if the shapes do not broadcast.
    """
    # Numbers do not change the shape. Returning early makes eager calls faster.
    if all(t.ndim == 0 for t in tolerances.values()):
        return a.shape[:-2]
    try:
        return jnp.broadcast_shapes(a.shape[:-2], *(t.shape for t in tolerances.values()))
    except ValueError as error:
        given = " and ".join(f"{k} of shape {t.shape}" for k, t in tolerances.items())
        raise ValueError(
            f"{function}: expected tolerances that broadcast against the batch shape "
            f"{a.shape[:-2]}, got {given}"
        ) from error


def as_columns(
    function: str, name: str, value: ArrayLike, length: int, batch: tuple
) -> Array:
    """A vector, or matrices `(..., length, k)`, as an array of matrices."""
    x = as_vector_or_columns(function, name, value, length, batch)
    return x[:, None] if x.ndim == 1 else x


def as_vector_or_columns(
    function: str, name: str, value: ArrayLike, length: int, batch: tuple
) -> Array:
    """A vector, or matrices `(..., length, k)`, as an array of the same shape.

    Raises:
        TypeError: if `value` is not numeric.
        ValueError: if the length or the batch shape does not fit.
    """
    expected = (
        f"{function}: expected {name} to be a vector of length {length} or an array of "
        f"matrices, shape (..., {length}, k)"
    )
    x = _as_numeric(f"{function}: expected {name} to be a numeric array", value)
    if x.ndim == 0 or x.shape[-min(x.ndim, 2)] != length:
        hint = ""
        if x.ndim == 2 and x.shape[-1] == length and not batch:
            hint = f"; if each row is a vector, pass {name}.T"
        elif x.ndim > 1 and x.shape[-1] == length:
            hint = f"; for a batch of vectors write {name}[..., None]"
        raise ValueError(f"{expected}, got shape {x.shape}{hint}")
    if x.ndim <= 2:
        return x
    try:
        jnp.broadcast_shapes(batch, x.shape[:-2])
    except ValueError as error:
        raise ValueError(
            f"{expected}, that broadcasts against the batch shape {batch}, "
            f"got shape {x.shape}"
        ) from error
    return x


def _as_numeric(expected: str, x: ArrayLike) -> Array:
    """`x` as an array, if its dtype is accepted."""
    if hasattr(x, "todense"):
        raise TypeError(
            f"{expected}, got {type(x).__name__}: sparse matrices are not "
            "supported, pass x.todense()"
        )
    # JAX's errors for strings and objects name neither.
    if isinstance(x, np.ndarray) and x.dtype.kind in "OSUMm":
        raise TypeError(f"{expected}, got dtype {x.dtype}; accepted are {_ACCEPTED}")
    # A JAX array is not converted, because that takes longer than all checks here.
    if not isinstance(x, Array):
        try:
            x = jnp.asarray(x)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"{expected}, got {type(x).__name__}: {error}") from error
    if not _is_accepted(x.dtype):
        raise TypeError(f"{expected}, got dtype {x.dtype}; accepted are {_ACCEPTED}")
    return x


@functools.cache
def _is_accepted(dtype: np.dtype) -> bool:
    """Whether numbers of that dtype are accepted."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype.name in _INEXACT
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)


@functools.cache
def _is_real_number(dtype: np.dtype) -> bool:
    """Whether a tolerance may be of that dtype."""
    return jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
