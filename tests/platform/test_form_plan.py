"""What is planned for derivatives and for products of matrices."""

import pytest

from jaxpinv._platform import form_plan
from jaxpinv._platform.tuning import DEFAULT
from tests.platform.targets import CPU, DIVIDED, GPU


class TestForms:
    """How derivatives go through a batch."""

    @pytest.mark.parametrize(
        ("formula", "order", "is_chunked"),
        [
            ("matrices", 1, False),
            ("matrices", 2, True),
            ("vectors", 3, False),
            ("either", 1, True),
        ],
    )
    def test_higher_derivatives_and_truncated_ones_go_in_chunks(
        self, formula, order, is_chunked
    ):
        found = form_plan.form((20_000, 7, 6), CPU, formula=formula, order=order)
        assert found.chunk == (DEFAULT.chunk if is_chunked else None)
        small = form_plan.form((100, 7, 6), CPU, formula=formula, order=order)
        assert small.chunk is None

    @pytest.mark.parametrize(
        ("shape", "target", "order", "identity"),
        [
            ((9, 9), CPU, 1, "all"),
            ((5, 12, 12), CPU, 1, "never"),
            ((5, 13, 13), CPU, 1, "each"),
            ((5, 13, 13), CPU, 2, "all"),
            ((5, 9, 9), GPU, 1, "all"),
            ((5, 9, 9), DIVIDED, 1, "never"),
            ((5, 8, 8), CPU, 1, "never"),
            ((5, 10, 9), CPU, 1, "never"),
        ],
        ids=str,
    )
    def test_products_with_an_identity_are_left_out(self, shape, target, order, identity):
        found = form_plan.form(shape, target, formula="matrices", order=order)
        assert found.identity == identity

    @pytest.mark.parametrize(
        ("shape", "target", "broadcasts"),
        [
            ((2, 5, 250, 3), CPU, True),
            ((2, 5, 250, 4), CPU, False),
            ((32, 1), GPU, True),
            ((33, 5, 1), CPU, False),
            ((2, 5, 250, 3), DIVIDED, False),
        ],
        ids=str,
    )
    def test_products_are_repeated_for_a_few_small_matrices(
        self, shape, target, broadcasts
    ):
        found = form_plan.form(shape, target, formula="matrices", order=2)
        assert found.broadcasts == broadcasts

    def test_no_branch_looks_at_a_batch_that_is_divided(self):
        assert form_plan.form((5, 9, 9), GPU, formula="either", order=1).may_branch
        assert not form_plan.form((5, 9, 9), DIVIDED, formula="either", order=1).may_branch


@pytest.mark.parametrize(
    ("x", "y", "is_complex", "kind"),
    [
        ((100, 7, 6), (100, 7, 6), False, "isolated"),
        ((100, 7, 6), (1, 7, 6), False, "isolated"),
        ((65, 7, 6), (65, 7, 6), False, "dot"),
        ((66, 7, 6), (66, 7, 6), False, "isolated"),
        ((100, 9, 6), (100, 9, 6), False, "dot"),
        ((1000, 7, 6), (1000, 7, 1), False, "dot"),
        ((10, 7, 6), (10, 7, 1), False, "summed"),
        ((10, 7, 6), (10, 7, 1), True, "dot"),
        ((3, 30), (3, 20), False, "summed"),
        ((4, 30), (4, 20), True, "unrolled"),
        ((30, 3), (30, 3), False, "summed"),
        ((30, 4), (30, 4), False, "dot"),
        ((300, 4, 4), (300, 4, 4), True, "isolated"),
        ((300, 5, 4), (300, 5, 4), True, "dot"),
        ((4, 100), (4, 100), False, "unrolled"),
        ((0, 4), (0, 4), False, "summed"),
    ],
    ids=str,
)
def test_products_that_xla_would_compile_or_repeat_are_plain_arithmetic(
    x, y, is_complex, kind
):
    assert form_plan.product(x, y, is_complex=is_complex) == kind


@pytest.mark.parametrize("n", [(236, "isolated"), (100_000, "unrolled")], ids=str)
def test_a_thin_product_is_apart_from_its_uses_unless_it_is_large(n):
    n, kind = n
    assert form_plan.product((4, 4), (4, n), is_complex=False, has_long=True) == kind
