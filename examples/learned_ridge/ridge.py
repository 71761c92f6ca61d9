"""Ridge regression with a damping for each group of features, and its error.

The idea is `leave_one_out`: a closed form of the error of predictions for rows that were
left out, from one damped pseudo-inverse, and differentiable in the dampings.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

import jaxpinv

#: The groups of features.
GROUPS = ("body", "serum", "squares", "products")


class Data(NamedTuple):
    """A regression problem.

    Attributes:
        a: ones in the first column, for the intercept, then features, `(m, 1 + n)`.
        y: the target, `(m,)`.
        groups: the number of the group of each feature, `(n,)`.
    """

    a: NDArray
    y: NDArray
    groups: NDArray


def diabetes() -> Data:
    """The diabetes data of scikit-learn with squares and products of its ten features.

    Four features describe the body, six the blood serum. Sex has two values, and no square.
    With standardized columns, the dampings have one unit.
    """
    raw, y = map(np.asarray, load_diabetes(return_X_y=True, scaled=False))
    linear = _standardized(raw)
    is_numeric = [len(np.unique(column)) > 2 for column in raw.T]
    squares = linear[:, is_numeric] ** 2
    pairs = itertools.combinations(linear.T, 2)
    products = np.stack([first * second for first, second in pairs], axis=1)
    features = np.concatenate([linear, squares, products], axis=1)
    sizes = (4, 6, squares.shape[1], products.shape[1])
    a = np.concatenate([np.ones((len(y), 1)), _standardized(features)], axis=1)
    return Data(a, y, np.repeat(np.arange(len(GROUPS)), sizes))


def _standardized(columns: NDArray) -> NDArray:
    """Columns of mean 0 and variance 1, `(m, n)`."""
    return (columns - columns.mean(axis=0)) / columns.std(axis=0)


def scales(log_dampings: Array, groups: Array) -> Array:
    """The damping of each unknown, `(1 + n,)`: none for the intercept."""
    return jnp.append(jnp.zeros_like(log_dampings, shape=1), jnp.exp(log_dampings)[groups])


def leave_one_out(
    log_dampings: Array, a: Array, y: Array, groups: Array
) -> tuple[Array, Array]:
    """Mean squared error of predicting each row from all others, and the coefficients.

    The residual of a row that was left out is `r_i / (1 - h_i)`, where `h` is the diagonal
    of the hat matrix `a @ inverse`. Rows of zeros count as absent.

    Args:
        log_dampings: one for each group, `(g,)`.
        a: as in `Data`.
        y: as in `Data`.
        groups: as in `Data`.

    Returns:
        The error, a scalar, and the intercept and coefficients, `(1 + n,)`.
    """
    inverse = jaxpinv.pinv(a, damp=1.0, damp_scale=scales(log_dampings, groups))
    coefficients = inverse @ y
    leverages = jnp.sum(a * inverse.T, axis=1)
    residuals = (y - a @ coefficients) / (1 - leverages)
    return jnp.sum(residuals**2) / jnp.sum(a[:, 0]), coefficients


@jax.jit
def expansions(
    log_dampings: Array, a: Array, y: Array, groups: Array
) -> tuple[Array, Array, Array, Array]:
    """Errors of `k` problems with derivatives, from one factorization of each.

    Args:
        log_dampings: `(k, g)`.
        a: `(k, m, 1 + n)`.
        y: `(k, m)`.
        groups: as in `Data`.

    Returns:
        Errors, `(k,)`, coefficients, `(k, 1 + n)`, gradients, `(k, g)`, and Hessians,
        `(k, g, g)`.
    """
    with_gradient = jax.value_and_grad(leave_one_out, has_aux=True)

    def gradient(u: Array, *problem: Array) -> tuple[Array, tuple]:
        (error, coefficients), slope = with_gradient(u, *problem, groups)
        return slope, (error, coefficients, slope)

    with_hessian = jax.jacfwd(gradient, has_aux=True)
    # Not `vmap`: a batch takes twice as long to compile, and is no faster on a CPU.
    problems = (log_dampings, a, y)
    hessian, values = jax.lax.map(lambda problem: with_hessian(*problem), problems)
    return (*values, hessian)
