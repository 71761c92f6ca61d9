"""Many threads, processes and calls, for minutes: `python -m tests.stress`.

Each part prints what it did, and fails with an error if a claim does not hold. The tests
run the same parts, only as long as needed to show the claim.
"""

import argparse
import gc
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxpinv

ROOT = Path(__file__).parent.parent
THREADS = 8
SHAPES = {
    "one": [(40, 5, 3)],
    "few": [(40, 5, 3), (4, 12, 12)],
}


def program(name: str) -> Callable:
    """Compiled value and gradient of a function, "pinv" or "lstsq", by a method."""
    function, chosen = name.split()
    method = "svd" if chosen == "svd" else "direct"

    def pinv(a):
        return jnp.sum(jnp.sin(jaxpinv.pinv(a, method=method)))

    def lstsq(a):
        found = jaxpinv.lstsq(a, a[..., :1], method=method)
        return jnp.sum(jnp.sin(found.solution)) + jnp.sum(found.residuals)

    return jax.jit(jax.value_and_grad({"pinv": pinv, "lstsq": lstsq}[function]))


def in_threads(work: Callable[[int], None], threads: int = THREADS) -> None:
    """Runs `work(i)` in threads that start together, and raises the first error of any."""
    barrier, errors = threading.Barrier(threads), []

    def run(i: int) -> None:
        try:
            barrier.wait()
            work(i)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]


