"""Pivoted Gram-Schmidt, for matrices of few rows and columns and of any rank.

Each step picks the largest remaining column. If that is larger than rounding, it becomes
the next column of `U`, and the same operations, applied to the identity, give a column of
`W`: `A W = U`. When only rounding remains, the operations have turned the other columns of
the identity into `N` with `A N = 0`. These become an orthonormal basis of the null space,
and `W` is projected off it. So `pinv(A) = W U^H`.

The batch goes last, so that all arithmetic is on long vectors. Columns stay in place, and
each step treats all of them, with masks: skipping some would save less time than it takes
to compile more kernels.
"""

import functools
import operator
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxpinv._factorization import certificate
from jaxpinv._factorization.full_rank import CertifiedFactors
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import largest_element, normalize_scale, power_of_two

# Stored for columns that were picked, instead of the squared norm of what is left.
_KEPT, _NULL = -1, -2

#: Returns its argument, which XLA then does not compute anew wherever it is used.
Isolate = Callable[[Array], Array]


def factor(
    a: Array,
    cutoff: Cutoff,
    *,
    isolate: Isolate,
    may_branch: bool,
    by_folds: bool,
    gathers: bool = False,
    rows_at_once: int | None = None,
) -> CertifiedFactors:
    """Gram-Schmidt of matrices of any size and rank, `(..., m, n)`.

    Args:
        a: the matrices.
        cutoff: the tolerances, of batch shape.
        isolate: see `Isolate`.
        may_branch: whether a loop may end once no matrix needs it.
        by_folds: whether reductions and transposes are written out. If not, the compiler
            makes them, perhaps in fewer kernels.
        gathers: whether the column that is picked is gathered, and not selected from all.
            On a GPU this takes one kernel less.
        rows_at_once: how many rows of `a` a sum reads at a time; None means all. Powers of
            two do not change the order in which they are added.
    """
    m, n = a.shape[-2:]
    if by_folds:
        batch_first = _batch_first
        rows, scale, finite, largest = _normalized(isolate(batch_last(a)), isolate)
    else:
        batch_first = partial(jnp.moveaxis, source=(0, 1), destination=(-2, -1))
        largest = largest_element(a)
        scaled, scale, finite = normalize_scale(a, largest)
        rows = jnp.moveaxis(scaled, (-2, -1), (0, 1))
    left = isolate(total(squared(rows)))
    norm = isolate(jnp.sqrt(total(left)))
    rounding = jnp.square(certificate.largest_remainder(norm))
    norm, rounding, zero = _computed_once((norm, rounding, 0 * norm))
    # Derived from the matrices, so that it is divided over devices as they are.
    identity = jnp.expand_dims(np.eye(n, dtype=a.dtype), range(2, a.ndim))
    z = jnp.concatenate([rows, jnp.where(False, rows[:n], identity)])
    start = (z, left, zero)
    z, left, remainder = _orthonormalized(
        start, rounding, isolate, gathers=gathers, rows_at_once=rows_at_once or m
    )

    kept, u, w = left == _KEPT, z[:m], z[m:]
    w_norm = _folded_twice(operator.add, isolate, jnp.where(kept[None], squared(w), 0))
    certified = certificate.certify_rank(
        norm,
        jnp.sqrt(w_norm),
        jnp.sqrt(remainder),
        total(kept.astype(norm.dtype)),
        cutoff._replace(atol=cutoff.atol / scale),
        n,
    )
    x = total(w[:, None, j] * jnp.conj(u[:, j])[None] for j in range(n))
    # Where a matrix is not finite, NaN is already the final result.
    unit = jnp.where(finite, scale, jnp.nan)
    x = batch_first(isolate(x / unit.astype(a.dtype)[None, None]))
    if m == n:
        u = _completed(u, kept, isolate, may_branch)
    s = jnp.moveaxis(jnp.where(kept, 1, 0) * unit[None], 0, -1)
    return CertifiedFactors(
        batch_first(u), batch_first(w), x, certified, s, largest=largest
    )


