"""The damping of unknowns, `damp * damp_scale`: checked, and prepared for use."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxpinv._shapes import prepend_axes
from jaxpinv._tolerances import is_known

#: `damp` and `damp_scale` as the caller gave them.
Damping = tuple[ArrayLike | None, ArrayLike | None]
#: Checks that numbers are real and not negative: `(function, name, value) -> array`.
Check = Callable[[str, str, ArrayLike], Array]


def check(
    function: str, damping: Damping, n: int, batch: tuple, as_number: Check
) -> tuple[Array | None, Array | None]:
    """`damp` and `damp_scale` as arrays, for matrices of n columns; None if not damped.

    Raises:
        TypeError: if an argument is not real.
        ValueError: if an argument is negative and not traced, the shapes do not fit, or
            `damp_scale` is given without `damp`.
    """
    damp, scale = damping
    if damp is None:
        if scale is not None:
            raise ValueError(
                f"{function}: expected damp too if damp_scale is given, got damp=None"
            )
        return None, None
    damped = as_number(function, "damp", damp)
    scaled = None if scale is None else as_number(function, "damp_scale", scale)
    if scaled is not None and (not scaled.ndim or scaled.shape[-1] != n):
        raise ValueError(
            f"{function}: expected damp_scale of shape (..., {n}), one for each unknown, "
            f"got shape {scaled.shape}"
        )
    try:
        larger = jnp.broadcast_shapes(batch, batch_shape((), damped, scaled))
    except ValueError as error:
        given = f"damp of shape {damped.shape}"
        if scaled is not None:
            given = f"{given} and damp_scale of shape {scaled.shape}"
        raise ValueError(
            f"{function}: expected a damping that broadcasts against the batch shape "
            f"{batch}, got {given}"
        ) from error
    if larger == batch and is_known(damp) and not np.any(np.asarray(damp)):
        return None, None
    return damped, scaled


def of_one_matrix(
    function: str, damping: Damping, a: Array, as_number: Check
) -> tuple[Array | None, Array | None]:
    """`damp` and `damp_scale` of one matrix as arrays; None if it is not damped.

    Raises:
        TypeError: as `check` does.
        ValueError: as `check` does, and if the damping has a batch shape.
    """
    damp, scale = check(function, damping, a.shape[-1], (), as_number)
    if batch_shape((), damp, scale):
        raise ValueError(
            f"{function}: expected damp to be a number and damp_scale a vector, got "
            f"shapes {[x.shape for x in (damp, scale) if x is not None]}"
        )
    return damp, scale


def is_everywhere(damping: Damping) -> bool:
    """Whether it is known that every unknown is damped, in any dtype."""
    given = [x for x in damping if x is not None]
    if not given or not all(is_known(x) for x in given):
        return False
    # A product can underflow to zero even if its factors are not zero.
    least = math.prod(np.min(np.asarray(x, float), initial=np.inf) for x in given)
    return least >= float(np.finfo(np.float32).tiny)


def batch_shape(batch: tuple, damp: Array | None, scale: Array | None) -> tuple:
    """`batch`, broadcast against the batch shape of the damping."""
    shapes = [] if damp is None else [damp.shape]
    shapes += [] if scale is None else [scale.shape[:-1]]
    # JAX takes long to broadcast a single shape in eager calls.
    return jnp.broadcast_shapes(batch, *shapes) if shapes else batch


def of_unknowns(damp: Array, scale: Array | None, real: np.dtype, rank: int) -> Array:
    """The damping of each unknown, `(..., n)`, or of all, `(..., 1)`, with `rank` axes."""
    damp = prepend_axes(jnp.asarray(damp).astype(real)[..., None], rank)
    if scale is None:
        return damp
    return damp * prepend_axes(jnp.asarray(scale).astype(real), rank)


def within_range(d: Array, largest: Array) -> Array:
    """The dampings `d`, positive ones raised so far that solutions stay in range.

    They are raised only where they are far below the rounding of the matrix: to 3e-29 of
    its largest element in single precision, to 1e-231 in double. `largest` broadcasts
    against `d`.
    """
    limits = jnp.finfo(d.dtype)
    least = largest * 2.0 ** (limits.minexp * 3 // 4)
    size, least = map(jax.lax.stop_gradient, (jnp.abs(d), least))
    missing = jnp.where(size >= limits.tiny, jnp.maximum(least - size, 0), 0)
    return d + missing
