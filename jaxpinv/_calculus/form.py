"""The multilinear form behind the value and all derivatives, and its two evaluations.

The derivative along `E_0` of the sum of the logarithms of the kept singular values is
`trace(pinv(A) E_0)`. The k-th derivative of `pinv(A)` along `E_1, ..., E_k`, paired with
`E_0`, is therefore symmetric in `E_0, ..., E_k`: a form with k + 1 slots. Each slot holds
a matrix, or the two factors of a product `b c^T`. The first slot is open: the result is
the array that turns whatever fills the open slot into the value of the form.

| kind  | in the slot | result, if this slot is open            |
|-------|-------------|-----------------------------------------|
| open  | nothing     | `D^k pinv(A)`, `(..., n, m)`            |
| right | b, `(..., m, j)` | `D^k pinv(A) b`, `(..., n, j)`     |
| left  | c, `(..., n, j)` | `(D^k pinv(A))^T c`, `(..., m, j)` |
| dense | `(..., m, n)` |                                       |
| outer | b and c     |                                         |
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._calculus import vector_derivative
from jaxpinv._calculus.matrix_derivative import Polynomial
from jaxpinv._factors import Factors, largest_value
from jaxpinv._linalg import adjoint, largest_of_columns, matmul, transpose


class Outer(NamedTuple):
    """The direction `b c^T`: `b` `(..., m, j)` and `c` `(..., n, j)`. None if open."""

    b: Any
    c: Any


Slot = Array | Outer | None
Layout = tuple[str, ...]


def pack(slots: Iterable[Slot]) -> tuple[Layout, tuple[Array, ...]]:
    """The kinds of the slots, and their arrays in one tuple."""
    layout, operands = [], []
    for slot in slots:
        parts = slot if isinstance(slot, Outer) else (slot,)
        layout.append(_kind(slot))
        operands += [x for x in parts if x is not None]
    return tuple(layout), tuple(operands)


def unpack(layout: Layout, operands: Iterable[Array]) -> list[Slot]:
    """The slots that `pack` turned into a layout and operands."""
    row = iter(operands)
    take = {
        "open": lambda: None,
        "right": lambda: Outer(next(row), None),
        "left": lambda: Outer(None, next(row)),
        "dense": lambda: next(row),
        "outer": lambda: Outer(next(row), next(row)),
    }
    return [take[kind]() for kind in layout]


def close(slot: Slot, missing: Array) -> Slot:
    """Fill the open slot with an array that has the shape of the result."""
    if not isinstance(slot, Outer):
        return transpose(missing)
    b, c = slot
    return Outer(missing, c) if b is None else Outer(b, missing)


def formula(layout: Layout, *, truncates: bool) -> Literal["matrices", "vectors", "either"]:
    """Whether a form is evaluated by matrices, by vectors, or as its values require.

    A derivative that is applied to vectors, or taken along an outer product, needs only
    products of matrices with vectors, unless more than rounding errors of zeros is
    truncated. If that is unknown, the answer is "either".
    """
    if layout[0] == "open" and "outer" not in layout:
        return "matrices"
    return "either" if truncates and len(layout) > 1 else "vectors"


def evaluate(
    factors: Factors,
    slots: Sequence[Any],
    changes: Mapping[int, Array] = MappingProxyType({}),
    *,
    derivative: Callable[[Factors, Polynomial], Array],
    truncates: bool,
    may_branch: bool,
) -> Array:
    """The result of a form whose first slot is open.

    Args:
        factors: those of a matrix `(..., m, n)`, `m >= n`.
        slots: all slots, arrays of one rank whose batch axes broadcast. The open slot alone
            gives the pseudo-inverse.
        changes: for a form evaluated by matrices, tangents of slots, by position after the
            open one, from 0. The last slot holds the tangent of the matrix. The
            change of the form without the last slot due to these tangents is added.
        derivative: that of `matrix_derivative`, told how to compute products.
        truncates: whether more than rounding errors of zeros may be truncated.
        may_branch: whether the program may branch on what is truncated. If not, it uses the
            formula that is right in both cases.
    """
    layout, operands = pack(slots)
    by = formula(layout, truncates=truncates)

    def matrices(factors: Factors, row: tuple[Array, ...]) -> Array:
        return _by_matrices(factors, unpack(layout, row), changes, derivative)

    def vectors(factors: Factors, row: tuple[Array, ...]) -> Array:
        return _by_vectors(factors, unpack(layout, row))

    if by == "either" and may_branch:
        truncated = _any_truncated(factors)
        return jax.lax.cond(truncated, matrices, vectors, factors, operands)
    return (vectors if by == "vectors" else matrices)(factors, operands)


def like_result(factors: Factors, slots: Sequence[Any]) -> Array:
    """An array of the type of the result, from as few operations as possible.

    It has the sharding and varying axes of all operands, which shapes alone do not tell.
    """
    opened, *others = slots
    u, s, v, kept, is_inverse = factors
    result = adjoint(u)
    if isinstance(opened, Outer):
        b, c = opened
        result = matmul(result, b) if c is None else matmul(u, c)
    arrays = [v, *pack(others)[1]]
    numbers = [jnp.sum(x, axis=(-2, -1), keepdims=True) for x in arrays]
    of_values = jnp.sum(jnp.where(kept, s, 0), axis=-1)
    of_values = jnp.where(is_inverse, 0, of_values)[..., None, None]
    numbers.append(of_values.astype(u.dtype))
    return functools.reduce(operator.add, numbers, result)


def _kind(slot: Slot) -> str:
    """The kind of a slot, as in the table above."""
    if not isinstance(slot, Outer):
        return "open" if slot is None else "dense"
    if slot.b is None or slot.c is None:
        return "left" if slot.b is None else "right"
    return "outer"


def _any_truncated(factors: Factors) -> Array:
    """Whether any matrix has a truncated singular value that is larger than rounding."""
    u, s, _, kept, _ = factors
    # The default cutoff: the backward error of a singular value decomposition.
    rounding = max(u.shape[-2:]) * jnp.finfo(s.dtype).eps
    largest = largest_of_columns(s[..., None])[..., 0]
    return jnp.any(~kept & (s > rounding * largest))


def _by_matrices(
    factors: Factors,
    slots: Sequence[Any],
    changes: Mapping[int, Array],
    derivative: Callable[[Factors, Polynomial], Array],
) -> Array:
    """The result from the derivative as a matrix, right whatever is truncated."""
    opened, *others = slots
    directions = list(others)
    size = None
    for i, x in enumerate(others):
        if isinstance(x, Outer):
            # Formed at the size of A, so that nothing overflows or underflows unless the
            # result does.
            scale, (b, c) = largest_value(factors), (_largest_element(y) for y in x)
            directions[i] = matmul(x.b / b * scale, transpose(x.c / c))
            size = ((b / scale).real, c.real)
    along = {1 << i: e for i, e in enumerate(directions)}
    last = 1 << len(directions) >> 1
    along |= {1 << i | last: e for i, e in changes.items()}
    result = derivative(factors, along)
    if size is not None:
        # In this order no product leaves the range unless the last one does.
        small, large = jnp.minimum(*size), jnp.maximum(*size)
        is_large = _largest_element(result).real >= 1
        first, second = jnp.where(is_large, small, large), jnp.where(is_large, large, small)
        result = result * first.astype(result.dtype) * second.astype(result.dtype)
    if not isinstance(opened, Outer):
        return result
    b, c = opened
    return matmul(result, b) if c is None else matmul(transpose(result), c)


def _largest_element(x: Array) -> Array:
    """The largest absolute value of a matrix, or 1 if that is 0, `(..., 1, 1)`."""
    largest = jnp.max(jnp.abs(x), axis=(-2, -1), keepdims=True, initial=0)
    return jnp.where(largest == 0, 1, largest).astype(x.dtype)


def _by_vectors(factors: Factors, slots: Sequence[Any]) -> Array:
    """The result from products with vectors, right if only zeros are truncated.

    There is only one pair of b and c, because a JVP adds a dense slot, and a transpose
    closes one slot and opens another.
    """
    opened, *others = slots
    if isinstance(opened, Outer):
        b, c = opened
        if c is None:
            return vector_derivative.right(factors, others, b)
        return vector_derivative.left(factors, others, c)
    # All slots are equivalent: open the slot of the pair instead, and take the gradient.
    [(b, c)] = [x for x in others if isinstance(x, Outer)]
    rest = [x for x in others if x is not None and not isinstance(x, Outer)]
    return vector_derivative.gradient(factors, rest, b, c)
