"""What every factorization returns: its contract, the cutoff and projections."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpinv._linalg import adjoint, identity, largest_of_columns, matmul
from jaxpinv._shapes import without_unit_axes


class Factors(NamedTuple):
    """Factors of `A`, `(..., m, n)` with `m >= n`: all that value and derivatives need.

    The contract:

    - The tangent of `u` is that of `A`, which has the same shape, so that `A` need not be
      stored as well: derivative rules know how everything changes with `A`. `attach` sets
      this tangent. The other factors have none.
    - `A V = U diag(s)` in the kept columns, and `pinv(A) = V diag(kept / s) U^H`.
    - The columns of `U` are orthonormal. If `m > n`, truncated ones may be zero instead.
    - The truncated columns of `V` are orthonormal, and orthogonal to its kept columns: they
      are a basis of the null space of the kept part of `A`. The kept columns are any basis
      of the range of the adjoint of this part.
    - If a value larger than rounding is truncated, `V` is unitary, and `u`, `s` and `v` are
      singular triplets. If only rounding is truncated, the truncated `s` may be exactly 0
      instead, and must be 0 unless `V` is unitary.
    - If a matrix is not finite or a tolerance is NaN, `s` is NaN and everything is kept.
      Then value and derivatives become NaN without further checks.

    So a singular value decomposition meets the contract as it is. As `(u, s, v, kept)`,
    `A = Q R` gives `(Q, 1, R^-1, True)`, and a square matrix `(I, 1, A^-1, True)`. With
    orthonormal `U_r` and `V_r` of r columns, `A = U_r L V_r^H` gives the kept columns `U_r`
    and `V_r L^-1` with s = 1. The truncated columns of `V` are then any orthonormal basis
    of the complement of `V_r`, with s = 0.

    Attributes:
        u: `(..., m, n)`.
        s: `(..., n)`, real, in any order.
        v: `(..., n, n)`.
        kept: `(..., n)`, bool. False where the singular value is truncated.
        is_inverse: `(...)`, bool. Whether `U` is known to be the identity.
    """

    u: Array
    s: Array
    v: Array
    kept: Array
    is_inverse: Array


#: `u`, `s` and `v` of `Factors`.
Triplets = tuple[Array, Array, Array]
#: Computes a product of `U` with `x` from the factors, `(u, x) -> product` and `x`.
ApplyU = Callable[[Factors, Callable[[Array, Array], Array], Array], Array]
#: Makes what `times_gram` does, from the factors.
ApplyGram = Callable[[Factors], Callable[[Array], Array]]


class Cutoff(NamedTuple):
    """Tolerances of batch shape: values up to `max(atol, rtol * largest)` are truncated."""

    rtol: Array
    atol: Array

    def above(self, upper: Array) -> Array:
        """The cutoff, or an upper bound if `upper` bounds the largest singular value."""
        return jnp.maximum(jnp.maximum(self.atol, self.rtol * upper), 0)

    def keeps(self, s: Array, largest: Array | None = None) -> Array:
        """Which singular values `s`, `(..., n)`, are kept, given the largest if known."""
        if largest is None:
            largest = largest_of_columns(s[..., None])[..., 0]
        return s > Cutoff(*(x[..., None] for x in self)).above(largest)

    def is_undefined(self) -> Array:
        """Whether a tolerance is NaN, of batch shape."""
        return jnp.isnan(self.rtol) | jnp.isnan(self.atol)


def largest_met(tolerance: Array, batch: list) -> Array:
    """The largest tolerance for each matrix of a batch, whose shape is `batch`."""
    more = [i for i, n in enumerate(batch) if n == 1 != tolerance.shape[i]]
    largest = jnp.max(tolerance, axis=more, keepdims=True, initial=0)
    return jnp.broadcast_to(largest, batch)


def truncate(
    triplets: Triplets,
    cutoff: Cutoff,
    finite: Array,
    certified: Array | None = None,
    is_inverse: Array | None = None,
) -> Factors:
    """Factors made from triplets and a cutoff.

    Args:
        triplets: triplets of all matrices.
        cutoff: the tolerances.
        finite: where the matrix was finite, `(...)`.
        certified: where `s > 0` decides what is kept, instead of the cutoff. There the
            triplets need not be singular triplets.
        is_inverse: where `U` is the identity.
    """
    u, s, v = triplets
    nowhere = jnp.zeros_like(finite)
    certified = nowhere if certified is None else certified
    # Decompositions have the largest value first or, if from eigenvalues, maybe last.
    largest = jnp.maximum(s[..., :1], s[..., -1:])
    # A largest value that overflows would truncate all others and make the result zero.
    undefined = ~jnp.isfinite(largest) | (~finite | cutoff.is_undefined())[..., None]
    kept = jnp.where(certified[..., None], s > 0, cutoff.keeps(s, largest)) | undefined
    # One quotient holds both and is computed once, whereas XLA would recompute a mask, and
    # all that it depends on, in each loop that reads it.
    one = s.dtype.type(1)
    signed = s / jnp.where(kept, jnp.where(undefined, jnp.nan, one), -one)
    s, kept = jnp.abs(signed), ~(signed <= 0)
    return Factors(u, s, v, kept, nowhere if is_inverse is None else is_inverse)


def pseudo_inverse(factors: Factors) -> Array:
    """The pseudo-inverse `V diag(kept / s) U^H`, `(..., n, m)`."""
    # `V / s` has the size of the result. `U / s` may be denormal where `V` is large.
    v = factors.v * inverse_values(factors)[..., None, :]
    return matmul(v, adjoint(factors.u))


def product_with_u(
    factors: Factors, product: Callable[[Array, Array], Array], x: Array
) -> Array:
    """A product of `U` with `x`, computed for any `U`."""
    return product(factors.u, x)


def times_gram(factors: Factors) -> Callable[[Array], Array]:
    """The map from `x`, `(..., n, n)`, to its product with `V^H V`, for any `V`.

    Truncated columns of `x` are zero, and remain so.
    """

    def gram(s: Array, kept: Array, v: Array) -> Array:
        # Only where needed: otherwise a matrix would depend on the others of its batch.
        needed = _is_oblique(s, kept)[..., None] & kept
        return jnp.where(needed[..., None, :], matmul(adjoint(v), v), identity(v))

    _, s, v, kept, _ = factors
    right = without_unit_axes(gram, s.ndim - 1, s, kept, v)
    return lambda x: matmul(x, right)


def any_oblique(factors: Factors) -> Array:
    """Whether any matrix needs the products with the Gram matrix of `V`."""
    return jnp.any(_is_oblique(factors.s, factors.kept))


def _is_oblique(s: Array, kept: Array) -> Array:
    """Whether kept columns of `V` may not be orthonormal, and this matters, `(...)`.

    If nothing is truncated, it does not matter.
    """
    return jnp.any(~kept & (s == 0), axis=-1)


def inverse_values(factors: Factors) -> Array:
    """The values `1 / s` where kept and 0 elsewhere, `(..., n)`, in the dtype of `u`."""

    # Masked before the division, not after: so no Inf arises, and the quotient is computed
    # once, whereas XLA would recompute a mask in each loop that reads it.
    def inverse(s: Array, kept: Array) -> Array:
        return jnp.where(kept, 1, 0) / jnp.where(kept, s, 1)

    _, s, _, kept, _ = factors
    found = without_unit_axes(inverse, s.ndim - 1, s, kept)
    return found.astype(factors.u.dtype)


def largest_value(factors: Factors) -> Array:
    """The largest singular value, or 1 if that is 0, `(..., 1, 1)`, in the dtype of `u`."""
    largest = largest_of_columns(factors.s[..., :, None])
    return jnp.where(largest == 0, 1, largest).astype(factors.u.dtype)


def off_range(factors: Factors, x: Array) -> Array:
    """The projection of `x`, `(..., m, k)`, off the kept range of the matrix."""
    u, _, _, kept, _ = factors
    within = jnp.where(kept[..., :, None], matmul(adjoint(u), x), 0)
    # Exactly zero for a square matrix if everything is kept.
    everything = jnp.all(kept, axis=-1)[..., None, None] & (u.shape[-2] == u.shape[-1])
    return jnp.where(everything, _nothing_of(x), x - matmul(u, within))


def off_corange(factors: Factors, x: Array) -> Array:
    """The projection of `x`, `(..., n, k)`, onto the null space of the kept part."""
    v, kept = factors.v, factors.kept[..., :, None]
    return matmul(v, jnp.where(kept, _nothing_of(x), matmul(adjoint(v), x)))


def _nothing_of(x: Array) -> Array:
    """Zero for each column, `(..., 1, k)`, but NaN for one that is not finite."""
    return 0 * jnp.sum(x, axis=-2, keepdims=True)
