"""Derivatives of every order of the pseudo-inverse, from the factors of the matrix.

The k-th derivative along `E_1, ..., E_k` is the coefficient of `t_1 ... t_k` in
`pinv(A + t_1 E_1 + ... + t_k E_k)`, a polynomial modulo every `t_i^2`. Such a polynomial
is a dict: the coefficient of a set of directions, written as a bit mask, under that mask.
The constant coefficient has no entry; where there is one, the code that uses it knows it.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import ApplyGram, ApplyU, Factors, inverse_values
from jaxpinv._linalg import adjoint, matmul

Polynomial = dict[int, Array]


def derivative(
    factors: Factors,
    directions: Polynomial,
    apply_u: ApplyU,
    apply_gram: ApplyGram,
) -> Array:
    """The derivative of `pinv` along all directions of a polynomial, `(..., n, m)`.

    That is the k-th derivative along `E_1, ..., E_k`, which have the masks of one bit. With
    a matrix under the mask of several it is the coefficient for `A(t)` with that term.

    Let `U`, `V`, `S` be the kept singular triplets of `A`. The kept part of the moved
    matrix has the range of `U + L` and the corange of `V + R`, with `L` orthogonal to `U`
    and `R` to `V`, such that

        A(t) (V + R) = (U + L) M,    A(t)^H (U + L) = (V + R) M'.

    Where only zeros are truncated, the columns of `V` need not be orthonormal. Those of its
    dual basis `D = V (V^H V)^-1` are what `A^H U = D S` has, and the second equation is
    that of `D + R'`, which has the same range if `R = R' V^H V`.

    Across `U` and `V` these equations give `M` and `M'`, orthogonally to them `L` and `R`,
    coefficient by coefficient, and divide by nothing but the gap between kept and
    truncated singular values. Then

        pinv(A(t)) = (V + R) M^-1 (I + L^H L)^-1 (U + L)^H.

    The first derivative is that of Noferini (SIMAX 38 (2017) 434-457). Where only zeros are
    truncated it is that of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973) 413-432, eq.
    4.12). It takes four products of `2 m n^2` flops, or two if `U` is the identity, and
    two of `2 n^3` flops for `V^H V`.

    Args:
        factors: those of a matrix `(..., m, n)`, `m >= n`.
        directions: arrays `(..., m, n)`. Batch axes broadcast; one rank for all.
        apply_u: a product with `U`, left out where that is the identity.
        apply_gram: a product with `V^H V`, left out where nothing depends on it.
    """
    u, _, v, *_ = factors
    if not directions:
        scaled = v * inverse_values(factors)[..., None, :]
        return apply_u(factors, lambda u, x: matmul(x, adjoint(u)), scaled)
    # E V and its part in the columns of U.
    image = {mask: matmul(e, v) for mask, e in directions.items()}
    w = {
        mask: apply_u(factors, lambda u, x: matmul(adjoint(u), x), x)
        for mask, x in image.items()
    }
    whole = functools.reduce(operator.or_, directions)

    inverse = inverse_values(factors)
    outside = image if u.shape[-2] > u.shape[-1] else {}
    across = _across_the_cutoff(factors, inverse)
    moved = _move(whole, w, outside, inverse, *across, partial(apply_gram, factors))
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
    `inner = left - overlap`. In kept rows `I - overlap` is `S M^-1`.

    All of them are zero in the columns of what is truncated, so that the rows there of a
    factor on the right do not matter.
    """

    right: Polynomial
    left: Polynomial
    outer: Polynomial
    overlap: Polynomial
    inner: Polynomial


