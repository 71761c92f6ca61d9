"""What programs would launch on an H100, counted without one.

JAX's plug-in for CUDA compiles for a card that it is only told about. Nothing runs. A
conditional, or a loop of unknown length, makes the host wait for the card.
"""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import jaxpinv

#: What the compiler asks about a card, of an H100 SXM.
H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84000000000
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 1 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
SHAPES = ((20_000, 6, 7), (100_000, 3, 3), (2_000, 32, 32), (512, 512), (20_000, 64))

_OPERATION = re.compile(
    r"= (?:\(.*?\)|\S+) (fusion|custom-call|while|conditional|copy|sort)\("
)
_LIBRARY = re.compile(r'custom_call_target="([^"]+)"')


def _square(pinv: Callable) -> Callable:
    return lambda a: jnp.sum(jnp.abs(pinv(a)) ** 2)


def _hessian_times(f: Callable) -> Callable:
    return lambda a: jax.jvp(jax.grad(f), (a,), (a,))[1]


PROGRAMS: dict[str, Callable] = {
    "value": jaxpinv.pinv,
    "gradient": jax.grad(_square(jaxpinv.pinv)),
    "hvp": _hessian_times(_square(jaxpinv.pinv)),
    "rank": jaxpinv.matrix_rank,
    'value, method="svd"': lambda a: jaxpinv.pinv(a, method="svd"),
    "value of jnp": jnp.linalg.pinv,
}


class NoPluginError(RuntimeError):
    """JAX cannot compile for CUDA here."""


def device() -> SingleDeviceSharding:
    """A card that is not there.

    Raises:
        NoPluginError: what would compile for it is not installed.
    """
    # Nothing can be timed to choose the fastest of several kernels.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0"
    try:
        topology = topologies.get_topology_desc(
            "", platform="cuda", topology="1x1x1", target_config=H100
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
        raise NoPluginError(
            "--compile-only needs the CUDA plug-in of JAX, pip install 'jax[cuda12]': "
            f"{reason}"
        ) from error
    return SingleDeviceSharding(topology.devices[0])


def counted(text: str) -> dict[str, Any]:
    """How many of each kind there are in the text of a compiled program."""
    found = Counter(_OPERATION.findall(text))
    return {
        "kernels": found["fusion"] + found["custom-call"] + found["sort"],
        "conditionals": found["conditional"],
        "loops": found["while"],
        "copies": found["copy"],
        "libraries": dict(Counter(_LIBRARY.findall(text))),
    }


def count(
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
    programs: tuple[str, ...] = tuple(PROGRAMS),
) -> Iterator[dict[str, Any]]:
    """Each program for each shape, in single precision."""
    there = device()
    for shape in shapes:
        for name in programs:
            a = jax.ShapeDtypeStruct(shape, jnp.float32)
            start = time.perf_counter()
            jitted = jax.jit(PROGRAMS[name], in_shardings=there, out_shardings=there)
            lowered = jitted.trace(a).lower(lowering_platforms=("cuda",))
            found = counted(str(lowered.compile().as_text()))
            seconds = round(time.perf_counter() - start, 2)
            yield {"shape": shape, "program": name, "compile_s": seconds, **found}
