"""The first step of every public function: factor a matrix once for all uses."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv import _damping, _tolerances, _volume
from jaxpinv._calculus import svd_jvp
from jaxpinv._calculus.form import Outer, Slot
from jaxpinv._factors import Cutoff, Factors, Triplets, off_corange, off_range
from jaxpinv._inputs import Inputs, Method
from jaxpinv._linalg import (
    adjoint,
    finite_or_zero,
    hermitian_from_lower,
    matmul,
    squared_norms,
    with_tangent_of,
)
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._platform.workarounds import varying_axes
from jaxpinv._primitives import (
    attach,
    factor_p,
    pinv_form,
    pseudo_inverse_of,
    singular_values_p,
)
from jaxpinv._shapes import prepend_axes

#: From tall matrices, `rtol` and `atol`: the factors, and the pseudo-inverse if wanted.
Factor = Callable[[Array, Array, Array], Sequence[Array]]


class Strategy(NamedTuple):
    """How matrices are factored.

    Attributes:
        hermitian: whether only the lower triangles of the matrices are read.
        method: "auto", "direct" or "svd".
        with_pinv: whether the pseudo-inverse itself is wanted.
        factor: the function that replaces the primitive `factor`, if any.
        caps_default: whether the default of the relative tolerance is `sqrt(eps)` at most.
        tuning: tuning constants of plans for batches. Single products use the defaults.
        is_damped: whether it is known that every unknown is damped.
    """

    hermitian: bool = False
    method: Method = "auto"
    with_pinv: bool = False
    factor: Factor | None = None
    caps_default: bool = False
    tuning: Tuning = DEFAULT
    is_damped: bool = False

    @property
    def takes_triplets(self) -> bool:
        """Whether all factors are singular triplets, whatever the plan is."""
        return self.method == "svd" or self.factor is not None

    def factors(self, tall: Array, rtol: Array, atol: Array) -> Sequence[Array]:
        """Factors of tall matrices, without derivatives, and `pinv(a)` if wanted."""
        if self.factor is not None:
            return self.factor(tall, rtol, atol)
        return factor_p.bind(
            *(tall, rtol, atol),
            hermitian=self.hermitian,
            method=self.method,
            with_pinv=self.with_pinv,
            tuning=self.tuning,
        )

    def triplets(self, tall: Array) -> Triplets:
        """Singular triplets of tall matrices, `(..., m, n)`."""
        zero = jnp.zeros((1,) * (tall.ndim - 2), jnp.finfo(tall.dtype).dtype)
        strategy = Strategy(method="svd", tuning=self.tuning)
        u, s, v, *_ = strategy.factors(tall, zero, zero)
        return u, s, v


class Promoted(NamedTuple):
    """Arguments in the dtype of the computation, all with the same number of axes.

    Attributes:
        a: `(..., m, n)`.
        rtol: `(...)`.
        atol: `(...)`.
        columns: matrices, `(..., length, k)`, if there are any.
        batch: the batch shape of `a`, tolerances and damping, without axes put in front.
        truncates: whether the tolerances may truncate more than zeros.
        dtype: the dtype of the results.
        damping: that of each unknown, `(..., n)`, or of all, `(..., 1)`, real, if any.
    """

    a: Array
    rtol: Array
    atol: Array
    columns: Array | None
    batch: tuple
    truncates: bool
    dtype: np.dtype
    damping: Array | None = None

    @property
    def is_wide(self) -> bool:
        """Whether `m < n`."""
        return self.a.shape[-2] < self.a.shape[-1]

    def residuals(self, b: Array, x: Array) -> Array:
        """Squared 2-norms of the columns of `b - A x`, `(..., k)`, real."""
        real = jnp.finfo(self.dtype).dtype
        return squared_norms(b - matmul(self.a, x)).astype(real)

    def tall(self) -> tuple[Array, Array, Array]:
        """The matrices, or their adjoints if they are wide, and the tolerances.

        Because `pinv(A) = pinv(A^H)^H`, only tall matrices need to be factored.
        """
        return adjoint(self.a) if self.is_wide else self.a, self.rtol, self.atol


class FactoredMatrix(NamedTuple):
    """Factored matrices.

    Attributes:
        given: the matrices, and the columns to apply them to.
        factors: the factors of `given.tall()`.
        x: the pseudo-inverse, `(..., n, m)`, if the strategy wanted it.
        strategy: how the matrices were factored.
        is_stored: whether another program, with another plan, may have factored them.
    """

    given: Promoted
    factors: Factors
    x: Array | None
    strategy: Strategy
    is_stored: bool = False

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the results."""
        return self.given.dtype

    @property
    def columns(self) -> Array:
        """The columns to apply the matrices to, `(..., length, k)`."""
        assert self.given.columns is not None
        return self.given.columns

    def pinv(self) -> Array:
        """The pseudo-inverse in the dtype of the results."""
        x = self.x
        if x is None:
            x = self._form([None])
            x = adjoint(x) if self.given.is_wide else x
        return x.astype(self.dtype)

    def solve(self, b: Array) -> Array:
        """The pseudo-inverse times `b`, `(..., m, k)`."""
        if not self.given.is_wide:
            return self._form([Outer(b, None)])
        # pinv(A) b is the conjugate of pinv(A^H)^T times the conjugate of b.
        return jnp.conj(self._form([Outer(None, jnp.conj(b))]))

    def solve_adjoint(self, x: Array) -> Array:
        """The adjoint of the pseudo-inverse times `x`, `(..., n, k)`."""
        if self.given.is_wide:
            return self._form([Outer(x, None)])
        return jnp.conj(self._form([Outer(None, jnp.conj(x))]))

    def null_projection(self, x: Array) -> Array:
        """The projection of `x`, `(..., n, k)`, onto the null space."""
        project = off_range if self.given.is_wide else off_corange
        undefined = jnp.any(jnp.isnan(self.factors.s), axis=-1)[..., None, None]
        exact = jnp.where(undefined, jnp.nan, project(self.factors, x))
        # Only its derivative is used: its value loses digits with the condition number.
        formula = x - self.solve(matmul(self.given.a, x))
        return with_tangent_of(exact, formula).astype(self.dtype)

    def singular_values(self) -> Array:
        """All singular values, `(..., min(m, n))`, descending."""
        tall, *_ = self.given.tall()
        s = self.factors.s
        finite, _ = finite_or_zero(tall)
        found = singular_values_p.bind(finite, s, **self._plan)
        undefined = jnp.any(jnp.isnan(s), axis=-1, keepdims=True)
        s = jnp.where(undefined, jnp.nan, found)
        s = svd_jvp.values_of(self.strategy.triplets, tall, s)
        return self.in_batch(s, 1).astype(jnp.finfo(self.dtype).dtype)

    def log_pdet(self) -> tuple[Array, Array]:
        """Sums of the logarithms of kept singular values, and ranks, of batch shape."""
        tall, *tolerances = self.given.tall()
        value, rank = _volume.log_volume(
            tall,
            Cutoff(*tolerances),
            self.factors,
            is_wide=self.given.is_wide,
            **self._plan,
        )
        value = value.astype(jnp.finfo(self.dtype).dtype)
        return self.in_batch(value, 0), self.in_batch(rank.astype(int), 0)

    def rank(self) -> Array:
        """Number of kept singular values, in the default integer dtype, of batch shape."""
        defined = self.factors.kept & ~jnp.isnan(self.factors.s)
        return self.in_batch(jnp.sum(defined, axis=-1, dtype=int), 0)

    def in_batch(self, x: Array, rank: int) -> Array:
        """`x`, with its last `rank` axes unchanged, without axes put before the batch."""
        return jax.lax.squeeze(x, range(x.ndim - rank - len(self.given.batch)))

    @property
    def _plan(self) -> dict[str, Any]:
        """The parameters that tell primitives how the matrices were factored."""
        by_svd = self.strategy.takes_triplets
        return {
            "method": "svd" if by_svd else self.strategy.method,
            "tuning": self.strategy.tuning,
            "is_stored": self.is_stored and not by_svd,
        }

    def _form(self, slots: Sequence[Slot]) -> Array:
        """The form `pinv_form` of the tall matrices, with these slots."""
        return pinv_form(
            self.factors,
            slots,
            truncates=self.given.truncates,
            tuning=self.strategy.tuning,
        )


