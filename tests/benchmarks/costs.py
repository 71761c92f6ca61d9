"""What a method costs apart from time: compilation, memory, residuals, import."""

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks import timing
from tests.benchmarks.cases import GRADIENT, OPERATIONS, VALUE, Case, directions, matrices
from tests.benchmarks.peers import REFERENCE, JaxPeer, Peer, TorchPeer, available

#: The first ones take singular values, the others a cheaper factorization.
COMPILE_SHAPES = (
    (5, 3),
    (7, 6),
    (30, 10),
    (100, 100),
    (500, 20),
    (64, 3, 3),
    (64, 6, 7),
    (20_000, 6, 7),
    (2_000, 32, 32),
    (500, 500),
    (2_000, 400),
)
RESIDUAL_SHAPES = ((64, 7, 6), (64, 64, 16), (64, 6, 7), (100, 100))
MEMORY_SHAPES = ((20_000, 6, 7), (2_000, 64, 16), (1000, 1000))
IMPORTS = {
    "jaxpinv": "import jax.numpy; begin(); import jaxpinv",
    "jax": "begin(); import jax.numpy",
    "torch": "begin(); import torch",
    "scipy.linalg": "begin(); import scipy.linalg",
}


def compile_times(
    peers: Iterable[Peer], shapes: Iterable[Sequence[int]], repeats: int
) -> dict[str, dict[str, float]]:
    """Compile time over that of the reference, for each shape and operation, interleaved.

    All caches are emptied before each compilation: a function compiled first would
    otherwise pay for what the next one finds.
    """
    jitted = [p for p in peers if isinstance(p, JaxPeer) and "pinv" in p.name]
    found: dict[str, dict[str, float]] = {}
    for shape, operation in itertools.product(shapes, OPERATIONS):
        case = Case(tuple(shape), "float32", operation=operation)
        inputs = matrices(case)[:1]
        times: dict[str, list[float]] = {peer.name: [] for peer in jitted}
        for _ in range(repeats):
            for peer in jitted:
                jax.clear_caches()
                prepared = peer.prepare(case, inputs, directions(case))
                times[peer.name].append(prepared.compile_seconds)
        key = f"{case.size} {operation}"
        found[key] = {
            name: timing.ratio(values, times[REFERENCE]).median
            for name, values in times.items()
        }
        found[key]["seconds of the reference"] = statistics.median(times[REFERENCE])
    return found


def residuals(peers: Iterable[Peer], shape: Sequence[int]) -> dict[str, float]:
    """Memory kept between the forward and the backward pass, in units of the input.

    Distinct arrays among the leaves of the pullback of `jax.vjp`; with torch, distinct
    storages of the tensors that autograd saves.
    """
    case = Case(tuple(shape), "float32", operation=GRADIENT)
    [a, *_] = matrices(case)
    found = {}
    for peer in peers:
        if isinstance(peer, TorchPeer):
            found[peer.name] = _saved_by_torch(peer, case, a) / a.nbytes
        elif isinstance(peer, JaxPeer) and "pinv" in peer.name:
            _, pullback = jax.vjp(peer.pinv(case), jnp.asarray(a))
            leaves = {id(x): x.nbytes for x in jax.tree.leaves(pullback)}
            found[peer.name] = sum(leaves.values()) / a.nbytes
    return found


def _saved_by_torch(peer: TorchPeer, case: Case, a: np.ndarray) -> int:
    """Bytes that autograd saves."""
    storages: dict[int, int] = {}

    def save(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = peer.torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor)
    tensor = peer.torch.from_numpy(a).to(peer.device).requires_grad_()
    with hooks:
        # Bound to a name: saved tensors must live on, or their addresses are used again.
        result = peer.torch.linalg.pinv(tensor, rtol=case.rtol)
    del result
    return sum(storages.values())


def peak_memory(platform: str) -> dict[str, dict[str, float]]:
    """Peak memory of one call beyond its input, in units of the input.

    On the CPU the high-water mark of the resident size, reset just before the call, in a
    process of its own for each: it counts what LAPACK takes behind the back of XLA. On the
    GPU what the allocator of JAX reports.
    """
    peers, _ = available(platform)
    found: dict[str, dict[str, float]] = {}
    for shape in MEMORY_SHAPES:
        for operation in (VALUE, GRADIENT):
            case = Case(shape, "float32", operation=operation)
            row = {}
            for peer in peers:
                if "pinv" in peer.name and "scipy" not in peer.name and peer.supports(case):
                    peak = _in_process(peer.name, case, platform)
                    if peak is not None:
                        row[peer.name] = peak
            found[f"{case.size} {operation}"] = row
    return found


def _in_process(name: str, case: Case, platform: str) -> float | None:
    """Runs this module for one method and one case."""
    arguments = json.dumps([name, case, platform])
    result = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.costs", arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    if result.returncode:
        return None
    return json.loads(result.stdout.splitlines()[-1])


def _peak_of_one_call(name: str, case: Case, platform: str) -> float | None:
    """The measurement itself."""
    jax.config.update("jax_default_device", jax.devices(platform)[0])
    peer = next(peer for peer in available(platform)[0] if peer.name == name)
    inputs = matrices(case)[:1]
    # What a first call sets up once, thread pools for one, must not count.
    small = case._replace(shape=(8,) * len(case.shape))
    peer.prepare(small, matrices(small), directions(small)).call(0)
    prepared = peer.prepare(case, inputs, directions(case))
    if platform == "gpu":
        if not isinstance(peer, JaxPeer):
            return None
        prepared.call(0)
        peak = (jax.devices(platform)[0].memory_stats() or {})["peak_bytes_in_use"]
        return peak / inputs[0].nbytes - 1
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    prepared.call(0)
    return (_status("VmHWM") - before) / inputs[0].nbytes


def _status(field: str) -> int:
    """A size of this process, in bytes, from Linux."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {field} in the status of the process")


def import_times(repeats: int) -> dict[str, float]:
    """Seconds over those of `import jax.numpy`, interleaved, each in a new process.

    That of `jaxpinv` is what it adds to JAX.
    """
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for _ in range(repeats):
        for name, statement in IMPORTS.items():
            script = (
                "import time\n"
                "def begin():\n"
                "    global start\n"
                "    start = time.perf_counter()\n"
                f"{statement}\nprint(time.perf_counter() - start)"
            )
            result = subprocess.run(
                [sys.executable, "-c", script],
                capture_output=True,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            if not result.returncode:
                times[name].append(float(result.stdout))
    found = {
        name: timing.ratio(values, times["jax"]).median
        for name, values in times.items()
        if len(values) == repeats
    }
    return found | {"seconds of jax": statistics.median(times["jax"])}


def measure(platform: str, *, quick: bool) -> dict[str, Any]:
    """All of it."""
    peers, _ = available(platform)
    found: dict[str, Any] = {
        "compile": compile_times(
            peers, COMPILE_SHAPES[1:2] if quick else COMPILE_SHAPES, 2 if quick else 3
        ),
        "residuals": {
            "x".join(map(str, shape)): residuals(peers, shape)
            for shape in RESIDUAL_SHAPES[: 2 if quick else None]
        },
        "import": import_times(2 if quick else 5),
    }
    if not quick:
        found["peak_memory"] = peak_memory(platform)
    return found


if __name__ == "__main__":
    given_name, given_case, given_platform = json.loads(sys.argv[1])
    shape, *rest = given_case
    print(
        json.dumps(_peak_of_one_call(given_name, Case(tuple(shape), *rest), given_platform))
    )