def _move(
    whole: int,
    w: Polynomial,
    outside: Polynomial,
    inverse: Array,
    ratio: Array,
    gap: Array,
    from_dual: Callable[[Array], Array],
) -> _Moved:
    """Solves for the moved subspaces, one set of directions after the other.

    `w` are `U^H E V`, and `outside` are `E V`, or nothing if `U` is square. Both equations
    stand divided by `S`, so that every coefficient is without dimension. `from_dual` makes
    `R` of what that is in the dual basis.
    """
    columns = inverse[..., None, :]
    w_h, outside_h = _adjoint(w), _adjoint(outside)
    right, left, outer, overlap, inner = moved = _Moved(*_polynomials(5))
    onto_u, onto_v, onto_outside, dual = _polynomials(4)
    # Subsets come before their supersets.
    for mask in range(1, whole + 1):
        onto_u[mask] = columns * _coefficient(mask, w, (w, right))
        onto_v[mask] = columns * _coefficient(mask, w_h, (w_h, inner), (outside_h, outer))
        f = _coefficient(mask, onto_u, minus=[(left, onto_u)])
        g = _coefficient(mask, onto_v, minus=[(dual, onto_v)])
        left[mask] = gap * (f + ratio * g)
        dual[mask] = gap * (g + ratio * f)
        right[mask] = from_dual(dual[mask])
        overlap[mask] = _coefficient(mask, onto_u, minus=[(overlap, onto_u)])
        inner[mask] = left[mask]
        if outside:
            onto_outside[mask] = columns * _coefficient(mask, outside, (outside, right))
            outer[mask] = _coefficient(mask, onto_outside, minus=[(outer, onto_u)])
            inner[mask] = left[mask] - overlap[mask]
    return moved


def _scaled_corange(moved: _Moved, inverse: Array) -> Polynomial:
    """The polynomial `y` of `V y = (V + R) M^-1 (I + L^H L)^-1`."""
    right, left, outer, overlap, _ = moved
    rows, columns = inverse[..., :, None], inverse[..., None, :]
    halves, minus_halves = [(_adjoint(left), left)], []
    if outer:
        halves.append((_adjoint(outer), outer))
        minus_halves.append((_adjoint(overlap), overlap))
    # I - shrink = (I + L^H L)^-1 and I - middle = (I - overlap) (I - shrink).
    gram, shrink, middle, scaled_middle, y = _polynomials(5)
    for mask in overlap:
        if mask.bit_count() > 1:
            # The products of the other half of the splits are the adjoints of these.
            part = _coefficient(mask, *halves, minus=minus_halves, half=True)
            gram[mask] = part + adjoint(part)
            shrink[mask] = _coefficient(mask, gram, minus=[(gram, shrink)])
        middle[mask] = _coefficient(mask, overlap, shrink, minus=[(overlap, shrink)])
        scaled_middle[mask] = rows * middle[mask]
        y[mask] = columns * right[mask] - _coefficient(
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
    rows, columns = s[..., :, None], s[..., None, :]
    kept_one = jnp.where(across, columns, 1)
    ratio = jnp.where(across, rows, 0) / kept_one
    complement = jnp.where(across, columns - rows, 1) / kept_one
    gap = jnp.where(across, 1, 0) / (complement * (1 + ratio))
    return ratio.astype(inverse.dtype), gap.astype(inverse.dtype)


def _polynomials(count: int) -> tuple[Polynomial, ...]:
    """That many polynomials without coefficients."""
    return tuple({} for _ in range(count))


def _adjoint(x: Polynomial) -> Polynomial:
    """Adjoint of every coefficient."""
    return {mask: adjoint(coefficient) for mask, coefficient in x.items()}


def _coefficient(
    mask: int,
    *terms: Polynomial | tuple[Polynomial, Polynomial],
    minus: Sequence[tuple[Polynomial, Polynomial]] = (),
    half: bool = False,
) -> Array:
    """Coefficient of a sum of polynomials and of products of two, less some products.

    With `half` of each two splits of the directions that are mirror images one is taken.
    """
    found = []
    for term in terms:
        if isinstance(term, dict):
            found += [term[mask]] if mask in term else []
        else:
            found += _products(mask, *term, half)
    total = functools.reduce(operator.add, found)
    less = [product for term in minus for product in _products(mask, *term, half)]
    return functools.reduce(operator.sub, less, total)


def _products(mask: int, x: Polynomial, y: Polynomial, half: bool) -> list[Array]:
    """The terms of the coefficient of a product."""
    splits = [(part, mask ^ part) for part in x if part & mask == part]
    return [
        matmul(x[part], y[rest])
        for part, rest in splits
        if rest in y and (part < rest or not half)
    ]
