"""The cutoff: its rule, defaults, broadcasting, and derivatives with respect to it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.conftest import WAYS
from tests.matrices import matrix

SPECTRUM = [4, 2, 1, 0.5]


def rank(pinv, a, *args, **kwargs):
    """Number of kept singular values, checked against the rank of the pseudo-inverse."""
    x, rank = pinv(a, *args, return_rank=True, **kwargs)
    assert rank.dtype == jax.eval_shape(jnp.linalg.matrix_rank, a).dtype
    assert np.array_equal(np.linalg.matrix_rank(np.asarray(x), tol=1e-6), rank)
    return rank.tolist()


@pytest.mark.unoptimized
@pytest.mark.slow_unless("pinv.*tall")
@pytest.mark.parametrize(
    ("way", "shape"), [("pinv", (6, 4)), ("lstsq", (4, 6))], ids=["pinv-tall", "lstsq-wide"]
)
@pytest.mark.parametrize(
    ("tolerances", "expected"),
    [
        ({}, 4),
        ({"rtol": 0.2}, 3),
        ({"rcond": 0.2}, 3),
        ({"atol": 1.5}, 2),
        ({"rtol": 0.2, "atol": 0.7}, 3),
        ({"rtol": 0.2, "atol": 1.5}, 2),
        ({"rtol": 0.4, "atol": 0.1}, 2),
        ({"rtol": 0.0}, 4),
        ({"atol": 0.0}, 4),
        ({"rtol": 1.0}, 0),
        ({"rtol": np.inf}, 0),
        ({"atol": np.inf}, 0),
    ],
    ids=str,
)
def test_cutoff_is_the_larger_of_the_two_tolerances(way, rng, shape, tolerances, expected):
    assert rank(WAYS[way], matrix(rng, shape, SPECTRUM), **tolerances) == expected


@pytest.mark.slow_unless("pinv-True")
@pytest.mark.parametrize(("way", "hermitian"), [("pinv", True), ("lstsq", False)])
def test_a_value_on_the_cutoff_is_truncated(way, hermitian):
    pinv = WAYS[way]
    a = jnp.diag(jnp.array([4.0, -2.0, 1.0]))
    assert rank(pinv, a, atol=2.0, hermitian=hermitian) == 1
    assert rank(pinv, a, rtol=0.5, hermitian=hermitian) == 1
    assert rank(pinv, a, atol=np.nextafter(2, 0), hermitian=hermitian) == 2


def test_zero_is_truncated_also_by_zero_tolerances(pinv):
    assert rank(pinv, jnp.diag(jnp.array([4.0, 0.0])), rtol=0.0, atol=0.0) == 1


@pytest.mark.slow_unless("pinv")
def test_default_cutoff_is_the_longer_side_times_eps(pinv, rng):
    eps = np.finfo(np.float64).eps
    below, above = (np.diag([1.0, 50 * eps * x]) for x in (0.9, 1.1))
    tall = [np.concatenate([a, np.zeros((48, 2))]) for a in (below, above)]
    assert [rank(pinv, a) for a in tall] == [1, 2]
    assert [rank(pinv, a.T) for a in tall] == [1, 2]


@pytest.mark.slow_unless("pinv")
def test_default_cutoff_takes_the_eps_of_the_dtype(pinv):
    a = np.diag([1.0, 1e-7])
    assert rank(pinv, a) == 2
    assert rank(pinv, a.astype(np.float32)) == 1


@pytest.mark.slow_unless("pinv")
def test_only_a_positive_atol_switches_the_default_rtol_off(pinv):
    a = np.diag([1.0, 1e-17])
    atol = np.array([0.0, 1e-20, 1e-10])
    _, ranks = pinv(a, atol=atol, return_rank=True)
    assert ranks.tolist() == [1, 2, 1]
    assert [int(pinv(a, atol=t, return_rank=True)[1]) for t in atol] == [1, 2, 1]


@pytest.mark.unoptimized
def test_positional_arguments_are_those_of_numpy_and_jnp(pinv, rng):
    a = matrix(rng, (4, 4), SPECTRUM)
    a = a @ a.T
    assert np.array_equal(pinv(a, 0.1, True), pinv(a, rtol=0.1, hermitian=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "batch", "rtol_shape", "atol_shape", "result"),
    [
        ("pinv", (), (3,), None, (3,)),
        ("lstsq", (2, 3), (3,), None, (2, 3)),
        ("pinv", (3,), (2, 1), (3,), (2, 3)),
        ("lstsq", (1,), (5,), (4, 1), (4, 5)),
        ("pinv", (3,), None, (2, 3), (2, 3)),
        ("lstsq", (0,), (1,), None, (0,)),
        ("pinv", (1,), (0,), None, (0,)),
    ],
    ids=str,
)
def test_tolerances_broadcast_and_enlarge_the_batch(
    way, rng, batch, rtol_shape, atol_shape, result
):
    pinv = WAYS[way]
    a = rng.standard_normal((*batch, 4, 3))
    tolerances: dict[str, Any] = {
        name: rng.uniform(0, 0.7, shape)
        for name, shape in [("rtol", rtol_shape), ("atol", atol_shape)]
        if shape is not None
    }
    x, ranks = pinv(a, **tolerances, return_rank=True)
    assert x.shape == (*result, 3, 4)
    assert ranks.shape == result
    whole = np.broadcast_to(a, (*result, 4, 3))
    wholes: dict[str, Any] = {
        name: np.broadcast_to(t, result) for name, t in tolerances.items()
    }
    for i in np.ndindex(result):
        ones: dict[str, Any] = {name: t[i] for name, t in wholes.items()}
        alone = pinv(whole[i], **ones)
        assert np.array_equal(x[i], alone)


@pytest.mark.unoptimized
@pytest.mark.slow_unless("pinv-numpy|pinv-float32")
@pytest.mark.parametrize("kind", ["float", "int", "numpy", "float32", "jax", "list"])
def test_a_tolerance_may_be_any_kind_of_real_number(pinv, rng, kind):
    one = {
        "float": 1.0,
        "int": 1,
        "numpy": np.float64(1),
        "float32": np.float32(1),
        "jax": jnp.asarray(1),
        "list": [1.0],
    }[kind]
    _, ranks = pinv(matrix(rng, (5, 4), [4, 2, 0.8, 0.5]), atol=one, return_rank=True)
    assert np.all(ranks == 2)


def loss(a, rtol, atol):
    """A number that depends on the cutoff."""
    return jnp.sum(jaxpinv.pinv(a, rtol, atol=atol) ** 2)


@pytest.mark.unoptimized
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (3,)], ids=["scalar", "batch"])
def test_tolerances_have_zero_derivatives_of_every_kind(rng, shape):
    a = matrix(rng, (5, 4), SPECTRUM)
    both = np.full(shape, 0.2), np.full(shape, 0.1)

    @jax.jit
    def derivatives(a, both):
        def f(a, both):
            return loss(a, *both)

        mixed = jax.jacfwd(jax.grad(f), 1)(a, both)
        return mixed, jax.grad(f, 1)(a, both), jax.hessian(f, 1)(a, both)

    mixed, *others = derivatives(a, both)
    assert [x.shape for x in mixed] == [(5, 4, *shape)] * 2
    assert not any(np.any(x) for x in jax.tree.leaves((mixed, others)))


@pytest.mark.unoptimized
@pytest.mark.slow
def test_a_traced_rtol_works_in_every_order_of_transformations(rng):
    a = matrix(rng, (3, 5, 4), SPECTRUM)
    rtols = jnp.array([0.01, 0.2, 0.4])
    gradient = jax.grad(loss)
    alone = jax.jit(gradient)
    expected = np.stack([alone(x, r, 0.0) for x, r in zip(a, rtols, strict=True)])

    @jax.jit
    def by_batch(a, rtols):
        def mapped(a):
            return jnp.sum(jax.vmap(loss, (0, 0, None))(a, rtols, 0.0))

        def of_one(a):
            return jnp.sum(jax.vmap(loss, (None, 0, None))(a, rtols, 0.0))

        of_all = [
            jax.vmap(gradient, (0, 0, None))(a, rtols, 0.0),
            jax.grad(mapped)(a),
            jax.grad(loss)(a, rtols, 0.0),
        ]
        return jax.grad(of_one)(a[0]), of_all

    grad_of_one, of_all = by_batch(a, rtols)
    vmap_jit_grad = jax.vmap(alone, (0, 0, None))(a, rtols, 0.0)
    one_by_one = sum(alone(a[0], r, 0.0) for r in rtols)
    np.testing.assert_allclose(grad_of_one, one_by_one, rtol=1e-12, atol=1e-12)
    for result in (*of_all, vmap_jit_grad):
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.unoptimized
@pytest.mark.slow
def test_a_traced_rtol_works_in_scan_cond_and_while_loop(rng):
    a = matrix(rng, (5, 4), SPECTRUM)
    rtols = jnp.array([0.01, 0.2, 0.4])

    def by_scan(a):
        return jax.lax.scan(lambda total, r: (total + loss(a, r, 0.0), None), 0.0, rtols)[0]

    def by_cond(a, r):
        return jax.lax.cond(
            r < 0.1, lambda r: loss(a, r, 0.0), lambda r: loss(a, 2 * r, 0.0), r
        )

    def by_while(a):
        def body(state):
            r, total = state
            return r * 2, total + loss(a, r, 0.0)

        return jax.lax.while_loop(lambda s: s[0] < 1, body, (jnp.asarray(0.3), 0.0))[1]

    gradient = jax.jit(jax.grad(loss))
    looped = sum(gradient(a, r, 0.0) for r in rtols)
    np.testing.assert_allclose(
        jax.jit(jax.grad(by_scan))(a), looped, rtol=1e-12, atol=1e-12
    )
    gradient_by_cond = jax.jit(jax.grad(by_cond))
    for r in rtols:
        expected = gradient(a, r if r < 0.1 else 2 * r, 0.0)
        result = gradient_by_cond(a, r)
        np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)
    direction = rng.standard_normal(a.shape)
    result = jax.jit(lambda a: jax.jvp(by_while, (a,), (direction,))[1])(a)
    expected = sum(np.sum(gradient(a, r, 0.0) * direction) for r in (0.3, 0.6))
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_pinverse_warns_and_truncates_at_rcond(rng):
    a = matrix(rng, (5, 4), SPECTRUM)
    with pytest.warns(DeprecationWarning, match=r"jaxpinv\.pinv") as caught:
        x = jaxpinv.pinverse(a, 0.2)
    assert [warning.filename for warning in caught] == [__file__]
    assert np.array_equal(x, jaxpinv.pinv(a, rtol=0.2))


@pytest.mark.filterwarnings("ignore:jaxpinv.pinverse:DeprecationWarning")
def test_pinverse_keeps_by_default_what_is_above_1e_15():
    a = np.diag([1.0, 2e-15, 0.5e-15])
    assert np.linalg.matrix_rank(np.asarray(jaxpinv.pinverse(a)), tol=1e-3) == 2
