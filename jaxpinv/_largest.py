"""The largest elements of matrices: the primitive `largest_element`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv import _rules
from jaxpinv._platform.target import Target
from jaxpinv._platform.workarounds import largest_of_matrices
from jaxpinv._shapes import is_static_shape


def largest_element(a: Array) -> Array:
    """The largest absolute value, `(...)`, real, or not finite if an element is not.

    For complex matrices, that of a real or imaginary part. One reduction finds both: as
    integers, the bits of absolute values are in the same order, with Inf and NaN above all
    numbers. A maximum of floating-point numbers may ignore a NaN.
    """
    return largest_element_p.bind(a)


# largest_element: a (..., m, n) -> the largest absolute value (...)


def _largest_element_impl(a, *, target: Target):
    parts = [jnp.real(a), jnp.imag(a)] if jnp.iscomplexobj(a) else [a]
    real = jnp.finfo(a.dtype).dtype
    integer = np.dtype(f"int{8 * real.itemsize}")
    bits = (jax.lax.bitcast_convert_type(jnp.abs(x), integer) for x in parts)
    size = functools.reduce(jnp.maximum, bits)
    if target.is_cpu and target.is_local and is_static_shape(a.shape):
        largest = largest_of_matrices(size)
    else:
        largest = jnp.max(size, axis=(-2, -1), initial=0)
    return jax.lax.bitcast_convert_type(largest, real)


largest_element_p = _rules.primitive("largest_element", _largest_element_impl)
