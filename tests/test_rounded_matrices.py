"""Matrices that were rounded to fewer digits than the computation has keep their rank."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix, unitary
from tests.mpmath_oracle import exact_derivative

SHORT = [jnp.bfloat16, jnp.float16]
SIZES = [2, 3, 5, 10, 30, 100]


def of_rank(rng, shape, rank, kind):
    """A batch of matrices of a rank, whose elements lose the most digits by rounding."""
    *batch, m, n = shape
    if kind == "flat":
        pairs = [(unitary(rng, m, rank), unitary(rng, n, rank)) for _ in range(*batch)]
        return np.stack([u @ v.T for u, v in pairs])
    if kind == "ones":
        # Just above a power of two, the unit of the last digit is relatively largest.
        u, v = (
            rng.uniform(1, 1.1, (*batch, m, rank)),
            rng.uniform(1, 1.1, (*batch, rank, n)),
        )
        return u @ v / rank
    return gaussian(rng, (*batch, m, rank)) @ gaussian(rng, (*batch, rank, n))


@pytest.mark.parametrize("dtype", SHORT, ids=lambda x: x.__name__)
@pytest.mark.parametrize("kind", ["gaussian", "flat", "ones"])
def test_rounding_never_reaches_half_of_the_default_cutoff(rng, dtype, kind):
    # NumPy's singular values of the rounded matrices justify the default.
    largest = 0.0
    for m, n in itertools.product(SIZES, SIZES):
        for rank in {1, min(m, n) // 2, min(m, n) - 1} - {0, min(m, n)}:
            a = of_rank(rng, (5, m, n), rank, kind).astype(dtype)
            s = np.linalg.svd(a.astype(float), compute_uv=False)
            largest = max(largest, *(s[:, rank] / s[:, 0]))
    assert 0.1 < largest / float(jnp.finfo(dtype).eps) < 0.5


RANKS = {
    "pinv": lambda a: jaxpinv.pinv(a, return_rank=True)[1],
    "matrix_rank": jaxpinv.matrix_rank,
    "lstsq": lambda a: jaxpinv.lstsq(a, jnp.ones((a.shape[1], 1), a.dtype)).rank,
}


# Dtypes in turn: both for every case would compile twice as many programs. Large matrices
# are factored in other ways, but the cutoff is known before.
@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize(
    ("m", "n", "rank", "dtype", "names"),
    [
        (6, 4, 1, jnp.bfloat16, list(RANKS)),
        (4, 6, 2, jnp.float16, list(RANKS)),
        (50, 20, 7, jnp.float16, ["lstsq"]),
        (16, 16, 7, jnp.bfloat16, ["pinv"]),
        (300, 3, 2, jnp.bfloat16, ["matrix_rank"]),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_a_rounded_matrix_has_the_rank_that_it_had(rng, dtype, m, n, rank, names):
    deficient = of_rank(rng, (10, m, n), rank, "gaussian")
    spectrum = np.geomspace(1, 1 / 30, min(m, n))
    full = matrix(rng, (3, m, n), spectrum.tolist())
    # In one batch, by one program.
    a = jnp.asarray(np.concatenate([deficient, full]), dtype)
    expected = [rank] * len(deficient) + [min(m, n)] * len(full)
    for name in names:
        assert RANKS[name](a).tolist() == expected, name


def test_its_pseudo_inverse_is_that_of_what_was_rounded():
    exact = np.outer(np.linspace(1, 2, 6), np.linspace(1, 3, 4))
    x = jaxpinv.pinv(jnp.asarray(exact, jnp.bfloat16))
    assert relative_error(x.astype(float), np.linalg.pinv(exact)) <= 2 * 2**-7


@pytest.mark.unoptimized
@pytest.mark.slow_unless("bfloat16-")
@pytest.mark.parametrize(
    ("dtype", "other", "expected"),
    [
        (jnp.bfloat16, np.float32, 2),
        (jnp.float16, np.float64, 2),
        (np.float32, np.float64, 2),
        (np.float64, np.float64, 4),
        (np.float32, jnp.bfloat16, 4),
        (np.complex64, np.complex128, 2),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_only_the_digits_of_the_matrix_count_in_lstsq(rng, dtype, other, expected):
    a = of_rank(rng, (1, 6, 4), 2, "gaussian")[0]
    if expected == 4:
        # Rounded to the dtype of `a` the rank would be two, but it is four.
        a = a + 1e3 * float(jnp.finfo(dtype).eps) * gaussian(rng, a.shape)
    b = jnp.ones(6, other)
    with jax.numpy_dtype_promotion("standard"):
        found = jaxpinv.lstsq(jnp.asarray(a, dtype), b)
    assert int(found.rank) == expected


@pytest.mark.unoptimized
@pytest.mark.slow
def test_values_truncated_by_the_rounding_of_the_matrix_have_exact_derivatives(rng):
    # In the dtype of `b` these values are far from zero, and not small next to the others.
    eps = float(jnp.finfo(jnp.float16).eps)
    a = jnp.asarray(matrix(rng, (6, 4), [1, 0.5, 4 * eps, 0.5 * eps]), jnp.float16)
    b, e = gaussian(rng, (6,)), jnp.asarray(gaussian(rng, (6, 4)), jnp.float16)

    def solution(a):
        return jaxpinv.lstsq(a, b).solution

    with jax.numpy_dtype_promotion("standard"):
        dx = jax.jvp(solution, (a,), (e,))[1]
    wide_a, wide_e = np.asarray(a, float), np.asarray(e, float)
    expected = (
        exact_derivative(wide_a, [wide_e], eps * float(np.linalg.norm(wide_a, 2))) @ b
    )
    assert relative_error(dx, expected) <= bound(np.float64, 1e6)
