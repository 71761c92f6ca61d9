"""All ways to compute singular triplets are as accurate as LAPACK's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from jaxpinv._factorization import svd, thin_qr
from tests.matrices import unitary
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized

SHAPES = [(33, 33), (40, 16), (7, 6), (5, 1)]
# A library may be four times as far from the exact values as this many units.
EPS_PER_ROOT = 4
SPECTRA = {
    "equal": lambda n, _: np.ones(n),
    "of some condition": lambda n, _: np.geomspace(1, 1e-4, n),
    "down to rounding": lambda n, eps: np.geomspace(1, eps, n),
    "with zeros": lambda n, _: np.where(np.arange(n) < n // 2, 1.0, 0.0),
    "with small clusters": lambda n, eps: np.where(np.arange(n) < 2, 1, 3 * n * eps),
    "of rank one": lambda n, _: np.arange(n) == 0.0,
    "of rank zero": lambda n, _: np.zeros(n),
}


def plainly(f, a):
    """All matrices in one call."""
    return f(a)


OPTIONS = {
    "shorten": partial(thin_qr.shorten, rows=None, calls=plainly),
    "calls": plainly,
}


@partial(jax.jit, static_argnames="route")
def triplets_and_values(a, route):
    """Singular triplets, and singular values alone, in one program."""
    route, *iterates = route.split(" by ")
    options = {**OPTIONS, "route": route, "by_qr_iteration": bool(iterates)}
    found = svd.triplets(a, hermitian=False, retries=False, **options)
    return found, svd.values(a, **options)


def decomposed(route, a):
    """Singular triplets and singular values alone, in double precision."""
    triplets, values = triplets_and_values(a, route)
    double = np.result_type(a.dtype, np.float64)
    return *(np.asarray(x).astype(double) for x in triplets), np.asarray(values)


@pytest.fixture(params=[np.float32, np.complex128], ids=lambda x: x.__name__)
def dtype(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "route",
    ["svd", "qr, svd", "qr, eigh", "svd by QR iteration", "qr, svd by QR iteration"],
)
@pytest.mark.slow_unless("eigh.*(33, 33|40, 16)")
def test_triplets_are_those_of_the_matrix(rng, dtype, route, shape):
    m, n = shape
    eps = float(np.finfo(dtype).eps)
    spectra = np.stack([values(n, eps) for values in SPECTRA.values()])
    left, right = (unitary(rng, k, n, np.complex128) for k in shape)
    if np.dtype(dtype).kind == "f":
        left, right = (np.linalg.qr(np.real(x))[0] for x in (left, right))
    a = ((left * spectra[:, None, :]) @ right.conj().T).astype(dtype)
    u, s, v, values = decomposed(route, jnp.asarray(a))
    known = np.linalg.svd(a.astype(u.dtype), compute_uv=False)
    limit = EPS_PER_ROOT * eps * m**0.5 * known[:, 0]
    assert np.all(np.abs(s - known) <= limit[:, None])
    assert np.all(np.abs(values - known) <= limit[:, None])
    assert np.all(np.diff(s, axis=1) <= 0)
    error = (u * s[:, None, :]) @ np.swapaxes(v.conj(), 1, 2) - a
    assert np.all(np.linalg.norm(error, axis=(1, 2)) <= n**0.5 * limit)
    for x in (u, v):
        gram = np.swapaxes(x.conj(), 1, 2) @ x
        assert np.max(np.abs(gram - np.eye(n))) <= EPS_PER_ROOT * eps * m**0.5


def test_values_of_wide_matrices_are_those_of_their_transposes(rng):
    a = rng.standard_normal((3, 5, 40))
    for route in ("svd", "qr, eigh"):
        values = jax.jit(partial(svd.values, route=route, **OPTIONS))(a)
        assert np.allclose(values, np.linalg.svd(a, compute_uv=False), rtol=1e-13)


def test_programs_call_the_planned_algorithm(rng):
    """The library has one name for each: `gesvd` iterates, `gesdd` divides."""
    for shape, names in (((6, 4), "vd vd"), ((30, 26), "dd vd")):
        a = rng.standard_normal(shape)
        program = jax.jit(lambda a: (jaxpinv.pinv(a, method="svd"), jaxpinv.matrix_rank(a)))
        calls = "".join(svd_calls(program.lower(a).as_text()))
        found = [name for name in ("vd", "dd") if f"lapack_dges{name}_ffi" in calls]
        assert found == sorted(set(names.split()), reverse=True)
