"""References with more digits than the results: double for single, 80 bits for double.

They are for a tall matrix `A`, `(m, n)`, of full rank. `W` is the inverse of a triangular
factor from LAPACK in double precision, so the columns of `Q = A W` are orthonormal except
for rounding. That rounding, `F = Q^H Q - I`, is computed with more digits, and so

    A^+ = W (I + F)^-1 Q^H,    (I + F)^-1 = I - F + F^2 - ...

has more digits, too. The derivatives are the formula of Golub and Pereyra, exact for full
rank, and the derivative of that formula. The library computes them in another way.
"""

from typing import NamedTuple

import numpy as np

#: Rows that are summed one after the other: 10^6 rows would cost longdouble three digits.
_CHUNK = 1024


def wide(dtype: np.dtype) -> np.dtype:
    """The dtype of references for results of `dtype`.

    Raises:
        RuntimeError: if no dtype has more digits.
    """
    extended = np.result_type(dtype, np.longdouble)
    double = np.result_type(dtype, np.float64)
    found = double if np.finfo(dtype).eps > np.finfo(double).eps else extended
    if np.finfo(found).eps > 1e-3 * np.finfo(dtype).eps:
        raise RuntimeError(
            f"expected np.longdouble to have more digits than {np.dtype(dtype).name}, "
            f"got eps {np.finfo(found).eps}: use a platform with 80 bit floats"
        )
    return found


def adjoint(x: np.ndarray) -> np.ndarray:
    """Conjugate transpose."""
    return x.conj().T


