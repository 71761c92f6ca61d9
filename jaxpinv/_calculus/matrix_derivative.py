"""Derivatives of every order of the pseudo-inverse, from the factors of the matrix.

The k-th derivative along `E_1, ..., E_k` is the coefficient of `t_1 ... t_k` in
`pinv(A + t_1 E_1 + ... + t_k E_k)`, a polynomial modulo every `t_i^2`. Such a polynomial
is a dict: a bit mask stands for a set of directions and is the key of their coefficient.
The constant coefficient has no entry: code that needs it adds it explicitly.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import ApplyGram, ApplyU, Factors, inverse_values
from jaxpinv._linalg import adjoint, matmul
from jaxpinv._shapes import without_unit_axes

Polynomial = dict[int, Array]


def derivative(
    factors: Factors,
    directions: Polynomial,
    apply_u: ApplyU,
    apply_gram: ApplyGram,
    broadcasts: bool = False,
) -> Array:
    """The derivative of `pinv` along all directions of a polynomial, `(..., n, m)`.

    This is the k-th derivative along `E_1, ..., E_k`, which are stored under masks of one
    bit. A matrix under a mask of several bits adds that term to `A(t)`.

    Let `U`, `V`, `S` be the kept singular triplets of `A`. The kept part of the moved
    matrix `A(t)` has the range of `U + L` and the corange of `V + R`, with `L` orthogonal
    to `U` and `R` to `V`, such that

        A(t) (V + R) = (U + L) M,    A(t)^H (U + L) = (V + R) M'.

    If only zeros are truncated, the columns of `V` need not be orthonormal. Then
    `A^H U = D S` holds with the dual basis `D = V (V^H V)^-1`, and the second equation
    holds for `D + R'`, which has the same range as `V + R` if `R = R' V^H V`.

    Within `U` and `V` these equations give `M` and `M'`, and orthogonally to them `L` and
    `R`, coefficient by coefficient. The only differences of singular values in a
    denominator are those between kept and truncated ones. Then

        pinv(A(t)) = (V + R) M^-1 (I + L^H L)^-1 (U + L)^H.

    The first derivative is that of Noferini (SIMAX 38 (2017) 434-457) or, if only zeros
    are truncated, that of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973) 413-432, eq.
    4.12). It takes four products of `2 m n^2` flops, or two if `U` is the identity, and
    two of `2 n^3` flops for `V^H V`.

    Args:
        factors: those of a matrix `(..., m, n)`, `m >= n`.
        directions: arrays `(..., m, n)` of one rank, whose batch axes broadcast.
        apply_u: computes a product with `U`, or skips it if `U` is the identity.
        apply_gram: makes a map that takes products with `V^H V`, or skips them if nothing
            depends on them.
        broadcasts: whether the coefficients of all directions get all batch axes. Products
            of coefficients without some axis need transposes, each a kernel of its own.
    """
    u, _, v, *_ = factors
    if not directions:
        scaled = v * inverse_values(factors)[..., None, :]
        return apply_u(factors, lambda u, x: matmul(x, adjoint(u)), scaled)
    # E V, and its coordinates U^H E V in the columns of U.
    image = {mask: matmul(e, v) for mask, e in directions.items()}
    w = {
        mask: apply_u(factors, lambda u, x: matmul(adjoint(u), x), x)
        for mask, x in image.items()
    }
    if broadcasts:
        batch = jnp.broadcast_shapes(*(x.shape[:-2] for x in image.values()))
        image, w = _broadcast(image, batch), _broadcast(w, batch)
    whole = functools.reduce(operator.or_, directions)

    inverse = inverse_values(factors)
    outside = image if u.shape[-2] > u.shape[-1] else {}
    across = _across_the_cutoff(factors, inverse)
    moved = _move(whole, w, outside, inverse, *across, apply_gram(factors))
    y = _scaled_corange(moved, inverse)

    # pinv(A(t)) = V y (U + L)^H, with the part of L in U as coordinates.
    rows = inverse[..., :, None]
    inner_h, outer_h = _adjoint(moved.inner), _adjoint(moved.outer)
    in_u = rows * inner_h[whole] + _coefficient(whole, y, (y, inner_h))
    result = apply_u(factors, lambda u, x: matmul(x, adjoint(u)), in_u)
    if outside:
        outer_part = {whole: rows * outer_h[whole]}
        result = result + _coefficient(whole, outer_part, (y, outer_h))
    return matmul(v, result)


class _Moved(NamedTuple):
    """Kept subspaces of the moved matrix, in terms of all columns of `U` and `V`.

    `R = V right`, and `L = U left + (I - U U^H) outer`. To avoid this projection, `overlap`
    is the part of `outer` in `U`, and `L = U inner + outer` with `inner = left - overlap`.
    In kept rows `I - overlap` is `S M^-1`.

    Truncated columns of all fields are zero, so that the rows that they meet in a right
    factor do not matter.
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
    """Solve for the moved subspaces, one set of directions at a time.

    `w` is `U^H E V`, and `outside` is `E V`, or empty if `U` is square. Both equations are
    divided by `S`, so that every coefficient is dimensionless. `from_dual` takes
    coordinates of `R` from the dual basis to `V`.
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
            # The other half of the splits gives the adjoints of these products.
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

    For truncated i and kept j, and zero elsewhere. `1 - ratio` is computed as the
    difference of the two values over the kept one. So it is exact, and not zero however
    close to the cutoff the two are.
    """

    def across(s: Array, kept: Array) -> tuple[Array, Array]:
        is_across = ~kept[..., :, None] & kept[..., None, :]
        rows, columns = s[..., :, None], s[..., None, :]
        kept_one = jnp.where(is_across, columns, 1)
        ratio = jnp.where(is_across, rows, 0) / kept_one
        complement = jnp.where(is_across, columns - rows, 1) / kept_one
        gap = jnp.where(is_across, 1, 0) / (complement * (1 + ratio))
        return ratio.astype(inverse.dtype), gap.astype(inverse.dtype)

    _, s, _, kept, _ = factors
    return without_unit_axes(across, s.ndim - 1, s, kept)


def _polynomials(count: int) -> tuple[Polynomial, ...]:
    """`count` polynomials without coefficients."""
    return tuple({} for _ in range(count))


def _adjoint(x: Polynomial) -> Polynomial:
    """The adjoint of every coefficient."""
    return {mask: adjoint(coefficient) for mask, coefficient in x.items()}


def _broadcast(x: Polynomial, batch: tuple) -> Polynomial:
    """Every coefficient, with these batch axes."""
    return {mask: jnp.broadcast_to(y, (*batch, *y.shape[-2:])) for mask, y in x.items()}


def _coefficient(
    mask: int,
    *terms: Polynomial | tuple[Polynomial, Polynomial],
    minus: Sequence[tuple[Polynomial, Polynomial]] = (),
    half: bool = False,
) -> Array:
    """The coefficient of a sum of polynomials and products of two, less some products.

    With `half`, only one of each pair of mirror-image splits of the directions is taken.
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
    """The terms of a coefficient of the product `x y`."""
    splits = [(part, mask ^ part) for part in x if part & mask == part]
    return [
        matmul(x[part], y[rest])
        for part, rest in splits
        if rest in y and (part < rest or not half)
    ]
