"""The dtype of the computation, and the default tolerances, which depend on it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxpinv._shapes import is_static_shape

# A default of `rtol` above this causes a warning.
_LARGE = 0.1
# With fewer rows and columns, no dtype in which to compute reaches it.
_LONG = _LARGE / float(jnp.finfo(jnp.float32).eps)


def floating(dtype: np.dtype) -> np.dtype:
    """The dtype itself if it is floating or complex, else the default floating one."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.result_type(float)


def computed_in(*arrays: Array | None) -> np.dtype:
    """The dtype in which to compute with these arrays."""
    given = [x for x in arrays if x is not None]
    return _at_least_float32(floating(jnp.result_type(*given)))


def default_rtol(size: int, dtype: np.dtype, computed: np.dtype, *, capped: bool) -> Array:
    """The default relative tolerance, in the precision of `computed`.

    It is the larger of two errors. One is that of the singular values: `size * eps`, with
    `size` the longer side of the matrix and `eps` that of `computed`; if `capped`, at most
    `sqrt(eps)`. The other is `eps` of `dtype`, to which the matrix was rounded. Rounding
    moves an element by at most `eps / 2` of itself, so it moves a matrix of rank r by at
    most `sqrt(r) / 2 * eps` times its norm, or less than `0.6 * eps` times its norm if the
    errors are independent.
    """
    real, rounded = jnp.finfo(computed), eps_of_input(dtype)
    if not is_static_shape((size,)):
        return jnp.maximum(jnp.asarray(size * float(real.eps), real.dtype), rounded)
    default = size * float(real.eps)
    default = min(default, float(real.eps) ** 0.5) if capped else default
    return jnp.asarray(max(default, rounded), real.dtype)


def eps_of_input(dtype: np.dtype) -> float:
    """The `eps` to which the elements of a matrix are rounded, 0 for integers."""
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def with_defaults(
    rtol: Array | None, atol: Array | None, default: Array
) -> tuple[Array, Array]:
    """Both tolerances; `rtol` defaults to 0 where a positive `atol` is given."""
    if atol is None:
        return default if rtol is None else rtol, jnp.zeros_like(default)
    if rtol is None:
        rtol = jnp.where(atol > jnp.zeros_like(atol), 0, default)
    return rtol, atol


def warn_if_large(
    function: str,
    a: Array,
    columns: Array | None,
    atol: ArrayLike | None,
    stacklevel: int,
) -> None:
    """Warns if the default of `rtol` is used and truncates values that are not small."""
    shape = a.shape[-2:]
    longest = max(shape) if is_static_shape(shape) else 0
    # Nearly always, the shapes alone rule out a warning.
    if longest <= _LONG:
        return
    default = longest * float(jnp.finfo(computed_in(a, columns)).eps)
    if default > _LARGE and _is_zero_somewhere(atol):
        warnings.warn(
            f"{function}: the default rtol, {longest} * eps = {default:.2g}, truncates "
            "singular values that are not small; pass rtol, for instance sqrt(eps)",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def _at_least_float32(dtype: np.dtype) -> np.dtype:
    """The dtype, but at least float32, because no factorization supports a shorter one."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _is_zero_somewhere(atol: ArrayLike | None) -> bool:
    """Whether an absolute tolerance is absent, or known to be zero for some matrix."""
    return atol is None or (is_known(atol) and bool(np.any(np.asarray(atol) == 0)))


def is_known(value: ArrayLike) -> bool:
    """Whether the value of a tolerance can be read."""
    if isinstance(value, list | tuple):
        return all(map(_is_concrete, jax.tree.leaves(value)))
    return _is_concrete(value)


def _is_concrete(x: object) -> bool:
    """Whether the elements of `x` can be read in this process."""
    if isinstance(x, Array):
        return not isinstance(x, Tracer) and x.is_fully_addressable
    return isinstance(x, int | float | np.generic | np.ndarray)
