"""What every public function begins with: a matrix checked, promoted and factored."""

import functools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxpinv import _inputs as _checks
from jaxpinv import _tolerances as _defaults
from jaxpinv._calculus.form import Outer
from jaxpinv._factors import Factors, off_corange, off_range
from jaxpinv._linalg import adjoint, mirror_lower
from jaxpinv._primitives import factor_p, pinv_form

Method = Literal["auto", "svd"]
Tolerances = dict[str, ArrayLike | None]
Columns = tuple[str, ArrayLike, Literal["rows", "columns"]]
Factorise = Callable[[Array, Array, Array], Sequence[Array]]


class Inputs(NamedTuple):
    """The arguments of a public function, checked, in their own dtypes.

    Attributes:
        a: `(..., m, n)`.
        rtol: of any shape that broadcasts against the batch, or None for the default.
        atol: the same, or None for zero.
        columns: a vector or `(..., length, k)`, if there is one.
    """

    a: Array
    rtol: Array | None
    atol: Array | None
    columns: Array | None


class Problem(NamedTuple):
    """Matrices, factored in their tall orientation.

    Attributes:
        a: `(..., m, n)`, in the dtype that is computed in.
        factors: those of `a`, or of its adjoint if it is wide.
        x: the pseudo-inverse, `(..., n, m)`, if it was asked for.
        batch: the batch shape of the factors, without axes of length one in front.
        is_wide: whether `m < n`.
        cuts: whether the tolerances may cut more than zeros.
        dtype: that of the results.
    """

    a: Array
    factors: Factors
    x: Array | None
    batch: tuple
    is_wide: bool
    cuts: bool
    dtype: np.dtype

    def pinv(self) -> Array:
        """The pseudo-inverse in the dtype of the results."""
        assert self.x is not None
        return self.x.astype(self.dtype)

    def solve(self, b: Array) -> Array:
        """The pseudo-inverse times `b`, `(..., m, k)`."""
        if not self.is_wide:
            return pinv_form(self.factors, [Outer(b, None)], cuts=self.cuts)
        # pinv(A) b is the conjugate of the transpose of pinv(A^H) times that of b.
        x = pinv_form(self.factors, [Outer(None, jnp.conj(b))], cuts=self.cuts)
        return jnp.conj(x)

    def null_projection(self, x: Array) -> Array:
        """The projection of `x`, `(..., n, k)`, on the null space."""
        project = off_range if self.is_wide else off_corange
        undefined = jnp.any(jnp.isnan(self.factors.s), axis=-1)[..., None, None]
        return jnp.where(undefined, jnp.nan, project(self.factors, x))

    def rank(self) -> Array:
        """Number of kept singular values, in the default integer dtype, of batch shape."""
        defined = self.factors.kept & ~jnp.isnan(self.factors.s)
        return self.in_batch(jnp.sum(defined, axis=-1, dtype=int), 0)

    def in_batch(self, x: Array, rank: int) -> Array:
        """`x`, of that rank but for its batch, without needless axes in front."""
        return jax.lax.squeeze(x, range(x.ndim - rank - len(self.batch)))


def named_tolerances(
    function: str,
    rtol: ArrayLike | None,
    rcond: ArrayLike | None,
    atol: ArrayLike | None,
) -> Tolerances:
    """The relative tolerance, under the name it was given by, and the absolute one.

    Raises:
        ValueError: if both names of the relative one are given.
    """
    if rtol is not None and rcond is not None:
        raise ValueError(
            f"{function}: expected rtol or rcond, two names of one tolerance, "
            f"got rtol={rtol} and rcond={rcond}"
        )
    return {"rtol": rtol, "atol": atol} if rcond is None else {"rcond": rcond, "atol": atol}


def prepare(
    function: str,
    a: ArrayLike,
    tolerances: Tolerances,
    *,
    hermitian: bool,
    method: Method = "auto",
    columns: Columns | None = None,
    stacklevel: int = 3,
) -> Inputs:
    """The arguments of a public function, checked. Nothing is computed.

    It is to run outside of `jit`, where tolerances can be looked at.

    Args:
        function: its name, for errors.
        a: the matrices.
        tolerances: the relative and the absolute one, in this order, by their names.
        hermitian: whether only the lower triangle of `a` is read.
        method: "auto" or "svd".
        columns: name and value of what is multiplied, a vector or `(..., length, k)`, and
            what of the matrix its length is the number of.
        stacklevel: that of the caller of the public function, counted from here.
    """
    _checks.check_method(function, method)
    a = _checks.as_matrices(function, a, hermitian=hermitian)
    given = {
        name: _checks.as_tolerance(function, name, value)
        for name, value in tolerances.items()
        if value is not None
    }
    batch = _checks.batch_shape(function, a, given)
    rtol, atol = (given.get(name) for name in tolerances)
    x = None
    if columns is not None:
        name, value, along = columns
        length = a.shape[{"rows": -2, "columns": -1}[along]]
        x = _checks.as_vector_or_columns(function, name, value, length, batch)
    inputs = Inputs(a, rtol, atol, x)
    if rtol is None:
        *_, atol = tolerances.values()
        _defaults.warn_if_large(function, a, x, atol, stacklevel)
    return inputs


