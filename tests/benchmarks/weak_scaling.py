"""Weak scaling of `jaxpinv.sharded`: measured on host devices, and on paper for many more.

`python -m tests.benchmarks.weak_scaling` does both. Host devices share the cores of one
machine: with p devices on c cores, p times the work takes at best max(1, p / c) times as
long. What is left of that is called efficiency: it shows what the tree and the compiler
cost, and nothing of a network.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxpinv import sharded

COUNTS = (1, 2, 4, 8)


class Machine(NamedTuple):
    """A device and its network, by default an H100 SXM in a DGX H100.

    Attributes:
        flops: operations a second. NVIDIA H100 data sheet: 67 TFLOPS in FP32 (SXM).
        memory: bytes a second. The same: 3.35 TB/s.
        link: bytes a second to other devices. NVIDIA DGX H100 data sheet: one adapter of
            400 Gb/s for each device.
        latency: seconds of one message. Assumed: no data sheet states it.
    """

    flops: float = 67e12
    memory: float = 3.35e12
    link: float = 50e9
    latency: float = 10e-6


class Paper(NamedTuple):
    """What `sharded.pinv` of an m by n matrix asks of one of p devices.

    Attributes:
        rows: of one device, rounded up.
        rounds: of the tree, up and down.
        round_bytes: sent in one round.
        sum_bytes: sent in the sum of `V` and the singular values over a ring.
        row_flops: operations that grow with the rows.
        tree_flops: those on n by n matrices.
        held_bytes: the matrix, Q, U and the pseudo-inverse, and the blocks of the tree.
        gradient_flops: additional operations of a gradient.
        gradient_bytes: sent in its sum.
    """

    rows: int
    rounds: int
    round_bytes: int
    sum_bytes: float
    row_flops: float
    tree_flops: float
    held_bytes: int
    gradient_flops: float
    gradient_bytes: float

    def seconds(self, machine: Machine) -> dict[str, float]:
        """Times at the stated speeds, all of which are peaks: the true ones are longer."""
        hops = self.rounds // 2
        messages = self.rounds + 2 * hops
        sent = self.rounds * self.round_bytes + self.sum_bytes
        return {
            "rows, arithmetic": self.row_flops / machine.flops,
            "rows, one pass over memory": self.held_bytes / machine.memory,
            "tree, arithmetic": self.tree_flops / machine.flops,
            "network": sent / machine.link + messages * machine.latency,
            "gradient, arithmetic": self.gradient_flops / machine.flops,
            "gradient, network": self.gradient_bytes / machine.link
            + 2 * hops * machine.latency,
        }


def paper(m: int, n: int, p: int, itemsize: int = 4) -> Paper:
    """The counts, of leading order, of a real matrix with `m / p >= n`.

    A QR factorization of r by n takes `2 n^2 (r - n / 3)` operations, and as many to form
    Q; a singular value decomposition of n by n takes `21 n^3` (Golub and Van Loan, "Matrix
    Computations", 4th ed., chapters 5 and 8).
    """
    rows, depth = -(-m // p), math.ceil(math.log2(p))

    def qr(r: int) -> float:
        return 2 * 2 * n**2 * (r - n / 3)

    ring = 2 * (p - 1) / p
    square = n * n * itemsize
    return Paper(
        rows=rows,
        rounds=2 * depth,
        round_bytes=square,
        sum_bytes=ring * (square + n * itemsize),
        # Q times what comes down the tree, and V times U^H.
        row_flops=qr(rows) + 2 * 2 * rows * n**2,
        tree_flops=depth * (qr(2 * n) + 2 * 2 * n**3) + 21 * n**3,
        held_bytes=4 * rows * n * itemsize + depth * 2 * square,
        gradient_flops=4 * 2 * rows * n**2,
        gradient_bytes=ring * square,
    )


def measure(rows: int, n: int, repeats: int) -> dict[int, float]:
    """Median seconds of `sharded.pinv` over numbers of devices, as many rows on each."""
    rng = np.random.default_rng(0)
    calls = {}
    for p in COUNTS:
        axis_types = (AxisType.Auto,)
        devices = jax.devices()[:p]
        mesh = jax.make_mesh((p,), ("rows",), axis_types=axis_types, devices=devices)
        a = rng.standard_normal((p * rows, n), dtype=np.float32)
        placed = jax.device_put(a, NamedSharding(mesh, PartitionSpec("rows")))
        f = jax.jit(lambda a, mesh=mesh: sharded.pinv(a, mesh=mesh))
        calls[p] = lambda f=f, placed=placed: jax.block_until_ready(f(placed))
        calls[p]()
    times: dict[int, list[float]] = {p: [] for p in COUNTS}
    for _ in range(repeats):
        for p, call in calls.items():
            start = time.perf_counter()
            call()
            times[p].append(time.perf_counter() - start)
    return {p: statistics.median(found) for p, found in times.items()}


def efficiencies(seconds: dict[int, float], cores: int) -> dict[int, float]:
    """Ideal time on so many cores over the measured one, for each number of devices."""
    return {p: seconds[1] * max(1, p / cores) / found for p, found in seconds.items()}


def table_of_measurements(seconds: dict[int, float], cores: int) -> str:
    """Times and efficiencies in Markdown."""
    lines = [
        f"| devices on {cores} cores | ms | ideal ms | efficiency |",
        "| ---: | ---: | ---: | ---: |",
    ]
    for p, efficiency in efficiencies(seconds, cores).items():
        found = seconds[p]
        ideal = found * efficiency
        lines.append(f"| {p} | {found * 1e3:.2f} | {ideal * 1e3:.2f} | {efficiency:.2f} |")
    return "\n".join(lines)


def table_on_paper(m: int, n: int, p: int, device: Machine) -> str:
    """Counts and times in Markdown."""
    counts = paper(m, n, p)
    lines = [f"| {m:.3g} by {n} on {p} devices, float32 | each |", "| --- | ---: |"]
    lines += [
        f"| {name.replace('_', ' ')} | {value:.4g} |"
        for name, value in counts._asdict().items()
    ]
    lines += [
        f"| {name}, ms | {value * 1e3:.3g} |"
        for name, value in counts.seconds(device).items()
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="of each host device")
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--paper", type=int, nargs=3, default=(10**9, 512, 1024))
    for name, value in Machine()._asdict().items():
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.worker:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", max(COUNTS))
        print(json.dumps(measure(args.rows, args.columns, args.repeats)))
        return
    given = ["--rows", "--columns", "--repeats"]
    values = [args.rows, args.columns, args.repeats]
    command = [sys.executable, "-m", "tests.benchmarks.weak_scaling", "--worker"]
    command += [str(x) for pair in zip(given, values, strict=True) for x in pair]
    # Devices that are threads would wait for each other's threads of OpenBLAS.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    seconds = {int(p): x for p, x in json.loads(done.stdout).items()}
    print(f"{args.rows} by {args.columns} on each device, float32, sharded.pinv")
    print(
        table_of_measurements(
            seconds,
            len(os.sched_getaffinity(0))
            if sys.platform == "linux"
            else os.cpu_count() or 1,
        )
    )
    device = Machine(*(getattr(args, name) for name in Machine._fields))
    print()
    m, n, p = args.paper
    print(table_on_paper(m, n, p, device))


if __name__ == "__main__":
    main()
