"""Where the numbers come from: machine, threads, versions. No host or path is named."""

import datetime
import importlib
import importlib.metadata
import os
import platform as host
import sys
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jaxpinv", "jax", "jaxlib", "numpy", "scipy", "torch")


def describe(platform: str) -> dict[str, Any]:
    """What a reader needs to know to repeat a measurement."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "system": f"{host.system()} {host.machine()}",
        "cpu": _cpu_model(),
        "cores": _cores(),
        "threads": _threads(),
        "device": jax.devices(platform)[0].device_kind,
        "load_at_start": load(),
        "versions": {"python": host.python_version()} | _versions(),
    }


def sentence(machine: dict[str, Any]) -> str:
    """The same in two lines."""
    threads = ", ".join(f"{k} {v}" for k, v in machine["threads"].items())
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    device = "" if machine["device"] == "cpu" else f", {machine['device']}"
    return (
        f"{machine['cpu']}, {machine['cores']} core(s), {machine['system']}{device}; "
        f"threads: {threads}; load average {machine['load_at_start']} at the start, "
        f"{machine['load_at_end']} at the end.\n"
        f"{versions}; {machine['date']}."
    )


def load() -> float:
    """Load average of the last minute: this process alone makes one or two."""
    return round(os.getloadavg()[0], 2)


def _cpu_model() -> str:
    """Name of the processor, of which Python has none on Linux."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return host.processor() or "unknown"


def _cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads() -> dict[str, int]:
    """Sizes of the thread pools: those of the BLAS libraries, of torch, and of XLA.

    XLA has a thread for each core and no public way to ask. `jaxlib` calls the LAPACK of
    SciPy.
    """
    found = {"XLA": _cores()}
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        found["torch"] = torch.get_num_threads()
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        return found
    for pool in threadpoolctl.threadpool_info():
        owner = next((p for p in PACKAGES if f"{p}.libs" in pool["filepath"]), None)
        if owner:
            found[f"{owner}'s {pool['internal_api']}"] = pool["num_threads"]
    return found


def _versions() -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
