"""Sums over long axes, whose error does not grow like their length: the primitive `inner`.

A running sum of m products is off by up to m roundings, and XLA and BLAS promise no better:
for two or three columns they do just that. Here the rows are taken in chunks, each summed
by one product of matrices, and the sums of chunks are added in groups, and these again:

    |error| <= (c + 8 ceil(log_8(m / c)) + p + 1) eps / 2 sum |x| |y|

for chunks of at most c rows, where the rows lie on p devices. That is 32 where a side has
fewer than four columns, else 128, or twice the number of columns if that is more (N. J.
Higham, "The accuracy of floating point summation", SIAM J. Sci. Comput. 14 (1993) 783-799,
on pairwise sums). The length of a chunk matters: the equal terms of an intercept
column are all rounded the same way, and a running sum of 64 of them is off by up to 8 eps,
one of 8 by about 1. Derivatives are products of the same kind.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxpinv._rules import abstract_eval, batch, device_count, eager

# The bound above is stated with these. For fewer than four columns XLA adds up one product
# after the other; for more, products of matrices are slower in shorter chunks.
_CHUNK_OF_VECTORS, _CHUNK, _CHUNK_OVER_COLUMNS, _GROUP = 32, 128, 2, 8
# Terms up to which plain arithmetic costs less than a library call for each long side.
_THIN = 4


def inner(x: Array, y: Array) -> Array:
    """`X^T Y`, `(..., k, j)`, of `x` `(..., m, k)` and `y` `(..., m, j)`."""
    rank = max(x.ndim, y.ndim)
    x, y = (jax.lax.expand_dims(z, range(rank - z.ndim)) for z in (x, y))
    return inner_p.bind(x, y)


def is_long(rows: int, k: int, j: int) -> bool:
    """Whether a sum over so many rows is taken in chunks, for a result of `k` by `j`."""
    return rows > _chunk_limit(k, j)


def has_long_axis(m: int, k: int, j: int) -> bool:
    """Whether the product `X^T Y` or that of a derivative of it sums over a long axis."""
    return is_long(m, k, j) or is_long(k, m, j) or is_long(j, m, k)


def _chunk_limit(k: int, j: int) -> int:
    """The most rows of a chunk."""
    least = _CHUNK_OF_VECTORS if min(k, j) < 4 else _CHUNK
    return max(least, _CHUNK_OVER_COLUMNS * max(k, j))


def _chunks(rows: int, limit: int) -> tuple[int, int]:
    """Number and length of the chunks of so many rows, without padding if that can be."""
    for length in range(min(limit, rows), limit // 2, -1):
        if rows % length == 0:
            return rows // length, length
    return -(-rows // limit), limit


def _in_chunks(x: Array, parts: int, count: int, length: int) -> Array:
    """`(..., m, k)` in chunks, `(..., parts, count, length, k)`, with zeros at the end."""
    *batch, m, k = x.shape
    x = jnp.reshape(x, (*batch, parts, m // parts, k))
    missing = count * length - m // parts
    if missing:
        x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (0, missing), (0, 0)])
    return jnp.reshape(x, (*batch, parts, count, length, k))


def _total(x: Array) -> Array:
    """The sum over the third axis from the end, in groups of groups."""
    while x.shape[-3] > 1:
        count = -(-x.shape[-3] // _GROUP)
        length = -(-x.shape[-3] // count)
        missing = count * length - x.shape[-3]
        if missing:
            x = jnp.pad(x, [*[(0, 0)] * (x.ndim - 3), (0, missing), (0, 0), (0, 0)])
        x = jnp.sum(jnp.reshape(x, (*x.shape[:-3], count, length, *x.shape[-2:])), axis=-3)
    return x[..., 0, :, :]


# inner: x (..., m, k), y (..., m, j) -> x^T y (..., k, j)


def _inner_impl(x, y, *, parts=1):
    m, k, j = *x.shape[-2:], y.shape[-1]
    if not is_long(m, k, j):
        is_thin = 0 < m <= _THIN
        return sum_of_products(jnp.swapaxes(x, -1, -2), y) if is_thin else _product(x, y)
    count, length = _chunks(m // parts, _chunk_limit(k, j))
    products = _product(*(_in_chunks(z, parts, count, length) for z in (x, y)))
    return jnp.sum(_total(products), axis=-3)


def sum_of_products(x: Array, y: Array) -> Array:
    """The product of matrices as a sum of products of columns with rows."""
    terms = (x[..., :, k, None] * y[..., k, None, :] for k in range(x.shape[-1]))
    return functools.reduce(operator.add, terms)


def _product(x, y):
    # Not by a transpose first: XLA would materialize it for a product of chunks.
    return jnp.einsum("...mk,...mj->...kj", x, y, precision=jax.lax.Precision.HIGHEST)


def _inner_abstract_eval(x, y):
    return abstract_eval(_product, x, y)[0]


def _inner_transpose_x(ct, x, y):
    return _like(inner(jnp.swapaxes(y, -1, -2), jnp.swapaxes(ct, -1, -2)), x.aval)


def _inner_transpose_y(ct, x, y):
    return _like(inner(jnp.swapaxes(x, -1, -2), ct), y.aval)


def _like(result, aval):
    """The sum over batch axes along which an operand was stretched."""
    stretched = [i for i, n in enumerate(aval.shape) if n != result.shape[i]]
    return jnp.sum(result, axis=stretched, keepdims=True) if stretched else result


def _inner_batching(args, axes):
    return batch(inner_p, args, axes)[0], 0


def _inner_lowering(ctx, x, y):
    # Where the partitioner divides the rows among devices, no chunk is on two of them.
    parts = math.gcd(ctx.avals_in[0].shape[-2], device_count(ctx))
    impl = mlir.lower_fun(_inner_impl, multiple_results=False)
    return impl(ctx, x, y, parts=parts)


inner_p = Primitive("inner")
inner_p.def_impl(eager(inner_p, _inner_impl))
inner_p.def_abstract_eval(_inner_abstract_eval)
ad.defbilinear(inner_p, _inner_transpose_x, _inner_transpose_y)
batching.primitive_batchers[inner_p] = _inner_batching
mlir.register_lowering(inner_p, _inner_lowering)
