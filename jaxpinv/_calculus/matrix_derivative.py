"""Derivatives of every order of the pseudo-inverse, from the factors of the matrix.

The k-th derivative along `E_1, ..., E_k` is the coefficient of `t_1 ... t_k` in
`pinv(A + t_1 E_1 + ... + t_k E_k)`, a polynomial modulo every `t_i^2`. Such a polynomial
is a dict: the coefficient of a set of directions, written as a bit mask, under that mask.
The constant coefficient has no entry; where there is one, the code that uses it knows it.
"""

import functools
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import ApplyU, Factors, inverse_values
from jaxpinv._linalg import adjoint, matmul

Polynomial = dict[int, Array]


def derivative(factors: Factors, directions: Sequence[Array], apply_u: ApplyU) -> Array:
    """Value of the k-th derivative of `pinv` along k directions, `(..., n, m)`.

    Let `U`, `V`, `S` be the kept singular triplets of `A`. The kept part of the moved
    matrix has the range of `U + L` and the corange of `V + R`, with `L` orthogonal to `U`
    and `R` to `V`, such that

        A(t) (V + R) = (U + L) M,    A(t)^H (U + L) = (V + R) M'.

    Across `U` and `V` these equations give `M` and `M'`, orthogonally to them `L` and `R`,
    coefficient by coefficient, and divide by nothing but the gap between kept and
    truncated singular values. Then

        pinv(A(t)) = (V + R) M^-1 (I + L^H L)^-1 (U + L)^H.

    The first derivative is that of Noferini (SIMAX 38 (2017) 434-457). Where only zeros are
    truncated it is that of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973) 413-432, eq.
    4.12). It takes four products of `2 m n^2` flops, or two if `U` is the identity.

    Args:
        factors: those of a matrix `(..., m, n)`, `m >= n`.
        directions: k >= 1 arrays `(..., m, n)`. Batch axes broadcast; one rank for all.
        apply_u: a product with `U`, left out where that is the identity.
    """
    u, _, v, *_ = factors
    # E V and its part in the columns of U.
    image = {1 << i: matmul(e, v) for i, e in enumerate(directions)}
    w = {
        mask: apply_u(factors, lambda u, x: matmul(adjoint(u), x), x)
        for mask, x in image.items()
    }
    whole = (1 << len(directions)) - 1

    inverse = inverse_values(factors)
    ratio, gap = _across_the_cutoff(factors, inverse)
    # XLA would repeat the arithmetic of these small arrays in each loop that reads them,
    # and compile the Hessian of a 7 by 6 matrix 1.2 times as long.
    kept, inverse, ratio, gap = jax.lax.optimization_barrier(
        (factors.kept, inverse, ratio, gap)
    )
    outside = image if u.shape[-2] > u.shape[-1] else {}
    moved = _move(w, outside, kept, inverse, ratio, gap)
    y = _scaled_corange(moved, inverse)

    # The rows of V^H pinv(A(t)) = y (U + L)^H, in the columns of U and as they are.
    rows = inverse[..., :, None]
    inner_h, outer_h = _adjoint(moved.inner), _adjoint(moved.outer)
    in_u = rows * inner_h[whole] + _coefficient(whole, y, (y, inner_h))
    result = apply_u(factors, lambda u, x: matmul(x, adjoint(u)), in_u)
    if outside:
        outer_part = {whole: rows * outer_h[whole]}
        result = result + _coefficient(whole, outer_part, (y, outer_h))
    return matmul(v, result)


class _Moved(NamedTuple):
    """Kept subspaces of the moved matrix, in all columns of `U` and `V`.

    `R = V right`, and `L = U left + (I - U U^H) outer`. So that nothing is projected,
    `overlap`, the part of `outer` in `U`, stands apart: `L = U inner + outer` with
    `inner = left - overlap`. Of `M = (I - shift) S` it is `shift`.
    """

    right: Polynomial
    left: Polynomial
    outer: Polynomial
    overlap: Polynomial
    inner: Polynomial
    shift: Polynomial


