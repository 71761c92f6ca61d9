"""Results of the library and of NumPy, and whether rounding explains their difference."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxpinv
from tests.comparison import bound
from tests.strategies import Configuration, Problem


class Derivatives(NamedTuple):
    """The library's pseudo-inverse and derivatives for a problem, by one method."""

    x: np.ndarray
    rank: np.ndarray
    dx: np.ndarray
    gradient: np.ndarray


class Results(NamedTuple):
    """The library's results for a problem, by one method."""

    x: np.ndarray
    rank: np.ndarray
    dx: np.ndarray
    gradient: np.ndarray
    solution: np.ndarray


def _derivatives(a, ct, e, tolerances, method, hermitian):
    """The pseudo-inverse, its rank and derivatives, from one factorization."""

    def f(a):
        return jaxpinv.pinv(
            a, hermitian=hermitian, method=method, return_rank=True, **tolerances
        )

    x, linear, rank = jax.linearize(f, a, has_aux=True)
    [gradient] = jax.linear_transpose(linear, a)(ct)
    return x, rank, linear(e), gradient


_derivatives_program = jax.jit(_derivatives, static_argnames=("method", "hermitian"))


@partial(jax.jit, static_argnames=("method", "hermitian"))
def _program(a, b, ct, e, tolerances, method, hermitian):
    """All results."""
    found = jaxpinv.lstsq(a, b, hermitian=hermitian, method=method, **tolerances)
    return *_derivatives(a, ct, e, tolerances, method, hermitian), found.solution


@partial(jax.jit, static_argnames="hermitian")
def _projection(a, x, tolerances, hermitian):
    """The projection onto the null space."""
    return jaxpinv.null_projection(a, x, hermitian=hermitian, **tolerances)


def _given(problem: Problem) -> dict:
    """The tolerances as keyword arguments."""
    if not problem.configuration.given:
        return {}
    return {"rtol": jnp.asarray(problem.rtol), "atol": jnp.asarray(problem.atol)}


def results(problem: Problem, method: str = "direct") -> Results:
    """The library's results for a problem."""
    _, _, a, b, ct, e, *_ = problem
    found = _program(a, b, ct, e, _given(problem), method, problem.configuration.hermitian)
    return Results(*map(np.asarray, found))


def derivatives(problem: Problem, method: str = "direct") -> Derivatives:
    """Those without the solution, by a smaller program."""
    _, _, a, _, ct, e, *_ = problem
    options = _given(problem), method, problem.configuration.hermitian
    return Derivatives(*map(np.asarray, _derivatives_program(a, ct, e, *options)))


def projection(problem: Problem, x: np.ndarray) -> np.ndarray:
    """The projection of `x` onto the null space of a problem."""
    hermitian = problem.configuration.hermitian
    return np.asarray(_projection(problem.a, x, _given(problem), hermitian))


class Reference(NamedTuple):
    """NumPy's results in double precision, for the rank that the library found.

    The unit is the power of two of the recipe. All arrays have one batch axis.

    Attributes:
        a: the matrices, `(B, m, n)`.
        kept: the kept part of each, of that rank.
        smallest: the smallest kept singular value, or 1 if there is none, `(B,)`.
        gap: the difference to the next singular value, or 1 if nothing is kept. If the
            difference is 0, `smallest` and `gap` are 1.
        size: the Frobenius norm, to which a factorization's backward error is relative.
        condition: `size / gap`, 1 for rank 0, or infinite if there is no gap. If LAPACK's
            backward error is k times that of rounding, the condition is k times as large.
        is_telling: whether the condition leaves digits, and the tolerances are numbers.
        ranks: the least and the largest rank that rounding allows, each `(B,)`.
    """

    a: np.ndarray
    kept: np.ndarray
    smallest: np.ndarray
    gap: np.ndarray
    size: np.ndarray
    condition: np.ndarray
    is_telling: np.ndarray
    ranks: tuple[np.ndarray, np.ndarray]


