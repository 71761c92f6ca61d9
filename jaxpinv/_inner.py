"""Products that sum over long axes, or of tiny matrices: the primitive `inner`.

A running sum of m products is off by up to m roundings. XLA and BLAS promise no better, and
for two or three columns they are off by that much. Here the rows are split into chunks, and
one product of matrices sums each. The sums are added in groups, then the groups' sums, too:

    |error| <= (c + 8 ceil(log_8(m / (16 c))) + 16 + p) eps / 2 sum |x| |y|

for chunks of at most c rows, with the rows on p devices. A logarithm below 0 counts as 0,
and complex products are off by up to twice as much. If a side has fewer than four columns,
c is 16, and with fewer than 16 it is 64; otherwise it is 128 or twice the number of
columns, whichever is more. Up to 32 rows are always one chunk (N. J. Higham, "The accuracy
of floating point summation", SIAM J. Sci. Comput. 14 (1993) 783-799, on pairwise sums). The
length of a chunk matters: the equal terms of an intercept column are all rounded the same
way, so a running sum of 64 of them is off by up to 8 eps, one of 16 by about 2. Derivatives
are such products, too.
"""

import functools
import math
import operator
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from jaxpinv import _rules
from jaxpinv._platform import form_plan
from jaxpinv._platform.target import Target
from jaxpinv._platform.workarounds import prevent_fusion
from jaxpinv._shapes import (
    divided,
    evenly,
    is_static_shape,
    like,
    prepend_axes,
    without_unit_axes,
)

# The bound above depends on these. For fewer than four columns XLA adds the products one by
# one; for more, products of matrices are slower in shorter chunks.
_CHUNK_OF_VECTORS, _CHUNK_OF_FEW, _CHUNK, _CHUNK_OVER_COLUMNS = 16, 64, 128, 2
_ONE_CHUNK, _GROUP, _LAST_GROUP = 32, 8, 16


def inner(x: Array, y: Array) -> Array:
    """`X^T Y`, `(..., k, j)`, of `x` `(..., m, k)` and `y` `(..., m, j)`."""
    return inner_p.bind(*_of_one_rank(x, y))


def plain_product(x: Array, y: Array) -> Array | None:
    """`X Y`, `(..., k, j)`, of `X` `(..., k, m)` and `Y` `(..., m, j)`, by a library.

    None if a sum in it or in its derivatives is long, or if it is planned when the program
    is lowered and all batch axes are known.
    """
    x, y = _of_one_rank(x, y)
    (k, m), j = x.shape[-2:], y.shape[-1]
    if is_static_shape((k, m, j)) and _has_long_axis(m, k, j):
        return None
    if _plan(x, y, (*x.shape[:-2], m, k)) in ("isolated", "summed"):
        return None
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def _of_one_rank(x: Array, y: Array) -> tuple[Array, Array]:
    """Both operands with as many axes."""
    rank = max(x.ndim, y.ndim)
    return prepend_axes(x, rank), prepend_axes(y, rank)


def is_long(rows: int, k: int, j: int) -> bool:
    """Whether a sum over so many rows is taken in chunks, for a result of `k` by `j`."""
    return rows > max(_ONE_CHUNK, _chunk_limit(k, j))


def _has_long_axis(m: int, k: int, j: int) -> bool:
    """Whether the product `X^T Y` or one in its derivative sums over a long axis."""
    return is_long(m, k, j) or is_long(k, m, j) or is_long(j, m, k)


def _chunk_limit(k: int, j: int) -> int:
    """The largest number of rows in a chunk."""
    if min(k, j) < 4:
        return _CHUNK_OF_VECTORS
    if min(k, j) < 16:
        return _CHUNK_OF_FEW
    return max(_CHUNK, _CHUNK_OVER_COLUMNS * max(k, j))


def _in_chunks(x: Array, parts: int, count: int, length: int) -> Iterator[Array]:
    """`x`, `(..., m, k)`, in chunks, `(..., parts, count, length, k)`, and what is left."""
    *batch, m, k = x.shape
    x = jnp.reshape(x, (*batch, parts, m // parts, k))
    rows = count * length
    yield jnp.reshape(x[..., :rows, :], (*batch, parts, count, length, k))
    # Rows of zeros below would make XLA check each element for whether it is one of them.
    if rows < x.shape[-2]:
        yield x[..., None, rows:, :]


def _total(x: Array) -> Array:
    """The sum over the third axis from the end, in nested groups."""
    while (terms := x.shape[-3]) > 1:
        length = _group(terms)
        count = -(-terms // length)
        if count * length > terms:
            missing = count * length - terms
            x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 3), (0, missing), (0, 0), (0, 0)])
        x = jnp.reshape(x, (*x.shape[:-3], count, length, *x.shape[-2:]))
        x = _apart(jnp.sum(x, axis=-3))
    return x[..., 0, :, :]


