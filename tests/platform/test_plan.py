"""What is planned for a shape: a table of cases, and what holds for all."""

import numpy as np
import pytest

from jaxpinv._platform import determinant_plan, form_plan, plan, workarounds
from jaxpinv._platform.target import ANYWHERE
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._platform.workarounds import matrices_of_one_call
from jaxpinv._shapes import evenly
from tests.platform.targets import CPU, DIVIDED, GPU, TPU, TYPED


def planned(
    shape, target=CPU, *, is_complex=False, method: plan.Method = "direct", tuning=DEFAULT
):
    return plan.factorization(
        shape, target, is_complex=is_complex, method=method, tuning=tuning
    )


@pytest.mark.parametrize(
    ("shape", "full_rank"),
    [
        ((3, 3), "lu"),
        ((7, 6), "cholesky_qr"),
        ((100_000, 2), "cholesky_qr"),
        ((2, 7, 6), "gram_schmidt"),
        ((4, 8, 7, 6), "gram_schmidt"),
        ((64, 96, 8), "gram_schmidt"),
        ((32, 4096, 1), "cholesky_qr"),
        ((30, 10), "cholesky_qr"),
        ((100_000, 9), "cholesky_qr"),
        ((9, 9), "lu"),
        ((2, 13, 13), "lu"),
        ((1, 500, 500), "lu"),
        ((2000, 32, 32), "lu"),
        ((2, 1, 1), "gram_schmidt"),
        ((1, 1, 1), None),
        ((1000, 1), None),
        ((0, 32, 32), None),
        ((32, 0, 0), None),
    ],
    ids=str,
)
def test_the_factorization_for_full_rank_suits_the_shape(shape, full_rank):
    assert planned(shape).full_rank == full_rank
    assert planned(shape, GPU).full_rank == full_rank
    assert planned(shape, method="svd").full_rank is None
    # Loops over matrices would move them between devices.
    divided = full_rank if full_rank == "gram_schmidt" else None
    for target in (DIVIDED, TYPED):
        assert planned(shape, target).full_rank == divided
        assert planned(shape, target).chunk is None
    assert planned(shape, ANYWHERE).full_rank is None


def test_vectors_of_real_matrices_may_be_larger_on_a_cpu():
    for shape, otherwise in (
        ((2, 12, 12), "lu"),
        ((2, 13, 12), "cholesky_qr"),
        ((2, 97, 8), "cholesky_qr"),
        ((2, 128, 12), "cholesky_qr"),
    ):
        assert planned(shape).full_rank == "gram_schmidt"
        assert planned(shape, is_complex=True).full_rank == otherwise
        assert planned(shape, GPU).full_rank == otherwise
    assert planned((2, 14, 13)).full_rank == "cholesky_qr"
    assert planned((2, 129, 12)).full_rank == "cholesky_qr"


@pytest.mark.parametrize(
    ("shape", "full_rank"),
    [
        ((64, 128, 2), "gram_schmidt"),
        ((64, 129, 2), "cholesky_qr"),
        ((64, 192, 1), "gram_schmidt"),
        ((64, 193, 1), "cholesky_qr"),
    ],
)
def test_a_loop_over_long_columns_takes_gram_matrices(shape, full_rank):
    assert planned(shape).full_rank == full_rank
    assert planned(shape, GPU).full_rank == "gram_schmidt"
    assert planned(shape, DIVIDED).full_rank == "gram_schmidt"


@pytest.mark.parametrize(
    ("shape", "is_tried"),
    [
        ((7, 6), False),
        ((30, 10), False),
        ((100, 100), False),
        ((128, 128), True),
        ((500, 20), False),
        ((2000, 400), True),
        ((100_000, 2), False),
        ((64, 7, 6), False),
        ((256, 7, 6), True),
        ((32, 64, 16), False),
        ((64, 64, 16), True),
        ((64, 3, 3), False),
        ((1000, 3, 3), True),
        ((64, 4096, 8), True),
        ((31, 1000, 8), False),
        ((31, 4096, 8), True),
        ((50_000, 8), False),
        ((100_000, 8), True),
        ((20_000, 12), False),
        ((20_000, 16), True),
        ((4104, 32), True),
        ((64, 4096, 4), False),
        ((64, 4096, 6), True),
        ((1, 8_400_000, 1), False),
        ((2, 1_000_000, 2), True),
        ((1000, 100, 1), False),
        ((64, 64, 4), False),
        ((256, 64, 4), True),
        ((64, 128, 4), False),
        ((256, 128, 4), True),
        ((1000, 128, 2), False),
        ((1024, 128, 2), True),
        ((8, 512, 16), False),
        ((32, 512, 16), True),
        ((1000, 50), False),
        ((20_000, 64), True),
        ((100_000, 9), False),
        ((100_000, 12), True),
    ],
    ids=str,
)
def test_what_does_not_repay_its_compilation_is_not_planned(shape, is_tried):
    assert (planned(shape, method="auto").full_rank is not None) == is_tried


