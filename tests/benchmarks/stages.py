"""What the parts of a pseudo-inverse take, each alone: `python -m tests.benchmarks.stages`.

Medians in milliseconds, in single precision and at full rank. The parts are those of the
direct way; "by values" is the pseudo-inverse by singular values.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpinv
from jaxpinv._factorization import certificate, cholesky_qr, triangular
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, frobenius_norm, matmul
from jaxpinv._platform.tuning import DEFAULT

SINGLE = ((500, 500), (1000, 1000), (2000, 400), (20_000, 64))
BATCHES = ((100_000, 3, 3), (20_000, 7, 6), (2_000, 32, 32), (2_000, 64, 16))
#: Threads of the call before spin for about a millisecond.
SETTLE_SECONDS = 0.005

Call = tuple[Callable[..., Any], tuple]


def by_values(a: Array) -> Array:
    """The pseudo-inverse by singular values."""
    return jaxpinv.pinv(a, method="svd")


def gradient(a: Array, ct: Array) -> Array:
    """The gradient of the pseudo-inverse against a cotangent."""
    return jax.vjp(jaxpinv.pinv, a)[1](ct)[0]


def proof(a: Array, w: Array) -> Array:
    """Whether the default cutoff truncates nothing, given that `a w` is orthonormal."""
    rtol = max(a.shape[-2:]) * float(jnp.finfo(a.dtype).eps)
    cutoff = Cutoff(jnp.asarray(rtol, a.dtype), jnp.zeros((), a.dtype))
    norm, possible = frobenius_norm(a), jnp.asarray(True)
    return certificate.certify_full_rank(a, norm, w, cutoff, possible)


def whole(a: Array) -> dict[str, Call]:
    """Value, gradient, and what they may be compared with."""
    calls: dict[str, Call] = {
        "value": (jaxpinv.pinv, (a,)),
        "gradient": (gradient, (a, jnp.swapaxes(a, -1, -2))),
        "by values": (by_values, (a,)),
    }
    if a.shape[-1] == a.shape[-2]:
        calls["inverse of jnp"] = (jnp.linalg.inv, (a,))
    return calls


def parts(a: Array) -> dict[str, Call]:
    """The parts of the direct way of one matrix."""
    product = (lambda a: matmul(adjoint(a), a), (a,))
    if a.shape[-1] == a.shape[-2]:
        lu, _, order = jax.lax.linalg.lu(a)
        return {
            "product": product,
            "LU": (lambda a: jax.lax.linalg.lu(a)[:2], (a,)),
            "inverse of LU": (triangular.inverse, (lu, order)),
            "proof": (proof, (a, jnp.linalg.inv(a))),
        }
    gram = matmul(adjoint(a), a)
    orthonormalizer = partial(triangular.orthonormalizer, halves=DEFAULT.halves)
    w = orthonormalizer(gram)
    q = matmul(a, w)
    return {
        "product": product,
        "orthonormalizer": (orthonormalizer, (gram,)),
        "inverse square root": (cholesky_qr.inverse_square_root, (matmul(adjoint(q), q),)),
        "proof": (proof, (a, w)),
    }


def milliseconds(calls: dict[str, Call], repeats: int) -> dict[str, float]:
    """Median times of compiled calls, one after the other in every round."""
    compiled = {name: (jax.jit(f).lower(*x).compile(), x) for name, (f, x) in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats + 1):
        for name, (f, x) in compiled.items():
            time.sleep(SETTLE_SECONDS)
            start = time.perf_counter()
            jax.block_until_ready(f(*x))
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def main(repeats: int = 15, shapes: tuple = SINGLE + BATCHES) -> None:
    """Prints the times of all shapes."""
    rng = np.random.default_rng(0)
    for shape in shapes:
        a = jnp.asarray(rng.standard_normal(shape, dtype=np.float32))
        calls = whole(a) | (parts(a) if len(shape) == 2 else {})
        times = milliseconds(calls, repeats)
        found = ", ".join(f"{name} {ms:.1f}" for name, ms in times.items())
        print(f"{'x'.join(map(str, shape))}: {found}", flush=True)


if __name__ == "__main__":
    main()
