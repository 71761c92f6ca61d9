"""QR factorizations by chunks of rows: exact where LAPACK's own errors grow."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxpinv
from jaxpinv._factorization import thin_qr
from jaxpinv._platform import chunking
from jaxpinv._platform.workarounds import ROWS_OF_QR
from tests.matrices import gaussian

# LAPACK is off by 25 or more on such matrices, of orthogonal columns.
EPS = 8


def of_equal_terms(m, n, dtype):
    """Columns of one absolute value, with the signs of a binary counter: orthogonal."""
    a = np.where((np.arange(m)[:, None] >> np.arange(n)) & 1, 0.1, -0.1).astype(np.float32)
    a[:, 0] = 0.1
    return (a * (1 + 0.3j if np.dtype(dtype).kind == "c" else 1)).astype(dtype)


def shortened(a, rows=ROWS_OF_QR, size=None):
    """`Q` and `B`, in double precision, with chunks divided into calls of `size`."""
    calls = partial(chunking.in_calls, size)

    def run(a):
        product, b = thin_qr.shorten(a, rows=rows, calls=calls)
        identity = jnp.eye(b.shape[-2], dtype=a.dtype)
        return product(jnp.broadcast_to(identity, (*a.shape[:-2], *identity.shape))), b

    return jax.jit(run)(a)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((20_000, 2), np.float32),
        ((99_991, 2), np.complex64),
        pytest.param((200_000, 4), np.float32, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_errors_of_equal_terms_do_not_grow_with_the_rows(shape, dtype):
    m, n = shape
    a = of_equal_terms(m, n, dtype)
    double = np.result_type(dtype, np.float64)
    q, b = (np.asarray(x).astype(double) for x in shortened(a))
    assert len(b) <= ROWS_OF_QR
    eps = np.finfo(dtype).eps
    assert np.linalg.norm(q.conj().T @ q - np.eye(len(b)), 2) <= EPS * eps
    assert np.linalg.norm(q @ b - a, 2) <= EPS * eps * np.linalg.norm(a, 2)


@pytest.mark.parametrize("method", ["auto", "svd"])
def test_the_pseudo_inverse_of_indicators_is_exact_to_rounding(rng, method):
    # LAPACK, and so jnp, is off by 15 to 26 here.
    for a in (
        np.where(rng.random((5000, 3)) < 0.9, np.float32(0.7), 0),
        (np.arange(5000)[:, None] * 3 // 5000 >= np.arange(3)) * np.float32(0.3),
    ):
        x = np.asarray(jaxpinv.pinv(a, method=method), np.float64)
        exact = np.linalg.pinv(a.astype(np.float64))
        error = np.linalg.norm(x - exact, 2) / np.linalg.norm(exact, 2)
        assert error <= 4 * np.finfo(np.float32).eps * np.linalg.cond(a.astype(np.float64))


@pytest.mark.parametrize("size", [None, 7])
def test_every_matrix_of_a_batch_is_the_product_of_its_factors(rng, size):
    # 601 rows are no multiple of a chunk, and the triangular factors are long again.
    a = gaussian(rng, (2, 601, 3))
    q, b = shortened(a, rows=13, size=size)
    assert b.shape[1] <= 13
    assert np.allclose(q @ b, a, rtol=0, atol=1e-13)
    assert np.allclose(np.swapaxes(q, 1, 2) @ q, np.eye(b.shape[1]), rtol=0, atol=1e-14)


def test_the_triangular_factor_of_all_chunks_is_that_of_the_matrix(rng):
    a = gaussian(rng, (601, 3))
    shorten = partial(thin_qr.shorten, rows=13, calls=partial(chunking.in_calls, None))

    @jax.jit
    def factors(a):
        product, r = thin_qr.factor(a, shorten)
        return product(jnp.eye(3)), r

    q, r = factors(a)
    assert np.array_equal(r, np.triu(r))
    assert np.allclose(q @ r, a, rtol=0, atol=1e-13)
    assert np.allclose(q.T @ q, np.eye(3), rtol=0, atol=1e-14)


def test_matrices_with_an_unknown_number_of_rows_are_one_chunk(rng):
    [m] = export.symbolic_shape("m", constraints=["m >= 3"])
    shape = jax.ShapeDtypeStruct((m, 3), np.float64)
    calls = partial(chunking.in_calls, None)

    @jax.jit
    def product(a):
        q, b = thin_qr.shorten(a, rows=8, calls=calls)
        return q(b)

    a = gaussian(rng, (100, 3))
    found = export.export(product)(shape).call(a)
    assert np.allclose(found, a, rtol=0, atol=1e-13)
