"""The log-volume of one tall matrix whose rows lie on many devices."""

from functools import partial
from typing import Literal, overload

import jax
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from jaxpinv import _inputs, _mesh
from jaxpinv._factorization.tsqr import Axis
from jaxpinv._inputs import Inputs, named_tolerances
from jaxpinv._mesh import Placement
from jaxpinv._row_sharded import strategy
from jaxpinv._sharded_calls import numbers
from jaxpinv._solver import factorize


@overload
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: Literal[False] = False,
) -> Array: ...
@overload
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: Literal[True],
) -> tuple[Array, Array]: ...
def log_pdet(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: bool = False,
) -> Array | tuple[Array, Array]:
    r"""Logarithm of the volume of a tall matrix whose rows lie on many devices.

    The result is that of `jaxpinv.log_pdet`,

    $$\sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} \log s_i .$$

    Args:
        a: as in `sharded.pinv`.
        rtol: as in `sharded.pinv`.
        atol: as in `sharded.pinv`.
        rcond: as in `sharded.pinv`.
        mesh: as in `sharded.pinv`.
        axis: as in `sharded.pinv`.
        return_rank: whether to return the rank as well.

    Returns:
        The logarithm, a real number, on all devices. With `return_rank=True` also the rank,
        in JAX's default integer dtype. If an element on any device is not finite, or a
        tolerance is NaN, the logarithm is NaN and the rank is 0.

    Raises:
        TypeError: as `sharded.pinv` does.
        ValueError: as `sharded.pinv` does.

    **Differentiability.** As `jaxpinv.log_pdet`. The gradient is divided over devices
    like the rows of `a`.

    **Cost.** The factorization of `sharded.pinv`, and for the gradient one product with
    `m / p` rows on each device. Without derivatives, half of the communication is skipped.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxpinv import sharded
        >>> mesh = jax.make_mesh((1,), ("rows",))
        >>> a = jnp.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
        >>> bool(jnp.allclose(sharded.log_pdet(a, mesh=mesh), jnp.log(6.0)))
        True

    Source:
        As `sharded.pinv` and `jaxpinv.log_pdet`.
    """
    name = "sharded.log_pdet"
    tolerances = numbers(name, named_tolerances(name, rtol, rcond, atol))
    a = _inputs.as_matrices(name, a, hermitian=False)
    place = _mesh.find(name, a, mesh, axis)
    value, rank = _log_pdet(place, place.bring(a), *tolerances)
    return (value, rank) if return_rank else value


@partial(jax.jit, static_argnums=0)
def _log_pdet(
    place: Placement, a: Array, rtol: Array | None, atol: Array | None
) -> tuple[Array, Array]:
    """The log-volume and the rank."""

    def run(place: Placement, a: Array, rtol: Array | None, atol: Array | None):
        inputs = Inputs(a, rtol, atol, None)
        matrix = factorize(inputs, strategy(place, with_pinv=False))
        return matrix.log_pdet()

    a = place.put(a, place.axis, None)
    return place.run(run, (P(), P()), a, rtol, atol)
