"""Damped solutions for a few right-hand sides: a Cholesky factor, and no inverse.

`X = (A^H A + D^2)^-1 (A^H F + H)` and `R = F - A X` are the solution of

    R + A X = F,    A^H R - D^2 X = -H,

whose matrix is Hermitian. Every derivative of a solution is a solution for other `F` and
`H`. Triangular solves alone lose digits with the squared condition number of `[A; D]`;
corrections of the residual recover them (A. Bjorck, "Stability analysis of the method of
seminormal equations for linear least squares problems", Linear Algebra Appl. 88/89 (1987)
31-48).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate, damped_qr
from jaxpinv._factorization import halves as by_halves
from jaxpinv._factorization.damped_qr import augment, diagonal
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import (
    adjoint,
    frobenius_norm,
    identity,
    largest_of_columns,
    matmul,
    outer,
    power_of_two,
)

# Each correction multiplies the error by at most the limit of `factor`.
_CORRECTIONS = 2
# Half the limit is allowed in random directions. A norm of 2.5 times the limit, all of it
# in one direction, passes once in 40,000 matrices (the distribution of chi squared).
_PROBES = 8


def factor(
    a: Array,
    d: Array,
    rtol: Array,
    atol: Array,
    *,
    halves: int,
    may_truncate: bool,
    again: bool = False,
) -> tuple[Array, Array]:
    """A triangular `C`, with `C C^H` near `A^H A + D^2`, and where it serves, `(...)`.

    There, corrections converge, and the cutoff truncates nothing. From `halves` columns on,
    Gram matrices are computed by halves. `may_truncate` says whether a cutoff may be
    positive, and `again` that a Cholesky factor did not serve.
    """
    square = jnp.square(d)
    gram = by_halves.gram(a, fewest=halves) + diagonal(square, a)
    trace = jnp.real(jnp.trace(gram, axis1=-2, axis2=-1))
    c = _shifted(augment(a, d), gram, trace, halves) if again else _cholesky(gram)
    limits = jnp.finfo(square.dtype)
    # With this limit two corrections leave an error of eps times the condition number.
    limit = (4 * limits.eps) ** 0.2
    # No singular value is smaller than the least damping.
    is_damped = certificate.rounding_of(a, trace) < limit * jnp.min(square, axis=-1)

    def probed() -> Array:
        # The norm of `C^-1 (A^H A + D^2) C^-H - I`, seen in a few directions.
        z = adjoint(certificate.probes(gram, _PROBES))
        y = _solved(c, z, adjoint=True)
        image = matmul(adjoint(a), matmul(a, y)) + _column(square, y) * y
        error = frobenius_norm(_solved(c, image) - z)
        return is_damped | (error < limit / 2 * _PROBES**0.5)

    converges = jax.lax.cond(jnp.all(is_damped), lambda: is_damped, probed)
    # Where no product of two or three solutions and matrices leaves the range.
    largest = 2.0 ** (limits.maxexp * 4 // 5)
    converges = converges & (trace > 1 / largest) & (trace < largest)
    if not may_truncate:
        return c, converges
    norm, cutoff = jnp.sqrt(trace), Cutoff(rtol, atol)

    def of_full_rank() -> Array:
        w = 1.05 * _solved(c, identity(c), adjoint=True)
        return damped_qr.certified(a, norm, w, cutoff, converges)

    has_cutoff = converges & (cutoff.above(norm) > 0)
    return c, jax.lax.cond(jnp.any(has_cutoff), of_full_rank, lambda: converges)


def _shifted(z: Array, gram: Array, trace: Array, halves: int) -> Array:
    """The triangular factor of `z`, with the Gram matrix `gram`, up to rounding.

    A shift makes the first Cholesky factor exist; that of the columns that it makes nearly
    orthonormal corrects it (Fukaya, Kannan, Nakatsukasa, Yamamoto, Yanagisawa, SIAM J. Sci.
    Comput. 42 (2020) A477-A503).
    """
    n = gram.shape[-1]
    shift = n**0.5 * float(jnp.finfo(trace.dtype).eps) * trace
    c = _cholesky(gram + shift[..., None, None].astype(gram.dtype) * identity(gram))
    q = jax.lax.linalg.triangular_solve(
        c, z, left_side=False, lower=True, transpose_a=True, conjugate_a=True
    )
    return matmul(c, _cholesky(by_halves.gram(q, fewest=halves)))


def _cholesky(gram: Array) -> Array:
    """The Cholesky factor, NaN where there is none."""
    return jax.lax.linalg.cholesky(gram, symmetrize_input=False)


def solve(
    a: Array, d: Array, c: Array, f: Array | None, h: Array | None
) -> tuple[Array, Array]:
    """`R`, `(..., m, k)`, and `X`, `(..., n, k)`, from the Cholesky factor `c`.

    `f` is `(..., m, k)`, `h` is `(..., n, k)`. None is zero.
    """
    given = [x for x in (f, h) if x is not None]
    sizes = [largest_of_columns(x) for x in given]
    unit = power_of_two(jnp.maximum(sizes[0], sizes[-1]))
    square = _column(jnp.square(d), given[0])

    def corrected(*given: Array) -> tuple[Array, Array]:
        columns = iter(given)
        top = None if f is None else next(columns)
        bottom = None if h is None else next(columns)
        rest = bottom if top is None else _sum(matmul(adjoint(a), top), bottom)
        assert rest is not None
        x = _solved(c, _solved(c, rest), adjoint=True)
        for _ in range(_CORRECTIONS):
            r = _sum(-matmul(a, x), top)
            rest = matmul(adjoint(a), r) + _sum(-square * x, bottom)
            x = x + _solved(c, _solved(c, rest), adjoint=True)
        return _sum(-matmul(a, x), top), x

    scaled = (x / unit.astype(x.dtype) for x in given)
    r, x = among_columns(corrected, c.shape[:-2], *scaled)
    return r * unit.astype(r.dtype), x * unit.astype(x.dtype)


def change(
    a: Array,
    d: Array,
    c: Array,
    solved: tuple[Array, Array],
    moved: tuple[Array, Array, Array | None, Array | None],
) -> tuple[Array, Array]:
    """The tangent of `solved`, `R` and `X`, along tangents of `A`, `D`, `F` and `H`."""
    (r, x), (e, dd, df, dh) = solved, moved
    f = -matmul(e, x)
    h = matmul(adjoint(e), r) - _column(2 * d * dd, x) * x
    return solve(a, d, c, _sum(f, df), _sum(h, dh))


def gradient(
    a: Array,
    d: Array,
    c: Array,
    solved: tuple[Array, Array],
    g: tuple[Array | None, Array | None],
) -> tuple[Array, Array, Array, Array]:
    """The gradients of `Re sum(g R)` and `Re sum(g X)` in `A`, `D`, `F` and `H`.

    They are without conjugation, as JAX has them. None in `g` is zero.
    """
    r, x = solved
    of_r, of_x = (None if y is None else jnp.conj(y) for y in g)
    of_r, of_x = solve(a, d, c, of_r, None if of_x is None else -of_x)
    of_d = 2 * jnp.sum(jnp.real(jnp.conj(_column(d, x) * of_x) * x), axis=-1)
    of_d = jnp.sum(of_d, axis=-1, keepdims=True) if d.shape[-1] == 1 else of_d
    return -outer(of_r, x) - outer(r, of_x), of_d, jnp.conj(of_r), -jnp.conj(of_x)


def among_columns(f: Callable, own: tuple, *columns: Array) -> tuple[Array, ...]:
    """`f` of columns, with some of their batch axes counted among the columns.

    They are those along which matrices, of batch shape `own`, have length one. So each
    matrix is taken once for all its columns.
    """
    batch = jnp.broadcast_shapes(*(x.shape[:-2] for x in columns))
    axes = [i for i, n in enumerate(own) if n == 1 != batch[i]]
    if not axes:
        return f(*columns)
    rank = len(own)
    places = range(rank + 1 - len(axes), rank + 1)

    def fold(x: Array) -> Array:
        x = jnp.moveaxis(jnp.broadcast_to(x, (*batch, *x.shape[-2:])), axes, places)
        x = jnp.reshape(x, (*x.shape[: rank + 1 - len(axes)], -1))
        return jnp.expand_dims(x, axes)

    def unfold(x: Array) -> Array:
        x = jax.lax.squeeze(x, axes)
        x = jnp.reshape(x, (*x.shape[:-1], *(batch[i] for i in axes), -1))
        return jnp.moveaxis(x, places, axes)

    return tuple(map(unfold, f(*map(fold, columns))))


def _sum(x: Array, y: Array | None) -> Array:
    """The sum of both, where None is zero."""
    return x if y is None else x + y


def _column(d: Array, x: Array) -> Array:
    """`d`, `(..., n)`, as a column `(..., n, 1)` in the dtype of `x`."""
    return d[..., :, None].astype(x.dtype)


def _solved(c: Array, b: Array, *, adjoint: bool = False) -> Array:
    """`C^-1 b`, or `C^-H b`, with `b` `(..., n, k)`."""
    batch = jnp.broadcast_shapes(c.shape[:-2], b.shape[:-2])
    c, b = (jnp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (c, b))
    return jax.lax.linalg.triangular_solve(
        c, b, left_side=True, lower=True, transpose_a=adjoint, conjugate_a=adjoint
    )