@pytest.mark.parametrize(
    ("shape", "method", "is_pivoted"),
    [
        ((128, 128), "auto", False),
        ((200, 200), "auto", True),
        ((1000, 300), "auto", True),
        ((20, 32, 32), "auto", False),
        ((40, 32, 32), "auto", True),
        ((40, 31, 31), "direct", False),
        ((32, 32), "direct", True),
        ((500, 500), "svd", False),
        ((1023, 32), "direct", True),
        ((20_000, 32), "direct", False),
    ],
)
def test_columns_are_pivoted_where_that_repays_its_compilation(shape, method, is_pivoted):
    assert planned(shape, method=method).pivoted_qr == is_pivoted


@pytest.mark.parametrize("target", [GPU, DIVIDED, TYPED, ANYWHERE], ids=str)
def test_only_a_cpu_that_has_the_whole_batch_loops_over_it(target):
    found = planned((2000, 64, 64), target)
    assert not found.pivoted_qr
    assert found.chunk is None
    assert found.svd_call is None
    assert found.values_call is None
    assert found.qr_call is None
    assert found.rows is None
    assert not found.retries
    assert form_plan.form((2000, 64, 64), target, formula="matrices", order=2).chunk is None


def test_a_chunk_fits_into_a_cache():
    assert planned((20_000, 13, 13), method="svd").chunk == DEFAULT.chunk // 169
    assert planned((20_000, 128, 13), method="svd").chunk == evenly(
        20_000, DEFAULT.tall_chunk // (128 * 13)
    )
    assert (
        planned((20_000, 9, 7), tuning=Tuning(chunk=126, vector_chunk=126, vector=2)).chunk
        == 2
    )
    # At least one matrix.
    assert planned((10, 200, 100)).chunk == 1


@pytest.mark.parametrize(
    ("elements", "shape", "matrices"),
    [
        (1 << 13, (7, 6), 192),
        (1 << 13, (20, 8), 32),
        (1 << 10, (3, 3), 64),
        (1 << 10, (7, 6), 16),
        (1 << 10, (7, 4), 32),
        (1 << 10, (96, 8), 16),
        (1 << 10, (128, 4), 32),
    ],
    ids=str,
)
def test_chunks_of_what_goes_along_the_batch_are_whole_vectors(elements, shape, matrices):
    tuning = Tuning(chunk=elements, vector_chunk=elements)
    found = planned((20_000, *shape), tuning=tuning)
    assert found.chunk == found.rank_chunk == matrices


def test_starting_a_kernel_decides_how_many_vectors_it_takes():
    found = planned((20_000, 3, 3))
    assert found.chunk == (896 if workarounds.STARTS_SLOWLY else 64)
    # If hardly any matrix of a chunk has a certificate, ranks take singular values.
    assert found.rank_chunk == 896


def test_chunks_of_a_batch_are_equal():
    # Two of 8 would treat 7 of 9 matrices twice.
    assert planned((9, 32, 32), method="direct").chunk == 5
    tuning = Tuning(vector_chunk=DEFAULT.chunk)
    assert planned((200, 7, 6), method="direct", tuning=tuning).chunk == 128
    assert planned((200, 7, 6), method="direct", tuning=tuning).rank_chunk == 128
    assert determinant_plan.determinant((200, 7, 7), CPU, is_complex=False).chunk == 128


def test_what_is_left_of_tiny_matrices_is_taken_a_few_at_a_time():
    assert planned((100_000, 3, 3)).remainder == 2 * DEFAULT.vector
    assert planned((100_000, 3, 3), DIVIDED).remainder == 2 * DEFAULT.vector


