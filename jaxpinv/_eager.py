"""Calls outside of `jit`: public functions are compiled once for every shape."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jaxpinv._platform.workarounds import have_one_mesh


def compiled(function: Callable, *, options: tuple[str, ...]) -> Callable:
    """`function`, of a tuple of arrays and of these options, compiled once for every shape.

    The program is inlined, so a program around it is the same as without this `jit`.
    """
    program = jax.jit(function, static_argnames=options, inline=True)

    @functools.wraps(function)
    def run(inputs, **chosen):
        arrays = jax.tree.leaves(inputs)
        if not any(isinstance(x, Tracer) for x in arrays):
            return program(inputs, **chosen)
        if isinstance(jnp.zeros(()), Tracer):
            # A program around this one is being traced, and will compile this part.
            return function(inputs, **chosen)
        return (program if have_one_mesh(arrays) else function)(inputs, **chosen)

    return run
