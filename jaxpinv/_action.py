"""Derivatives of every order of `pinv(A) b`, by products of matrices with vectors alone.

They hold where the cutoff cuts nothing but zeros. The k-th derivative along `E_1, ...,
E_k` is the coefficient of `t_1 ... t_k` in `pinv(A + t_1 E_1 + ... + t_k E_k) b`. As in
`_derivatives` a polynomial is a dict, the coefficient of a set of directions, written as
a bit mask, under that mask; here the constant one has its entry.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpinv._arrays import adjoint, matmul, transpose
from jaxpinv._factors import Factors, inverse_values, off_corange, off_range

Polynomial = dict[int, Array]
Map = Callable[[Array], Array]


class Outer(NamedTuple):
    """The direction `b c^T`, never formed: `b` is `(..., m, k)` and `c` `(..., n, k)`."""

    b: Array
    c: Array

    def formed(self) -> Array:
        """The matrix after all, `(..., m, n)`."""
        return matmul(self.b, transpose(self.c))


Direction = Array | Outer


class Operators(NamedTuple):
    """A matrix and its directions as linear maps of columns, each with its adjoint.

    Attributes:
        inverse: the pseudo-inverse.
        off_range: the projections off the range, and off the corange.
        directions: one pair of maps for each.
    """

    inverse: tuple[Map, Map]
    off_range: tuple[Map, Map]
    directions: Sequence[tuple[Map, Map]]

    def adjoint(self) -> "Operators":
        """Those of the adjoint matrix and directions."""
        return Operators(
            self.inverse[::-1], self.off_range[::-1], [e[::-1] for e in self.directions]
        )


def right(factors: Factors, directions: Sequence[Direction], b: Array) -> Array:
    """The k-th derivative of `pinv(A)`, times `b` `(..., m, j)`: `(..., n, j)`."""
    operators, scale = _operators(factors, directions)
    return _action(operators, b) / scale


def left(factors: Factors, directions: Sequence[Direction], c: Array) -> Array:
    """The transpose of the k-th derivative, times `c` `(..., n, j)`: `(..., m, j)`."""
    operators, scale = _operators(factors, directions)
    return jnp.conj(_action(operators.adjoint(), jnp.conj(c))) / scale


def _operators(
    factors: Factors, directions: Sequence[Direction]
) -> tuple[Operators, Array]:
    """The maps for `A` divided by its largest singular value, and that value.

    Without it `X^H X b` would overflow for a matrix of size 1e-25 in single precision.
    """
    u, s, v, _ = factors
    largest = jnp.max(s, axis=-1, initial=0)
    scale = jnp.where(largest == 0, 1, largest)[..., None, None].astype(u.dtype)
    inverse = inverse_values(factors)[..., :, None] * scale

    def maps(direction: Direction) -> tuple[Map, Map]:
        if isinstance(direction, Outer):
            b, c = direction
            return (
                lambda x: matmul(b, matmul(transpose(c), x) / scale),
                lambda x: matmul(jnp.conj(c), matmul(adjoint(b), x) / scale),
            )
        return (
            lambda x: matmul(direction, x) / scale,
            lambda x: matmul(adjoint(direction), x) / scale,
        )

    operators = Operators(
        inverse=(
            lambda x: matmul(v, inverse * matmul(adjoint(u), x)),
            lambda x: matmul(u, inverse * matmul(adjoint(v), x)),
        ),
        off_range=(partial(off_range, factors), partial(off_corange, factors)),
        directions=[maps(e) for e in directions],
    )
    return operators, scale


def _action(operators: Operators, b: Array) -> Array:
    """Coefficient of all directions in `pinv(A(t)) b`.

    With `U + L` and `V + R` the moved bases of `_derivatives`, the solution `x` and its
    residual `r = b - A(t) x` are determined by

        (U + L)^H r = 0,    x in the span of V + R.

    Of the first equation, the parts in the range of `U` and outside of it make up a chain,
    of which `r = z_0` is the beginning: for even j

        z_j = Q v_j - K_j,    K_j = X^H (v_{j+1} + K_{j+1}),    v_{j+1} = E^H z_j,

    and for odd j the same with P, X and E instead of Q, X^H and E^H; `v_0 = b - E x`.
    Every `v_{j+1}` is one order higher than `z_j`, so that the chain ends. Of the second,
    `A(t)^H` maps the span of `U + L` on that of `V + R`, and `A(t)` maps it back. Hence
    `x = y_0 = A(t)^H y_1`, `y_1 = A(t) y_2` and so on, each one needed to one order less:

        y_0 = X (v_0 + K_0) + P E^H y_1,    y_j = X^H (y_{j-1} - E^H y_j) + Q E y_{j+1}

    for odd j, and for even j with the same exchange. To first order this is eq. 4.12 of
    Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973) 413-432), applied to `b`.
    """
    inverse, off_range, directions = operators
    order = len(directions)
    whole = (1 << order) - 1
    y: list[Polynomial] = [{} for _ in range(order + 1)]
    z: list[Polynomial] = [{} for _ in range(order + 1)]

    def moved(kind: int, x: Polynomial, mask: int) -> Array:
        """Coefficient of `E x`, or of `E^H x` for kind 1."""
        terms = [
            directions[i][kind](x[mask ^ 1 << i]) for i in range(order) if mask >> i & 1
        ]
        return functools.reduce(operator.add, terms)

    # Subsets come before their supersets. Even and odd steps differ in the kind of map,
    # 0 for the one that its name says and 1 for the adjoint.
    for mask in range(whole + 1):
        size = mask.bit_count()
        v = [-moved(0, y[0], mask) if mask else b]
        v += [moved((j + 1) % 2, z[j], mask) for j in range(size)]
        total = v[size]
        z[size][mask] = off_range[size % 2](total)
        for j in reversed(range(size)):
            correction = inverse[(j + 1) % 2](total)
            z[j][mask] = off_range[j % 2](v[j]) - correction
            total = v[j] + correction
        y[0][mask] = inverse[0](total)
        for j in range(order - size + 1):
            if j:
                rest = y[j - 1][mask]
                rest = rest - moved(j % 2, y[j], mask) if mask else rest
                y[j][mask] = inverse[j % 2](rest)
            if mask:
                outside = moved((j + 1) % 2, y[j + 1], mask)
                y[j][mask] += off_range[(j + 1) % 2](outside)
    return y[0][whole]
