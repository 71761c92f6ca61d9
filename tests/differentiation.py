"""Derivatives of several orders in one pass, so that they compile in one small program."""

import functools
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


def reverse_over_reverse(f: Callable, a: jax.Array, e: Any) -> tuple[Any, Any, Any]:
    """A number, its gradient, and its Hessian times `e`, both by reverse mode."""

    def along(a):
        value, gradient = jax.value_and_grad(f)(a)
        return jnp.vdot(gradient, e), (value, gradient)

    hessian, found = jax.grad(along, has_aux=True)(a)
    return *found, hessian


def hessian_vector_product(f):
    """The derivative of the gradient of `f` along its first argument."""
    return lambda a, *rest: jax.jvp(lambda a: jax.grad(f)(a, *rest), (a,), (a,))[1]


@functools.cache
def loss_by(pinv):
    """The same loss for all tests, so that they share compiled programs."""

    def loss(a, rtol=None, hermitian=False):
        a = a @ a.swapaxes(-1, -2) if hermitian else a
        return jnp.sum(jnp.sin(pinv(a, rtol, hermitian)))

    return loss
