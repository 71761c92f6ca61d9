"""Where a program runs: the facts that a plan depends on, read at lowering."""

from typing import NamedTuple

import jax
from jax.interpreters import mlir


class Target(NamedTuple):
    """Where a lowered program runs.

    Attributes:
        is_cpu: whether the program runs on a CPU.
        is_whole: whether each device runs the program as it is. If not, the partitioner
            divides it, and any step that reads the whole batch, such as a branch on any of
            its matrices, makes the devices wait for each other.
        devices: how many devices the partitioner divides the program among.
        has_typed_axes: whether the type of an operand names the mesh axes that divide it.
            Then every intermediate array needs such a type, too, even on one device.
        is_exported: whether the program is exported. Then it may call only what later
            versions guarantee to have.
        is_cuda: whether the program runs on an NVIDIA GPU.
    """

    is_cpu: bool
    is_whole: bool
    devices: int = 1
    has_typed_axes: bool = False
    is_exported: bool = False
    is_cuda: bool = False

    @property
    def is_local(self) -> bool:
        """Whether each device may loop over its matrices."""
        return self.is_whole and not self.has_typed_axes

    @property
    def is_divided(self) -> bool:
        """Whether it is known that arrays are, or may be, divided over devices."""
        return self.devices > 1 or self.has_typed_axes


#: Valid everywhere: the types of results do not depend on where they are computed.
ANYWHERE = Target(is_cpu=False, is_whole=False)


def of_lowering(ctx: mlir.LoweringRuleContext, *, platform: str | None) -> Target:
    """The target of the program being lowered, for "cpu", "cuda" or any other platform."""
    context = ctx.module_context.axis_context
    mesh = getattr(context, "mesh", None)
    count = getattr(context, "num_devices", None)
    if mesh is None:
        is_whole = count == 1
    else:
        count = mesh.size
        is_whole = set(getattr(context, "manual_axes", ())) == set(mesh.axis_names)
    shardings = (getattr(aval, "sharding", None) for aval in ctx.avals_in)
    specs = (getattr(sharding, "spec", None) or () for sharding in shardings)
    has_typed_axes = any(axis is not None for spec in specs for axis in spec)
    lowering = getattr(ctx.module_context, "lowering_parameters", None)
    is_exported = getattr(lowering, "for_export", False)
    return Target(
        platform == "cpu",
        is_whole,
        1 if is_whole else count or 1,
        has_typed_axes,
        is_exported,
        platform == "cuda",
    )


def here() -> Target:
    """The target of operations that run one by one, without being lowered together."""
    platform = jax.default_backend()
    return Target(platform == "cpu", is_whole=True, is_cuda=platform == "gpu")