def threads(
    calls: int, shapes: str, names: Sequence[str], asynchronous: bool, seconds: float
) -> dict:
    """Threads that call the same program or different ones get the bits of serial calls.

    The threads run first, so that they also trace and compile at the same time.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", asynchronous)
    rng = np.random.default_rng(0)
    work = {
        (name, shape): (program(name), rng.standard_normal(shape).astype(np.float32))
        for name in names
        for shape in SHAPES[shapes]
    }
    keys = list(work)
    found: list[tuple[tuple, list]] = []
    deadline = time.monotonic() + seconds

    def call(key: tuple) -> None:
        f, a = work[key]
        found.append((key, jax.tree.map(np.asarray, f(a))))

    def different(i: int) -> None:
        for k in range(calls):
            call(keys[(i + k) % len(keys)])

    def every(i: int) -> None:
        for key in keys:
            call(key)

    rounds = total = differing = 0
    while True:
        in_threads(different)
        in_threads(every)
        rounds += 1
        for key, result in found:
            f, a = work[key]
            serial = jax.tree.map(np.asarray, f(a))
            same = jax.tree.map(lambda x, y: x.tobytes() == y.tobytes(), result, serial)
            differing += not all(jax.tree.leaves(same))
        total += len(found)
        found.clear()
        if time.monotonic() > deadline:
            break
    if differing:
        raise AssertionError(f"{differing} of {total} results differ from the serial ones")
    return {"programs": len(work), "rounds": rounds, "calls": total, "differing": differing}


def decompositions(
    kinds: Sequence[str], calls: int, copies: int, shape: Sequence[int], seconds: float
) -> dict:
    """Runs one program with many independent batched decompositions."""
    a = np.random.default_rng(0).standard_normal(tuple(shape)).astype(np.float32)
    counts = {}
    for kind in kinds:

        def f(a, hermitian=kind == "eigh"):
            scaled = [a * k for k in range(1, copies + 1)]
            return [jaxpinv.pinv(x, hermitian=hermitian, method="svd") for x in scaled]

        compiled = jax.jit(f).lower(a).compile()
        deadline = time.monotonic() + seconds
        counts[kind] = 0
        while counts[kind] < calls or time.monotonic() < deadline:
            jax.block_until_ready(compiled(a))
            counts[kind] += 1
    return {"copies": copies, "calls": counts}


def memory(calls: int) -> dict:
    """Calls with changing shapes, out of a few dozen, and the memory that stays in use."""
    rng = random.Random(0)
    derive = jax.jit(jax.value_and_grad(lambda a: jnp.sum(jaxpinv.pinv(a))))
    shapes = [(m, n) for m in range(1, 7) for n in range(1, 7)]

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def call() -> None:
        m, n = rng.choice(shapes)
        jax.block_until_ready(derive(np.full((m, n), rng.random(), np.float32)))

    for m, n in shapes:
        jax.block_until_ready(derive(np.ones((m, n), np.float32)))
    gc.collect()
    before, arrays = resident(), len(jax.live_arrays())
    half = None
    for i in range(calls):
        call()
        if i == calls // 2:
            gc.collect()
            half = resident()
    gc.collect()
    after = resident()
    if len(jax.live_arrays()) != arrays:
        raise AssertionError(f"{len(jax.live_arrays()) - arrays} arrays stay alive")
    assert half is not None
    if after - half > 1000 * (calls // 2):
        raise AssertionError(f"{(after - half) / calls * 2:.0f} bytes stay of each call")
    mebibytes = [round(x / 2**20, 1) for x in (before, half, after)]
    return {"shapes": len(shapes), "calls": calls, "MiB": mebibytes}


def free_port() -> int:
    """A free port of the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_hosts(count: int, part: str, devices: int = 2) -> list[subprocess.Popen]:
    """Starts the processes of one distributed program."""
    port = free_port()
    arguments = [
        sys.executable,
        "-m",
        "tests.distributed_worker",
        part,
        str(port),
        str(count),
    ]
    return [
        subprocess.Popen(
            [*arguments, str(i), str(devices)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count)
    ]


def finish(
    hosts: Sequence[subprocess.Popen], timeout: float
) -> tuple[list[int | None], list[str]]:
    """Exit codes, with None for a process that had to be killed, and outputs."""
    deadline = time.monotonic() + timeout
    codes: list[int | None] = []
    outputs = []
    for host in hosts:
        try:
            output, _ = host.communicate(timeout=max(1, deadline - time.monotonic()))
            codes.append(host.returncode)
        except subprocess.TimeoutExpired:
            host.kill()
            output, _ = host.communicate()
            codes.append(None)
        outputs.append(output)
    return codes, outputs


def hosts(count: int, part: str, timeout: float = 300) -> dict:
    """Runs a distributed program on the loopback address."""
    codes, outputs = finish(start_hosts(count, part), timeout)
    if codes != [0] * count:
        raise AssertionError(f"exit codes {codes}\n" + "\n".join(outputs))
    return {"processes": count, "part": part, "said": outputs[0].strip().splitlines()[-1]}


def run(part: str, timeout: float, **arguments) -> dict:
    """Runs a part in its own process, where a hang raises `subprocess.TimeoutExpired`."""
    command = [sys.executable, "-m", "tests.stress", "--part", part, json.dumps(arguments)]
    done = subprocess.run(
        command, cwd=ROOT, timeout=timeout, capture_output=True, text=True
    )
    if done.returncode:
        raise AssertionError(f"{part}: exit code {done.returncode}\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


PARTS = {f.__name__: f for f in (threads, decompositions, memory, hosts)}


def main() -> int:
    """Runs all parts in full length, or one part."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for each part with time")
    parser.add_argument("--part", nargs=2, metavar=("NAME", "JSON"), help="this one alone")
    options = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    if options.part:
        name, arguments = options.part
        print(json.dumps(PARTS[name](**json.loads(arguments))), flush=True)
        return 0
    seconds = options.seconds
    names = ["pinv auto", "lstsq auto", "pinv svd", "lstsq svd"]
    work: list[tuple[str, dict]] = [
        ("threads", {"calls": 50, "shapes": "few", "names": names, "asynchronous": x})
        for x in (True, False)
    ]
    arguments = {"kinds": ["svd", "eigh"], "calls": 1, "copies": 8, "shape": (100, 32, 32)}
    work.append(("decompositions", arguments))
    for _, arguments in work:
        arguments["seconds"] = seconds
    work.append(("memory", {"calls": 10_000}))
    work += [("hosts", {"count": n, "part": "train"}) for n in (2, 4)]
    print(f"jax {jax.__version__}, {os.cpu_count()} cores, load {os.getloadavg()}")
    failures = 0
    for part, arguments in work:
        start = time.monotonic()
        try:
            found = run(part, 900 + 4 * seconds, **arguments)
        except (AssertionError, subprocess.TimeoutExpired) as error:
            found, failures = f"FAILED: {error}", failures + 1
        print(f"{part} {arguments}: {found}, {time.monotonic() - start:.0f} s", flush=True)
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main())
