"""The augmented system of damped matrices, solved from singular triplets.

    r + A x = f,    y + d x = h,    A^H r + d y = g

has a solution for every `A` where d is not zero. With `P = (A^H A + d^2)^-1` it is made of
the damped inverse `P A^H`, of `d^2 P` and of `P` itself:

    x = P (A^H f + d h - g),    r = f - A x,    y = h - d x

(A. Bjorck, "Numerical Methods for Least Squares Problems", SIAM 1996, section 2.5, on it
and its refinement). It is linear, and JAX differentiates the solution of a linear system to
every order, by solutions of the same system: so neither `P` nor anything else of that size
is made, and triplets have no derivative.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import Triplets
from jaxpinv._linalg import adjoint, matmul


class Augmented(NamedTuple):
    """Unknowns of the system, or its right-hand sides f, h and g.

    Attributes:
        r: `(..., m, k)`.
        y: `(..., n, k)`.
        x: `(..., n, k)`.
    """

    r: Array
    y: Array
    x: Array


class Damped(NamedTuple):
    """Matrices with a damping: `A` is `ratio * a`.

    Attributes:
        a: `(..., m, n)`, its elements of size 1.
        d: `(..., 1, 1)`, real.
        ratio: 1 or, where dampings are larger than the matrix, a power of two that makes
            these of size 1. `(..., 1, 1)`.
    """

    a: Array
    d: Array
    ratio: Array

    def apply(self, z: Augmented) -> Augmented:
        """The left-hand sides."""
        d = self.d.astype(self.a.dtype)
        return Augmented(
            z.r + matmul(self.a, self.ratio * z.x),
            z.y + d * z.x,
            self.ratio * matmul(adjoint(self.a), z.r) + d * z.y,
        )


def solution(of: Damped, triplets: Triplets, given: Augmented) -> Augmented:
    """The solution, which changes with the matrix, its damping and right-hand sides.

    Args:
        of: the matrices.
        triplets: singular triplets of `of.a`.
        given: right-hand sides, of the whole batch shape.
    """
    fixed = jax.lax.stop_gradient(of)
    solve = _solver(fixed, jax.lax.stop_gradient(triplets))
    m, n = of.a.shape[-2:]

    def split(rows: Array) -> Augmented:
        r, y, x = jnp.split(rows, [m, m + n], axis=-2)
        return Augmented(r, y, x)

    def joined(z: Augmented) -> Array:
        return jnp.concatenate(z, axis=-2)

    def apply(rows: Array) -> Array:
        return joined(of.apply(split(rows)))

    def refined(_: Callable, rows: Array) -> Array:
        # The filter loses digits to the error of singular vectors, and that of large
        # dampings is relative to the damping.
        given = split(rows)
        first = solve(given)
        rest = jax.tree.map(jnp.subtract, given, fixed.apply(first))
        return joined(jax.tree.map(jnp.add, first, solve(rest)))

    def transposed(_: Callable, rows: Array) -> Array:
        # The system is Hermitian.
        return jnp.conj(refined(_, jnp.conj(rows)))

    # Of one array: JAX transposes only what all right-hand sides of are linear.
    return split(jax.lax.custom_linear_solve(apply, joined(given), refined, transposed))


def _solver(of: Damped, triplets: Triplets) -> Callable[[Augmented], Augmented]:
    """What solves the system, but for the error of the triplets."""
    u, s, v = triplets
    s, d = s[..., :, None] * jnp.real(of.ratio), of.d
    both = jnp.hypot(s, d)
    divisor = jnp.where(both == 0, 1, both)
    # Quotients, for squares might vanish.
    c, q, divisor = (x.astype(of.a.dtype) for x in (s / divisor, d / divisor, divisor))

    def solve(given: Augmented) -> Augmented:
        f = _product(adjoint(u), given.r)
        h = _product(adjoint(v), given.y)
        g = _product(adjoint(v), given.x) / divisor
        along = c * f + q * h - g
        return Augmented(
            given.r - _product(u, c * along),
            _product(v, h - q * along),
            _product(v, along / divisor),
        )

    return solve


def _product(x: Array, y: Array) -> Array:
    """A product of which refinement forgives long sums."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
