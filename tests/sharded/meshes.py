"""Meshes, arrays divided over them, and what their devices send each other."""

import functools
import re

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

BY_ROWS = PartitionSpec("rows")
COLLECTIVES = re.compile(
    r"(all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter)(?:-start)?\("
)


def collectives(compiled):
    """The collective operations in the text of a compiled program."""
    return COLLECTIVES.findall(compiled.as_text())


@functools.cache
def mesh_of(count, kind=AxisType.Auto):
    """A mesh of one axis."""
    devices = jax.devices()[:count]
    return jax.make_mesh((count,), ("rows",), axis_types=(kind,), devices=devices)


def put(x, spec=BY_ROWS, mesh=None):
    """An array, divided over a mesh."""
    return jax.device_put(x, NamedSharding(mesh or mesh_of(8), spec))
