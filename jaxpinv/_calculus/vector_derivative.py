"""Derivatives of every order of `pinv(A) b`, from products of matrices with vectors alone.

They hold if the cutoff truncates only zeros. The k-th derivative along `E_1, ..., E_k` is
the coefficient of `t_1 ... t_k` in `pinv(A + t_1 E_1 + ... + t_k E_k) b`. As in
`matrix_derivative`, a polynomial is a dict of coefficients, whose keys are bit masks of
sets of directions. Here the constant coefficient has an entry, too.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import (
    Factors,
    inverse_values,
    largest_value,
    off_corange,
    off_range,
)
from jaxpinv._linalg import (
    adjoint,
    largest_of_columns,
    matmul,
    outer,
    root_of_size,
    transpose,
)

Polynomial = dict[int, Array]
Map = Callable[[Array], Array]


class Operators(NamedTuple):
    """A matrix and its directions as linear maps of columns, in pairs with their adjoints.

    Attributes:
        inverse: the pseudo-inverse `X`, and `X^H`.
        off_range: the projections `Q` off the range, and `P` off the corange.
        directions: one pair `E`, `E^H` for each direction.
    """

    inverse: tuple[Map, Map]
    off_range: tuple[Map, Map]
    directions: Sequence[tuple[Map, Map]]

    def adjoint(self) -> "Operators":
        """The operators of the adjoint matrix and the adjoint directions."""
        inverse, inverse_h = self.inverse
        off_range, off_corange = self.off_range
        directions = [(e_h, e) for e, e_h in self.directions]
        return Operators((inverse_h, inverse), (off_corange, off_range), directions)


def right(factors: Factors, directions: Sequence[Array], b: Array) -> Array:
    """The k-th derivative of `pinv(A)`, times `b` `(..., m, j)`: `(..., n, j)`."""
    root = _root(factors)
    operators = _operators(factors, root, _divided(directions, root))
    # Half before and half after, so that neither step overflows or underflows alone.
    over = (1 / root).astype(b.dtype)
    return _action(operators, b * over) * over


def left(factors: Factors, directions: Sequence[Array], c: Array) -> Array:
    """The transpose of the k-th derivative, times `c` `(..., n, j)`: `(..., m, j)`."""
    root = _root(factors)
    operators = _operators(factors, root, _divided(directions, root)).adjoint()
    over = (1 / root).astype(c.dtype)
    return jnp.conj(_action(operators, jnp.conj(c) * over)) * over


def gradient(factors: Factors, directions: Sequence[Array], b: Array, c: Array) -> Array:
    """The gradient `G`, `(..., n, m)`, of `trace(c^T D^(k+1) pinv(A) b)`.

    For one more direction `E`, that number is `trace(G E)`. `b` is `(..., m, j)`, and `c`
    is `(..., n, j)`.
    """
    root = _root(factors)
    rest = _divided(directions, root)
    # Both are scaled to the square root of the size of the result: every column of b, and
    # the column of c in the largest pair. Then products with one alone stay in range.
    of_b, of_c = (root_of_size(largest_of_columns(x)) for x in (b, c))
    largest = jnp.max(of_b * of_c, axis=-1, keepdims=True, initial=0)
    size = largest / root / root
    b = _times(b, 1 / of_b, 1 / of_b, size)
    c = _times(c, of_b / largest, of_b / largest, size)
    if not directions:
        return transpose(_gradient(_operators(factors, root, []), b, c))
    image, pullback = jax.vjp(
        lambda e: _action(_operators(factors, root, [e, *rest]), b),
        _zeros(factors.u, b, c, *rest),
    )
    return transpose(pullback(jnp.where(False, image, c))[0])


def _gradient(operators: Operators, b: Array, c: Array) -> Array:
    """The gradient of `c^T pinv(A) b`, `(..., m, n)`.

    With `h` the conjugate of `c`, `x = X b` and `y = X^H h`, it is by eq. 4.12 of Golub and
    Pereyra

        conj(Q b) (X y)^T + conj(X^H x) (P h)^T - conj(y) x^T.
    """
    inverse, off_range, _ = operators
    h = jnp.conj(c)
    x, y = inverse[0](b), inverse[1](h)
    moved_range = outer(off_range[0](b), inverse[0](y))
    moved_corange = outer(inverse[1](x), off_range[1](h))
    return moved_range + moved_corange - outer(y, x)


def _root(factors: Factors) -> Array:
    """A power of two near the root of the largest singular value, `(..., 1, 1)`."""
    return root_of_size(jnp.real(largest_value(factors)))


def _divided(directions: Sequence[Array], root: Array) -> list[Array]:
    """Directions divided by the square of `root`."""
    over = 1 / jnp.square(root)
    return [e * over.astype(e.dtype) for e in directions]


def _times(x: Array, *factors: Array) -> Array:
    """`x` times real factors one by one, because their product may leave the range."""
    for factor in factors:
        x = x * factor.astype(x.dtype)
    return x


def _operators(factors: Factors, root: Array, directions: Sequence[Array]) -> Operators:
    """The maps of `A` divided by the square of `root`. Directions are divided already.

    So no intermediate result overflows or underflows unless the result does: `X^H X b`
    would for a matrix of size 1e-25 in float32. A power of two causes no rounding.
    """
    u, _, v, *_ = factors
    # Divided before the inversion: the inverse of the largest numbers is denormal.
    s = factors.s / jnp.square(root)[..., 0]
    inverse = inverse_values(factors._replace(s=s))[..., :, None]
    return Operators(
        inverse=(
            lambda x: matmul(v, inverse * matmul(adjoint(u), x)),
            lambda x: matmul(u, inverse * matmul(adjoint(v), x)),
        ),
        off_range=(partial(off_range, factors), partial(off_corange, factors)),
        directions=[(partial(matmul, e), partial(matmul, adjoint(e))) for e in directions],
    )


def _zeros(matrix: Array, *others: Array) -> Array:
    """Zeros of the shape of `matrix`, with the batch axes of all arrays."""

    def in_batch_of(x: Array, y: Array) -> Array:
        # Takes sharding and varying axes from both, which shapes alone do not tell.
        return jnp.where(False, jnp.sum(y, axis=(-2, -1), keepdims=True), x)

    return jnp.where(True, 0, functools.reduce(in_batch_of, others, matrix))


def _action(operators: Operators, b: Array) -> Array:
    """The coefficient of all directions in `pinv(A(t)) b`.

    With `U + L` and `V + R` the moved bases of `matrix_derivative`, the solution `x` and
    its residual `r = b - A(t) x` are determined by

        (U + L)^H r = 0,    x in the span of V + R.

    The parts of the first equation inside and outside the range of `U` form a chain that
    begins with `r = z_0`. With the names in `Operators`, for even j

        z_j = Q v_j - K_j,    K_j = X^H (v_{j+1} + K_{j+1}),    v_{j+1} = E^H z_j,

    and for odd j the same with P, X and E instead of Q, X^H and E^H; `v_0 = b - E x`.
    Every `v_{j+1}` is one order higher than `z_j`, so the chain ends. For the second
    equation, `A(t)^H` maps the span of `U + L` onto that of `V + R`, and `A(t)` maps it
    back. Hence `x = y_0 = A(t)^H y_1`, `y_1 = A(t) y_2` and so on, each needed to one order
    less:

        y_0 = X (v_0 + K_0) + P E^H y_1,    y_j = X^H (y_{j-1} - E^H y_j) + Q E y_{j+1}

    for odd j, and for even j with the same exchange as above. To first order this is eq.
    4.12 of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973) 413-432), applied to `b`.
    """
    inverse, off_range, directions = operators
    order = len(directions)
    whole = (1 << order) - 1
    y: list[Polynomial] = [{} for _ in range(order + 1)]
    z: list[Polynomial] = [{} for _ in range(order + 1)]

    def moved(kind: int, x: Polynomial, mask: int) -> Array:
        """The coefficient of `E x`, or of `E^H x` for kind 1."""
        terms = [
            directions[i][kind](x[mask ^ 1 << i]) for i in range(order) if mask >> i & 1
        ]
        return functools.reduce(operator.add, terms)

    # Subsets come before their supersets. Even and odd steps use different maps of a pair:
    # 0 for the matrix, 1 for its adjoint.
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
