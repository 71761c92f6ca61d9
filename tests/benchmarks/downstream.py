"""Derivatives of three programs that solve least-squares problems, in jaxpinv and in jnp.

    python -m tests.benchmarks.downstream

prints the table of the comparison page.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxpinv
from tests.benchmarks.report import table

Solve = Callable[[Array, Array], Array]


def _by_pinv(a: Array, b: Array) -> Array:
    """The solution by `jnp.linalg.pinv`, with the default cutoff of jaxpinv."""
    return jnp.linalg.pinv(a, rtol=max(a.shape) * float(jnp.finfo(a.dtype).eps)) @ b


SOLVERS: dict[str, Solve] = {
    "jaxpinv.lstsq": lambda a, b: jaxpinv.lstsq(a, b).solution,
    "jnp.linalg.lstsq": lambda a, b: jnp.linalg.lstsq(a, b)[0],
    "jnp.linalg.pinv @ b": _by_pinv,
}
CONTACT, START = "force of a rigid contact", "filter without noise"
EXTRAPOLATION = "error of the extrapolation, {}"
DTYPES = ("float64", "float32")


def contact_force(shift: Array | float, solve: Solve) -> Array:
    """The force on a foot of a robot that stands on two of its four feet.

    Simulators keep a row for every possible contact, so that shapes are static. Those of
    the two feet in the air are zero.
    """
    feet = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    touches = jnp.array([1.0, 1.0, 0.0, 0.0])
    x, y = feet.at[0, 0].add(shift).T
    # A unit force on a foot, and its moments about two axes.
    jacobian = jnp.column_stack([jnp.ones(4), y, -x]) * touches[:, None]
    weight = jnp.array([9.81, 0.3, -9.3])
    return solve(jacobian.T, weight)[0]


def filtered_start(rate: Array | float, solve: Solve) -> Array:
    """A step of a Kalman filter from a state that is known exactly, as in ODE filters.

    The covariance of the state is zero, and so is that of the observation.
    """
    covariance = jnp.zeros((3, 3))
    observation = jnp.array([[1.0, 0.0, 0.0], [rate, 1.0, 0.0]])
    innovation = observation @ covariance @ observation.T
    gain = solve(innovation, observation @ covariance).T
    state = jnp.array([1.0, -rate, 0.0])
    return (state + gain @ (jnp.array([1.0, 0.0]) - observation @ state))[1]


def extrapolated(t: Array, terms: tuple[Array, Array, Array], solve: Solve) -> Array:
    """The limit of `x -> (M + t D) x + b`, by reduced rank extrapolation of n + 2 iterates.

    It is exact after as many iterates as the matrix has distinct eigenvalues, plus two.
    """
    matrix, direction, b = terms
    iterates = [jnp.zeros_like(b)]
    for _ in range(len(b) + 1):
        iterates.append((matrix + t * direction) @ iterates[-1] + b)
    first = jnp.diff(jnp.stack(iterates, axis=1), axis=1)
    return iterates[0] - first[:, :-1] @ solve(jnp.diff(first, axis=1), first[:, 0])


def extrapolation_error(dtype: str, solve: Solve, n: int = 6) -> float:
    """The relative error of the derivative, against that of the limit in closed form."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    matrix = q @ np.diag(np.linspace(0.1, 0.95, n)) @ q.T
    direction, b = rng.standard_normal((n, n)) / n, rng.standard_normal(n)
    matrix, direction, b = (jnp.asarray(x, dtype) for x in (matrix, direction, b))
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    terms = (matrix, direction, b)
    _, found = jax.jvp(lambda t: extrapolated(t, terms, solve), (zero,), (one,))
    inverse = np.linalg.inv(np.eye(n) - np.asarray(matrix, float))
    limit = inverse @ np.asarray(b, float)
    exact = inverse @ np.asarray(direction, float) @ limit
    difference = np.asarray(found, float) - exact
    return float(np.linalg.norm(difference) / np.linalg.norm(exact))


def differences(function: Callable, at: float) -> float:
    """The derivative by central differences of the function with jaxpinv."""
    step = 1e-5
    value = jax.jit(partial(function, solve=SOLVERS["jaxpinv.lstsq"]))
    return (float(value(at + step)) - float(value(at - step))) / (2 * step)


def rows() -> list[list[str]]:
    """The rows of the table. Needs double precision."""
    found = []
    for name, function, at in (
        (CONTACT, contact_force, 0.0),
        (START, filtered_start, 0.5),
    ):
        slopes = jax.jit(jax.grad(function), static_argnames="solve")
        cells = [f"{slopes(at, solve=solve):.4f}" for solve in SOLVERS.values()]
        found.append([name, *cells, f"{differences(function, at):.4f}"])
    for dtype in DTYPES:
        errors = (extrapolation_error(dtype, solve) for solve in SOLVERS.values())
        found.append([EXTRAPOLATION.format(dtype), *(f"{x:.0e}" for x in errors), "0"])
    return found


def main() -> None:
    """Prints the table."""
    jax.config.update("jax_enable_x64", True)
    names = (f"`{name}`" for name in SOLVERS)
    print(table(["derivative", *names, "right"], rows()))


if __name__ == "__main__":
    main()
