"""What compiled programs leave behind, in a cache and in the memory of one process.

    python -m tests.compilation_worker cache FOLDER
    python -m tests.compilation_worker maps COUNT [jnp]

The first prints, as JSON, how many programs were requested from a persistent cache, and how
many the cache had. The second prints how many pieces of mapped memory a gradient takes, on
average over COUNT shapes; with `jnp`, for `jnp.linalg.pinv`.
"""

import gc
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxpinv
from jaxpinv._platform.plan import Method

#: The events that JAX reports for each request to the persistent cache, and for each hit.
ASKED, FOUND = (
    f"/jax/compilation_cache/{name}"
    for name in ("compile_requests_use_cache", "cache_hits")
)
# One with a loop over the batch that has branches; one with a loop that decomposes again.
PROGRAMS: tuple[tuple[tuple[int, ...], Method], ...] = (
    ((40, 4, 3), "direct"),
    ((30, 28), "svd"),
)


def cached(folder: str) -> dict[str, int]:
    """Compiles values and gradients with a persistent cache in that folder."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    counts: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counts.update([event]))
    for shape, method in PROGRAMS:
        a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

        def loss(a, method: Method = method):
            return jnp.sum(jaxpinv.pinv(a, method=method) ** 2)

        for f in (loss, jax.grad(loss)):
            assert np.all(np.isfinite(jax.jit(f)(a)))
    return {"asked": counts[ASKED], "found": counts[FOUND]}


def maps(count: int, pinv: Callable) -> dict[str, float]:
    """Compiles `count` gradients of different shapes, and keeps them all.

    Nine of ten are of batches of 1 by 1 matrices, which have the fewest kernels and compile
    in half of the time: each program holds pieces of memory, whatever its shape.
    """
    # The collector would visit all programs again and again.
    gc.set_threshold(100_000, 50, 100)
    # The first program brings what all share.
    programs, before = [_gradient(pinv, (1, 1))], _maps()
    for k in range(count):
        shape = (1 + k, 1, 1) if k % 10 else (1 + (k // 10) % 10, 2 + k // 100)
        programs.append(_gradient(pinv, shape))
    return {"programs": len(programs) - 1, "maps": (_maps() - before) / count}


def _gradient(pinv: Callable, shape: tuple[int, ...]) -> Callable:
    """A compiled gradient for matrices of that shape, which has run once."""
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(pinv(a))))
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert np.all(np.isfinite(gradient(a)))
    return gradient


def _maps() -> int:
    """The number of pieces of memory that this process has mapped."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


if __name__ == "__main__":
    part, given, *others = sys.argv[1:]
    if part == "cache":
        print(json.dumps(cached(given)))
    else:
        print(json.dumps(maps(int(given), jnp.linalg.pinv if others else jaxpinv.pinv)))
