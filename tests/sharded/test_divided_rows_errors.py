"""What is refused of a matrix whose rows are on several devices."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxpinv import sharded
from tests.sharded.meshes import mesh_of, put

M, N = 720, 4
A = np.ones((M, N))
TWO_AXES = {"mesh": lambda: jax.make_mesh((2, 4), ("x", "y"), (AxisType.Auto,) * 2)}
ERRORS = {
    "vector": (np.ones(3), {}, "expected a matrix .*, got shape .3,."),
    "batch": (np.ones((2, M, N)), {}, "expected one matrix"),
    "wide": (A.T, {}, "at least as many rows as columns, got shape .4, 720."),
    "uneven": (A[1:], {}, "that the 8 devices of axis 'rows' divide, got shape .719, 4."),
    "axis": (A, {"axis": "batch"}, "one of .'rows',., got 'batch'"),
    "mesh": (A, {"mesh": lambda: None}, "expected a mesh, or a matrix that lies on one"),
    "two axes": (A, TWO_AXES, "name of the axis that divides the rows"),
    "tolerances": (A, {"rtol": np.ones(2)}, "expected rtol to be a number"),
    "negative": (A, {"atol": -1.0}, "expected atol >= 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_is_not_supported_is_refused(case):
    a, given, message = ERRORS[case]
    kwargs = {"mesh": lambda: mesh_of(8)} | given
    kwargs["mesh"] = kwargs["mesh"]()
    for f in (sharded.pinv, lambda a, **kwargs: sharded.lstsq(a, A[:, 0], **kwargs)):
        with pytest.raises(ValueError, match=f"sharded.*{message}"):
            f(a, **kwargs)


def test_divided_columns_are_refused(rng):
    a = put(A, PartitionSpec(None, "rows"), mesh_of(4))
    with pytest.raises(ValueError, match="columns that are not divided"):
        sharded.pinv(a)


@pytest.mark.parametrize("b", [np.ones(M - 1), np.ones((2, M, 1))], ids=["rows", "batch"])
def test_lstsq_refuses_what_is_not_a_column_for_each_row(b):
    with pytest.raises(ValueError, match=r"sharded\.lstsq: expected b to be"):
        sharded.lstsq(A, b, mesh=mesh_of(8))
