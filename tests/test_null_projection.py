"""`null_projection` and `matrix_rank`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.matrices import gaussian, matrix


class TestNullProjection:
    """The projection onto the null space."""

    @pytest.mark.slow_unless("7, 6")
    @pytest.mark.parametrize("shape", [(6, 7), (7, 6)], ids=str)
    def test_it_does_not_lose_digits_with_the_condition(self, rng, shape):
        # One singular value is zero, and the others reach down to 1e-5.
        spectrum = [*np.logspace(0, -5, 5), 0]
        a = matrix(rng, shape, spectrum).astype(np.float32)
        x = gaussian(rng, (shape[1],), np.float32)
        _, _, vh = np.linalg.svd(a.astype(float))
        exact = x - vh[:5].T @ (vh[:5] @ x)
        result = np.asarray(jaxpinv.null_projection(a, x, rtol=3e-6), float)
        assert np.max(np.abs(result - exact)) <= bound(np.float32, 1e5)
        assert np.linalg.norm(a @ result) <= bound(np.float32) * np.linalg.norm(x)

    def test_nothing_is_in_the_null_space_of_full_column_rank(self, rng):
        assert not np.any(jaxpinv.null_projection(gaussian(rng, (5, 4)), np.ones(4)))

    def test_a_nan_is_projected_to_nan(self, rng):
        x = np.array([np.nan, 1.0, 2.0, 3.0])
        assert np.all(np.isnan(jaxpinv.null_projection(gaussian(rng, (5, 4)), x)))

    def test_everything_is_in_that_of_zero(self):
        assert jaxpinv.null_projection(np.zeros((2, 3)), np.arange(3.0)).tolist() == [
            0,
            1,
            2,
        ]

    @pytest.mark.unoptimized
    @pytest.mark.slow
    def test_it_is_nan_where_the_matrix_is_not_finite(self, rng):
        for shape in [(2, 3, 5), (2, 5, 3), (2, 3, 3)]:
            a = gaussian(rng, shape)
            good = jaxpinv.null_projection(a, np.ones((shape[-1], 1)))
            a[1, 0, 0] = np.nan
            bad = jaxpinv.null_projection(a, np.ones((shape[-1], 1)))
            assert np.array_equal(bad[0], good[0])
            assert np.all(np.isnan(bad[1]))

    @pytest.mark.unoptimized
    @pytest.mark.slow_unless("False-None|True-0.1")
    @pytest.mark.parametrize("damp", [None, 0.1], ids=str)
    @pytest.mark.parametrize("is_stored", [False, True])
    def test_it_has_a_transpose_in_the_vector(self, rng, damp, is_stored):
        a = gaussian(rng, (3, 5), np.complex128)
        x, ct = gaussian(rng, (2, 5), np.complex128)
        d2 = 0 if damp is None else damp**2
        exact = np.eye(5) - a.conj().T @ np.linalg.solve(a @ a.conj().T + d2 * np.eye(3), a)

        def project(x):
            if is_stored:
                return jaxpinv.factorize(a).null_projection(x, damp=damp)
            return jaxpinv.null_projection(a, x, damp=damp)

        [found] = jax.linear_transpose(project, x)(ct)
        assert relative_error(found, exact.T @ ct) <= bound(np.float64)

    @pytest.mark.unoptimized
    @pytest.mark.slow
    def test_a_solution_with_projections_as_operators_has_a_gradient(self, rng):
        a, e = gaussian(rng, (2, 2, 4))
        b = np.ones(4)

        def solution(a):
            def operator(x):
                return jaxpinv.null_projection(a, x) + 2 * x

            # The solver transposes the operator for a gradient.
            solve = jax.scipy.sparse.linalg.bicgstab
            return jnp.sum(jnp.sin(solve(operator, jnp.asarray(b), tol=1e-12)[0]))

        def exact(a):
            return np.sum(np.sin(np.linalg.solve(3 * np.eye(4) - np.linalg.pinv(a) @ a, b)))

        h = 1e-4
        slope = (exact(a + h * e) - exact(a - h * e)) / (2 * h)
        assert abs(np.sum(jax.jit(jax.grad(solution))(a) * e) - slope) <= 1e-6

    @pytest.mark.unoptimized
    def test_batches_broadcast(self, rng):
        a = gaussian(rng, (4, 1, 3, 5))
        assert jaxpinv.null_projection(a, np.ones((2, 5, 6))).shape == (4, 2, 5, 6)
        assert jaxpinv.null_projection(a, np.ones(5)).shape == (4, 1, 5)

    @pytest.mark.unoptimized
    def test_no_projector_is_formed(self, rng):
        n = 400
        a, x = gaussian(rng, (2, n)), gaussian(rng, (n,))
        compiled = jax.jit(jaxpinv.null_projection).lower(a, x).compile()
        assert f"{n},{n}" not in (compiled.as_text() or f"{n},{n}")


@pytest.mark.unoptimized
class TestMatrixRank:
    """The rank is the one that the other functions report."""

    @pytest.mark.slow
    @pytest.mark.parametrize("hermitian", [False, True])
    @pytest.mark.parametrize("rank", range(5))
    def test_ranks_agree_with_numpy_pinv_and_lstsq(self, rng, rank, hermitian):
        spectrum = [3, 2, 1, 0.5][:rank] + [0] * (4 - rank)
        a = matrix(rng, (3, 4, 4), spectrum)
        a = a @ a.swapaxes(-1, -2) if hermitian else a
        ranks = jaxpinv.matrix_rank(a, hermitian=hermitian)
        assert ranks.dtype == jnp.linalg.matrix_rank(np.eye(2)).dtype
        assert ranks.tolist() == [rank] * 3
        assert np.linalg.matrix_rank(a, hermitian=hermitian).tolist() == [rank] * 3
        _, others = jaxpinv.pinv(a, hermitian=hermitian, return_rank=True)
        assert np.array_equal(ranks, others)
        found = jaxpinv.lstsq(a, np.ones((4, 1)), hermitian=hermitian)
        assert np.array_equal(ranks, found.rank)
