"""Prints what a bug report needs, or the plan for a shape and the reason for it.

python -m jaxpinv
python -m jaxpinv plan 20000 6 7 --dtype float32
"""

import argparse
import importlib.metadata
import math
import os
import platform
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

import jaxpinv
from jaxpinv._platform import plan, target, workarounds

_PACKAGES = ("jax", "jaxlib", "numpy")
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS")
_DTYPES = ("float32", "float64", "complex64", "complex128")
#: What the names of factorizations mean.
_NAMES = {
    "gram_schmidt": "Gram-Schmidt",
    "lu": "LU with partial pivoting",
    "cholesky_qr": "Cholesky QR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for, and returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "plan" and len(options.shape) < 2:
        options.parser.error(f"expected at least m and n, got {len(options.shape)} size")
    lines = _plan(options) if options.command == "plan" else _environment()
    print("\n".join(lines))
    return 0


def _environment() -> Iterator[str]:
    """Versions, platform, threads, and known faults of jaxlib."""
    yield f"jaxpinv {jaxpinv.__version__}"
    yield f"python {platform.python_version()}"
    yield from (f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    yield f"platform {platform.system()} {platform.machine()}"
    yield f"devices {len(devices)} x {jax.default_backend()} ({', '.join(kinds)})"
    yield f"cores {os.cpu_count()}"
    yield f"float64 {'enabled' if jax.config.read('jax_enable_x64') else 'disabled'}"
    yield from (f"{name} {os.environ.get(name, 'not set')}" for name in _THREADS)
    yield from _faults(
        is_cpu=jax.default_backend() == "cpu",
        shares_batches=workarounds.SHARES_BATCHES,
        devices=len(devices),
    )


def _faults(*, is_cpu: bool, shares_batches: bool, devices: int) -> Iterator[str]:
    """The known faults that concern an installation."""
    found = []
    if is_cpu and shares_batches:
        found.append(
            "jaxlib before 0.12 can deadlock if batched calls of LAPACK run at the same "
            "time. jaxpinv avoids this, except in programs that the compiler divides over "
            "devices and in exports with symbolic sizes. Other calls, such as "
            "jnp.linalg.svd, are exposed: upgrade jaxlib."
        )
    if is_cpu and devices > 1 and os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        found.append(
            "several CPU devices in one process may wait for LAPACK's threads: set "
            "OPENBLAS_NUM_THREADS=1."
        )
    yield from (f"known fault: {text}" for text in found)
    if not found:
        yield "known faults: none that concern this installation"


def _plan(options: argparse.Namespace) -> Iterator[str]:
    """The plan for a shape, and the reason for it."""
    *batch, m, n = options.shape
    count, tall, short = math.prod(batch), max(m, n), min(m, n)
    where = target.here()
    if options.platform is not None:
        name = options.platform
        where = where._replace(is_cpu=name == "cpu", is_cuda=name == "gpu")
    chosen = plan.factorization(
        (*batch, tall, short),
        where,
        is_complex=options.dtype.startswith("complex"),
        method=options.method,
    )
    many = "one matrix" if count == 1 else f"{count} matrices"
    yield (
        f"{many}, {m} by {n}, {options.dtype}, method {options.method!r}, on "
        f"{'a CPU' if where.is_cpu else 'an accelerator'}"
    )
    eps = float(jnp.finfo(options.dtype).eps)
    yield f"default rtol: max(m, n) * eps = {tall * eps:.3g}"
    if not math.prod(options.shape):
        yield "nothing to factor"
        return
    if m < n:
        yield f"the adjoint is factored: {tall} by {short}"
    if chosen.full_rank is None:
        yield "factorization: singular value decomposition of every matrix"
    else:
        of = "the" if chosen.full_rank == "gram_schmidt" else "full"
        second = "QR with column pivoting, then " if chosen.pivoted_qr else ""
        yield (
            f"factorization: {_NAMES[chosen.full_rank]}; {second}singular values only if "
            f"{of} rank is not proven"
        )
    yield f"why: {_reason(chosen, options.method)}"
    if count > 1:
        yield from _sizes(chosen, count)
    yield from _details(chosen)


def _reason(chosen: plan.Plan, method: plan.Method) -> str:
    """Why a plan does or does not try a factorization without singular values."""
    if method != "auto":
        return f"method={method!r} was requested"
    saved, needed = chosen.work
    work = f"the work saved, {saved:.3g} units, "
    if saved < needed:
        return f"{work}is less than {needed}: compiling it would not pay off"
    return f"{work}is at least {needed}: compiling it pays off within 1000 calls"


_ROUTES = {
    "qr, svd": "singular vectors: from those of a shorter matrix, by QR",
    "qr, eigh": "singular vectors: from eigenvectors of a Hermitian matrix",
}


def _sizes(chosen: plan.Plan, count: int) -> Iterator[str]:
    """How many matrices are processed at a time."""
    how = "at a time" if chosen.loops else "alone, or all if there are more"
    parts = {
        "matrices tried at a time": chosen.chunk if chosen.full_rank else None,
        f"matrices without a proof decomposed {how}": (
            chosen.remainder if chosen.full_rank else None
        ),
        "matrices per call of LAPACK's SVD": chosen.svd_call,
    }
    for text, size in parts.items():
        if size is not None:
            yield f"{text}: {min(size, count)}"


def _details(chosen: plan.Plan) -> Iterator[str]:
    """How matrices are decomposed."""
    if chosen.values == "qr, svd":
        yield "singular values alone: those of a shorter matrix, by QR"
    if chosen.triplets != "svd":
        yield _ROUTES[chosen.triplets]
    if chosen.retries:
        yield "a matrix on which LAPACK does not converge is decomposed again"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxpinv",
        description="Prints versions, threads and known faults: include it in bug reports.",
    )
    commands = parser.add_subparsers(dest="command")
    about = "print the plan for a shape, and why"
    found = commands.add_parser(
        "plan", help=about, description=f"P{about[1:]}: python -m jaxpinv plan 20000 6 7"
    )
    found.add_argument(
        "shape",
        nargs="+",
        type=_size,
        metavar="SIZE",
        help="sizes of the batch axes, if any, then m and n",
    )
    found.add_argument("--dtype", choices=_DTYPES, default="float32")
    found.add_argument("--method", choices=("auto", "direct", "svd"), default="auto")
    found.add_argument(
        "--platform", choices=("cpu", "gpu", "tpu"), help="default: this one"
    )
    found.set_defaults(parser=found)
    return parser


def _size(text: str) -> int:
    """A size given on the command line."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a size of 0 or more, got {text}")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