def inner(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`x^H y` of `(m, j)` and `(m, k)`, with an error that hardly depends on the rows."""
    whole = len(x) // _CHUNK * _CHUNK
    chunks = (z[:whole].reshape(-1, _CHUNK, z.shape[1]) for z in (x, y))
    left, right = chunks
    total = np.sum(np.swapaxes(left, 1, 2).conj() @ right, axis=0)
    return total + adjoint(x[whole:]) @ y[whole:]


def norm(x: np.ndarray) -> float:
    """Frobenius norm, of any dtype."""
    return float(np.sqrt(np.sum(np.abs(x) ** 2)))


def columns(x: np.ndarray) -> np.ndarray:
    """The norms of the columns."""
    return np.sqrt(np.sum(np.abs(x) ** 2, axis=0))


def condition_number(a: np.ndarray) -> float:
    """The ratio of the largest to the smallest singular value of one matrix."""
    s = np.linalg.svd(_triangular_factor(a), compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] else np.inf


def _triangular_factor(a: np.ndarray) -> np.ndarray:
    """The triangular factor of one matrix, in double precision."""
    return np.linalg.qr(a.astype(np.result_type(a, np.float64)), mode="r")


class Operands(NamedTuple):
    """The arguments of the results.

    Attributes:
        a: the matrix, `(m, n)`.
        b: right-hand sides, `(m, k)`.
        c: the weights of the solution in the sum that is differentiated, `(n, k)`.
        e: a direction, `(m, n)`.
    """

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    e: np.ndarray


class Known(NamedTuple):
    """An exact result, and the size of the change that rounding may cause.

    Rounding changes the matrix by `eps ||A||`, and the result by `eps cond` times `size`.

    Attributes:
        exact: the result.
        size: the norm of that change, or the norms of its columns.
        like: an array whose largest element has the same ratio to its norm as in that
            change. The result itself if None.
    """

    exact: np.ndarray
    size: float | np.ndarray
    like: np.ndarray | None = None


class Reference:
    """Exact results for one matrix, with sizes from the derivative in the matrix.

    Attributes:
        condition: ratio of the largest to the smallest singular value.
    """

    def __init__(self, given: Operands):
        """Factors the matrix."""
        dtype = wide(given.a.dtype)
        self.a, self.b, self.c, self.e = (x.astype(dtype) for x in given)
        r = _triangular_factor(given.a)
        s = np.linalg.svd(r, compute_uv=False)
        self.condition, self._inverse = float(s[0] / s[-1]), float(1 / s[-1])
        self._w = np.linalg.inv(r).astype(dtype)
        self._q = self.a @ self._w
        one = np.eye(len(s), dtype=dtype)
        f = inner(self._q, self._q) - one
        assert norm(f) < 1e-7, "too ill-conditioned for the series"
        self._middle = one - f + f @ f
        self.x = self._w @ self._middle @ adjoint(self._q)
        self._solution = self.x @ self.b
        self._r = self.b - self.a @ self._solution

    def values(self) -> dict[str, Known]:
        """Pseudo-inverse, solution, and projections: of `c`, and for `A^H` of `b`."""
        along = self._q @ (self._middle @ inner(self._q, self.b))
        return {
            "pinv": Known(self.x, norm(self.x)),
            # Wedin: cond (||x|| + ||A^+|| ||r||), for each right-hand side.
            "solution": Known(self._solution, self._solution_sizes()),
            "residuals": Known(columns(self._r) ** 2, columns(self.b) ** 2),
            "null": Known(np.zeros_like(self.c), columns(self.c), self.c),
            "null of wide": Known(self.b - along, columns(self.b), self.b),
        }

    def derivatives(self) -> dict[str, Known]:
        """Gradient of `sum(solution * c)` in JAX's convention, and two derivatives of X."""
        first, second = self._along_e()
        sizes = columns(self.c) * self._solution_sizes()
        step = self._inverse * float(np.linalg.norm(self.e.astype(complex), 2))
        return {
            "gradient": Known(self._gradient(), float(np.sum(sizes)) * self._inverse),
            "first": Known(first, step * norm(self.x)),
            "second": Known(second, step**2 * norm(self.x)),
        }

    def _solution_sizes(self) -> np.ndarray:
        return columns(self._solution) + self._inverse * columns(self._r)

    def _gradient(self) -> np.ndarray:
        """The gradient, from `dx = -X E x + X X^H E^H r`: JAX does not conjugate."""
        xc = self.x.T @ self.c
        return -xc @ self._solution.T + self._r.conj() @ (self.x @ xc.conj()).T

    def _along_e(self) -> tuple[np.ndarray, np.ndarray]:
        """`dX = -X E X + X X^H E^H (I - A X)` and its derivative, both along `E`."""
        a, e, x = self.a, self.e, self.x
        ex, square = inner(adjoint(x), e), inner(adjoint(x), adjoint(x))

        def turn(k: np.ndarray) -> np.ndarray:
            """`K E^H (I - A X)`."""
            return k @ adjoint(e) - (k @ inner(e, a)) @ x

        first = turn(square) - ex @ x
        change = inner(adjoint(first), adjoint(x))
        second = turn(change + adjoint(change)) - inner(adjoint(first), e) @ x - ex @ first
        # - X X^H E^H (E X + A dX)
        return first, second - square @ (inner(e, e) @ x + inner(e, a) @ first)


def errors(found: np.ndarray, known: Known) -> np.ndarray:
    """Errors in the norm and in the largest element, relative to their sizes: `(2,)`.

    They are infinite if an element is not finite.
    """
    exact, size, like = known
    assert found.shape == exact.shape
    if not np.all(np.isfinite(found)):
        return np.full(2, np.inf)
    like = exact if like is None else like
    if np.ndim(size):
        parts = (np.atleast_2d(x).T for x in (found, exact, like))
        each = zip(*parts, np.asarray(size), strict=True)
        found_in = [errors(x, Known(y, float(z), w)) for x, y, w, z in each]
        return np.max(found_in, axis=0)
    difference = np.abs(found.astype(exact.dtype) - exact)
    part = np.max(np.abs(like)) / norm(like) if norm(like) else 1.0
    return np.array([norm(difference), np.max(difference) / part], float) / size