def _normalized(rows: Array, isolate: Isolate) -> tuple[Array, ...]:
    """What `normalize_scale` returns, for matrices whose batch goes last."""
    largest = _folded_twice(jnp.maximum, isolate, _largest_part(rows))
    finite = jnp.isfinite(largest)
    scale = isolate(power_of_two(jnp.where(finite, largest, 0)))
    rows = jnp.where(finite[None, None], rows, 0) / scale.astype(rows.dtype)[None, None]
    return rows, scale, finite, largest


def _orthonormalized(
    start: tuple[Array, Array, Array],
    rounding: Array,
    isolate: Isolate,
    *,
    gathers: bool,
    rows_at_once: int,
) -> tuple[Array, Array, Array]:
    """Orthonormalizes the columns of `A` on top of the identity, `(m + n, n, ...)`.

    Args:
        start: these columns; the squared norms of those of `A`, `(n, ...)`; zero, `(...)`.
        rounding: the largest square of a norm that counts as rounding, `(...)`.
        isolate: see `Isolate`.
        gathers: as in `factor`.
        rows_at_once: as in `factor`.

    Returns:
        Columns of `U` on top of `W`, or zeros on top of `N`; `_KEPT` or `_NULL` for each of
        them; the squared norm of what is left of `A` in the columns of `N`.
    """
    rows, n, *batch = start[0].shape
    m, real = rows - n, rounding.dtype
    # Small constants: compilers would make arrays of the whole batch before the loop.
    order, on_top = np.arange(n, dtype=real), np.arange(rows) < m
    order, on_top = (
        np.expand_dims(x, tuple(range(1, 1 + len(batch)))) for x in (order, on_top)
    )

    def by_groups(term: Callable[[int], Array]) -> Array:
        """The sum of `term` over the rows of `A`."""
        groups = (range(m)[i : i + rows_at_once] for i in range(0, m, rows_at_once))
        sums = [total(term(i) for i in group) for group in groups]
        return total(isolate(x) if len(sums) > 1 else x for x in sums)

    def step(_, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        z, left, remainder = carry
        largest = _folded(jnp.maximum, left)
        is_null = largest <= rounding
        # The first of equal columns. One code holds the column and whether it is null,
        # because each isolated array is copied.
        first = _folded(jnp.minimum, jnp.where(left == largest[None], order, n))
        code = _computed_once(isolate(jnp.where(is_null, first + n, first)))
        is_null = code >= n
        place = jnp.where(is_null, code - n, code)[None]
        here, mark = order == place, jnp.where(is_null, real.type(_NULL), _KEPT)[None]
        remainder = remainder + jnp.where(is_null, largest, 0)
        # Inner products are of columns of A, or for null columns of the identity below.
        below = is_null.astype(z.dtype)[None]
        absent = on_top & is_null[None]

        if gathers:
            place = place.astype(jnp.int32)[None]
            q = jnp.take_along_axis(z, place, axis=1, mode="clip")[:, 0]
        else:
            q = functools.reduce(
                lambda x, j: jnp.where(here[j][None], z[:, j], x), range(1, n), z[:, 0]
            )
        q = isolate(jnp.where(absent, 0, q))
        overlap = by_groups(lambda i: jnp.conj(q[i])[None] * z[i])
        lower = total(jnp.conj(q[i])[None] * z[i] for i in range(m, rows))
        overlap = isolate(overlap + below * lower)
        # Project off the columns of its kind before it once more: twice is enough.
        again = jnp.where(left == mark, jnp.conj(overlap), 0)
        again = total(again[j][None] * z[:, j] for j in range(n))
        q = isolate(q - jnp.where(absent, 0, again))
        square = squared(q)
        square = total(square[:m]) + jnp.real(below)[0] * total(square[m:])
        inverse = isolate(1 / jnp.sqrt(jnp.where(square > 0, square, 1)))
        off = overlap * jnp.square(inverse).astype(z.dtype)[None]
        rest = by_groups(lambda i: squared(z[i] - off * q[i][None]))
        left = isolate(jnp.where(here, mark, jnp.where(left < 0, left, rest)))
        unit = (q * inverse.astype(z.dtype)[None])[:, None]
        # Masked by the new `left`, so that nothing reads the old `z` after its update, for
        # which XLA would copy it.
        off = jnp.where(left == mark, 0, off)[None]
        z = jnp.where(here[None], unit, z - off * q[:, None])
        return z, left, remainder

    return jax.lax.fori_loop(0, n, step, start)


def _completed(u: Array, kept: Array, isolate: Isolate, may_branch: bool) -> Array:
    """Square `U`, `(n, n, ...)`, with columns that are not kept completed to a basis.

    Each new column is the longest remainder of a column of the identity.
    """
    n = u.shape[1]
    order = jax.lax.broadcasted_iota(jnp.int32, kept.shape, 0)

    def is_first(chosen: Array) -> Array:
        return order == _folded(jnp.minimum, jnp.where(chosen, order, n))[None]

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, u, found = carry
        lengths = isolate(total(squared(u[:, j]) for j in range(n)))
        shortest = lengths == _folded(jnp.minimum, lengths)[None]
        row = isolate(is_first(shortest).astype(u.dtype))
        overlap = isolate(jnp.conj(total(row[i][None] * u[i] for i in range(n))))
        q = isolate(row - total(overlap[j][None] * u[:, j] for j in range(n)))
        overlap = isolate(total(jnp.conj(u[i]) * q[i][None] for i in range(n)))
        q = isolate(q - total(overlap[j][None] * u[:, j] for j in range(n)))
        inverse = isolate(1 / jnp.sqrt(total(squared(q))))
        here = is_first(found == 0)
        u = jnp.where(here[None], (q * inverse.astype(u.dtype)[None])[:, None], u)
        return count + 1, u, jnp.where(here, 1, found)

    def goes_on(carry: tuple[Array, Array, Array]) -> Array:
        count, _, found = carry
        return jnp.any(found == 0) if may_branch else count < n

    start = (jnp.zeros((), jnp.int32), u, kept.astype(jnp.int32) + 0 * order)
    return jax.lax.while_loop(goes_on, step, start)[1]


def _computed_once(x: Any) -> Any:
    """`x`, which a GPU then does not compute anew in each kernel that uses it."""
    return jax.lax.optimization_barrier(x)


def batch_last(x: Array) -> Array:
    """`(..., j, k)` as `(j, k, ...)`."""
    if x.ndim != 3:
        return jnp.moveaxis(x, (-2, -1), (0, 1))
    # One transpose of a matrix is faster on a CPU.
    batch, j, k = x.shape
    return jnp.reshape(jnp.transpose(jnp.reshape(x, (batch, j * k))), (j, k, batch))


def _batch_first(x: Array) -> Array:
    """`(j, k, ...)` as `(..., j, k)`."""
    if x.ndim != 3:
        return jnp.moveaxis(x, (0, 1), (-2, -1))
    j, k, batch = x.shape
    return jnp.reshape(jnp.transpose(jnp.reshape(x, (j * k, batch))), (batch, j, k))


def squared(x: Array) -> Array:
    """Squares of absolute values."""
    if not jnp.iscomplexobj(x):
        return x * x
    return jnp.square(jnp.real(x)) + jnp.square(jnp.imag(x))


def _largest_part(x: Array) -> Array:
    """Absolute values; for complex numbers, that of the larger part."""
    if not jnp.iscomplexobj(x):
        return jnp.abs(x)
    return jnp.maximum(jnp.abs(jnp.real(x)), jnp.abs(jnp.imag(x)))


def _folded_twice(f: Callable[[Array, Array], Array], isolate: Isolate, x: Array) -> Array:
    """`f` folded over all elements of matrices whose batch goes last."""
    return _folded(f, isolate(_folded(f, x)))


def _folded(f: Callable[[Array, Array], Array], x: Iterable[Array]) -> Array:
    """`f` folded in pairs over a short first axis, which XLA would reduce matrix by matrix.

    The additions in a sum of `k` terms are off by at most `log2(k)` roundings, rounded up.
    """
    terms = list(x)
    while len(terms) > 1:
        # The last of an odd number of terms waits.
        pairs = zip(terms[::2], terms[1::2], strict=False)
        terms = [f(*pair) for pair in pairs] + terms[len(terms) // 2 * 2 :]
    return terms[0]


total = partial(_folded, operator.add)
