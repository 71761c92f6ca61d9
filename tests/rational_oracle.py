"""Known matrices, and their pseudo-inverses and derivatives in rational arithmetic.

A floating-point number is rational. So FLINT gives the pseudo-inverse of exactly the matrix
that the library gets, by ranks and inverses alone, without singular values.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import rogues
import scipy.linalg
from flint import fmpq, fmpq_mat

Precision = type[np.float32] | type[np.float64]

# A multiple of four, the order of a Hadamard matrix, and large enough for factorizations
# without singular values.
N = 12
SHAPES = {"square": (N, N), "tall": (N, 9)}


def magic(n: int) -> np.ndarray:
    """The magic square of order n, a multiple of four: its rank is 3."""
    a = np.arange(1, n * n + 1).reshape(n, n)
    i, j = np.indices((n, n)) % 4
    return np.where((i == j) | (i + j == 3), n * n + 1 - a, a)


def laplacian(adjacency: np.ndarray) -> np.ndarray:
    """The Laplacian of a graph: its nullity is the number of components."""
    return np.diag(adjacency.sum(0)) - adjacency


def path(n: int) -> np.ndarray:
    """Adjacency of a path."""
    return np.eye(n, k=1) + np.eye(n, k=-1)


def cycle(n: int) -> np.ndarray:
    """Adjacency of a cycle."""
    a = path(n)
    a[0, -1] = a[-1, 0] = 1
    return a


def bipartite(n: int) -> np.ndarray:
    """Adjacency of a complete bipartite graph."""
    side = np.arange(n) < n // 3
    return (side[:, None] != side).astype(float)


def incidence(n: int) -> np.ndarray:
    """Incidence matrix of a cycle, edges by nodes: its rank is n - 1."""
    return np.eye(n) - np.roll(np.eye(n), 1, axis=1)


def wilkinson(n: int) -> np.ndarray:
    """Wilkinson's matrix: elimination with partial pivoting grows by `2^(n - 1)`."""
    a = np.eye(n) - np.tril(np.ones((n, n)), -1)
    a[:, -1] = 1
    return a


def leslie(n: int) -> np.ndarray:
    """Leslie matrix of a population with n age classes."""
    return scipy.linalg.leslie(np.arange(n) % 4, np.full(n - 1, 0.5))