def reference(p: Problem, rank: np.ndarray) -> Reference:
    """The reference for a problem and the ranks that the library found."""
    a, rank = in_units(p, p.a, 1), rank.ravel()
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    s = np.concatenate([s, np.zeros((len(a), 1))], axis=1)
    rows, size = np.arange(len(a)), np.linalg.norm(a, axis=(1, 2))
    # The truncated part is subtracted, instead of adding the kept triplets: for clustered
    # values, NumPy's singular vectors reproduce the matrix only to forty times eps.
    cut = np.where(np.arange(s.shape[1]) < rank[:, None], 0, s)[:, :-1]
    kept = np.where((rank > 0)[:, None, None], a - (u * cut[:, None]) @ vh, 0)
    smallest = np.where(rank > 0, s[rows, rank - 1], 1)
    gap = np.where(rank > 0, smallest - s[rows, rank], 1)
    tie = gap <= 1e-30 * size
    smallest, gap = np.where(tie, 1, smallest), np.where(tie, 1, gap)
    excess = _excess_of_lapack(p, a, size)
    condition = np.where(tie, np.inf, np.where(rank > 0, size / gap * excess, 1))
    is_telling = condition * p.configuration.eps < 1e-3
    scale = 2.0**p.recipe.exponent
    rtol, atol = (x.ravel().astype(float) for x in (p.rtol, p.atol))
    with np.errstate(over="ignore"):
        relative = np.where(rtol > 0, rtol, 0) * np.where(s[:, 0] > 0, s[:, 0], 1)
        cutoff = np.maximum(relative, atol / scale)[:, None]
    slack = bound(p.configuration.dtype) * (size * excess)[:, None]
    least, most = (np.sum(s[:, :-1] > cutoff + x, axis=1) for x in (slack, -slack))
    return Reference(a, kept, smallest, gap, size, condition, is_telling, (least, most))


_decomposition = jax.jit(partial(jax.lax.linalg.svd, full_matrices=False))


def _excess_of_lapack(p: Problem, a: np.ndarray, size: np.ndarray) -> np.ndarray:
    """How many times the bound of rounding LAPACK's singular triplets are off, `(B,)`.

    Its QR iteration (xBDSQR, xLASDQ) drops an off-diagonal element of less than
    `u min(100, u^(-1/8))` times a singular value, u = eps / 2: in double precision that is
    49 eps, and 43 eps were seen. A result from such triplets is at best exact for the
    matrix without that element. For eigenvectors (xSTEQR) such elements are less than u,
    which rounding to single precision hides.
    """
    if p.configuration.hermitian:
        return np.ones_like(size)
    tall = a if a.shape[-2] >= a.shape[-1] else adjoint(a)
    u, s, vh = map(np.asarray, _decomposition(tall.astype(p.a.dtype)))
    double = np.result_type(p.a.dtype, np.float64)
    left, right = u.astype(double) * s[:, None].astype(float), vh.astype(double)
    error = np.linalg.norm(tall - left @ right, axis=(1, 2))
    # Apart from the condition, a change of the matrix moves a tested result by three times
    # its norm: `A X A`, for instance, by `E X A`, `A X E` and the change of the kept part.
    limit = bound(p.configuration.dtype) / 3 * np.where(size > 0, size, 1)
    return np.maximum(error / limit, 1)


def excess_of_vectors(p: Problem, a: np.ndarray) -> np.ndarray:
    """How many times the bound of rounding LAPACK's right singular vectors are off, `(B,)`.

    LAPACK computes them as a product of many rotations. For clustered values the trace of
    `V^H V`, from which the nullity follows, was 97 eps from 9: NumPy has the same vectors.
    """
    tall = a if a.shape[-2] >= a.shape[-1] else adjoint(a)
    u, _, vh = map(np.asarray, _decomposition(tall.astype(p.a.dtype)))
    v = (adjoint(vh) if tall is a else u).astype(np.result_type(a, np.float64))
    k = v.shape[-1]
    error = np.linalg.norm(adjoint(v) @ v - np.eye(k), axis=(1, 2))
    return np.maximum(k**0.5 * error / (bound(p.configuration.dtype) * k), 1)


def in_units(p: Problem, x: np.ndarray, power: int) -> np.ndarray:
    """`x` in double precision, with one batch axis, divided by a power of the scale."""
    flat = np.reshape(x, (int(np.prod(x.shape[:-2])), *x.shape[-2:]))
    double = flat.astype(np.result_type(x, np.float64))
    return double * 2.0 ** (-power * p.recipe.exponent)


def adjoint(x: np.ndarray) -> np.ndarray:
    """Conjugate transpose."""
    return np.conj(np.swapaxes(x, -1, -2))


def largest(x: np.ndarray) -> np.ndarray:
    """The largest absolute element of each matrix."""
    return np.max(np.abs(x), axis=(1, 2), initial=0)


def assert_small(p: Problem, error: np.ndarray, where: np.ndarray, size, condition):
    """Asserts that rounding explains an error of that size."""
    limit = bound(p.configuration.dtype) * condition * size
    bad = where & ~(largest(error) <= limit)
    assert not np.any(bad), (largest(error)[bad] / limit[bad], condition[bad])


def sizes(known: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Natural sizes of the value and, along directions of size 1, of the derivative."""
    return 1 / known.smallest, 1 / (known.smallest * known.gap)


def direction(p: Problem, x: np.ndarray) -> np.ndarray:
    """Frobenius norms in the units of the reference, `(B,)`."""
    return np.linalg.norm(in_units(p, x, 1), axis=(1, 2))


def is_not_empty(configuration: Configuration) -> bool:
    """Whether the matrices have any elements."""
    return bool(np.prod(configuration.shape))
