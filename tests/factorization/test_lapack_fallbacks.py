"""Programs decompose a matrix once more only where LAPACK may give up."""

import re
from functools import partial

import jax
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxpinv
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized


def decompositions(platform, shape, **kwargs):
    """How often a program calls for decompositions, and whether it has a loop."""
    exported = export.export(jax.jit(partial(jaxpinv.pinv, **kwargs)), platforms=[platform])
    text = exported(jax.ShapeDtypeStruct(shape, np.float64)).mlir_module()
    calls = re.findall(r"custom_call @\w+(gesdd|gesvdj?|syevd)_ffi", text)
    return len(calls), "stablehlo.while" in text


@pytest.mark.slow_unless("3.*True|3.*False")
@pytest.mark.parametrize("hermitian", [False, True])
@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
def test_only_shapes_that_may_fail_have_a_fallback(batch, hermitian):
    count = partial(decompositions, method="svd", hermitian=hermitian)
    # For a batch the second one is in a loop. That of one matrix has both attempts.
    assert count("cpu", (*batch, 26, 26)) == (2 if batch else 1, True)
    assert count("cpu", (*batch, 25, 25))[0] == 1
    assert count("cpu", (25, 25)) == (1, False)
    assert count("cuda", (*batch, 26, 26)) == (1, False)


def test_a_program_divided_over_devices_has_no_fallback():
    mesh = jax.make_mesh((8,), ("batch",), (AxisType.Auto,))
    a = jax.device_put(np.ones((8, 26, 26)), NamedSharding(mesh, PartitionSpec("batch")))
    text = jax.jit(jaxpinv.pinv).lower(a).as_text()
    assert len(svd_calls(text)) == 1
