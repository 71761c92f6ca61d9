"""The augmented system of damped matrices, solved from singular triplets.

    r + A x = f,    y + d x = h,    A^H r + d y = g

has a solution for every `A` if d is not zero. With `P = (A^H A + d^2)^-1`, the solution
is built from the damped inverse `P A^H`, `d^2 P` and `P` itself:

    x = P (A^H f + d h - g),    r = f - A x,    y = h - d x

(A. Bjorck, "Numerical Methods for Least Squares Problems", SIAM 1996, section 2.5, on the
system and its refinement). JAX differentiates the solution of a linear system to every
order, by solving the same system again. So neither `P` nor any other array of its size is
formed, and the triplets need no derivative.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import Triplets
from jaxpinv._linalg import adjoint, matmul


class Augmented(NamedTuple):
    """The unknowns of the system, or its right-hand sides f, h and g.

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
        ratio: the power of two that gives the damping size 1, within limits. `(..., 1, 1)`.
    """

    a: Array
    d: Array
    ratio: Array

    def apply(self, z: Augmented) -> Augmented:
        """The left-hand sides of the system."""
        d = self.d.astype(self.a.dtype)
        return Augmented(
            z.r + self.ratio * matmul(self.a, z.x),
            z.y + d * z.x,
            self.ratio * matmul(adjoint(self.a), z.r) + d * z.y,
        )


def solution(of: Damped, triplets: Triplets, given: Augmented) -> Augmented:
    """The solution, differentiable in the matrix, its damping and right-hand sides.

    Args:
        of: the matrices.
        triplets: singular triplets of `of.a`.
        given: right-hand sides, of the full batch shape.
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
        # The first solution loses digits to the error of the singular vectors, and for
        # large dampings this error is relative to the damping.
        given = split(rows)
        first = solve(given)
        rest = jax.tree.map(jnp.subtract, given, fixed.apply(first))
        return joined(jax.tree.map(jnp.add, first, solve(rest)))

    def transposed(_: Callable, rows: Array) -> Array:
        # The system is Hermitian.
        return jnp.conj(refined(_, jnp.conj(rows)))

    # As one array: JAX transposes a solve only if all its right-hand sides are linear.
    return split(jax.lax.custom_linear_solve(apply, joined(given), refined, transposed))


def _solver(of: Damped, triplets: Triplets) -> Callable[[Augmented], Augmented]:
    """A function that solves the system, up to the error of the triplets."""
    u, s, v = triplets
    s, d = s[..., :, None] * jnp.real(of.ratio), of.d
    both = jnp.hypot(s, d)
    divisor = jnp.where(both == 0, 1, both)
    # Quotients, because squares might underflow.
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
    """A plain product: refinement corrects the errors of its long sums."""
    return jnp.matmul(x, y, precision=jax.lax.Precision.HIGHEST)
