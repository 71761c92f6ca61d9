"""The columns of the table of features: one pseudo-inverse each, in its own arrays."""

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

import jaxpinv

Array = Any
Derivative = Callable[[Callable, NDArray, Sequence[NDArray]], NDArray]


class Library:
    """One column: a pseudo-inverse, its derivative and a least-squares solution."""

    def __init__(
        self,
        name: str,
        pinv: Callable[..., Array],
        derivative: Derivative | None = None,
        solve: Callable[..., Array] | None = None,
        rank: Callable[[Array], Any] | None = None,
        array: Callable[..., Array] = np.asarray,
    ):
        """`array` makes what the library computes with, and `pinv` takes tolerances."""
        self.name, self.pinv, self.derivative = name, pinv, derivative
        self.solve, self.rank, self.array = solve, rank, array


def installed() -> Iterator[Library]:
    """The columns that can be filled in here."""
    for make in (
        of_jaxpinv,
        of_jnp,
        of_torch,
        of_numpy,
        of_scipy,
        of_tensorflow,
        of_lineax,
    ):
        try:
            yield make()
        except ImportError as error:
            print(f"left out: {error}")


def _by_jax(f: Callable, a: NDArray, directions: Sequence[NDArray]) -> NDArray:
    arrays = [jnp.asarray(x) for x in (a, *directions)]
    return np.asarray(_compiled(f)(*arrays))


@functools.cache
def _compiled(f: Callable) -> Callable:
    """The derivative along all directions, compiled once for all matrices of a shape."""

    def derivative(a, *directions):
        along = f
        for e in directions:
            along = _along(jax.jvp, along, e)
        return along(a)

    return jax.jit(derivative)


def _along(jvp: Callable, f: Callable, e: Array) -> Callable:
    return lambda a: jvp(f, (a,), (e,))[1]


def of_jaxpinv() -> Library:
    """This library."""
    return Library(
        "jaxpinv",
        jaxpinv.pinv,
        _by_jax,
        lambda a, b: jaxpinv.lstsq(a, b).solution,
        lambda a: jaxpinv.pinv(a, return_rank=True)[1],
        jnp.asarray,
    )


def of_jnp() -> Library:
    """`jax.numpy`."""

    def solve(a, b):
        return jnp.linalg.lstsq(a, b)[0]

    return Library("jnp", jnp.linalg.pinv, _by_jax, solve, None, jnp.asarray)


def of_numpy() -> Library:
    """NumPy, without derivatives."""
    return Library("NumPy", np.linalg.pinv)


def of_scipy() -> Library:
    """SciPy, without derivatives."""
    linalg: Any = importlib.import_module("scipy.linalg")
    return Library("SciPy", linalg.pinv, rank=lambda a: linalg.pinv(a, return_rank=True)[1])


def of_torch() -> Library:
    """PyTorch."""
    torch: Any = importlib.import_module("torch")

    def derivative(f, a, directions):
        for e in directions:
            f = _along(torch.func.jvp, f, torch.tensor(e))
        return f(torch.tensor(a)).numpy()

    def solve(a, b):
        return torch.linalg.lstsq(a, b, driver="gelsd").solution

    return Library("torch", torch.linalg.pinv, derivative, solve, None, torch.tensor)


def of_tensorflow() -> Library:
    """TensorFlow: derivatives along a direction from those of every element."""
    tf: Any = importlib.import_module("tensorflow")

    def along(f, e):
        def directional(a):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(a)
                y = f(a)
                elements = tf.unstack(tf.reshape(y, [-1]))
            slopes = [tf.reduce_sum(tape.gradient(x, a) * e) for x in elements]
            return tf.reshape(tf.stack(slopes), y.shape)

        return directional

    def derivative(f, a, directions):
        for e in directions:
            f = along(f, tf.constant(e))
        return f(tf.constant(a)).numpy()

    def pinv(a, rtol=None):
        return tf.linalg.pinv(a, rcond=rtol)

    return Library(
        "TensorFlow",
        pinv,
        derivative,
        lambda a, b: tf.linalg.lstsq(a, b),
        None,
        tf.constant,
    )


def of_lineax() -> Library:
    """`lineax.linear_solve` with `SVD`, of the columns of the identity."""
    lineax: Any = importlib.import_module("lineax")

    def solution(a, b, rtol=None):
        operator = lineax.MatrixLinearOperator(a)
        solver = lineax.SVD(rcond=rtol)
        return jax.vmap(
            lambda column: lineax.linear_solve(operator, column, solver, throw=False),
            in_axes=1,
            out_axes=0,
        )(b)

    def pinv(a, rtol=None):
        if a.ndim == 3:
            axes = 0 if rtol is not None and jnp.ndim(rtol) else None
            return jax.vmap(pinv, in_axes=(0, axes))(a, rtol)
        return solution(a, jnp.eye(a.shape[0], dtype=a.dtype), rtol).value.T

    return Library(
        "lineax",
        pinv,
        _by_jax,
        lambda a, b: solution(a, b).value.T,
        lambda a: solution(a, jnp.eye(a.shape[0], dtype=a.dtype)).stats["rank"][0],
        jnp.asarray,
    )
