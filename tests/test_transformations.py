"""Under JAX's transformations: jit, linearize, checkpoint, custom rules, jaxprs."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests.comparison import bound, pair, relative_error
from tests.differentiation import hessian_vector_product, loss_by
from tests.matrices import gaussian, matrix
from tests.programs import svd_calls

pytestmark = pytest.mark.unoptimized

SPECTRUM = [4, 2, 1, 0.5]


@pytest.fixture
def a(rng):
    return matrix(rng, (5, 4), SPECTRUM)


@pytest.fixture
def loss(pinv):
    """A number that depends on every element of the pseudo-inverse."""
    return loss_by(pinv)


def names(jaxpr):
    """Names of the primitives of a jaxpr, in order, without those that only move data."""
    moving = {"transpose", "reshape", "broadcast_in_dim", "squeeze", "expand_dims", "copy"}
    found = []
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        name = equation.primitive.name
        found += names(inner) if inner is not None else [name]
    return [name for name in found if name not in moving]


#: Primitives that return an operand unchanged, with a derivative of its own.
ATTACHED = {"with_tangent_of", "pseudo_inverse_of"}


class TestJaxprs:
    """The primitives of a transformed function."""

    def test_a_gradient_is_two_equations(self, a):
        jaxpr = jax.make_jaxpr(lambda a, ct: jax.vjp(jaxpinv.pinv, a)[1](ct))(a, a.T)
        assert [x for x in names(jaxpr) if x not in ATTACHED] == ["factor", "pinv_form"]

    def test_a_tangent_is_two_equations(self, a):
        jaxpr = jax.make_jaxpr(lambda a, e: jax.jvp(jaxpinv.pinv, (a,), (e,)))(a, a)
        assert [x for x in names(jaxpr) if x not in ATTACHED] == ["factor", "pinv_form"]

    def test_a_gradient_changes_with_matrix_and_cotangent_in_one_equation(self, a):
        def change(a, ct, e, dct):
            return jax.jvp(lambda a, ct: jax.vjp(jaxpinv.pinv, a)[1](ct), (a, ct), (e, dct))

        jaxpr = jax.make_jaxpr(change)(a, a.T, a, a.T)
        found = [x for x in names(jaxpr) if x not in ATTACHED]
        # One of the forms is the derivative of the value.
        assert sorted(found) == ["factor", "pinv_form", "pinv_form", "pinv_form_change"]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("pinv", "order", "hermitian"),
        [
            ("pinv", 3, False),
            ("lstsq", 1, True),
        ],
        indirect=["pinv"],
    )
    def test_value_and_derivatives_share_one_factorization(self, loss, a, hermitian, order):
        f = partial(loss, hermitian=hermitian)
        for _ in range(order):
            f = partial(lambda f, a: jax.value_and_grad(lambda x: jnp.sum(f(x)))(a)[1], f)
        run = jax.jit(lambda a: (loss(a, hermitian=hermitian), jax.jvp(f, (a,), (a,))))
        compiled = str(run.lower(a).compile().as_text())
        by_eigenvectors = compiled.count('custom_call_target="lapack_dsyevd_ffi"')
        found = by_eigenvectors, len(svd_calls(compiled))
        assert found == ((1, 0) if hermitian else (0, 1))

    @pytest.mark.parametrize(
        "f",
        [jax.value_and_grad, lambda f: lambda a: jax.jvp(jax.grad(f), (a,), (a,))],
        ids=["value_with_gradient", "gradient_with_hessian_vector_product"],
    )
    def test_one_factorization_is_traced(self, a, loss, f):
        assert names(jax.make_jaxpr(f(loss))(a)).count("factor") == 1

    def test_the_backward_pass_keeps_only_the_factors(self, a):
        _, pullback = jax.vjp(jaxpinv.pinv, a)
        m, n = a.shape
        numbers = sum(x.size for x in jax.tree.leaves(pullback) if hasattr(x, "size"))
        # One more number says whether U is the identity.
        assert numbers == m * n + n * n + 2 * n + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pinv", "dtype"),
    [("pinv", np.complex128), ("lstsq", np.float64)],
    indirect=["pinv"],
)
def test_linearized_map_has_the_transpose(pinv, rng, dtype):
    a, e = matrix(rng, (5, 4), SPECTRUM, dtype), gaussian(rng, (5, 4), dtype)
    ct = gaussian(rng, (4, 5), dtype)
    x, pushforward = jax.linearize(pinv, a)
    [back] = jax.linear_transpose(pushforward, e)(ct)
    assert np.array_equal(x, pinv(a))
    assert abs(pair(ct, pushforward(e)) - pair(back, e)) <= bound(np.float64, 100)
    assert relative_error(pushforward(e), jax.jvp(pinv, (a,), (e,))[1]) == 0


WRAPPERS = {
    "checkpoint_nothing": partial(
        jax.checkpoint, policy=jax.checkpoint_policies.nothing_saveable
    ),
    "jit_checkpoint": lambda f: jax.jit(jax.checkpoint(f)),
    "map": lambda f: lambda a: jax.lax.map(f, a[None])[0],
    "cond": lambda f: (
        lambda a: jax.lax.cond(jnp.sum(a) < jnp.inf, f, lambda a: jnp.sum(a), a)
    ),
    "fori_loop": lambda f: lambda a: jax.lax.fori_loop(0, 1, lambda i, t: t + f(a), 0.0),
}


def derived(f, order):
    """The gradient, or the gradient of its derivatives along the matrix."""
    for _ in range(order - 1):
        f = partial(lambda f, a: jax.jvp(f, (a,), (jax.lax.stop_gradient(a),))[1], f)
    return jax.jit(jax.grad(f))


@functools.cache
def derived_alone(pinv, order):
    """The gradient, or that of its derivatives, of the loss without a wrapper."""
    return derived(loss_by(pinv), order)


@pytest.mark.slow_unless("cond-pinv-2")
@pytest.mark.parametrize(
    ("wrap", "pinv", "order"),
    [
        *((name, "pinv", 2) for name in ("checkpoint_nothing", "map", "cond", "fori_loop")),
        # The cases that take the longest to compile.
        ("jit_checkpoint", "pinv", 3),
        ("cond", "lstsq", 2),
    ],
    indirect=["pinv"],
)
def test_derivatives_pass_through(pinv, loss, a, wrap, order):
    result = derived(WRAPPERS[wrap](loss), order)(a)
    assert relative_error(result, derived_alone(pinv, order)(a)) <= bound(np.float64, 1e3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pinv", "through"),
    [("pinv", "scan"), ("lstsq", "cond")],
    indirect=["pinv"],
)
def test_reverse_over_reverse_through_cond_and_scan(loss, pinv, a, through):
    def by_cond(a):
        return jax.lax.cond(a[0, 0] < 9, lambda a: (loss(a), a), lambda a: (0.0, 2 * a), a)[
            0
        ]

    def by_scan(a):
        def body(carry, scale):
            x = pinv(carry * scale)
            return x.T, loss(x.T)

        return jnp.sum(jax.lax.scan(body, a, jnp.array([1.0, 0.5]))[1])

    def by_loop(a):
        x = pinv(a).T
        return loss(x) + loss(pinv(x * 0.5).T)

    def second(f):
        return jax.jit(jax.grad(lambda a: jnp.sum(jax.grad(f)(a) ** 2)))(a)

    f, reference = {"cond": (by_cond, loss), "scan": (by_scan, by_loop)}[through]
    assert relative_error(second(f), second(reference)) <= bound(np.float64, 1e3)


def projector(a):
    basis = jaxpinv.null_space(a.T).basis
    return basis @ basis.T


STEPS = {
    "null_projection": lambda a: jaxpinv.null_projection(a.T[:2], a),
    "null_space": lambda a: projector(a[:, :2]) @ a,
    "singular_values": lambda a: a * jaxpinv.lstsq(a, a[:, :1]).singular_values[None],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_reverse_over_reverse_through_a_scan_is_forward_over_reverse_of_steps(name, a):
    # JAX evaluates the known part of a loop first, and drops rules of custom_jvp there.
    def step(x):
        return 0.9 * x + 0.1 * STEPS[name](x)

    def by_scan(a):
        return jnp.sum(jnp.sin(jax.lax.scan(lambda x, _: (step(x), None), a, None, 2)[0]))

    def by_steps(a):
        return jnp.sum(jnp.sin(step(step(a))))

    @jax.jit
    def second(a):
        return jax.grad(lambda a: jnp.vdot(jax.grad(by_scan)(a), a[::-1]))(a)

    gradient, expected = jax.jit(partial(jax.jvp, jax.grad(by_steps)))((a,), (a[::-1],))
    # Subtract the term from the direction, which depends on the matrix, too.
    found = second(a) - gradient[::-1]
    assert relative_error(found, expected) <= bound(np.float64, 1e4)


def test_custom_jvp_and_custom_vjp_around_it_are_respected(a):
    @jax.custom_jvp
    def doubled(a):
        return jaxpinv.pinv(a)

    @doubled.defjvp
    def _(primals, tangents):
        x, dx = jax.jvp(jaxpinv.pinv, primals, tangents)
        return x, 2 * dx

    @jax.custom_vjp
    def tripled(a):
        return jaxpinv.pinv(a)

    def forward(a):
        return jax.vjp(jaxpinv.pinv, a)

    tripled.defvjp(forward, lambda pullback, ct: (3 * pullback(ct)[0],))
    gradient = jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a)))(a)
    for f, factor in [(doubled, 2), (tripled, 3)]:
        result = jax.grad(lambda a, f=f: jnp.sum(f(a)))(a)
        assert relative_error(result, factor * gradient) <= bound(np.float64, 10)


def test_a_custom_vjp_may_give_it_no_cotangent(pinv, a):
    @jax.custom_vjp
    def ignored(x):
        return jnp.sum(x)

    ignored.defvjp(lambda x: (jnp.sum(x), None), lambda residuals, ct: (None,))
    gradient = jax.grad(lambda a: jnp.sum(a**2) + ignored(pinv(a)))(a)
    assert np.array_equal(gradient, 2 * a)


@pytest.mark.slow_unless("pinv-bfloat16")
@pytest.mark.parametrize(
    ("pinv", "precision"),
    [
        ("pinv", "default"),
        ("pinv", "bfloat16"),
        ("pinv", "tensorfloat32"),
        ("lstsq", "bfloat16"),
    ],
    indirect=["pinv"],
)
def test_every_product_is_in_highest_precision(loss, a, precision):
    with jax.default_matmul_precision(precision):
        text = jax.jit(jax.hessian(loss)).lower(a).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pinv", "hermitian", "derive"),
    [("lstsq", True, jax.grad), ("pinv", False, hessian_vector_product)],
    indirect=["pinv"],
)
def test_everything_works_with_jit_disabled(loss, a, hermitian, derive):
    derived = derive(partial(loss, hermitian=hermitian))
    expected = jax.jit(derived)(a)
    with jax.disable_jit():
        assert relative_error(derived(a), expected) <= bound(np.float64, 1e3)


@pytest.mark.slow
def test_eager_calls_of_one_shape_compile_once(rng):
    derive = jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a)))
    derive(rng.standard_normal((5, 3)))
    events = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *args, **kwargs: events.append(event)
    )
    try:
        derive(rng.standard_normal((5, 3)))
        assert not any("backend_compile" in event for event in events)
        derive(rng.standard_normal((6, 3)))
        assert any("backend_compile" in event for event in events)
    finally:
        jax.monitoring.clear_event_listeners()