@pytest.mark.parametrize("target", [GPU, TPU], ids=["GPU", "TPU"])
def test_a_few_that_are_left_do_not_cost_all_where_a_loop_would_ask_the_host(target):
    for shape, few in (
        ((100_000, 3, 3), 100_000 // DEFAULT.share),
        ((2000, 32, 32), DEFAULT.rows_of_few // 32),
        ((10, 9999, 64), 1),
    ):
        found = planned(shape, target)
        assert (found.remainder, found.loops) == (few, False)
    assert planned((100_000, 3, 3), target).rank_remainder == 100_000 // DEFAULT.share


def test_long_batches_are_decomposed_a_cache_at_a_time():
    for shape in ((100, 4096, 2), (4, 100_000, 4)):
        call = planned(shape, method="svd").svd_call
        assert call is not None
        assert call == 1 or call * 4096 * 2 <= DEFAULT.cached
    # This whole batch fits.
    call = planned((60, 4096, 2), method="svd").svd_call
    assert call == matrices_of_one_call(60, 10 * 4096 * 2**2)


def test_only_matrices_that_divide_and_conquer_divides_are_decomposed_again():
    assert planned((26, 26)).retries
    assert not planned((1000, 25)).retries
    assert not planned((25, 1000)).retries


@pytest.mark.parametrize(
    ("shape", "of_real", "of_complex"),
    [
        ((6, 6), True, True),
        ((100, 7), True, False),
        ((2, 1000, 25), True, False),
        ((25, 1000), True, False),
        ((26, 26), False, False),
        ((9, 500, 500), False, False),
    ],
    ids=str,
)
def test_lapack_iterates_on_small_matrices_and_for_values_alone(shape, of_real, of_complex):
    for is_complex, of_triplets in ((False, of_real), (True, of_complex)):
        for target in (CPU, DIVIDED, TYPED):
            found = planned(shape, target, is_complex=is_complex)
            assert found.by_qr_iteration == of_triplets
            assert found.values_by_qr_iteration
        for target in (GPU, TPU, ANYWHERE, CPU._replace(is_exported=True)):
            found = planned(shape, target, is_complex=is_complex)
            assert not found.by_qr_iteration
            assert not found.values_by_qr_iteration


def test_values_of_long_matrices_are_those_of_the_triangular_factor():
    assert planned((12, 6), method="svd").values == "qr, svd"
    assert planned((11, 6), method="svd").values == "svd"
    assert planned((6, 12), method="svd").values == "svd"


@pytest.mark.parametrize(
    ("shape", "route"),
    [
        ((32, 32), "svd"),
        ((2000, 32, 32), "svd"),
        ((2000, 33, 32), "qr, svd"),
        ((33, 32), "svd"),
        ((2, 33, 33), "qr, eigh"),
        ((127, 127), "svd"),
        ((128, 128), "qr, eigh"),
        ((128, 127), "qr, eigh"),
    ],
    ids=str,
)
def test_on_cuda_many_larger_matrices_are_decomposed_by_eigenvectors(shape, route):
    found = planned(shape, GPU)
    assert (found.triplets, found.values) == (route, route)
    for target in (CPU, TPU, DIVIDED, GPU._replace(is_whole=False)):
        assert planned(shape, target).triplets == "svd"


@pytest.mark.parametrize(
    ("shape", "of_real", "of_complex"),
    [
        ((20_000, 2), True, True),
        ((30, 1000, 2), True, True),
        # Accuracy needs it for long columns, whatever it costs.
        ((257, 8), True, True),
        ((256, 3), False, False),
        ((400, 20), False, False),
        ((8, 250, 7), False, True),
        ((1000, 50), False, False),
        ((300, 300), False, False),
    ],
    ids=str,
)
def test_much_taller_matrices_are_decomposed_by_their_triangular_factors(
    shape, of_real, of_complex
):
    for is_complex, by_triangle in ((False, of_real), (True, of_complex)):
        found = planned(shape, is_complex=is_complex, method="svd")
        assert found.triplets == ("qr, svd" if by_triangle else "svd")


@pytest.mark.parametrize(
    ("shape", "is_tried"),
    [
        ((20_000, 7, 6), True),
        ((20_000, 64, 8), True),
        ((20_000, 65, 8), False),
        ((20_000, 13, 13), False),
        ((1559, 7, 6), False),
        ((1560, 7, 6), True),
    ],
    ids=str,
)
def test_full_rank_of_many_tiny_matrices_is_certified_first(shape, is_tried):
    for target in (CPU, GPU, DIVIDED, TYPED):
        assert planned(shape, target).by_rank == is_tried
        assert not planned(shape, target, method="svd").by_rank
    assert not planned(shape, ANYWHERE).by_rank
    assert planned((20_000, 12, 12)).by_rank
    assert not planned((20_000, 12, 12), GPU).by_rank


def test_a_symbolic_size_is_factored_in_one_piece():
    from jax import export

    (b,) = export.symbolic_shape("b")
    assert planned((b, 7, 6)) == plan.Plan()
    assert planned((b, 26, 26)) == plan.Plan(retries=True)
    assert form_plan.form((b, 9, 9), CPU, formula="matrices", order=2).chunk is None


def test_a_plan_is_a_value():
    assert planned((9, 9)) == planned((9, 9))
    assert len({planned((9, 9)), planned((9, 9)), planned((9, 9), GPU)}) == 2
    assert np.all([hash(Tuning()) == hash(DEFAULT)])


def test_an_empty_batch_is_factored_in_one_piece():
    assert planned((0, 30, 30)) == plan.Plan()
    assert planned((5, 30, 0)) == plan.Plan()
    assert (
        form_plan.form((0, 100, 100), CPU, formula="matrices", order=1).identity == "never"
    )


@pytest.mark.parametrize("shape", [(128, 8, 9), (30, 10), (9, 500, 20)], ids=str)
def test_certificates_of_small_matrices_take_no_products(shape):
    assert not planned(shape).sharply
    assert planned((500, 128)).sharply
