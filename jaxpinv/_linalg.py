"""Products, norms and scales of batches of matrices, for all other modules."""

import operator

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad
from jax.typing import DTypeLike

from jaxpinv import _rules
from jaxpinv._inner import inner, is_long, plain_product
from jaxpinv._largest import largest_element as largest_element
from jaxpinv._platform.workarounds import largest_of_short_axis
from jaxpinv._shapes import is_static_shape, like


def matmul(x: Array, y: Array) -> Array:
    """The product of matrices in the last two axes, in the full precision of the dtype.

    The default precision is TF32 on GPU and bfloat16 on TPU, or whatever
    `jax.default_matmul_precision` says: neither may leak into a derivative.
    """
    found = plain_product(x, y)
    return inner(transpose(x), y) if found is None else found


def outer(x: Array, y: Array) -> Array:
    """The product `conj(x) y^T`, of `x` `(..., m, k)` and `y` `(..., n, k)`."""
    # Single columns in plain arithmetic, which XLA fuses into one loop.
    product = operator.mul if x.shape[-1] == 1 else matmul
    return product(jnp.conj(x), transpose(y))


def sum_of_rows(x: Array) -> Array:
    """The sum `(..., 1, k)` over the rows of `x`, `(..., m, k)`."""
    m, k = x.shape[-2:]
    if not is_static_shape((m, k)) or not k or not is_long(m, 1, k):
        return jnp.sum(x, axis=-2, keepdims=True)
    return inner(jnp.ones_like(x[..., :1]), x)


def squared_norms(x: Array) -> Array:
    """The squared 2-norms `(..., k)` of the columns of `x`, `(..., m, k)`, real."""
    return sum_of_rows(jnp.real(jnp.conj(x) * x))[..., 0, :]


def frobenius_norm(x: Array) -> Array:
    """The Frobenius norm `(...)` of `x`, `(..., m, n)`, real."""
    return jnp.linalg.norm(x, axis=(-2, -1))


def finite_or_zero(a: Array) -> tuple[Array, Array]:
    """Matrices, zero if not finite, and whether each is finite, `(..., 1, 1)`.

    LAPACK's gesdd can loop forever on an Inf, so it must never see one.
    """
    finite = jnp.isfinite(largest_element(a))[..., None, None]
    return jnp.where(finite, a, 0), finite


def normalize_scale(a: Array, largest: Array | None = None) -> tuple[Array, Array, Array]:
    """Matrices over their scale, zero if not finite; the scale; and which are finite.

    The scale, `(...)`, is a power of two of the size of the elements: division by it is
    exact, and no square overflows or underflows. `largest` is what `largest_element` finds,
    if it is known.
    """
    largest = largest_element(a) if largest is None else largest
    finite = jnp.isfinite(largest)
    scale = power_of_two(jnp.where(finite, largest, 0))
    unit = scale[..., None, None].astype(a.dtype)
    return jnp.where(finite[..., None, None], a, 0) / unit, scale, finite


def moderate_scale(a: Array) -> tuple[Array, Array]:
    """Matrices in a unit in which LAPACK need not scale them, zero if not finite; the unit.

    The unit, `(...)`, is a power of two. LAPACK can scale matrices itself, but in vain if
    denormal numbers count as zero.
    """
    return _in_unit(a, largest_element(a))


def moderate_scale_uncounted(a: Array) -> tuple[Array, Array]:
    """`moderate_scale` of one matrix, in hardly any operations that XLA counts.

    LAPACK finds the norm. Only if that is extreme or not finite, loops find the unit: of a
    loop, XLA counts a single step, here a row. See `workarounds.is_handed_over`.
    """
    small = _smallest_moderate(a.dtype)
    column = jnp.reshape(a, (a.shape[-2] * a.shape[-1], 1))
    # Up to its sign, the triangular factor of a column is its norm.
    norm = jnp.abs(jax.lax.linalg.qr(column, full_matrices=False)[1][0, 0])
    # The largest element is at least the norm over the number of elements.
    is_moderate = (norm >= small * a.shape[-2] * a.shape[-1]) & (norm <= 1 / small)
    # Not a constant, so that in `shard_map` it varies over the same devices as `a`.
    one = jnp.where(jnp.isnan(norm), norm, 1)

    def unchanged(a: Array) -> tuple[Array, Array]:
        return a, jnp.broadcast_to(one, a.shape[:-2])

    return jax.lax.cond(is_moderate, unchanged, _in_unit_by_rows, a)


def _in_unit_by_rows(a: Array) -> tuple[Array, Array]:
    """`moderate_scale`, a row at a time."""
    rows = jnp.moveaxis(a, -2, 0)[..., None, :]

    def larger(largest: Array, row: Array) -> tuple[Array, None]:
        both = jnp.stack([largest, largest_element(row)], axis=-1)
        return largest_element(both[..., None]), None

    largest, _ = jax.lax.scan(larger, 0 * jnp.real(rows[0, ..., 0, 0]), rows)
    scaled = jax.lax.map(lambda row: _in_unit(row, largest)[0], rows)
    return jnp.moveaxis(scaled[..., 0, :], 0, -2), _in_unit(rows[0], largest)[1]


