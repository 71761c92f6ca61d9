"""Derivatives of a `Factorization` with a damping, in every mode, at every matrix."""

from functools import partial

import flint
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests import damping_oracle
from tests.comparison import pair, relative_error
from tests.differentiation import two_derivatives
from tests.matrices import gaussian
from tests.stored_damping_cases import DTYPES, RANKS, SHAPES, of_rank

pytestmark = pytest.mark.unoptimized


def derivatives(name, a, c, d, e, dc, dd):
    """The first and the second derivative, by the oracle."""
    # From the shorter side, where a damping of zero is regular too.
    of, along = (a, e) if a.shape[0] >= a.shape[1] else (a.conj().T, e.conj().T)
    ds, dds = (np.full(min(a.shape), y) for y in (d, dd))
    x = damping_oracle.damped(of, ds)
    x1, x2 = (damping_oracle.derivative(of, ds, along, dds, order) for order in (1, 2))
    if of is not a:
        x, x1, x2 = (y.conj().T for y in (x, x1, x2))
    if name == "pinv":
        return x1, x2
    if name == "solve":
        return x1 @ c + x @ dc, x2 @ c + 2 * x1 @ dc
    y, y1, y2 = x @ a, x1 @ a + x @ e, x2 @ a + 2 * x1 @ e
    return dc - y1 @ c - y @ dc, -y2 @ c - 2 * y1 @ dc


def damped_by(name, *, is_known, method, inside):
    """A result of a factorization as a function of the matrix, a vector and a damping."""
    make = partial(jaxpinv.factorize, method=method)
    make = jax.jit(make) if inside else make

    def f(a, c, d):
        factored = make(a)
        damp = {"damp": 0.7 if is_known else d}
        if name == "pinv":
            return factored.pinv(**damp)
        return getattr(factored, name)(c, **damp)

    return f


@partial(jax.jit, static_argnames=("name", "modes", "is_known", "method", "inside"))
def all_derivatives(name, modes, at, along, ct, **options):
    """The first and the second derivative along `along`, by each of the modes.

    Those by "forward" are of the result, and others of its gradient along `ct`.
    """
    f = damped_by(name, **options)

    def gradient(*at):
        return jax.vjp(f, *at)[1](ct)

    def pushed(*at):
        slopes = gradient(*at)
        pairs = zip(slopes, along, strict=True)
        return sum(jnp.sum(jnp.real(g * t)) for g, t in pairs), slopes

    def reverse():
        second, first = jax.grad(pushed, argnums=(0, 1, 2), has_aux=True)(*at)
        return first, second

    ways = {
        "forward": lambda: two_derivatives(f, at, along)[1:],
        "forward over reverse": lambda: jax.jvp(gradient, at, along),
        "reverse": reverse,
    }
    return {mode: ways[mode]() for mode in modes}


# Function, modes, whether the damping is known, and other options that change the program.
# A traced damping has large programs, with one mode each.
DERIVATIVES = [
    pytest.param(
        *(name, modes, damp == "known", method, SHAPES[shape], DTYPES[dtype]),
        id=f"{name}-{damp}-{method}-{shape}-{dtype}",
    )
    for name, damp, method, shape, dtype, modes in [
        ("pinv", "known", "direct", "tall", "real", ("forward", "reverse")),
        ("pinv", "traced", "svd", "wide", "complex", ("forward over reverse",)),
        ("solve", "known", "svd", "wide", "complex", ("forward over reverse", "reverse")),
        ("solve", "traced", "direct", "tall", "complex", ("forward",)),
        (
            *("null_projection", "known", "direct", "square", "complex"),
            ("forward", "forward over reverse"),
        ),
        ("null_projection", "traced", "svd", "tall", "real", ("reverse",)),
    ]
]


@pytest.mark.slow_unless("deficient-solve-known")
@pytest.mark.parametrize(
    ("name", "modes", "is_known", "method", "shape", "dtype"), DERIVATIVES
)
@pytest.mark.parametrize("rank", RANKS.values(), ids=RANKS)
def test_derivatives_exist_at_every_matrix(
    rng, name, modes, is_known, method, shape, rank, dtype
):
    # The oracle's differences pass through the deficient matrix.
    m, n = shape
    a, e = of_rank(rng, shape, rank, dtype), gaussian(rng, shape, dtype)
    length = m if name == "solve" else n
    c, dc = (gaussian(rng, (length, 1), dtype) for _ in range(2))
    options = {"is_known": is_known, "method": method, "inside": method == "direct"}
    damps = [(0.7, 0.0 if is_known else 0.4)]
    if rank == 9 and not is_known:
        # A damping of zero, at which the same program serves.
        damps.append((0.0, 1.0))
    for d, dd in damps:
        exact = derivatives(name, a, c, d, e, dc, dd)
        ct, along = gaussian(rng, exact[0].shape, dtype), (e, dc, dd)
        found = all_derivatives(name, modes, (a, c, d), along, ct, **options)
        # A first derivative that vanishes is compared with the size of the second.
        least = np.max(np.abs(exact[1])) if d == 0 else 0
        for x, known in zip(found.pop("forward", ()), exact, strict=False):
            size = max(np.max(np.abs(known)), least)
            assert np.max(np.abs(x - known)) <= 1e-9 * size
        for slopes in found.values():
            for x, known in zip(slopes, exact, strict=True):
                pushed = sum(pair(g, t) for g, t in zip(x, along, strict=True))
                size = max(np.sum(np.abs(ct * known)), least)
                assert abs(pushed - pair(ct, known)) <= 1e-9 * size


@pytest.mark.slow
def test_it_passes_through_the_carry_of_a_scan(rng):
    # Like the search for the step of a trust region.
    a, e, b = gaussian(rng, (9, 10)), gaussian(rng, (9, 10)), gaussian(rng, (9,))
    damps = np.array([0.5, 1.0, 2.0])

    def by_scan(a):
        def step(carry, damp):
            factored, d = carry
            x = factored.solve(b, damp=damp * d)
            return (factored, jnp.sum(x**2)), x

        start = jaxpinv.factorize(a), jnp.asarray(1.0)
        (factored, last), found = jax.lax.scan(step, start, damps)
        return jnp.sum(found**3) + last * jnp.sum(factored.solve(b, damp=last))

    def by_loop(a):
        d, total, column = flint.acb(1), 0, flint.acb_mat(b[:, None].tolist())
        for damp in damps:
            y = (damping_oracle.by_definition(a, [damp * d] * 10) * column).entries()
            d, total = sum(x**2 for x in y), total + sum(x**3 for x in y)
        y = (damping_oracle.by_definition(a, [d] * 10) * column).entries()
        return total + d * sum(y)

    # In `test_factorize_derivatives` such a carry has second derivatives.
    value, gradient = jax.jit(jax.value_and_grad(by_scan))(a)
    exact, slope, _ = damping_oracle.differences(by_loop, a, e)
    assert relative_error(value, exact) <= 1e-8
    assert relative_error(pair(gradient, e), slope) <= 1e-8
