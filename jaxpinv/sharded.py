"""The pseudo-inverse and least squares of one tall matrix, its rows on many devices.

These are `jaxpinv.pinv` and `jaxpinv.lstsq` for a matrix that no single device can hold.
The factorisation is a tree of small ones, and no device ever sees the rows of another.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from jaxpinv import _checks, _placement, _tsqr
from jaxpinv._arrays import adjoint, matmul
from jaxpinv._certificate import Cutoff
from jaxpinv._factors import Factors, pseudo_inverse
from jaxpinv._lstsq import LstsqResult
from jaxpinv._placement import Placement
from jaxpinv._primitives import pinv_form
from jaxpinv._problem import factored
from jaxpinv._tsqr import Axis

__all__ = ["lstsq", "pinv"]


@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: Literal[False] = False,
) -> Array: ...
@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: Literal[True],
) -> tuple[Array, Array]: ...
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: bool = False,
) -> Array | tuple[Array, Array]:
    r"""Moore-Penrose pseudo-inverse of a tall matrix whose rows lie on many devices.

    Args:
    """
    a = _checks.as_matrices("sharded.pinv", a, hermitian=False)
    place = _placement.find("sharded.pinv", a, mesh, axis)

    def run(place: Placement, a: Array, rtol: ArrayLike | None, atol: ArrayLike | None):
        problem, _ = factored(
            "sharded.pinv",
            place.put(a, place.axis, None),
            {"rtol": rtol, "atol": atol},
            hermitian=False,
            with_pinv=True,
            factorise=partial(_factorise, place, with_pinv=True),
        )
        return place.put(problem.pinv(), None, place.axis), problem.rank()

    tolerances = _numbers("sharded.pinv", rtol, atol)
    x, rank = place.run(run, (P(None, place.axis), P()), a, *tolerances)
    return (x, rank) if return_rank else x


def lstsq(
    a: ArrayLike,
    b: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
) -> LstsqResult:
    r"""Least-squares solution of minimum norm with a matrix of rows on many devices.
    """
    a = _checks.as_matrices("sharded.lstsq", a, hermitian=False)
    place = _placement.find("sharded.lstsq", a, mesh, axis)
    b = _checks.as_columns("sharded.lstsq", "b", b, a.shape[0], ())
    return None


def _numbers(
    function: str, rtol: ArrayLike | None, atol: ArrayLike | None
) -> list[Array | None]:
    """Both tolerances, checked before they are traced."""
    found = []
    for name, value in {"rtol": rtol, "atol": atol}.items():
        tolerance = None if value is None else _checks.as_tolerance(function, name, value)
        if tolerance is not None and tolerance.ndim:
            raise ValueError(
                f"{function}: expected {name} to be a number, got shape {tolerance.shape}"
            )
        found.append(tolerance)
    return found


def _factorise(
    place: Placement, a: Array, rtol: Array, atol: Array, *, with_pinv: bool
) -> tuple[Array, ...]:
    """The factors, and the pseudo-inverse if wanted, that change with `a` as they should."""
    u, s, v = _tsqr.decompose(jax.lax.stop_gradient(a), *place)
    undefined = jnp.isnan(rtol) | jnp.isnan(atol) | jnp.any(jnp.isnan(s))
    kept = (s > Cutoff(rtol, atol).above(jnp.max(s, initial=0))) | undefined
    s = jnp.where(undefined, jnp.nan, s)
    factors = Factors(_with_tangent(u, a), s, v, kept, jnp.zeros_like(undefined))
    return (*factors, _pseudo_inverse(factors)) if with_pinv else factors


@jax.custom_jvp
def _with_tangent(u: Array, a: Array) -> Array:
    """`u`, on which the tangent of `a` rides, as on that of `factor`."""
    return u


@_with_tangent.defjvp
def _with_tangent_jvp(primals, tangents):
    return _with_tangent(*primals), tangents[1]


@jax.custom_jvp
def _pseudo_inverse(factors: Factors) -> Array:
    """The pseudo-inverse, with the derivatives of `pinv_form`."""
    return pseudo_inverse(factors)


@_pseudo_inverse.defjvp
def _pseudo_inverse_jvp(primals, tangents):
    [factors], [directions] = primals, tangents
    dx = pinv_form(factors, [None, directions.u], cuts=True)
    return _pseudo_inverse(factors), dx
