"""Products and adjoints of batches of matrices, as every other module uses them."""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._inner import has_long_axis, inner, is_long, sum_of_products

# Many matrices as small as this cost less in plain arithmetic, vectorised over the batch,
# than in a library call for each: 20000 products of 7 by 6 with 6 by 6 take 1 ms, not 10.
TINY, MANY = 8, 32
# Complex arithmetic does so up to here: Hessian-vector products of 20000 complex 6 by 7
# matrices take 704 ms in it and 268 by the library, those of 4000 8 by 8 ones 130 and 64.
_TINY_COMPLEX = 4


def matmul(x: Array, y: Array) -> Array:
    """Product of the last two axes, in the full precision of the dtype.

    The default precision is TF32 on GPU and bfloat16 on TPU, or whatever
    `jax.default_matmul_precision` says: neither may leak into a derivative.
    """
    if _are_many_and_tiny(x, y):
        return _computed_once(sum_of_products(x, y))
    (m, k), n = x.shape[-2:], y.shape[-1]
    if is_known((m, k, n)) and has_long_axis(k, m, n):
        return inner(transpose(x), y)
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)


def sum_of_rows(x: Array) -> Array:
    """The sum over the rows of `(..., m, k)`, `(..., 1, k)`."""
    m, k = x.shape[-2:]
    if not is_known((m, k)) or not k or not is_long(m, 1, k):
        return jnp.sum(x, axis=-2, keepdims=True)
    return inner(jnp.ones_like(x[..., :1]), x)


def squared_norms(x: Array) -> Array:
    """The squared 2-norms of the columns of `(..., m, k)`, `(..., k)`, real."""
    return sum_of_rows(jnp.real(jnp.conj(x) * x))[..., 0, :]


def frobenius_norm(x: Array) -> Array:
    """The Frobenius norm of `(..., m, n)`, of batch shape, real."""
    return jnp.linalg.norm(x, axis=(-2, -1))


# Compiled once for a shape, or eager calls would compile these branches anew.
@jax.jit
def _computed_once(x: Array) -> Array:
    """`x`, which on a CPU is not fused into what uses it.

    XLA would merge a chain of products there and compute each link anew for every element
    of the next. It looks through `optimization_barrier`, but not through a branch.
    """

    def behind_a_branch(x: Array) -> Array:
        never = jax.lax.optimization_barrier(jnp.asarray(False))
        return jax.lax.cond(never, operator.neg, lambda x: x, x)

    return jax.lax.platform_dependent(x, cpu=behind_a_branch, default=lambda x: x)


def is_known(shape: tuple) -> bool:
    """Whether all sizes are numbers, and none a symbol of an exported program."""
    return all(isinstance(size, int) for size in shape)


def finite_or_zero(a: Array) -> tuple[Array, Array]:
    """Matrices, zero where not finite, and whether they are, `(..., 1, 1)`.

    LAPACK's gesdd can loop for ever on an Inf, so that it must never see one.
    """
    finite = jnp.all(jnp.isfinite(a), axis=(-2, -1), keepdims=True)
    return jnp.where(finite, a, 0), finite


def in_units(a: Array) -> tuple[Array, Array, Array]:
    """Matrices over their scale, zero where not finite; the scale; and which are finite.

    The scale, `(...)`, is a power of two of the size of the elements: to divide by it is
    exact, and no square overflows or vanishes. LAPACK scales by itself, but to no avail
    where denormal numbers count as zero.
    """
    guarded, finite = finite_or_zero(a)
    scale = power_of_two(jnp.max(jnp.abs(guarded), axis=(-2, -1), initial=0))
    return guarded / scale[..., None, None].astype(a.dtype), scale, finite[..., 0, 0]


def power_of_two(x: Array) -> Array:
    """A power of two next to each number, and 1 next to 0."""
    limits = jnp.finfo(x.dtype)
    rounded = jax.lax.reduce_precision(x, limits.nexp, 0)
    # XLA multiplies by the reciprocal instead of dividing: it must not be denormal.
    rounded = jnp.minimum(rounded, 2.0 ** (limits.maxexp - 2))
    return jnp.where(rounded > 0, rounded, 1)


def root_of_size(x: Array) -> Array:
    """A power of two next to the square root of each number, its square not out of range.

    Nor is the reciprocal of that: so division by it is exact, and 0 counts as tiny.
    """
    limits = jnp.finfo(x.dtype)
    largest = 2.0 ** (-limits.minexp // 2)
    rounded = jax.lax.reduce_precision(jnp.sqrt(x), limits.nexp, 0)
    return jnp.clip(rounded, 1 / largest, largest)


def largest_of_columns(x: Array) -> Array:
    """The largest absolute value of each column of `(..., m, k)`, `(..., 1, k)`, real.

    Of complex columns it is that of a part, up to `sqrt(2)` times less.
    """
    if jnp.iscomplexobj(x):
        size = jnp.maximum(jnp.abs(jnp.real(x)), jnp.abs(jnp.imag(x)))
    else:
        size = jnp.abs(x)
    *batch, m, _ = x.shape
    if is_known(x.shape) and 0 < m <= TINY and max(*batch, 1, 1) >= MANY:
        # XLA reduces short axes one matrix after the other: 3 ms for 20000, not 0.1.
        rows = (size[..., i, None, :] for i in range(m))
        return functools.reduce(jnp.maximum, rows)
    return jnp.max(size, axis=-2, keepdims=True, initial=0)


def _are_many_and_tiny(x: Array, y: Array) -> bool:
    """Whether the product of two batches is one for plain arithmetic."""
    if not is_known((*x.shape, *y.shape)):
        return False
    *batch, m, k = x.shape
    many = max(*batch, *y.shape[:-2], 1, 1) >= MANY
    # Not for vectors: XLA would fuse chains of their products and repeat each link.
    tiny = _TINY_COMPLEX if jnp.iscomplexobj(x) or jnp.iscomplexobj(y) else TINY
    return many and 0 < k and 1 < y.shape[-1] and max(m, k, y.shape[-1]) <= tiny


def identity(a: Array) -> Array:
    """The identity of as many columns as `a` has, in its batch and dtype."""
    *batch, _, n = a.shape
    return jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), (*batch, n, n))


def transpose(x: Array) -> Array:
    """Swap of the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def adjoint(x: Array) -> Array:
    """Conjugate transpose of the last two axes."""
    return jnp.conj(transpose(x))


@jax.custom_jvp
def mirror_lower(a: Array) -> Array:
    """Hermitian matrix of the lower triangle, which alone is read.

    Its derivative is the Hermitian part of the whole tangent: so gradients are Hermitian.
    """
    n = a.shape[-1]
    below = jnp.tri(n, k=-1, dtype=bool)
    diagonal = jnp.eye(n, dtype=bool)
    real = jnp.real(a).astype(a.dtype)
    return jnp.select([below, diagonal], [a, real], adjoint(a))


@mirror_lower.defjvp
def _mirror_lower_jvp(primals, tangents):
    [a], [e] = primals, tangents
    return mirror_lower(a), (e + adjoint(e)) / 2
