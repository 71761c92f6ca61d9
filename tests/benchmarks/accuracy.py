"""Errors of value, first and second derivative against mpmath in 50 digits.

Every method gets the same matrices and directions. The derivatives are directional ones of
the truncated pseudo-inverse, by central differences in 50 digits, so that no method is
compared with another one or with a formula.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tests import comparison, matrices, mpmath_oracle
from tests.benchmarks.cases import Case
from tests.benchmarks.peers import HostPeer, JaxPeer, Peer, TorchPeer

SHAPE = (6, 7)
COUNT = min(SHAPE)
ORDERS = ("value", "first derivative", "second derivative")


class Point(NamedTuple):
    """Median error over the matrices of one kind."""

    sweep: str
    dtype: str
    x: float
    order: str
    peer: str
    error: float


class Problem(NamedTuple):
    """Singular values, which of them are truncated, and what they are plotted against."""

    sweep: str
    dtype: str
    x: float
    spectrum: Sequence[float]
    rtol: float


def problems(*, quick: bool) -> list[Problem]:
    """Growing condition number at full rank, and a truncated value close to a kept one."""
    found = []
    for dtype, decades in (("float32", 6), ("float64", 12)):
        for exponent in np.linspace(0, decades, 4 if quick else 7):
            spectrum = np.logspace(0, -exponent, COUNT).tolist()
            # Below every singular value, at every condition number, for every method.
            found.append(Problem("condition", dtype, 10.0**exponent, spectrum, 1e-14))
    for nearest in (0.01, 0.9) if quick else (1e-3, 1e-2, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        spectrum = [2.0, 1.6, 1.3, 1.0, nearest, nearest / 2]
        rtol = (1 + nearest) / 2 / spectrum[0]
        found.append(Problem("cut", "float64", nearest, spectrum, rtol))
    return found


def measure(peers: Sequence[Peer], problem: Problem, seeds: int) -> Iterator[Point]:
    """Errors of every method in one problem."""
    errors: dict[tuple[str, str], list[float]] = {}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        a = matrices.matrix(rng, SHAPE, problem.spectrum, problem.dtype)
        e = matrices.gaussian(rng, SHAPE, problem.dtype)
        # mpmath gets the rounded matrix; the cutoff is far from rounding.
        cutoff = problem.rtol * problem.spectrum[0]
        # The step of the differences has to be small next to every singular value. A power
        # of two keeps the digits of the direction.
        scale = 2.0 ** math.floor(math.log2(min(problem.spectrum)))
        exact = [
            mpmath_oracle.exact_derivative(a, [e * a.dtype.type(scale)] * order, cutoff)
            / scale**order
            for order in range(3)
        ]
        case = Case(SHAPE, problem.dtype)
        for peer in peers:
            if "pinv" not in peer.name:
                continue
            for index, found in enumerate(_orders(peer, case, problem.rtol, a, e)):
                error = comparison.relative_error(found, exact[index])
                errors.setdefault((ORDERS[index], peer.name), []).append(error)
    for (order, name), values in errors.items():
        head = (problem.sweep, problem.dtype, problem.x)
        yield Point(*head, order, name, statistics.median(values))


def _orders(
    peer: Peer, case: Case, rtol: float, a: NDArray, e: NDArray
) -> Iterator[NDArray]:
    """The value and, of methods that have them, two derivatives along `e`."""
    if isinstance(peer, HostPeer):
        yield peer.functions[False](a, rtol)
    elif isinstance(peer, JaxPeer):
        pinv = peer.pinv(case, rtol)
        for result in _derivatives(jax.jvp, pinv, jnp.asarray(a), jnp.asarray(e)):
            yield np.asarray(result)
    elif isinstance(peer, TorchPeer):
        x, tangent = (peer.torch.from_numpy(y).to(peer.device) for y in (a, e))
        pinv = partial(peer.torch.linalg.pinv, rtol=rtol)
        for result in _derivatives(peer.torch.func.jvp, pinv, x, tangent):
            yield result.cpu().numpy()


def _derivatives(
    jvp: Callable[..., Any], pinv: Callable, x: Any, tangent: Any
) -> list[Any]:
    """Value and directional derivatives by forward mode over forward mode."""

    def first(x):
        return jvp(pinv, (x,), (tangent,))[1]

    return [pinv(x), first(x), jvp(first, (x,), (tangent,))[1]]