def _move(
    w: Polynomial,
    outside: Polynomial,
    kept: Array,
    inverse: Array,
    ratio: Array,
    gap: Array,
) -> _Moved:
    """Solves for the moved subspaces, one set of directions after the other.

    `w` are `U^H E V`, and `outside` are `E V`, or nothing if `U` is square. Both equations
    stand divided by `S`, so that every coefficient is without dimension.
    """
    kept_rows, columns = kept[..., :, None], inverse[..., None, :]
    w_h, outside_h = _adjoint(w), _adjoint(outside)
    right, left, outer, overlap, inner, shift = moved = _Moved(*_polynomials(6))
    onto_u, onto_v, onto_outside, dual_shift = _polynomials(4)
    # Subsets come before their supersets.
    for mask in range(1, 2 * max(w)):
        onto_u[mask] = columns * _coefficient(mask, w, (w, right))
        onto_v[mask] = columns * _coefficient(mask, w_h, (w_h, inner), (outside_h, outer))
        shift[mask] = -jnp.where(kept_rows, onto_u[mask], 0)
        dual_shift[mask] = -jnp.where(kept_rows, onto_v[mask], 0)
        f = _coefficient(mask, onto_u, (left, shift))
        g = _coefficient(mask, onto_v, (right, dual_shift))
        left[mask] = gap * (f + ratio * g)
        right[mask] = gap * (g + ratio * f)
        inner[mask] = left[mask]
        if outside:
            onto_outside[mask] = columns * _coefficient(mask, outside, (outside, right))
            outer[mask] = _coefficient(mask, onto_outside, (outer, shift))
            overlap[mask] = _coefficient(mask, onto_u, (overlap, shift))
            inner[mask] = left[mask] - overlap[mask]
    return moved


def _scaled_corange(moved: _Moved, inverse: Array) -> Polynomial:
    """The polynomial `y` of `V y = (V + R) M^-1 (I + L^H L)^-1`."""
    right, left, outer, overlap, _, shift = moved
    rows, columns = inverse[..., :, None], inverse[..., None, :]
    minus_left_h, minus_outer_h = _negative(_adjoint(left)), _negative(_adjoint(outer))
    overlap_h = _adjoint(overlap)
    # I + shrink = (I + L^H L)^-1 and I + middle = (I - shift)^-1 (I + shrink).
    minus_gram, shrink, middle, scaled_middle, y = _polynomials(5)
    for mask in shift:
        if mask.bit_count() > 1:
            minus_gram[mask] = _coefficient(
                mask, (minus_left_h, left), (minus_outer_h, outer), (overlap_h, overlap)
            )
            shrink[mask] = _coefficient(mask, minus_gram, (minus_gram, shrink))
        middle[mask] = _coefficient(mask, shift, shrink, (shift, middle))
        scaled_middle[mask] = rows * middle[mask]
        y[mask] = columns * right[mask] + _coefficient(
            mask, scaled_middle, (right, scaled_middle)
        )
    return y


def _across_the_cutoff(factors: Factors, inverse: Array) -> tuple[Array, Array]:
    """Ratio `s_i / s_j` and `1 / ((1 - ratio) (1 + ratio))`, `(..., n, n)`.

    Of truncated i and kept j, and zero elsewhere. `1 - ratio` is the difference of the
    values over the kept one: it is exact, and not zero however close to the cutoff the two
    are.
    """
    _, s, _, kept, _ = factors
    across = ~kept[..., :, None] & kept[..., None, :]
    rows, columns = (x.astype(inverse.dtype) for x in (s[..., :, None], s[..., None, :]))
    over_kept = inverse[..., None, :]
    ratio = jnp.where(across, rows * over_kept, 0)
    complement = jnp.where(across, (columns - rows) * over_kept, 1)
    return ratio, jnp.where(across, 1 / (complement * (1 + ratio)), 0)


def _polynomials(count: int) -> tuple[Polynomial, ...]:
    """That many polynomials without coefficients."""
    return tuple({} for _ in range(count))


def _adjoint(x: Polynomial) -> Polynomial:
    """Adjoint of every coefficient."""
    return {mask: adjoint(coefficient) for mask, coefficient in x.items()}


def _negative(x: Polynomial) -> Polynomial:
    """Negative of every coefficient."""
    return {mask: -coefficient for mask, coefficient in x.items()}


def _coefficient(mask: int, *terms: Polynomial | tuple[Polynomial, Polynomial]) -> Array:
    """Coefficient of a sum of polynomials and of products of two polynomials."""
    found = []
    for term in terms:
        if isinstance(term, dict):
            found += [term[mask]] if mask in term else []
        else:
            x, y = term
            splits = [(part, mask ^ part) for part in x if part & mask == part]
            found += [matmul(x[p], y[rest]) for p, rest in splits if rest in y]
    return functools.reduce(operator.add, found)