def factorize(
    inputs: Inputs,
    *,
    hermitian: bool,
    method: Method = "auto",
    with_pinv: bool = False,
    capped: bool = False,
    factorise: Factorise | None = None,
) -> tuple[Problem, list[Array]]:
    """The problem of a public function, and the columns that it is applied to, if any.

    Args:
        inputs: what `prepare` returns.
        hermitian: whether only the lower triangle of the matrices is read.
        method: "auto" or "svd".
        with_pinv: whether the pseudo-inverse itself is wanted.
        capped: whether the default of the relative tolerance is `sqrt(eps)` at most.
        factorise: what makes the factors, and the pseudo-inverse if wanted, of the tall
            matrices, `rtol` and `atol`. `factor_p` if it is not given.
    """
    rtol, atol = (x if x is None else jnp.asarray(x) for x in inputs[1:3])
    given = [x for x in (rtol, atol) if x is not None]
    m, n = inputs.a.shape[-2:]
    batch = jnp.broadcast_shapes(inputs.a.shape[:-2], *(x.shape for x in given))
    arrays = [inputs.a]
    if inputs.columns is not None:
        x = inputs.columns
        arrays.append(x[:, None] if x.ndim == 1 else x)
    dtype = _defaults.floating(jnp.result_type(*arrays))
    computed = _defaults.computed_in(*arrays)
    rank = max(len(batch) + 2, *(x.ndim for x in arrays))
    arrays = [_prepend_axes(x.astype(computed), rank) for x in arrays]
    a, *rest = _varying_alike(arrays, given)
    a = mirror_lower(a) if hermitian else a
    real = jnp.finfo(a.dtype)
    default = _defaults.default_rtol(max(m, n), inputs.a.dtype, a.dtype, capped=capped)
    rtol, atol = (
        _prepend_axes(tolerance.astype(real.dtype), rank - 2)
        for tolerance in _defaults.with_defaults(rtol, atol, default)
    )
    # pinv(A) = pinv(A^H)^H: past this line every matrix is tall.
    tall = a if m >= n else adjoint(a)
    if factorise is None:
        factorise = partial(
            factor_p.bind, hermitian=hermitian, direct=method == "auto", with_pinv=with_pinv
        )
    results = factorise(tall, rtol, atol)
    *factors, x = results if with_pinv else (*results, None)
    x = adjoint(x) if x is not None and m < n else x
    cuts = bool(given) or bool(_defaults.eps_of_input(inputs.a.dtype) > real.eps)
    return Problem(a, Factors(*factors), x, batch, m < n, cuts, dtype), rest


def compiled(function: Callable, *, options: tuple[str, ...]) -> Callable:
    """`function` of `Inputs` and of these options, compiled once for every shape.

    It is inline: a program around it is what it would be without this.
    """
    program = jax.jit(function, static_argnames=options, inline=True)

    @functools.wraps(function)
    def run(inputs: Inputs, **chosen):
        if not any(isinstance(x, Tracer) for x in inputs):
            return program(inputs, **chosen)
        if isinstance(jnp.zeros(()), Tracer):
            # A program around this one is being traced, and compiles what is in it.
            return function(inputs, **chosen)
        # JAX does not map a `jit` some of whose operands are on an explicit mesh.
        meshes = {jax.typeof(x).sharding.mesh for x in inputs if x is not None}
        return (program if len(meshes) == 1 else function)(inputs, **chosen)

    return run


def _varying_alike(arrays: list[Array], others: Iterable[Array]) -> list[Array]:
    """Arrays, in `shard_map` cast to vary over all mesh axes that they or others vary over.

    The result varies over them. Only if an operand does too is there a place, this cast,
    where reverse mode sums the cotangents of the devices.
    """
    every = [*arrays, *others]
    if len(every) == 1:
        return arrays
    # The type of an array has no documented name for its varying axes: hence it is asked
    # only where there are several arrays.
    axes = {axis for x in every for axis in jax.typeof(x).mat.varying}
    missing = [tuple(sorted(axes - jax.typeof(x).mat.varying)) for x in arrays]
    return [
        jax.lax.pcast(x, names, to="varying") if names else x
        for x, names in zip(arrays, missing, strict=True)
    ]


def _prepend_axes(x: Array, rank: int) -> Array:
    """`x` with axes of length one in front, up to that rank."""
    return jax.lax.expand_dims(x, range(rank - x.ndim))
