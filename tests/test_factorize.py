"""`factorize`: a stored factorization gives the same results as the functions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, relative_error
from tests.factorize_cases import RTOL, SPECTRA, by_methods, by_numpy
from tests.matrices import gaussian, hermitian_matrix, matrix
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized

DTYPES = {"real": np.float64, "complex": np.complex128}


@partial(jax.jit, static_argnames="method")
def compiled_methods(a, b, x, method):
    """All results, by the methods of a factorization, in one program."""
    return by_methods(jaxpinv.factorize(a, rtol=RTOL, method=method), b, x)


# Every pair of a method, a shape and a dtype, with every spectrum.
@pytest.mark.slow_unless("truncated-direct-.4, 6")
@pytest.mark.parametrize(
    ("method", "shape", "dtype"),
    [
        ("direct", (6, 4), "real"),
        ("direct", (4, 6), "complex"),
        ("direct", (4, 4), "real"),
        ("direct", (40, 6, 4), "complex"),
        ("svd", (6, 4), "complex"),
        ("svd", (4, 6), "real"),
        ("svd", (4, 4), "complex"),
        ("svd", (40, 6, 4), "real"),
    ],
    ids=str,
)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_methods_return_what_numpy_returns(rng, shape, dtype, spectrum, method):
    dtype = DTYPES[dtype]
    a = matrix(rng, shape, SPECTRA[spectrum], dtype)
    *batch, m, n = shape
    b, x = gaussian(rng, (*batch, m, 2), dtype), gaussian(rng, (*batch, n, 3), dtype)
    found = compiled_methods(a, b, x, method)
    for name, known in by_numpy(a, b, x).items():
        y = found[name]
        if name == "null_projection":
            # Nearly zero at full rank: the part that is subtracted is not.
            y, known = x - y, x - known
        assert (y.shape, y.dtype) == (known.shape, known.dtype), name
        assert relative_error(y, known) <= bound(dtype, 100), name


@pytest.mark.slow
def test_it_may_be_made_and_used_inside_and_outside_of_vmap(rng):
    # As a batch they are factored by Gram-Schmidt, and one alone by singular values.
    a, b = gaussian(rng, (300, 6, 7)), gaussian(rng, (300, 6))
    limit = bound(np.float64, np.max(np.linalg.cond(a)) ** 2)
    values = np.linalg.svd(a, compute_uv=False)
    solutions = (np.linalg.pinv(a) @ b[..., None])[..., 0]

    def check(values_found, solved, logs):
        assert relative_error(values_found, values[: len(values_found)]) <= limit
        assert relative_error(solved, solutions[: len(solved)]) <= limit
        exact = np.sum(np.log(values[: len(logs)]), axis=-1)
        assert relative_error(logs, exact) <= limit

    def use(factored, b):
        return factored.singular_values(), factored.solve(b), factored.log_pdet()

    use_each = jax.jit(jax.vmap(use))
    whole = jaxpinv.factorize(a)
    mapped = jax.vmap(jaxpinv.factorize)(a)
    for factored in (whole, mapped):
        check(*jax.device_get(use_each(factored, b)))
        found = np.asarray(factored.solve(b[..., None]))[..., 0]
        check(factored.singular_values(), found, factored.log_pdet())
    first = jax.tree.map(lambda x: np.asarray(x)[:1], whole)
    check(*jax.device_get(use_each(first, b[:1])))
    one = jax.tree.map(lambda x: np.asarray(x)[0], whole)
    check(*(np.asarray(x)[None] for x in use(one, b[0])))
    # One matrix, and many vectors.
    many = jax.jit(jax.vmap(one.solve))(b)
    expected = np.linalg.pinv(a[0]) @ b[..., None]
    assert relative_error(many, expected[..., 0]) <= limit


@pytest.mark.slow
def test_batch_shapes_broadcast_and_tolerances_enlarge_them(rng):
    a = matrix(rng, (6, 4), [1.0, 0.1, 0.01, 0.001])
    rtols = np.array([0.5, 0.05, 0.005])
    factored = jaxpinv.factorize(a, rtols)
    assert factored.rank.tolist() == [1, 2, 3]
    b, x = gaussian(rng, (2, 1, 6, 5)), gaussian(rng, (4,))
    exact = np.stack([np.linalg.pinv(a, rtol) for rtol in rtols])
    assert relative_error(factored.solve(b), exact @ b) <= bound(np.float64, 1e3)
    projected = x - exact @ a @ x
    assert relative_error(factored.null_projection(x), projected) <= bound(np.float64, 1e3)
    mapped = jax.vmap(lambda factored: factored.pinv())(factored)
    assert relative_error(mapped, exact) <= bound(np.float64, 1e3)
    assert factored.log_pdet().shape == (3,)
    assert factored.singular_values().shape == (3, 4)


def test_lower_triangles_alone_are_read(rng):
    a = hermitian_matrix(rng, [3.0, -2.0, 0.5, 0.0], np.complex128)
    factored = jaxpinv.factorize(np.where(np.tri(4, dtype=bool), a, 9.0), hermitian=True)
    assert relative_error(factored.pinv(), np.linalg.pinv(a)) <= bound(np.float64, 100)
    assert int(factored.rank) == 3


def test_a_matrix_that_is_not_finite_is_nan_alone(rng):
    a, b = gaussian(rng, (3, 4, 3)), gaussian(rng, (3, 4, 1))
    good = by_methods(jaxpinv.factorize(a), b, b[:, :3])
    a[1, 0, 0] = np.nan
    bad = by_methods(jaxpinv.factorize(a), b, b[:, :3])
    assert bad.pop("rank").tolist() == [3, 0, 3]
    for name, x in bad.items():
        assert np.all(np.isnan(x[1])), name
        assert np.array_equal(x[::2], good[name][::2]), name


def test_it_may_be_a_donated_carry(rng):
    a, b = gaussian(rng, (3, 4)), gaussian(rng, (3,))
    factored = jaxpinv.factorize(a)
    expected = np.asarray(factored.solve(b))

    @partial(jax.jit, donate_argnums=0)
    def step(factored):
        return factored, factored.solve(b)

    for _ in range(2):
        factored, x = step(factored)
        assert np.array_equal(x, expected)
    assert factored.pinv().shape == (4, 3)


def test_one_factorization_serves_all_uses(rng):
    a, b, x = gaussian(rng, (6, 4)), gaussian(rng, (6,)), gaussian(rng, (4,))

    def step(a, b, x):
        factored = jaxpinv.factorize(a)
        moved = factored.solve(b) + factored.null_projection(x)
        return moved, factored.log_pdet(), factored.rank

    compiled = jax.jit(step).lower(a, b, x).compile().as_text()
    assert len(svd_calls(compiled)) == 1


def test_a_second_call_compiles_nothing(rng, caplog):
    def use(a, b):
        factored = jaxpinv.factorize(a)
        return jax.block_until_ready(
            (factored.solve(b), factored.rank, factored.log_pdet())
        )

    a, b = (jnp.asarray(gaussian(rng, s)) for s in [(11, 3), (11,)])
    use(a, b)
    other = a + 1
    with jax.log_compiles():
        use(other, b)
    assert not caplog.records


DTYPES_OF_RESULTS = [
    (jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
    (jnp.bfloat16, jnp.float32, jnp.float32),
    (jnp.float32, jnp.complex64, jnp.complex64),
    (jnp.complex128, jnp.complex128, jnp.complex128),
    (jnp.int32, jnp.float64, jnp.float64),
]


@pytest.mark.slow_unless("complex64")
@pytest.mark.parametrize(("of_a", "of_b", "expected"), DTYPES_OF_RESULTS, ids=str)
def test_dtypes_are_those_of_lstsq(of_a, of_b, expected):
    a, b = jnp.asarray([[2, 0], [0, 4], [0, 0]], of_a), jnp.asarray([2, 4, 1], of_b)
    with jax.numpy_dtype_promotion("standard"):
        factored = jaxpinv.factorize(a)
        found = factored.solve(b)
        theirs = jax.eval_shape(jaxpinv.lstsq, a, b).solution
        projected = jax.eval_shape(factored.null_projection, b[:2])
    assert found.dtype == theirs.dtype == projected.dtype == expected
    assert np.allclose(found.astype(complex), [1, 1])


@pytest.mark.parametrize("method", ["solve", "null_projection"])
def test_what_does_not_fit_is_refused(method):
    name = {"solve": "b", "null_projection": "x"}[method]
    apply = getattr(jaxpinv.factorize(np.ones((5, 3, 3), np.float32)), method)
    start = rf"^Factorization\.{method}: expected {name} "
    with pytest.raises(ValueError, match=start + "to be a vector of length 3"):
        apply(np.ones(4, np.float32))
    with pytest.raises(ValueError, match=r"broadcasts against the batch shape \(5,\)"):
        apply(np.ones((2, 3, 1), np.float32))
    with pytest.raises(TypeError, match=start + "to be a numeric array"):
        apply(None)
    with pytest.raises(TypeError, match=start + "of no higher precision than float32"):
        jax.numpy_dtype_promotion("standard")(apply)(np.ones(3))


def test_the_text_of_it_names_shape_and_dtype(rng):
    factored = jaxpinv.factorize(gaussian(rng, (2, 4, 3)))
    assert repr(factored) == "Factorization(shape=(2, 4, 3), dtype=float64)"
    assert "shape=None" in repr(jax.tree.map(lambda x: None, factored))
