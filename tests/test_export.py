"""Exported programs: round trip, symbolic batches, and platforms this machine lacks."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxpinv
from tests import damping_oracle
from tests.comparison import bound, relative_error
from tests.matrices import gaussian

pytestmark = pytest.mark.unoptimized


def stored_damping(a):
    """Damped inverses from stored singular vectors, and their product with a Jacobian."""
    x, pullback = jax.vjp(lambda a: jaxpinv.factorize(a, method="svd").pinv(damp=0.5), a)
    return x + jnp.swapaxes(pullback(x)[0], -1, -2)


FUNCTIONS = {
    "value": jaxpinv.pinv,
    "gradient": lambda a: jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a)))(a),
    "hermitian": lambda a: jaxpinv.pinv(a @ jnp.swapaxes(a, -1, -2), hermitian=True),
    "stored damping": stored_damping,
}
COMPILED = {name: jax.jit(f) for name, f in FUNCTIONS.items()}
#: How the names of library calls begin: JAX 0.9 calls `gesvd` on ROCm, later ones `gesvdj`.
KERNELS = {
    "cuda": {"svd": "cusolver_gesvdj_ffi", "eigh": "cusolver_syevd_ffi"},
    "rocm": {"svd": "hipsolver_gesvd", "eigh": "hipsolver_syevd_ffi"},
    "tpu": {"svd": "Eigh", "eigh": "Eigh"},
    "cpu": {"svd": "lapack_sgesdd_ffi", "eigh": "lapack_ssyevd_ffi"},
}


def between_libraries(a):
    """How far results may differ if a library call of an export is another one."""
    return bound(a.dtype, np.max(np.linalg.cond(a)))


def custom_calls(exported):
    """Names of the library calls of an exported program."""
    return set(re.findall(r"custom_call @(\w+)", exported.mlir_module()))


@pytest.mark.slow_unless("value")
@pytest.mark.parametrize("name", ["value", "stored damping"])
def test_round_trip_gives_the_same_numbers(rng, name):
    a, f = gaussian(rng, (3, 5, 4)), COMPILED[name]
    exported = export.export(f)(jax.ShapeDtypeStruct(a.shape, a.dtype))
    again = export.deserialize(exported.serialize())
    found = again.call(a)
    assert np.array_equal(found, exported.call(a))
    assert relative_error(found, f(a)) <= between_libraries(a)


@pytest.mark.parametrize(
    "f",
    [jaxpinv.null_space, lambda a: jaxpinv.lstsq(a, a, return_singular_values=False)],
    ids=["null_space", "lstsq"],
)
def test_a_serialized_program_returns_named_tuples(rng, f):
    a, f = gaussian(rng, (4, 5)), jax.jit(f)
    exported = export.export(f)(jax.ShapeDtypeStruct(a.shape, a.dtype))
    found, known = export.deserialize(exported.serialize()).call(a), f(a)
    assert type(found) is type(known)
    jax.tree.map(np.testing.assert_array_equal, found, exported.call(a))
    close = partial(np.testing.assert_allclose, rtol=0, atol=between_libraries(a))
    jax.tree.map(close, found, known)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 64), (64, 40)], ids=str)
def test_matrices_that_use_pivoted_qr_can_be_exported(rng, shape):
    # JAX does not promise to keep the library call of QR with pivoting in later versions.
    f = jax.jit(partial(jaxpinv.pinv, method="direct"))
    a = gaussian(rng, (shape[0], 20)) @ gaussian(rng, (20, shape[1]))
    exported = export.export(f)(jax.ShapeDtypeStruct(shape, np.float64))
    again = export.deserialize(exported.serialize())
    assert np.max(np.abs(again.call(a) - np.linalg.pinv(a, 1e-12))) <= 1e-12


# JAX makes the programs for all sizes alike, so one size may serve for a function.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "batches"),
    [("value", (1, 3)), ("gradient", (2,)), ("hermitian", (7,)), ("stored damping", (3,))],
    ids=str,
)
def test_a_symbolic_batch_dimension_serves_every_batch(rng, name, batches):
    (b,) = export.symbolic_shape("b")
    f = COMPILED[name]
    exported = export.export(f)(jax.ShapeDtypeStruct((b, 5, 4), np.float64))
    for batch in batches:
        a = gaussian(rng, (batch, 5, 4))
        assert relative_error(exported.call(a), f(a)) <= between_libraries(a)


@pytest.mark.slow
def test_a_symbolic_number_of_rows_serves_every_number(rng):
    (m,) = export.symbolic_shape("m", constraints=["m >= 3"])
    shapes = [jax.ShapeDtypeStruct(size, np.float64) for size in [(m, 3), (m,)]]
    exported = export.export(jax.jit(jaxpinv.lstsq))(*shapes)
    for rows in (3, 7):
        a, b = gaussian(rng, (rows, 3)), gaussian(rng, (rows,))
        for found, known in zip(exported.call(a, b), jaxpinv.lstsq(a, b), strict=True):
            np.testing.assert_allclose(found, known, rtol=0, atol=1e-14)
    # The default cutoff grows with the rows, too.
    eps = np.finfo(float).eps
    a = np.vstack([np.diag([1, 1, 30 * eps]), np.zeros((57, 3))])
    assert exported.call(a[:20], np.ones(20))[2] == 3
    assert exported.call(a, np.ones(60))[2] == 2


@pytest.mark.slow
def test_an_exported_program_can_be_differentiated_twice(rng):
    a = gaussian(rng, (3, 5, 4))
    exported = export.export(jax.jit(jaxpinv.pinv))(jax.ShapeDtypeStruct(a.shape, a.dtype))
    again = export.deserialize(exported.serialize(vjp_order=2))

    def second(f):
        derive = jax.grad(lambda a: jnp.sum(jax.grad(lambda a: jnp.sum(f(a)))(a) ** 2))
        return jax.jit(derive)(a)

    np.testing.assert_allclose(second(again.call), second(jaxpinv.pinv), rtol=1e-10)


# Batches are lowered in loops on some platforms, and single matrices on all alike.
@pytest.mark.slow_unless("(value|hermitian)-.3|gradient-.3, 5")
@pytest.mark.parametrize("platform", KERNELS)
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("value", (3, 4, 5)),
        ("gradient", (3, 5, 4)),
        ("hermitian", (3, 5, 4)),
        ("stored damping", (3, 5, 4)),
        ("value", (5, 4)),
    ],
    ids=str,
)
def test_every_platform_lowers_to_its_own_library(name, shape, platform):
    exported = export.export(COMPILED[name], platforms=[platform])(
        jax.ShapeDtypeStruct(shape, np.float32)
    )
    kind = "eigh" if name == "hermitian" else "svd"
    calls = custom_calls(exported)
    assert any(call.startswith(KERNELS[platform][kind]) for call in calls)
    others = {
        k for p, kernels in KERNELS.items() if p != platform for k in kernels.values()
    }
    others -= set(KERNELS[platform].values())
    assert not any(call.startswith(tuple(others)) for call in calls)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm"])
def test_only_a_cpu_loops_over_a_batch(platform):
    # Elsewhere each step would wait for the host. On a TPU, JAX's own QR has loops.
    f = jax.jit(partial(jaxpinv.pinv, method="direct"))
    exported = export.export(f, platforms=[platform])(
        jax.ShapeDtypeStruct((64, 40, 30), np.float32)
    )
    assert ("stablehlo.while" in exported.mlir_module()) == (platform == "cpu")


@pytest.mark.slow_unless("hermitian")
@pytest.mark.parametrize("name", ["gradient", "hermitian"])
def test_one_program_for_cpu_and_cuda_runs_here(rng, name):
    a, f = gaussian(rng, (3, 5, 4), np.float32), COMPILED[name]
    exported = export.export(f, platforms=["cpu", "cuda"])(
        jax.ShapeDtypeStruct(a.shape, a.dtype)
    )
    again = export.deserialize(exported.serialize())
    assert relative_error(again.call(a), f(a)) <= between_libraries(a)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["direct", "svd"])
def test_an_exported_program_takes_a_stored_factorization(rng, method):
    a, b = gaussian(rng, (12, 9)), gaussian(rng, (12,))
    factored = jaxpinv.factorize(a, method=method)
    (count,) = export.symbolic_shape("k")

    def path(factored, b, damps):
        return jax.vmap(lambda damp: factored.solve(b, damp=damp))(damps)

    shapes = jax.ShapeDtypeStruct((12,), b.dtype), jax.ShapeDtypeStruct((count,), b.dtype)
    exported = export.export(jax.jit(path))(factored, *shapes)
    damps = np.array([0.3, 1.0, 2.0])
    exact = [damping_oracle.filtered(a, d) @ b for d in damps]
    assert relative_error(exported.call(factored, b, damps), exact) <= bound(np.float64, 10)