OWN: dict[str, Callable[[int], np.ndarray]] = {
    "hilbert": scipy.linalg.hilbert,
    "inverse_hilbert": scipy.linalg.invhilbert,
    "pascal": scipy.linalg.pascal,
    "hadamard": rogues.hadamard,
    "cauchy": lambda n: rogues.cauchy(n + 1),
    "companion": lambda n: scipy.linalg.companion(np.arange(1.0, n + 2)),
    "toeplitz": lambda n: scipy.linalg.toeplitz(1 / np.arange(1.0, n + 1)),
    "leslie": leslie,
    "wilkinson": wilkinson,
    "vandermonde": lambda n: np.vander(np.linspace(-1, 1, n)),
    "magic": magic,
    "path_laplacian": lambda n: laplacian(path(n)),
    "cycle_laplacian": lambda n: laplacian(cycle(n)),
    "complete_laplacian": lambda n: laplacian(1 - np.eye(n)),
    "bipartite_laplacian": lambda n: laplacian(bipartite(n)),
    "two_cycles_laplacian": lambda n: laplacian(np.kron(np.eye(2), cycle(n // 2))),
    "bipartite": bipartite,
    "incidence": incidence,
    "ones": lambda n: np.ones((n, n)),
    "multiplication_table": lambda n: np.outer(np.arange(1, n + 1), np.arange(1, n + 1)),
}
#: The matrices of Higham's gallery that are neither random nor defined above.
HIGHAM = """chebspec chebvand chow clement dingdong dramadah fiedler forsythe frank
    gearm gfpp grcar hanowa invol ipjfact jordbloc kahan kms lehmer lesp lotkin minij moler
    parter pei pentoep prolate redheff riemann triw""".split()
GALLERY = OWN | {name: getattr(rogues, name) for name in HIGHAM}


def numbers(name: str, shape: tuple[int, int], dtype: Precision) -> np.ndarray:
    """A matrix of the gallery, or its first columns."""
    found = GALLERY[name](shape[0])
    a = np.asarray(found[0] if isinstance(found, tuple) else found, dtype)
    return a[: shape[0], : shape[1]]


class Exact(NamedTuple):
    """A matrix and its exact results, rounded once to double precision.

    Attributes:
        a: the matrix.
        e: the direction of the derivative, along which the rank is constant.
        x: the pseudo-inverse.
        dx: its derivative along `e`.
        rank: the true one.
        condition: `||A||_2 ||X||_2`.
    """

    a: np.ndarray
    e: np.ndarray
    x: np.ndarray
    dx: np.ndarray
    rank: int
    condition: float

    def cutoff(self) -> float:
        """A relative cutoff between rounding and the smallest singular value."""
        rounding = max(self.a.shape) * float(np.finfo(self.a.dtype).eps)
        return float(np.sqrt(rounding / self.condition))

    def derivative_size(self) -> float:
        """The natural size of the derivative, `||X||_2^2 ||E||_2`."""
        return float(
            np.linalg.norm(self.x, 2) ** 2 * np.linalg.norm(self.e.astype(float), 2)
        )

    def is_regular(self) -> bool:
        """Whether the precision suffices to determine the rank."""
        return self.condition * float(np.finfo(self.a.dtype).eps) < 1e-3


@functools.cache
def exact(name: str, shape: tuple[int, int], dtype: Precision) -> Exact:
    """The exact pseudo-inverse and its derivative, from a rank factorization `A = C F`.

    `X = F^T (F F^T)^-1 (C^T C)^-1 C^T`. If C is A itself, every direction moves only C.
    If not, `E = L A + A R` moves C by `L C` and F by `F R`.
    """
    a = numbers(name, shape, dtype)
    rational = _rational(a)
    m, n = shape
    reduced, rank = rational.rref()
    rng = np.random.default_rng(0)
    if rank == n:
        c, f = rational, _rational(np.eye(n))
        # As large as A, so that neither is lost in rounding next to the other.
        size = 2.0 ** np.round(np.log2(np.max(np.abs(a))))
        e = (rng.integers(-4, 5, shape) * size).astype(dtype)
        dc, df = _rational(e), _rational(np.zeros((n, n)))
    else:
        pivots = [next(j for j in range(n) if reduced[i, j] != 0) for i in range(rank)]
        c = fmpq_mat(m, rank, [rational[i, j] for i in range(m) for j in pivots])
        f = fmpq_mat(rank, n, [reduced[i, j] for i in range(rank) for j in range(n)])
        left, right = (_rational(rng.integers(-1, 2, (k, k))) for k in (m, n))
        dc, df = left * c, f * right
        moved = left * rational + rational * right
        e = _rounded(moved).astype(dtype)
        assert _rational(e) == moved, "the direction is not a floating-point number"
    c_pinv, dc_pinv = _of_full_column_rank(c, dc)
    f_pinv, df_pinv = (
        x.transpose() for x in _of_full_column_rank(f.transpose(), df.transpose())
    )
    x = _rounded(f_pinv * c_pinv)
    dx = _rounded(df_pinv * c_pinv + f_pinv * dc_pinv)
    # The largest singular values are exact to rounding.
    condition = float(np.linalg.norm(a.astype(float), 2) * np.linalg.norm(x, 2))
    return Exact(a, e, x, dx, rank, condition)


def _of_full_column_rank(c: fmpq_mat, dc: fmpq_mat) -> tuple[fmpq_mat, fmpq_mat]:
    """Pseudo-inverse `(C^T C)^-1 C^T` and its derivative, by the product rule."""
    c_t, dc_t = c.transpose(), dc.transpose()
    inverse = (c_t * c).inv()
    x = inverse * c_t
    return x, inverse * (dc_t - (dc_t * c + c_t * dc) * x)


def _rational(a: np.ndarray) -> fmpq_mat:
    """The same numbers as rationals."""
    ratios = [fmpq(*float(x).as_integer_ratio()) for x in a.ravel()]
    m, n = a.shape
    return fmpq_mat(m, n, ratios)


def _rounded(a: fmpq_mat) -> np.ndarray:
    """The nearest numbers in double precision."""
    rows = [[int(x.p) / int(x.q) for x in row] for row in a.tolist()]
    return np.array(rows)


class Error(NamedTuple):
    """Errors of a method for one matrix, in units of eps times the condition.

    Both are in the spectral norm, like the condition: that of the value relative to the
    pseudo-inverse, that of the derivative relative to its natural size.
    """

    name: str
    shape: str
    dtype: str
    method: str
    rank: int
    value: float
    derivative: float


def error(
    name: str,
    shape: str,
    dtype: Precision,
    method: str,
    function: Callable[..., tuple],
) -> Error:
    """Errors of value and derivative, for a matrix that is regular in this precision.

    Args:
        name: the name of the matrix.
        shape: "square" or "tall".
        dtype: float32 or float64.
        method: the name of the method to measure.
        function: maps matrix, direction, cutoff and `method` to the pseudo-inverse, its
            derivative along the direction or None, and the rank.
    """
    known = exact(name, SHAPES[shape], dtype)
    rtol = known.a.dtype.type(known.cutoff())
    x, dx, rank = function(known.a, known.e, rtol, method)
    x = np.asarray(x, np.float64)
    unit = float(np.finfo(known.a.dtype).eps) * known.condition
    value = np.linalg.norm(x - known.x, 2) / np.linalg.norm(known.x, 2) / unit
    derivative = float("nan")
    if dx is not None:
        error_of_dx = np.asarray(dx, np.float64) - known.dx
        derivative = np.linalg.norm(error_of_dx, 2) / known.derivative_size() / unit
    head = (name, shape, str(known.a.dtype), method, int(rank))
    return Error(*head, float(value), float(derivative))
