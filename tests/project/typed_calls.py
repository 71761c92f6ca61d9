"""Calls as users write them: mypy accepts this file in a test, pyright in `.ci/check`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

import jaxpinv
from jaxpinv import (
    Factorization,
    LstsqResult,
    factorize,
    lstsq,
    matrix_rank,
    null_projection,
    pinv,
    sharded,
)


def values(a: Array, flag: bool) -> list[Array]:
    """Every way to ask for a pseudo-inverse."""
    x: Array = pinv(a)
    y: Array = pinv(a, 1e-3, True, atol=0.1, method="svd", return_rank=False)
    z, rank = pinv(np.eye(3), rcond=jnp.asarray(1e-3), return_rank=True)
    either = pinv(a, return_rank=flag)
    w = either[0] if isinstance(either, tuple) else either
    return [x, y, z.T, rank + 1, w, jaxpinv.pinverse(a, 1e-6)]


def solutions(a: Array, b: Array, flag: bool) -> Array:
    """Least squares, by fields and by position."""
    result: LstsqResult = lstsq(a, b, 1e-3, method="auto")
    condition = result.singular_values[..., 0] / result.singular_values[..., -1]
    x, _, rank, _ = lstsq(a, b, rcond=1e-3, return_singular_values=flag)
    short = lstsq(a, np.ones(3), atol=1, return_singular_values=False)
    total = jnp.sum(x) + jnp.sum(condition) + jnp.sum(short.residuals) + jnp.sum(rank)
    return total + jnp.sum(null_projection(a, b, hermitian=True)) + jnp.sum(matrix_rank(a))


def of_rows(a: Array, b: Array, mesh: Mesh) -> Array:
    """One matrix on many devices."""
    x, rank = sharded.pinv(a, mesh=mesh, axis="rows", return_rank=True)
    return x @ b + sharded.lstsq(a, b, atol=0.0).solution + rank + sharded.pinv(a) @ b


def volumes(a: Array, flag: bool, mesh: Mesh) -> list[Array]:
    """Every way to ask for a log-volume."""
    value: Array = jaxpinv.log_pdet(a, 1e-3, True, atol=0.1, method="svd")
    other, rank = jaxpinv.log_pdet(np.eye(3), rcond=1e-3, return_rank=True)
    either = jaxpinv.log_pdet(a, return_rank=flag)
    last = either[0] if isinstance(either, tuple) else either
    far, ranks = sharded.log_pdet(a, mesh=mesh, return_rank=True)
    return [value, other + rank, last, far + ranks, sharded.log_pdet(a, axis="rows")]


def of_one_factorization(a: Array, b: Array) -> Array:
    """What is factored once, and used as a carry."""
    factored: Factorization = factorize(a, 1e-3, atol=0.0, method="direct")

    def step(factored: Factorization, b: Array) -> tuple[Factorization, Array]:
        x: Array = factored.solve(b) + factored.null_projection(np.ones(3))
        return factored, x * factored.rank + factored.log_pdet()

    factored, found = jax.lax.scan(step, factored, b[None])
    mapped = jax.vmap(lambda f: f.singular_values())(factorize(a[None]))
    return found @ factored.pinv() + jnp.asarray(mapped)


def transformed(a: Array, b: Array) -> Array:
    """What JAX makes of them."""

    def loss(a: Array) -> Array:
        return jnp.sum(pinv(a) ** 2)

    gradient = jax.grad(loss)(a)
    mapped = jax.jit(jax.vmap(lambda a: lstsq(a, b).solution))(a[None])
    version: str = jaxpinv.__version__
    return jnp.asarray(gradient) + jnp.asarray(mapped) + len(version)