def _group(terms: int) -> int:
    """How many of the terms of a sum are added at a time, without padding if possible."""
    if terms <= _LAST_GROUP:
        return terms
    lengths = range(_GROUP // 2, _GROUP + 1)
    return next((n for n in lengths if terms % n == 0), evenly(terms, _GROUP))


def _apart(x: Array) -> Array:
    """`x`, sums that XLA does not merge with sums of them into longer ones."""
    return jax.lax.optimization_barrier(x)


# inner: x (..., m, k), y (..., m, j) -> x^T y (..., k, j)


def _inner_impl(x, y, *, target: Target):
    return without_unit_axes(partial(_computed, target=target), x.ndim - 2, x, y)


def _computed(x: Array, y: Array, target: Target) -> Array:
    m, k, j = *x.shape[-2:], y.shape[-1]
    if is_long(m, k, j):
        # If the partitioner divides the rows among devices, no chunk is on two of them.
        parts = math.gcd(m, target.devices)
        count, length = divided(m // parts, _chunk_limit(k, j))
        chunks = (_in_chunks(z, parts, count, length) for z in (x, y))
        pairs = zip(*chunks, strict=True)
        whole, *left = (_of_chunks(*pair, is_cpu=target.is_cpu) for pair in pairs)
        total = sum((rest[..., 0, :, :] for rest in left), _total(whole))
        return jnp.sum(total, axis=-3)
    kind = _plan(x, y, x.shape, has_long=_has_long_axis(m, k, j))
    if kind == "summed":
        return _sum_over_rows(x, y)
    if kind == "dot":
        return _product(x, y)
    found = _sum_of_products(x, y)
    return prevent_fusion(found) if kind == "isolated" and target.is_cpu else found


def _of_chunks(x: Array, y: Array, *, is_cpu: bool) -> Array:
    """The product of each chunk of rows, `(..., count, k, j)`."""
    is_summed = form_plan.sums_products(
        x.shape[-1],
        y.shape[-1],
        is_complex=_is_complex(x, y),
        is_single=jnp.finfo(x.dtype).bits == 32,
        is_cpu=is_cpu,
    )
    if is_summed or _plan(x, y, x.shape) == "summed":
        return _apart(_sum_over_rows(x, y))
    return _product(x, y)


def _plan(x: Array, y: Array, shape: tuple, has_long: bool = False) -> form_plan.Product:
    """How a product without long sums is computed, if `X` or `X^T` has that shape."""
    is_complex = _is_complex(x, y)
    return form_plan.product(shape, y.shape, is_complex=is_complex, has_long=has_long)


def _is_complex(x: Array, y: Array) -> bool:
    """Whether a product of these arrays is complex."""
    return jnp.iscomplexobj(x) or jnp.iscomplexobj(y)


def _sum_of_products(x: Array, y: Array) -> Array:
    """The product `X^T Y` as a sum of products of rows."""
    terms = (x[..., k, :, None] * y[..., k, None, :] for k in range(x.shape[-2]))
    return functools.reduce(operator.add, terms)


def _sum_over_rows(x: Array, y: Array) -> Array:
    """The product `X^T Y` as one sum over the rows of products of their elements."""
    return jnp.sum(x[..., :, :, None] * y[..., :, None, :], axis=-3)


def _product(x, y):
    # Without a transpose, which XLA would materialize for a product of chunks.
    return jnp.einsum("...mk,...mj->...kj", x, y, precision=jax.lax.Precision.HIGHEST)


def _inner_transpose_x(ct, x, y):
    return like(inner(jnp.swapaxes(y, -1, -2), jnp.swapaxes(ct, -1, -2)), x.aval)


def _inner_transpose_y(ct, x, y):
    return like(inner(jnp.swapaxes(x, -1, -2), ct), y.aval)


inner_p = _rules.primitive("inner", _inner_impl, types=_product)
ad.defbilinear(inner_p, _inner_transpose_x, _inner_transpose_y)
