"""Derivatives of every order of the pseudo-inverse, from the factors of the matrix.

The k-th derivative along `E_1, ..., E_k` is the coefficient of `t_1 ... t_k` in
`pinv(A + t_1 E_1 + ... + t_k E_k)`, a polynomial modulo every `t_i^2`. Such a polynomial
is a dict: the coefficient of a set of directions, written as a bit mask, under that mask.
The constant coefficient has no entry; where there is one, the code that uses it knows it.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._arrays import adjoint, matmul
from jaxpinv._factors import Factors, inverse_values

Polynomial = dict[int, Array]


def derivative(factors: Factors, directions: Sequence[Array]) -> Array:
    """Value of the k-th derivative of `pinv` along k directions, `(..., n, m)`.

    Let `U`, `V`, `S` be the kept singular triplets of `A`. The kept part of the moved
    matrix has the range of `U + L` and the corange of `V + R`, with `L` orthogonal to `U`
    and `R` to `V`, such that

        A(t) (V + R) = (U + L) M,    A(t)^H (U + L) = (V + R) M'.

    Across `U` and `V` these equations give `M` and `M'`, orthogonally to them `L` and `R`,
    coefficient by coefficient, and divide by nothing but the gap between kept and cut
    singular values. Then

        pinv(A(t)) = (V + R) M^-1 (I + L^H L)^-1 (U + L)^H.

    The first derivative is that of Noferini (SIMAX 38 (2017) 434-457), and where nothing
    but zeros is cut that of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973) 413-432,
    eq. 4.12). It takes four products of `2 m n^2` flops.

    Args:
        factors: those of a matrix `(..., m, n)`, `m >= n`.
        directions: k >= 1 arrays `(..., m, n)`. Batch axes broadcast; one rank for all.
    """
    u, s, v, kept = factors
    inverse = inverse_values(factors)
    ratio, gap = _across_the_cutoff(s, kept, inverse)
    # XLA would repeat the arithmetic of these small arrays in each loop that reads them,
    # and compile the Hessian of a 7 by 6 matrix 1.3 times as long.
    kept, inverse, ratio, gap = jax.lax.optimization_barrier((kept, inverse, ratio, gap))
    kept_rows = kept[..., :, None]
    rows, columns = inverse[..., :, None], inverse[..., None, :]
    has_outside = u.shape[-2] > u.shape[-1]
    whole = (1 << len(directions)) - 1

    # E V and its part in the columns of U, all of one batch shape: a product of a single
    # matrix with a batch leaves the batch axis in the middle, to be moved back each time.
    image = {1 << i: matmul(e, v) for i, e in enumerate(directions)}
    w = {mask: matmul(adjoint(u), x) for mask, x in image.items()}
    batch = jnp.broadcast_shapes(kept.shape[:-1], *(x.shape[:-2] for x in w.values()))
    image, w = _broadcast(image, batch), _broadcast(w, batch)
    image_h, w_h = _adjoint(image), _adjoint(w)

    # R = V right and L = U left + (I - U U^H) outer, here with all columns of U and V.
    # Kept apart are outer and its part U overlap, so that nothing is projected:
    # L = U inner + outer. The equations for M = (I - moved) S and M' are divided by S.
    right, left, outer, overlap, inner = _polynomials(5)
    onto_u, onto_v, moved, moved_dual, onto_outside = _polynomials(5)
    for mask in range(1, whole + 1):
        onto_u[mask] = columns * _coefficient(mask, w, (w, right))
        onto_v[mask] = columns * _coefficient(mask, w_h, (w_h, inner), (image_h, outer))
        moved[mask] = -jnp.where(kept_rows, onto_u[mask], 0)
        moved_dual[mask] = -jnp.where(kept_rows, onto_v[mask], 0)
        f = _coefficient(mask, onto_u, (left, moved))
        g = _coefficient(mask, onto_v, (right, moved_dual))
        left[mask] = gap * (f + ratio * g)
        right[mask] = gap * (g + ratio * f)
        inner[mask] = left[mask]
        if has_outside:
            onto_outside[mask] = columns * _coefficient(mask, image, (image, right))
            outer[mask] = _coefficient(mask, onto_outside, (outer, moved))
            overlap[mask] = _coefficient(mask, onto_u, (overlap, moved))
            inner[mask] = left[mask] - overlap[mask]

    # middle = (I - moved)^-1 (I + L^H L)^-1 - I, with minus_gram = -L^H L.
    left_h, outer_h, overlap_h = _adjoint(left), _adjoint(outer), _adjoint(overlap)
    minus_left_h, minus_outer_h = _negative(left_h), _negative(outer_h)
    minus_gram, shrink, middle, scaled_middle, y = _polynomials(5)
    for mask in range(1, whole + 1):
        if _is_product(mask):
            minus_gram[mask] = _coefficient(
                mask, (minus_left_h, left), (minus_outer_h, outer), (overlap_h, overlap)
            )
            shrink[mask] = _coefficient(mask, minus_gram, (minus_gram, shrink))
        middle[mask] = _coefficient(mask, moved, shrink, (moved, middle))
        scaled_middle[mask] = rows * middle[mask]
        # (V + R) S^-1 (I + middle) = V y
        y[mask] = columns * right[mask] + _coefficient(
            mask, scaled_middle, (right, scaled_middle)
        )

    # The rows of V^H pinv(A(t)) = y (U + L)^H, in the columns of U and as they are.
    inner_h = _adjoint(inner)
    in_u = rows * inner_h[whole] + _coefficient(whole, y, (y, inner_h))
    result = matmul(in_u, adjoint(u))
    if has_outside:
        scaled_outer_h = {whole: rows * outer_h[whole]}
        result = result + _coefficient(whole, scaled_outer_h, (y, outer_h))
    return matmul(v, result)


def _across_the_cutoff(s: Array, kept: Array, inverse: Array) -> tuple[Array, Array]:
    """Ratio `s_i / s_j` and `1 / ((1 - ratio) (1 + ratio))`, cut i and kept j, else 0.

    Both `(..., n, n)`. `1 - ratio` is the difference of the values over the kept one: it
    is exact and not zero however close to the cutoff the two are.
    """
    across = ~kept[..., :, None] & kept[..., None, :]
    rows, columns = (x.astype(inverse.dtype) for x in (s[..., :, None], s[..., None, :]))
    over_kept = inverse[..., None, :]
    ratio = jnp.where(across, rows * over_kept, 0)
    complement = jnp.where(across, (columns - rows) * over_kept, 1)
    return ratio, jnp.where(across, 1 / (complement * (1 + ratio)), 0)


def _polynomials(count: int) -> tuple[Polynomial, ...]:
    """That many polynomials without coefficients."""
    return tuple({} for _ in range(count))


def _broadcast(x: Polynomial, batch: Sequence) -> Polynomial:
    """Every coefficient with that batch shape."""
    return {mask: jnp.broadcast_to(c, (*batch, *c.shape[-2:])) for mask, c in x.items()}


def _adjoint(x: Polynomial) -> Polynomial:
    """Adjoint of every coefficient."""
    return {mask: adjoint(coefficient) for mask, coefficient in x.items()}


def _negative(x: Polynomial) -> Polynomial:
    """Negative of every coefficient."""
    return {mask: -coefficient for mask, coefficient in x.items()}


def _is_product(mask: int) -> bool:
    """Whether a set has two non-empty parts: more than one direction."""
    return mask.bit_count() > 1


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
