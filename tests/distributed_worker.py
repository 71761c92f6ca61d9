"""One process of a distributed program.

    python -m tests.distributed_worker PART PORT COUNT INDEX DEVICES

The process takes gradient steps with a batch that is divided over the devices of all
processes, and compares everything with the same steps on one device. With the part `leave`,
the last process then exits without notice, and the others continue until they fail.
"""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jax.stages import Compiled

import jaxpinv
from tests.comparison import bound, relative_error

STEPS = 3
BATCH, WHOLE = PartitionSpec("batch"), PartitionSpec()


def total(w, a, b, rtol):
    """A number that depends on every matrix, on all devices."""
    moved = a + w[None]
    x = jaxpinv.pinv(moved, rtol)
    found = jaxpinv.lstsq(moved, b)
    return jnp.sum(jnp.sin(x)) + jnp.sum(found.residuals) + jnp.sum(found.solution**2)


def step(w, a, b, rtol):
    """Loss, moved parameters, and the pseudo-inverses of the batch."""
    loss, gradient = jax.value_and_grad(total)(w, a, b, rtol)
    return loss, w - 1e-3 * gradient, jaxpinv.pinv(a + w[None], rtol)


def problem(size: int) -> tuple[np.ndarray, ...]:
    """Parameters, matrices, right-hand sides and tolerances: the same in every process."""
    rng = np.random.default_rng(1)
    shapes = [(5, 3), (size, 5, 3), (size, 5, 1)]
    w, a, b = (rng.standard_normal(shape) for shape in shapes)
    return w, a, b, np.linspace(0, 0.3, size)


def distribute(x: np.ndarray, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    """The global array; each process makes only the part that its devices hold."""
    return jax.make_array_from_callback(
        x.shape, NamedSharding(mesh, spec), lambda index: x[index]
    )


def check(x: jax.Array, reference) -> None:
    """Compares the shards of this process with the result on one device."""
    reference = np.asarray(reference)
    assert not x.is_fully_addressable
    for shard in x.addressable_shards:
        assert relative_error(shard.data, reference[shard.index]) <= bound(np.float64, 1e3)


def train(size: int) -> tuple[Compiled, tuple[jax.Array, ...]]:
    """Gradient steps, compiled and by eager calls, against those on one device."""
    w, *data = problem(size)
    mesh = jax.make_mesh((jax.device_count(),), ("batch",), axis_types=(AxisType.Auto,))
    sharded = [distribute(x, mesh, BATCH) for x in data]
    moved = distribute(w, mesh, WHOLE)
    compiled = jax.jit(step).lower(moved, *sharded).compile()
    text = compiled.as_text() or ""
    assert "all-reduce" in text
    assert "all-gather" not in text
    # NumPy arrays: this computes everything on one device of this process.
    one = jax.jit(step)
    for _ in range(STEPS):
        found = compiled(moved, *sharded)
        expected = one(w, *data)
        for x, y in zip(found, expected, strict=True):
            check(x, y)
        moved, w = found[1], np.asarray(expected[1])
    a, rtol = sharded[0], sharded[2]
    # Tolerances that no process can read as a whole, and one that each process has.
    check(jaxpinv.pinv(a, rtol), np.linalg.pinv(data[0], data[2]))
    everywhere = distribute(np.array(0.3), mesh, WHOLE)
    check(jaxpinv.matrix_rank(a, everywhere), np.linalg.matrix_rank(data[0], rtol=0.3))
    print(f"trained {STEPS} steps on {jax.device_count()} devices", flush=True)
    return compiled, (moved, *sharded)


def main(part: str, port: int, count: int, index: int, devices: int) -> None:
    """Joins the other processes on the loopback address, and runs the part."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}",
        count,
        index,
        initialization_timeout=120,
        heartbeat_timeout_seconds=10,
        shutdown_timeout_seconds=60,
        coordinator_bind_address=f"127.0.0.1:{port}",
    )
    assert (jax.process_count(), jax.process_index()) == (count, index)
    compiled, arguments = train(2 * jax.device_count())
    if part == "leave":
        if index == count - 1:
            os._exit(17)
        while True:
            jax.block_until_ready(compiled(*arguments))
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
