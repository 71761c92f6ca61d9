"""What the rules of all primitives have in common.

Every primitive works on leading batch axes that broadcast against each other: all operands
of one rank, each batch axis as long as the others' or 1.
"""

import functools
from functools import partial

import jax
import jax.numpy as jnp
from jax.interpreters import mlir


@functools.lru_cache
def abstract_eval(impl, *avals, **params):
    """Avals of the results, with the sharding and varying axes that only `impl` knows."""
    return tuple(jax.make_jaxpr(partial(impl, **params))(*avals).out_avals)


def batch(primitive, args, axes, **params):
    """Binds with the mapped axes in front and length-1 axes for what is not mapped."""
    [size] = {x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None}
    args = [
        x[None] if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args, axes, strict=True)
    ]
    return primitive.bind(*args, **params), size


def eager(primitive, impl):
    """What a primitive does outside of `jit`: it is compiled once for every shape."""

    @functools.cache
    def compiled(**params):
        return jax.jit(partial(primitive.bind, **params))

    def run(*args, **params):
        # Without `jit` the primitive would come back here for ever.
        if jax.config.jax_disable_jit:
            return impl(*args, **params)
        return compiled(**params)(*args)

    return run


def is_on_one_device(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether what is lowered runs as it stands on each device.

    If not, the partitioner divides it, and whatever looks at the whole batch, like a branch
    on any of its matrices, makes the devices wait for each other.
    """
    context = ctx.module_context.axis_context
    mesh = getattr(context, "mesh", None)
    if mesh is not None:
        return set(getattr(context, "manual_axes", ())) == set(mesh.axis_names)
    return getattr(context, "num_devices", None) == 1


def device_count(ctx: mlir.LoweringRuleContext) -> int:
    """How many devices the partitioner divides what is lowered among."""
    if is_on_one_device(ctx):
        return 1
    context = ctx.module_context.axis_context
    mesh = getattr(context, "mesh", None)
    return getattr(context, "num_devices", 1) if mesh is None else mesh.size


def names_a_mesh_axis(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether the type of an operand says over what mesh axes it is divided.

    Then every intermediate array would have to say so too, even if there is one device.
    """
    shardings = (getattr(aval, "sharding", None) for aval in ctx.avals_in)
    specs = (getattr(sharding, "spec", None) or () for sharding in shardings)
    return any(axis is not None for spec in specs for axis in spec)


def is_local(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether each device may go through its matrices in a loop."""
    return is_on_one_device(ctx) and not names_a_mesh_axis(ctx)
