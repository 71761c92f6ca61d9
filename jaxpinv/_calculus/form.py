"""The symmetric form behind the value and all derivatives, and its two evaluations.

The derivative along `E_0` of the sum of the logarithms of the kept singular values is
`trace(pinv(A) E_0)`. The k-th derivative of `pinv(A)` along `E_1, ..., E_k`, paired with
`E_0`, is therefore symmetric in `E_0, ..., E_k`: a form with k + 1 slots. Each slot holds
a matrix, or the product `b c^T` as its two factors. The first one is open: the result is
what makes the form a number when it is filled in.

| kind  | in the slot | result, if it is the open one           |
|-------|-------------|-----------------------------------------|
| open  | nothing     | `D^k pinv(A)`, `(..., n, m)`            |
| right | b, `(..., m, j)` | `D^k pinv(A) b`, `(..., n, j)`     |
| left  | c, `(..., n, j)` | `(D^k pinv(A))^T c`, `(..., m, j)` |
| dense | `(..., m, n)` |                                       |
| outer | b and c     |                                         |
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._calculus import vector_derivative as _action
from jaxpinv._calculus.matrix_derivative import derivative
from jaxpinv._factors import Factors, largest_value
from jaxpinv._linalg import largest_of_columns, matmul, transpose
from jaxpinv._platform import chunking as _blocks
from jaxpinv._platform.chunking import Ways


class Outer(NamedTuple):
    """The direction `b c^T`: `b` `(..., m, j)` and `c` `(..., n, j)`, or None if open."""

    b: Any
    c: Any


Slot = Array | Outer | None
Layout = tuple[str, ...]


def pack(slots: Iterable[Slot]) -> tuple[Layout, tuple[Array, ...]]:
    """Kinds of the slots, and the arrays in them in one row."""
    layout, operands = [], []
    for slot in slots:
        parts = slot if isinstance(slot, Outer) else (slot,)
        layout.append(_kind(slot))
        operands += [x for x in parts if x is not None]
    return tuple(layout), tuple(operands)


def unpack(layout: Layout, operands: Iterable[Array]) -> list[Slot]:
    """The slots of `pack`."""
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
    """The open slot, filled with an array of the shape of the result."""
    if not isinstance(slot, Outer):
        return transpose(missing)
    b, c = slot
    return Outer(missing, c) if b is None else Outer(b, missing)


def evaluate(factors: Factors, slots: Sequence[Any], ways: Ways, *, cuts: bool) -> Array:
    """The result of a form with one open slot, the first.

    Args:
        factors: those of a matrix `(..., m, n)`, `m >= n`.
        slots: all slots: two at least, unless the open one holds a vector. Batch axes
            broadcast; one rank for all.
        ways: how to go through a batch.
        cuts: whether more than what rounding makes of zeros may be cut. Derivatives that
            are applied to vectors, or along products of vectors, then cost as much as
            those of the matrix, but only if that is so, or the batch may not be asked.
    """
    layout, operands = pack(slots)
    is_matrix = layout[0] == "open" and "outer" not in layout
    may_be_cut = cuts and len(slots) > 1 and not is_matrix
    # A first derivative makes few arrays and gains nothing: 20000 gradients of 7 by 6
    # matrices take 12.6 ms in blocks and 9.6 at once. But as many Hessian-vector products
    # take 94 and 124, and 2000 of 32 by 32 ones 128 and 200, with 58 and 205 MB. And a
    # matrix that is cut makes those of its block pay, and no others.
    in_blocks = ways.in_blocks and (may_be_cut or (is_matrix and len(slots) > 2))
    inner = ways._replace(in_blocks=ways.in_blocks and not in_blocks)

    def matrices(factors: Factors, row: tuple[Array, ...]) -> Array:
        return _by_matrices(factors, unpack(layout, row), inner)

    def vectors(factors: Factors, row: tuple[Array, ...]) -> Array:
        return _by_vectors(factors, unpack(layout, row))

    def either(factors: Factors, row: tuple[Array, ...]) -> Array:
        return jax.lax.cond(_any_cut(factors), matrices, vectors, factors, row)

    if may_be_cut and ways.may_branch:
        way = either
    else:
        way = matrices if is_matrix or may_be_cut else vectors
    if not in_blocks:
        return way(factors, operands)
    count, rank = len(factors), factors.u.ndim - 2
    return _blocks.along_batch(
        lambda *x: way(Factors(*x[:count]), x[count:]), rank, *factors, *operands
    )


def _kind(slot: Slot) -> str:
    """The name of what is in a slot."""
    if not isinstance(slot, Outer):
        return "open" if slot is None else "dense"
    if slot.b is None or slot.c is None:
        return "left" if slot.b is None else "right"
    return "outer"


def _any_cut(factors: Factors) -> Array:
    """Whether any matrix has a singular value that is cut but larger than rounding."""
    u, s, _, kept, _ = factors
    # The default cutoff, which is the backward error of a singular value decomposition.
    rounding = max(u.shape[-2:]) * jnp.finfo(s.dtype).eps
    largest = largest_of_columns(s[..., None])[..., 0]
    return jnp.any(~kept & (s > rounding * largest))


def _by_matrices(factors: Factors, slots: Sequence[Any], ways: Ways) -> Array:
    """From the derivative as a matrix, right whatever is cut."""
    opened, *others = slots
    directions = list(others)
    size = None
    for i, x in enumerate(others):
        if isinstance(x, Outer):
            # Formed in the size of A, so that nothing overflows or vanishes on the way
            # to a result that does not.
            scale, (b, c) = largest_value(factors), (_largest_element(y) for y in x)
            directions[i] = matmul(x.b / b * scale, transpose(x.c / c))
            size = ((b / scale).real, c.real)
    result = derivative(factors, directions, ways)
    if size is not None:
        # In the order in which no product leaves the range unless the last one does.
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
    """From products with vectors, right where only zeros are cut.

    Of b and c there is one pair: as a JVP adds a dense slot, and a transpose closes one
    slot and opens another.
    """
    opened, *others = slots
    if isinstance(opened, Outer):
        b, c = opened
        if c is None:
            return _action.right(factors, others, b)
        return _action.left(factors, others, c)
    # The slots are alike: open that of the pair instead, and take the gradient.
    [(b, c)] = [x for x in others if isinstance(x, Outer)]
    rest = [x for x in others if x is not None and not isinstance(x, Outer)]
    return _action.gradient(factors, rest, b, c)
