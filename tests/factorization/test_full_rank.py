"""Where full rank is proven no singular values are taken, and results are the same."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.factorization.full_rank_cases import (
    CONDITION,
    direct_pinv,
    directly,
    directly_inverted,
    random,
    singular_values_taken,
)
from tests.matrices import gaussian
from tests.programs import svd_calls

# By Gram-Schmidt, by LU and by Cholesky, each with and without a batch where it has both.
SHAPES = {
    "tiny_square": (40, 3, 3),
    "tiny_wide": (2, 20, 4, 6),
    "tiny_long": (40, 70, 2),
    "square": (12, 12),
    "squares": (3, 13, 13),
    "tall": (40, 30),
    "talls": (3, 16, 13),
    "long": (1200, 9),
    "tiny_longer": (40, 300, 2),
}
# A dtype for each in turn, so that every way has both: both for all compile twice as much.
CASES = {
    f"{name}-{np.dtype(dtype).name}": (shape, dtype)
    for (name, shape), dtype in zip(
        SHAPES.items(), itertools.cycle([np.float32, np.complex128]), strict=False
    )
}
all_cases = pytest.mark.parametrize(("shape", "dtype"), CASES.values(), ids=CASES)


@pytest.mark.slow_unless("^squares-")
@all_cases
class TestAgreement:
    """Direct values next to others."""

    def test_values_are_those_in_double_precision(self, rng, shape, dtype):
        a = random(rng, shape, dtype)
        exact = np.linalg.pinv(a.astype(np.result_type(dtype, np.float64)))
        assert relative_error(directly_inverted(a), exact) <= bound(dtype, CONDITION)

    @pytest.mark.slow
    @pytest.mark.parametrize("exponent", [-100, 100])
    def test_scaling_by_a_power_of_two_scales_exactly(self, rng, shape, dtype, exponent):
        a = random(rng, shape, dtype)
        scale = np.array(2.0**exponent, np.finfo(dtype).dtype)
        assert not np.any(singular_values_taken(a * scale))
        x, y = (directly_inverted(b) for b in (a * scale, a))
        assert np.array_equal(x, y / scale)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 20, 6, 4), (3, 16, 13), (40, 30)], ids=str)
def test_columns_of_u_are_orthonormal_to_rounding(rng, shape):
    n = shape[-1]
    a = random(rng, shape, np.float32, list(np.geomspace(1, 1 / 200, n)))
    assert not np.any(singular_values_taken(a, 0.0))
    u = np.asarray(directly(a, 0.0).u, np.float64)
    gram = np.swapaxes(u, -1, -2) @ u
    assert np.max(np.abs(gram - np.eye(n))) <= bound(np.float32)


def test_a_diagonal_matrix_has_exactly_the_reciprocals():
    # Of a shape and dtype that `TestAgreement` has, too.
    d = np.arange(3, 42, dtype=np.float32).reshape(3, 13, 1)
    x = directly_inverted(d * np.eye(13, dtype=np.float32))
    assert np.array_equal(x, np.eye(13, dtype=np.float32) / d)


@pytest.mark.slow
def test_inverses_of_unitary_matrices_are_as_accurate_as_by_singular_values(rng):
    shape = (3, 100, 100)
    others = gaussian(rng, shape, np.complex64)
    batch = others.copy()
    batch[0] = np.linalg.qr(gaussian(rng, shape[1:], np.complex128))[0]
    assert not np.any(singular_values_taken(batch))
    x, y = (directly_inverted(a) for a in (batch, others))
    exact = np.linalg.inv(batch[0].astype(np.complex128))
    error = np.linalg.norm(x[0] - exact) / np.linalg.norm(exact)
    assert error <= 4 * np.finfo(np.float32).eps
    # The other matrices stay what they are without it.
    assert np.array_equal(x[1:], y[1:])


@pytest.mark.unoptimized
class TestOption:
    """`method` chooses."""

    def test_svd_always_computes_singular_values(self, rng):
        a = random(rng, (3, 13, 13), np.float64)
        texts = [
            jax.jit(partial(jaxpinv.pinv, method=m)).lower(a).as_text()
            for m in ("direct", "svd")
        ]
        assert ["getrf" in text for text in texts] == [True, False]
        assert all(map(svd_calls, texts))

    @pytest.mark.parametrize("name", ["pinv", "lstsq"])
    def test_another_name_is_refused(self, name):
        arguments = [np.eye(3)] * (2 if name == "lstsq" else 1)
        with pytest.raises(
            ValueError, match=f'{name}: expected method "auto", "direct" or "svd"'
        ):
            getattr(jaxpinv, name)(*arguments, method="qr")


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(40, 5, 4), (1, 12, 12), (14, 10)], ids=str)
def test_tolerances_that_enlarge_the_batch_count_all(rng, shape):
    a = random(rng, shape, np.float64)
    rtol = np.array([1e-9, 0.2, 1e-9])[:, None] if len(shape) > 2 else np.array([1e-9, 0.2])
    x, rank = direct_pinv(a, rtol, return_rank=True)
    s = np.linalg.svd(a, compute_uv=False)
    assert np.array_equal(rank, np.sum(s > rtol[..., None] * s[..., :1], axis=-1))
    exact = [np.linalg.pinv(a, t) for t in rtol.ravel()]
    assert relative_error(x, np.stack(exact)) <= bound(np.float64, CONDITION)


@pytest.mark.slow
def test_a_batch_longer_than_any_vector_unit_agrees_with_numpy(rng):
    # On the CPU jaxlib 0.10.2 sums wrongly over an axis behind which there are more than
    # 32768 numbers.
    a = gaussian(rng, (40_000, 3, 2), np.float32)
    assert relative_error(direct_pinv(a)[-2:], np.linalg.pinv(a[-2:])) <= bound(
        np.float32, 1e3
    )
