"""Dampings of zero and near it, and the cutoff of damped singular values."""

from functools import partial

import jax
import numpy as np
import pytest

import jaxpinv
from tests import damping_oracle
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix

pinv = jax.jit(jaxpinv.pinv, static_argnames="method")


@pytest.mark.unoptimized
@pytest.mark.slow
def test_a_damping_that_vanishes_truncates_as_none_does():
    a = np.array([[1, 2], [3, 6], [0.7, 1.4]], np.float32)
    exact = np.linalg.pinv(a, 1e-6)
    scale = np.full(2, 1e-30)
    for x in (jaxpinv.pinv(a, damp=1e-50), jaxpinv.pinv(a, damp=1e-30, damp_scale=scale)):
        assert relative_error(x, exact) <= bound(np.float32, 10)


@pytest.mark.slow
@pytest.mark.parametrize("damp", [1e-20, 1e-37])
def test_a_damping_far_below_the_rounding_has_the_limit(damp):
    a, ones = np.diag([100, 0]).astype(np.float32), np.ones(2, np.float32)
    for d in (damp, np.float32(damp)):
        solution = jaxpinv.lstsq(a, ones, damp=d).solution
        assert relative_error(solution, np.array([0.01, 0])) <= bound(np.float32, 1)
        projected = jaxpinv.null_projection(a, ones, damp=d)
        assert relative_error(projected, np.array([0, 1])) <= bound(np.float32, 1)


def test_a_projection_keeps_its_digits_as_the_damping_vanishes(rng):
    a, x = matrix(rng, (6, 4), [2, 1, 0.5, 0.3]), gaussian(rng, (4,))
    # A difference of nearly equal numbers would keep four.
    damp = 1e-6
    exact = damp**2 * np.linalg.solve(a.T @ a + damp**2 * np.eye(4), x)
    project = jax.jit(lambda a, x, damp: jaxpinv.null_projection(a, x, damp=damp))
    assert relative_error(project(a, x, damp), exact) <= bound(np.float64, (2 / 0.3) ** 2)


class TestWithoutDamping:
    """A damping of zero."""

    # Every direct factorization, and singular values of both forms.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("method", "shape"),
        [
            ("direct", (6, 13, 13)),
            ("direct", (40, 6, 3)),
            ("direct", (3, 4, 9)),
            ("svd", (3, 4, 9)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("rank", [12, 2])
    def test_it_is_pinv_for_each_matrix(self, rng, shape, method, rank):
        spectrum = np.linspace(3, 1, min(shape[1:]))
        spectrum[rank:] = 0
        a = matrix(rng, shape, spectrum.tolist(), np.float32)
        damp = np.where(np.arange(shape[0]) % 2, 0.5, 0).astype(np.float32)
        found = np.asarray(pinv(a, damp=damp, method=method))
        plain = np.asarray(pinv(a, method=method))
        # XLA may fuse the filter, which multiplies by one, with the operation after it.
        limit = 2 * np.finfo(np.float32).eps if method == "svd" else 0
        assert relative_error(found[::2], plain[::2]) <= limit
        exact = np.stack([damping_oracle.filtered(x, 0.5) for x in a[1::2]])
        assert relative_error(found[1::2], exact) <= bound(np.float32, 6)

    @pytest.mark.slow
    def test_so_it_is_with_a_scale(self, rng):
        a = matrix(rng, (5, 4), [3, 2, 0, 0])
        found = pinv(a, damp=0.0, damp_scale=np.ones(4))
        assert np.array_equal(found, pinv(a))

    @pytest.mark.unoptimized
    def test_a_damping_known_to_be_zero_gives_the_plain_program(self, rng):
        a = gaussian(rng, (4, 3))
        plain, zero, damped = (
            str(jax.make_jaxpr(partial(jaxpinv.pinv, damp=d))(a)) for d in (None, 0, 1)
        )
        assert zero == plain
        assert "damped" not in plain
        assert "damped" in damped


class TestCutoff:
    """Which damped singular values are truncated."""

    @pytest.mark.slow_unless("svd")
    @pytest.mark.parametrize("method", ["svd", "direct"])
    def test_a_tiny_damping_truncates_nothing(self, rng, method):
        # The default cutoff of [A; D] is 1e-6 here.
        a = matrix(rng, (5, 4), [1, 0.5, 0.1, 1e-7]).astype(np.float32)
        d = np.float32(2e-7)
        exact = damping_oracle.filtered(a, float(d))
        assert relative_error(pinv(a, damp=d, method=method), exact) <= 0.5

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["svd", "direct"])
    def test_a_large_damping_of_some_unknowns_does_not_truncate_others(self, rng, method):
        a = gaussian(rng, (8, 4)).astype(np.float32)
        a[:, 0] *= 1e-2
        scale = np.array([0, 0, 1, 1], np.float32)
        exact = damping_oracle.damped(a, 1e7 * scale)
        options = {"damp": np.float32(1e7), "damp_scale": scale, "method": method}
        if method == "svd":
            assert relative_error(pinv(a, **options), exact) <= bound(np.float32, 1e2)
            return
        b = gaussian(rng, (8, 2)).astype(np.float32)
        found, known = jaxpinv.lstsq(a, b, **options).solution, exact @ b
        assert relative_error(found[:2], known[:2]) <= bound(np.float32, 1e2)
        # The other unknowns have the right size, 1e-14 times that of these.
        assert relative_error(found[2:], known[2:]) <= 1

    @pytest.mark.slow
    def test_nor_does_it_drown_their_zeros(self, rng):
        a = gaussian(rng, (8, 4)).astype(np.float32)
        a[:, 1] = a[:, 0]
        scale = np.array([0, 0, 1, 1], np.float32)
        found = pinv(a, damp=np.float32(1e6), damp_scale=scale)
        exact = damping_oracle.damped(
            np.column_stack([np.sqrt(2) * a[:, 0].astype(float), a[:, 2:]]), [0, 1e6, 1e6]
        )
        assert relative_error(np.asarray(found)[0], exact[0] / np.sqrt(2)) <= 1e-5
        assert relative_error(np.asarray(found)[1], exact[0] / np.sqrt(2)) <= 1e-5

    @pytest.mark.unoptimized
    def test_a_given_cutoff_applies_to_damped_matrices(self, rng):
        a = matrix(rng, (5, 4), [3, 2, 0.5, 0.1])
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        kept = np.where(np.hypot(s, 0.2) > 0.3, s / (s**2 + 0.04), 0)
        found = pinv(a, damp=0.2, damp_scale=np.ones(4), atol=0.3)
        assert relative_error(found, (vh.T * kept) @ u.T) <= bound(np.float64, 10)
