"""Derivatives of several orders in one pass, so that they compile in one small program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def two_derivatives(f: Callable, at: tuple, along: tuple) -> tuple[Any, Any, Any]:
    """The value of `f` and its first two derivatives along one direction."""

    def first(*at):
        return jax.jvp(f, at, along)

    (value, slope), (_, curvature) = jax.jvp(first, at, along)
    return value, slope, curvature


def reverse_over_reverse(f: Callable, a: jax.Array, e: Any) -> tuple[jax.Array, jax.Array]:
    """The gradient of a number, and its Hessian times `e`, both by reverse mode."""

    def along(a):
        gradient = jax.grad(f)(a)
        return jnp.vdot(gradient, e), gradient

    hessian, gradient = jax.grad(along, has_aux=True)(a)
    return gradient, hessian
