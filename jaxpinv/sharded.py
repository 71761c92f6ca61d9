"""The pseudo-inverse and least squares of one tall matrix, its rows on many devices.

These are `jaxpinv.pinv`, `jaxpinv.lstsq` and `jaxpinv.log_pdet` for a matrix that no single
device can hold.
The factorization is a tree of small ones, and no device ever sees the rows of another.
"""

from functools import partial
from typing import Literal, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from jaxpinv import _damping, _inputs, _mesh, _row_sharded
from jaxpinv._factorization.tsqr import Axis
from jaxpinv._inputs import Inputs, named_tolerances
from jaxpinv._mesh import Placement
from jaxpinv._results import LstsqResult
from jaxpinv._sharded_calls import numbers
from jaxpinv._sharded_log_pdet import log_pdet

__all__ = ["log_pdet", "lstsq", "pinv"]


@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: Literal[False] = False,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> Array: ...
@overload
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: Literal[True],
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> tuple[Array, Array]: ...
def pinv(
    a: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_rank: bool = False,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> Array | tuple[Array, Array]:
    r"""Moore-Penrose pseudo-inverse of a tall matrix whose rows lie on many devices.

    It is the result of `jaxpinv.pinv`,

    $$A^+ = \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)} s_i^{-1} v_i u_i^H ,$$

    from the singular values of the small triangular factor in $A = Q R$, which is combined
    from the triangular factors of the rows of each device.

    Args:
        a: one matrix, `(m, n)` with `m >= n`, of the dtypes of `jaxpinv.pinv`. The devices
            of `axis` must divide `m`: append rows of zeros if they do not. A device may
            have fewer rows than columns. An array that lies elsewhere is moved.
        rtol: singular values up to `rtol` times the largest one are truncated. A number,
            traced or not. If neither tolerance is given, the default is
            `min(m * eps, sqrt(eps))`, with the `eps` of the dtype of the computation and
            the `m` of the whole matrix, but at least the `eps` of the dtype of `a`. Beyond
            `1 / sqrt(eps)` rows, 2896 in single precision, `m * eps`, the default of
            `jaxpinv.pinv`, would truncate more and more, and everything at 8.4 million. If
            only `atol` is given, `rtol` is this default where `atol` is zero, else zero.
        atol: singular values up to `atol`, in the unit of `a`, are truncated. Zero by
            default.
        rcond: NumPy's name for `rtol`.
        mesh: the devices. By default the mesh of `a`, which is known in transformations
            too, or that of `jax.set_mesh`.
        axis: the axis of the mesh that divides the rows, or a tuple of axes. By default the
            axis of the sharding of `a`, or the only axis. In `jit`, `grad` and other
            transformations, the sharding of `a` is known only on an explicit mesh.
        return_rank: whether to return the rank as well.
        damp: a damping, as in `jaxpinv.pinv`: one number, traced or not.
        damp_scale: as in `jaxpinv.pinv`, a vector, `(n,)`.

    Returns:
        The pseudo-inverse, `(n, m)`, its columns divided over devices as the rows of `a`
        are. With `return_rank=True` also the rank, in JAX's default integer dtype. An
        element that is not finite, on any device, gives NaN and rank 0, and so does a NaN
        tolerance.

    Raises:
        TypeError: if `a` is not numeric or a tolerance is not real.
        ValueError: if `a` is not one matrix, or wide, or the devices do not divide its
            rows; if its columns are divided; if the mesh or axis is unknown; if both `rtol`
            and `rcond` are given; if a tolerance is not one number, or negative and not
            traced.

    **Differentiability.** As `jaxpinv.pinv`: in `a`, to every order and in both modes, in
    eager calls and under `jit`. The factorization is done once for the value and all
    derivatives. On a mesh with explicit axes, an eager `jax.grad` of any JAX function needs
    `jax.set_mesh`.

    **Cost.** On each of p devices, a QR factorization of `m / p` rows, `2 ceil(log2 p)`
    rounds in which a device sends `n^2` numbers or none, as many QR factorizations of 2n
    by n, and one sum of `n^2 + n` numbers over all devices. The singular values of an n by
    n matrix are computed on one of them while the others wait. A first derivative takes the
    products of `jaxpinv.pinv` with `m / p` rows and a sum of `n^2` numbers. No device
    holds or sends an array of `m` rows. With a damping, each device has n more rows in
    these products, and sends no more than without one. With several CPU devices in one
    process, set `OPENBLAS_NUM_THREADS=1`, because they share the threads of LAPACK.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jax.sharding import NamedSharding, PartitionSpec
        >>> from jaxpinv import sharded
        >>> mesh = jax.make_mesh((1,), ("rows",))
        >>> by_rows = NamedSharding(mesh, PartitionSpec("rows"))
        >>> a = jax.device_put(jnp.ones((4, 2)), by_rows)
        >>> x, rank = sharded.pinv(a, return_rank=True)
        >>> int(rank), bool(jnp.allclose(x, 1 / 8))
        (1, True)

    Source:
        J. Demmel, L. Grigori, M. Hoemmen, J. Langou, "Communication-optimal parallel and
        sequential QR and LU factorizations", SIAM J. Sci. Comput. 34 (2012) A206-A239, for
        the factorization; as `jaxpinv.pinv` for the rest.
    """
    name = "sharded.pinv"
    tolerances = numbers(name, named_tolerances(name, rtol, rcond, atol))
    a = _inputs.as_matrices(name, a, hermitian=False)
    place = _mesh.find(name, a, mesh, axis)
    damping = _damping.of_one_matrix(name, (damp, damp_scale), a, _inputs.as_tolerance)
    x, rank = _pinv(place, Inputs._make((place.bring(a), *tolerances, None, *damping)))
    return (x, rank) if return_rank else x


def lstsq(
    a: ArrayLike,
    b: ArrayLike,
    rtol: ArrayLike | None = None,
    *,
    atol: ArrayLike | None = None,
    rcond: ArrayLike | None = None,
    mesh: Mesh | AbstractMesh | None = None,
    axis: Axis | None = None,
    return_singular_values: bool = True,
    damp: ArrayLike | None = None,
    damp_scale: ArrayLike | None = None,
) -> LstsqResult:
    r"""Least-squares solution of minimum norm for a matrix of rows on many devices.

    It is the result of `jaxpinv.lstsq`, the shortest minimizer of $\|b - A_k x\|_2$,

    $$x = A^+ b = \sum_{s_i > \max(\mathrm{atol}, \mathrm{rtol}\, s_1)}
    s_i^{-1} v_i\, (u_i^H b) .$$

    Args:
        a: as in `sharded.pinv`.
        b: a vector, `(m,)`, or a matrix, `(m, k)`, its rows divided over devices like those
            of `a`.
        rtol: as in `sharded.pinv`, with the common dtype of `a` and `b`.
        atol: as in `sharded.pinv`.
        rcond: as in `sharded.pinv`.
        mesh: as in `sharded.pinv`.
        axis: as in `sharded.pinv`.
        return_singular_values: whether to compute and return the singular values.
        damp: a damping, as in `jaxpinv.lstsq`: one number, traced or not.
        damp_scale: as in `jaxpinv.lstsq`, a vector, `(n,)`.

    Returns:
        Solution, `(n,)` or `(n, k)`, residuals, `()` or `(k,)`, rank and singular values,
        `(n,)`, as `jaxpinv.lstsq`, on all devices. With `return_singular_values=False`
        these are None.

    Raises:
        TypeError: if an argument is not numeric or a tolerance is not real.
        ValueError: as `sharded.pinv` does, and if `b` does not have `m` rows.

    **Differentiability.** As `jaxpinv.lstsq`. The singular values have derivatives of every
    order too, but beyond the first only where they are neither repeated nor zero.

    **Cost.** As `sharded.pinv`, with products of matrices with vectors instead of products
    of matrices if no tolerance is given. Besides the sums of the factorization, the devices
    add up `n k` numbers, or `n^2` if a tolerance is given. The derivatives of the singular
    values take products of their own, in eager calls even if the values are not used:
    `return_singular_values=False` avoids these.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from jaxpinv import sharded
        >>> mesh = jax.make_mesh((1,), ("rows",))
        >>> a = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
        >>> b = jnp.array([1.0, 2.0, 4.0])
        >>> x, residuals, rank, _ = sharded.lstsq(a, b, mesh=mesh)
        >>> bool(jnp.allclose(x, jnp.array([5 / 6, 1.5]), atol=1e-5)), int(rank)
        (True, 2)

    Source:
        As `sharded.pinv` and `jaxpinv.lstsq`.
    """
    name = "sharded.lstsq"
    tolerances = numbers(name, named_tolerances(name, rtol, rcond, atol))
    a = _inputs.as_matrices(name, a, hermitian=False)
    place = _mesh.find(name, a, mesh, axis)
    columns = _inputs.as_columns(name, "b", b, a.shape[0], ())
    if columns.ndim > 2:
        raise ValueError(
            f"{name}: expected b to be a vector or a matrix, got shape {columns.shape}"
        )
    damping = _damping.of_one_matrix(name, (damp, damp_scale), a, _inputs.as_tolerance)
    inputs = Inputs._make((place.bring(a), *tolerances, place.bring(columns), *damping))
    found = _lstsq(place, bool(return_singular_values), inputs)
    if jnp.ndim(b) == 1:
        solution, residuals, *others = found
        return LstsqResult(solution[:, 0], residuals[0], *others)
    return LstsqResult(*found)


# One program, also in eager calls: the type of a traced matrix has the axes of its mesh and
# not the devices, and only in a program may its shards then meet arrays that lie elsewhere,
# such as cotangents.
@partial(jax.jit, static_argnums=0)
def _pinv(place: Placement, inputs: Inputs) -> tuple[Array, Array]:
    """The pseudo-inverse, `(n, m)`, and the rank."""

    def run(place: Placement, a: Array, *options: Array | None):
        matrix = _row_sharded.factorize(place, Inputs(a, *options), with_pinv=True)
        return place.put(matrix.pinv(), None, place.axis), matrix.rank()

    a, *options = inputs
    a = place.put(a, place.axis, None)
    return place.run(run, (P(None, place.axis), P()), a, *options)


@partial(jax.jit, static_argnums=(0, 1))
def _lstsq(
    place: Placement, with_values: bool, inputs: Inputs
) -> tuple[Array, Array, Array, Array | None]:
    """Solution, `(n, k)`, residuals, `(k,)`, rank, and singular values, `(n,)`, or None."""

    def run(place: Placement, a: Array, *options: Array | None):
        matrix = _row_sharded.factorize(place, Inputs(a, *options), with_pinv=False)
        b = matrix.columns
        x = matrix.solve(b)
        solution = place.put(x.astype(matrix.dtype))
        found = solution, matrix.given.residuals(b, x), matrix.rank()
        if not with_values:
            return *found, None
        values = _row_sharded.singular_values(matrix)
        return *found, values.astype(jnp.finfo(matrix.dtype).dtype)

    a, rtol, atol, b, *damping = inputs
    assert b is not None
    a, b = (place.put(x, place.axis, None) for x in (a, b))
    specs = (*(P(),) * 3, P() if with_values else None)
    return place.run(run, specs, a, rtol, atol, b, *damping)
