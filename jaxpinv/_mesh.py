"""Where a row-sharded matrix lies: the mesh, and the axis that divides the rows."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxpinv._factorization.tsqr import Axis


class Placement(NamedTuple):
    """A mesh, and the axis or axes that divide the rows."""

    mesh: Mesh | AbstractMesh
    axis: Axis

    @property
    def is_explicit(self) -> bool:
        """Whether the types of arrays say how the arrays are divided over the mesh."""
        return AxisType.Explicit in self.mesh.axis_types

    def run(self, f: Callable, specs: Any, *arrays: Any) -> Any:
        """The results of `f`, whose work the compiler divides over the devices.

        If types say how arrays are divided, `specs` says it for the results.
        """
        if not self.is_explicit:
            return f(self, *arrays)

        def in_auto_mode(*arrays: Any) -> Any:
            return f(self._replace(mesh=jax.sharding.get_abstract_mesh()), *arrays)

        shardings = jax.tree.map(partial(NamedSharding, self.mesh), specs)
        return jax.sharding.auto_axes(in_auto_mode, out_sharding=shardings)(*arrays)

    def bring(self, x: Array) -> Array:
        """`x`, `(m, k)`, moved to the devices of the mesh if these are known."""
        if isinstance(self.mesh, AbstractMesh):
            return x
        if not isinstance(x, Tracer):
            return jax.device_put(x, NamedSharding(self.mesh, P(self.axis, None)))
        if self.is_explicit and jax.typeof(x).sharding.mesh.empty:
            # In `jit`, `reshard` cannot move an array off a single device. Copies on all
            # devices work under any `vmap`.
            return jax.device_put(x, NamedSharding(self.mesh, P()))
        return x

    def put(self, x: Array, *spec: Axis | None) -> Array:
        """`x`, and its cotangent in reverse mode, divided over the mesh as `spec` says."""
        sharding = NamedSharding(self.mesh, P(*spec))
        if self.is_explicit:
            return jax.sharding.reshard(x, sharding)
        return jax.lax.with_sharding_constraint(x, sharding)


def find(
    function: str, a: Array, mesh: Mesh | AbstractMesh | None, axis: Axis | None
) -> Placement:
    """The given placement, or else that of the array or the context.

    Raises:
        ValueError: if the placement is not known, or does not fit the matrix.
    """
    if a.ndim != 2:
        raise ValueError(
            f"{function}: expected one matrix, shape (m, n), got shape {a.shape}"
        )
    m, n = a.shape
    if m < n:
        raise ValueError(
            f"{function}: expected at least as many rows as columns, got shape {a.shape}"
        )
    spec = P()
    sharding = jax.typeof(a).sharding if isinstance(a, Tracer) else a.sharding
    if isinstance(sharding, NamedSharding) and not sharding.mesh.empty:
        mesh = sharding.mesh if mesh is None else mesh
        spec = sharding.spec
    if mesh is None:
        mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        raise ValueError(
            f"{function}: expected a mesh, or a matrix that lies on one, got neither: pass "
            "mesh=, or call it within jax.set_mesh(mesh)"
        )
    if axis is None:
        axis = _of_rows(function, spec, mesh)
    axis = tuple(axis) if not isinstance(axis, str) else axis
    names = (axis,) if isinstance(axis, str) else axis
    if not names or not set(names) <= set(mesh.axis_names):
        raise ValueError(
            f"{function}: expected an axis of the mesh, one of {mesh.axis_names}, "
            f"got {axis!r}"
        )
    devices = math.prod(mesh.shape[name] for name in names)
    if m % devices:
        raise ValueError(
            f"{function}: expected a number of rows that the {devices} devices of axis "
            f"{axis!r} divide, got shape {a.shape}; append rows of zeros"
        )
    return Placement(mesh, axis)


def _of_rows(function: str, spec: P, mesh: Mesh | AbstractMesh) -> Axis:
    """The axis that divides the rows according to `spec`, or the only axis."""
    rows, columns = (*spec, None, None)[:2]
    if columns is not None:
        raise ValueError(
            f"{function}: expected columns that are not divided over devices, got a matrix "
            f"with the sharding {spec}"
        )
    if rows is not None:
        return rows
    if len(mesh.axis_names) == 1:
        return mesh.axis_names[0]
    raise ValueError(
        f"{function}: expected the name of the axis that divides the rows, one of "
        f"{mesh.axis_names}, got a matrix whose type does not name it: pass axis="
    )