def _smallest_moderate(dtype: DTypeLike) -> float:
    """LAPACK's limit: below it, the squares of rounding errors underflow."""
    limits = jnp.finfo(dtype)
    return 2.0 ** (limits.minexp // 2 + limits.nmant)


def _in_unit(a: Array, largest: Array) -> tuple[Array, Array]:
    """Matrices in the unit that suits their largest element, and the unit, `(...)`."""
    limits, small = jnp.finfo(a.dtype), _smallest_moderate(a.dtype)
    largest = largest[..., None, None]
    guarded = jnp.where(jnp.isfinite(largest), a, 0)
    # Constants are selected, because a quotient would be one more kernel.
    is_small, is_large = largest < small, largest > 1 / small
    tiny, one, huge = (limits.dtype.type(x) for x in (small**2, 1, small**-2))
    factor = jnp.where(is_small, huge, jnp.where(is_large, tiny, one))
    unit = jnp.where(is_small, tiny, jnp.where(is_large, huge, one))
    return guarded * factor.astype(a.dtype), unit[..., 0, 0]


def power_of_two(x: Array) -> Array:
    """A power of two near each number, and 1 for 0."""
    limits = jnp.finfo(x.dtype)
    rounded = jax.lax.reduce_precision(x, limits.nexp, 0)
    # XLA multiplies by the reciprocal, which must not be denormal, instead of dividing.
    rounded = jnp.minimum(rounded, 2.0 ** (limits.maxexp - 2))
    return jnp.where(rounded > 0, rounded, 1)


def root_of_size(x: Array) -> Array:
    """A power of two near the square root of each number, with its square in range.

    The reciprocal of the square is in range, too, so division by the square is exact. 0
    counts as tiny.
    """
    limits = jnp.finfo(x.dtype)
    largest = 2.0 ** (-limits.minexp // 2)
    rounded = jax.lax.reduce_precision(jnp.sqrt(x), limits.nexp, 0)
    return jnp.clip(rounded, 1 / largest, largest)


def largest_of_columns(x: Array) -> Array:
    """The largest absolute values `(..., 1, k)` of the columns of `x`, `(..., m, k)`, real.

    For complex columns, that of a real or imaginary part: up to `sqrt(2)` times less.
    """
    if jnp.iscomplexobj(x):
        size = jnp.maximum(jnp.abs(jnp.real(x)), jnp.abs(jnp.imag(x)))
    else:
        size = jnp.abs(x)
    return largest_of_short_axis(size)


def identity(a: Array) -> Array:
    """The identity `(..., n, n)` in the batch shape and dtype of `a`, `(..., m, n)`."""
    *batch, _, n = a.shape
    return jnp.broadcast_to(jnp.eye(n, dtype=a.dtype), (*batch, n, n))


def transpose(x: Array) -> Array:
    """The transpose of the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def adjoint(x: Array) -> Array:
    """The conjugate transpose of the last two axes."""
    return jnp.conj(transpose(x))


def pad_rows(x: Array, *, above: int = 0, below: int = 0) -> Array:
    """`x`, `(..., m, k)`, with so many rows of zeros above and below it."""
    return jnp.pad(x, [*[(0, 0)] * (x.ndim - 2), (above, below), (0, 0)])


def with_tangent_of(x: Array, y: Array) -> Array:
    """`x` with the tangent of `y`, of the same dtype and rank, which broadcasts to `x`."""
    [x] = with_tangent_of_p.bind(x, y)
    return x


def _with_tangent_of_change(results, primals, tangent):
    return [jnp.broadcast_to(tangent, results[0].shape)]


def _with_tangent_of_transpose(cts, x, y):
    [ct] = cts
    # If both operands are linear in the input, the derivatives are those of the second.
    if type(ct) is ad.Zero or not ad.is_undefined_primal(y):
        return [ct, None]
    return [None, like(ct, y.aval)]


with_tangent_of_p = _rules.attached("with_tangent_of", 1, 1, _with_tangent_of_change)
ad.primitive_transposes[with_tangent_of_p] = _with_tangent_of_transpose


def hermitian_from_lower(a: Array) -> Array:
    """The Hermitian matrix that has the lower triangle of `a`. The rest of `a` is ignored.

    Its derivative is the Hermitian part of the whole tangent, so gradients are Hermitian.
    """
    n = a.shape[-1]
    below = jnp.tri(n, k=-1, dtype=bool)
    diagonal = jnp.eye(n, dtype=bool)
    real = jnp.real(a).astype(a.dtype)
    mirrored = jnp.select([below, diagonal], [a, real], adjoint(a))
    return with_tangent_of(mirrored, (a + adjoint(a)) / 2)