def promote(inputs: Inputs, strategy: Strategy) -> Promoted:
    """The arguments of a public function, in one dtype and rank for the computation."""
    rtol, atol = (x if x is None else jnp.asarray(x) for x in inputs[1:3])
    given = [x for x in (rtol, atol) if x is not None]
    m, n = inputs.a.shape[-2:]
    batch = jnp.broadcast_shapes(inputs.a.shape[:-2], *(x.shape for x in given))
    batch = _damping.batch_shape(batch, inputs.damp, inputs.damp_scale)
    arrays = [inputs.a]
    if inputs.columns is not None:
        x = inputs.columns
        arrays.append(x[:, None] if x.ndim == 1 else x)
    dtype = _tolerances.floating(jnp.result_type(*arrays))
    computed = _tolerances.computed_in(*arrays)
    rank = max(len(batch) + 2, *(x.ndim for x in arrays))
    arrays = [prepend_axes(x.astype(computed), rank) for x in arrays]
    if inputs.damp is not None:
        real = jnp.finfo(computed).dtype
        arrays.append(_damping.of_unknowns(inputs.damp, inputs.damp_scale, real, rank - 1))
    a, *rest = varying_alike(arrays, given)
    damping = None if inputs.damp is None else rest.pop()
    a = hermitian_from_lower(a) if strategy.hermitian else a
    real = jnp.finfo(a.dtype)
    default = _tolerances.default_rtol(
        max(m, n), inputs.a.dtype, a.dtype, capped=strategy.caps_default
    )
    rtol, atol = (
        prepend_axes(tolerance.astype(real.dtype), rank - 2)
        for tolerance in _tolerances.with_defaults(rtol, atol, default)
    )
    truncates = bool(given) or bool(_tolerances.eps_of_input(inputs.a.dtype) > real.eps)
    columns = rest[0] if rest else None
    return Promoted(a, rtol, atol, columns, batch, truncates, dtype, damping)


def factorize(inputs: Inputs, strategy: Strategy) -> FactoredMatrix:
    """The arguments of a public function, factored."""
    given = promote(inputs, strategy)
    tall, *_ = operands = given.tall()
    found = list(strategy.factors(*operands))
    x = found.pop() if strategy.with_pinv else None
    factors = attach(Factors(*found), tall)
    if x is not None:
        x = pseudo_inverse_of(factors, x, strategy.tuning)
        x = adjoint(x) if given.is_wide else x
    return FactoredMatrix(given, factors, x, strategy)


def varying_alike(arrays: list[Array], others: Iterable[Array]) -> list[Array]:
    """The arrays, in `shard_map` cast to vary over all mesh axes of any array here.

    A result varies over all these axes. If an operand varies over fewer, reverse mode sums
    the cotangents of the devices at this cast; without it they would not be summed.
    """
    every = [*arrays, *others]
    if len(every) == 1:
        return arrays
    axes = {axis for x in every for axis in varying_axes(x)}
    missing = [tuple(sorted(axes - varying_axes(x))) for x in arrays]
    return [
        jax.lax.pcast(x, names, to="varying") if names else x
        for x, names in zip(arrays, missing, strict=True)
    ]
