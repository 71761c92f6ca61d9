"""Errors at the boundary: they name the function, what it expects, and what it got."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from jax.experimental import sparse

import jaxpinv

pytestmark = pytest.mark.unoptimized


def pinverse(*args, **kwargs):
    """`pinverse` without its warning."""
    with pytest.warns(DeprecationWarning, match="jaxpinv.pinverse is deprecated"):
        return jaxpinv.pinverse(*args, **kwargs)


def lstsq(a, *args, **kwargs):
    """`lstsq` of a vector that fits `A`."""
    return jaxpinv.lstsq(a, np.ones(2), *args, **kwargs)


def null_projection(a, *args, **kwargs):
    """`null_projection` of a vector that fits `A`."""
    return jaxpinv.null_projection(a, np.ones(2), *args, **kwargs)


WITH_TOLERANCES = {
    "pinv": jaxpinv.pinv,
    "lstsq": lstsq,
    "null_projection": null_projection,
    "null_space": jaxpinv.null_space,
    "matrix_rank": jaxpinv.matrix_rank,
    "log_pdet": jaxpinv.log_pdet,
    "factorize": jaxpinv.factorize,
}
FUNCTIONS = WITH_TOLERANCES | {"pinverse": pinverse}
A = np.ones((3, 2, 2))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_fewer_than_two_axes_are_refused(name, shape):
    message = (
        f"{name}: expected a matrix or a batch of matrices, shape (..., m, n), "
        f"got shape {shape}"
    )
    with pytest.raises(ValueError) as error:  # noqa: PT011
        FUNCTIONS[name](np.ones(shape))
    assert str(error.value) == message


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "a",
    [
        np.array([["a", "b"]]),
        np.array([[object()]]),
        [[1.0, 2.0], [3.0]],
        None,
        jax.random.split(jax.random.key(0), (2, 2)),
        [[10**30, 1]],
    ],
    ids=["strings", "objects", "ragged", "none", "keys", "long_integers"],
)
def test_what_is_not_numeric_is_refused(name, a):
    with pytest.raises(TypeError, match=rf"^{name}: expected a numeric array, got "):
        FUNCTIONS[name](a)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["object", "<U1", "|S1", "datetime64[D]"])
def test_the_dtype_of_an_array_that_is_not_numeric_is_named(name, dtype):
    a = np.zeros((2, 2), dtype)
    with pytest.raises(TypeError) as error:
        FUNCTIONS[name](a)
    assert str(error.value).startswith(
        f"{name}: expected a numeric array, got dtype {dtype}; accepted are integers"
    )


@pytest.mark.parametrize(
    "name",
    ["pinv", "null_projection", "null_space", "matrix_rank", "log_pdet", "factorize"],
)
def test_rtol_and_rcond_together_are_refused(name):
    with pytest.raises(
        ValueError, match=rf"^{name}: expected rtol or rcond.* rtol=0.1 and rcond=0.2"
    ):
        FUNCTIONS[name](A, 0.1, rcond=0.2)


TOLERANCES = [(f, name) for f in WITH_TOLERANCES for name in ("rtol", "atol")]
TOLERANCES += [(f, "rcond") for f in WITH_TOLERANCES if f != "lstsq"]


@pytest.mark.parametrize(("function", "name"), TOLERANCES)
@pytest.mark.parametrize(
    "value",
    [1j, np.array([1j]), jnp.array(1j), "x"],
    ids=["python", "numpy", "jax", "string"],
)
def test_a_tolerance_that_is_not_real_is_refused(function, name, value):
    with pytest.raises(
        TypeError, match=rf"^{function}: expected {name} to be a real number"
    ):
        FUNCTIONS[function](A, **{name: value})


@pytest.mark.parametrize(("function", "name"), TOLERANCES)
@pytest.mark.parametrize(
    "value",
    [-1, -1e-3, -1e-300, [0.1, -0.1, 0.1], np.array([0.1, -0.1, 0.1]), jnp.array(-0.1)],
    ids=["int", "float", "tiny", "list", "numpy", "jax"],
)
def test_a_negative_tolerance_is_refused(function, name, value):
    with pytest.raises(ValueError, match=rf"^{function}: expected {name} >= 0, got .*-"):
        FUNCTIONS[function](A, **{name: value})


@pytest.mark.parametrize(("function", "name"), TOLERANCES)
@pytest.mark.parametrize(
    "value",
    [True, np.False_, np.array([True]), jnp.array(True), [True, False]],
    ids=["python", "scalar", "numpy", "jax", "list"],
)
def test_a_bool_is_not_a_tolerance(function, name, value):
    hint = "; pass hermitian by name, hermitian=True" if name == "rtol" else ""
    with pytest.raises(TypeError) as error:
        FUNCTIONS[function](A, **{name: value})
    assert str(error.value) == (
        f"{function}: expected {name} to be a real number or an array of them, "
        f"got dtype bool{hint}"
    )


def test_a_bool_in_the_place_of_hermitian_in_torch_is_refused():
    for f in (jaxpinv.pinv, jax.jit(jaxpinv.pinv)):
        with pytest.raises(TypeError, match="hermitian=True"):
            f(A, True)


ACCEPTED = "bfloat16, float16, float32, float64, complex64 or complex128$"


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    "dtype",
    [jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.float4_e2m1fn],
    ids=lambda x: x.__name__,
)
def test_floats_of_eight_bits_and_fewer_are_refused(name, dtype):
    a = jnp.ones((2, 2), dtype)
    for x in (a, np.asarray(a)):
        with pytest.raises(TypeError, match=rf"^{name}: .* got dtype float.*{ACCEPTED}"):
            FUNCTIONS[name](x)
    with pytest.raises(TypeError, match=rf"^lstsq: expected b to be .*{ACCEPTED}"):
        jaxpinv.lstsq(np.ones((2, 2)), a)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.int4, jnp.uint8, bool, jnp.float16, jnp.bfloat16])
def test_every_other_numeric_dtype_is_accepted(dtype):
    x = jaxpinv.pinv(jnp.eye(2).astype(dtype))
    assert np.array_equal(x.astype(float), np.eye(2))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("kind", [sparse.BCOO, sparse.BCSR, scipy.sparse.csr_array])
def test_sparse_matrices_are_refused(name, kind):
    # Not by `fromdense`, which compiles many programs.
    eye, ones, places = np.eye(2), jnp.ones(2), jnp.array([0, 1])
    parts: dict[Any, Any] = {
        sparse.BCOO: (ones, jnp.array([[0, 0], [1, 1]])),
        sparse.BCSR: (ones, places, jnp.array([0, 1, 2])),
    }
    a: Any = kind(eye) if kind not in parts else kind(parts[kind], shape=(2, 2))
    message = rf"^{name}: .* got {kind.__name__}: sparse .* pass x\.todense\(\)"
    with pytest.raises(TypeError, match=message):
        FUNCTIONS[name](a)
    if kind is sparse.BCOO:
        with pytest.raises(TypeError, match=message):
            jax.jit(FUNCTIONS[name])(a)
        with pytest.raises(TypeError, match=r"^lstsq: expected b .* got BCOO: sparse"):
            jaxpinv.lstsq(eye, a)


def test_a_negative_tolerance_is_refused_under_jit_too():
    with pytest.raises(ValueError, match="expected rtol >= 0"):
        jax.jit(partial(jaxpinv.pinv, rtol=-0.1))(A)


def test_a_tolerance_that_knows_how_to_become_an_array_is_accepted():
    class Wrapped:
        def __jax_array__(self):
            return jnp.asarray(1.5)

    a = jnp.diag(jnp.array([2.0, 1.0]))
    wrapped: Any = Wrapped()
    assert jaxpinv.pinv(a, atol=wrapped).tolist() == [[0.5, 0.0], [0.0, 0.0]]


def test_a_negative_traced_tolerance_truncates_only_zeros():
    a = jnp.diag(jnp.array([2.0, 0.0]))
    x = jax.jit(lambda a, t: jaxpinv.pinv(a, t, atol=t))(a, jnp.array(-0.1))
    assert x.tolist() == [[0.5, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("function", WITH_TOLERANCES)
@pytest.mark.parametrize(
    "tolerances",
    [{"rtol": np.ones(2)}, {"atol": np.ones(2)}, {"rtol": np.ones(3), "atol": np.ones(2)}],
)
def test_tolerances_that_do_not_broadcast_are_refused(function, tolerances):
    with pytest.raises(
        ValueError,
        match=rf"^{function}: expected tolerances that broadcast .*\(3,\), got .*\(2,\)",
    ):
        FUNCTIONS[function](A, **tolerances)


@pytest.mark.parametrize("function", WITH_TOLERANCES)
def test_hermitian_matrices_must_be_square(function):
    with pytest.raises(
        ValueError, match=rf"^{function}: expected square matrices.* got shape \(2, 3\)"
    ):
        FUNCTIONS[function](np.ones((2, 3)), hermitian=True)


@pytest.mark.parametrize("function", WITH_TOLERANCES)
def test_a_traced_hermitian_is_to_be_static(function):
    with pytest.raises(TypeError, match=rf"^{function}: expected hermitian to be True or"):
        jax.jit(FUNCTIONS[function])(A, hermitian=True)


@pytest.mark.parametrize("function", WITH_TOLERANCES)
@pytest.mark.parametrize("kwargs", [{"rtol": -1.0}, {"hermitian": True}])
def test_errors_come_before_anything_is_computed(function, kwargs, caplog):
    # A shape that no other test compiles.
    a = jnp.ones((2, 19))
    with jax.log_compiles(), pytest.raises(ValueError, match=rf"^{function}: expected"):
        FUNCTIONS[function](a, **kwargs)
    assert not caplog.records


COLUMNS = {
    "lstsq": (jaxpinv.lstsq, "b", (3, 5, 4), 5),
    "null_projection": (jaxpinv.null_projection, "x", (3, 4, 5), 5),
}


@pytest.mark.parametrize("function", COLUMNS)
@pytest.mark.parametrize("shape", [(), (4,), (4, 2), (3, 4, 5), (3, 5)], ids=str)
def test_columns_of_another_length_are_refused(function, shape):
    f, name, a, length = COLUMNS[function]
    are_vectors = len(shape) > 1 and shape[-1] == length
    hint = f"; for a batch of vectors write {name}[..., None]" if are_vectors else ""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        f(np.ones(a), np.ones(shape))
    assert str(error.value) == (
        f"{function}: expected {name} to be a vector of length {length} or an array of "
        f"matrices, shape (..., {length}, k), got shape {shape}{hint}"
    )


@pytest.mark.parametrize("function", COLUMNS)
def test_vectors_in_rows_for_one_matrix_are_to_be_transposed(function):
    f, name, a, length = COLUMNS[function]
    vectors: Any = [np.ones(length), np.zeros(length)]
    message = rf"got shape \(2, {length}\); if each row is a vector, pass {name}\.T$"
    with pytest.raises(ValueError, match=message):
        f(np.ones(a[1:]), vectors)


@pytest.mark.parametrize("function", COLUMNS)
def test_columns_whose_batch_does_not_broadcast_are_refused(function):
    f, name, a, length = COLUMNS[function]
    with pytest.raises(ValueError, match=rf"^{function}: expected {name} .* \(3,\), got"):
        f(np.ones(a), np.ones((2, length, 1)))


@pytest.mark.parametrize("function", COLUMNS)
@pytest.mark.parametrize("value", [None, "x", np.array(["x"] * 5)], ids=str)
def test_columns_that_are_not_numeric_are_refused(function, value):
    f, name, a, _ = COLUMNS[function]
    message = rf"^{function}: expected {name} to be a numeric array, got "
    with pytest.raises(TypeError, match=message):
        f(np.ones(a), value)
