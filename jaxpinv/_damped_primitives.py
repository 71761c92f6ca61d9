"""The primitives of damped matrices: factors of `[A; D]`, and their derivatives."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._factorization import auto, damped, damped_qr
from jaxpinv._factorization.damped import Factor
from jaxpinv._factors import Cutoff, Factors, Triplets
from jaxpinv._linalg import adjoint, identity, matmul
from jaxpinv._platform.plan import Method, Plan
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import Tuning
from jaxpinv._primitives import (
    gram_schmidt_on,
    pinv_form,
    plan_of,
    trial_of,
    triplets_of_plan,
    values_of_plan,
)

# damped_factor: a (..., m, n), d (..., n) or (..., 1), rtol (...), atol (...)
#     -> the factors of [A; D], the first m columns of its pseudo-inverse, and
#     (A^H A + D^2)^-1, arbitrary unless it is `everywhere`


def _damped_factor_impl(
    a, d, rtol, atol, *, everywhere, hermitian, method, tuning, target: Target
):
    m, n = a.shape[-2:]
    batch = jnp.broadcast_shapes(a.shape[:-2], d.shape[:-1])
    # One decomposition serves all dampings of a matrix.
    many = batch != a.shape[:-2] and d.shape[-1] == 1
    if many or not target.is_local:
        method = "svd"
    plan = plan_of((*batch, m, n), a, target, method, tuning)
    own = plan_of(a.shape, a, target, method, tuning)
    augmented = plan_of((*batch, m + n, n), a, target, "svd", tuning)
    decompose = triplets_of_plan(own, hermitian=hermitian)
    trial = trial_of(plan, target, hermitian=hermitian)

    def undamped(a: Array, cutoff: Cutoff) -> tuple[Factors, Array]:
        trial = trial_of(own, target, hermitian=hermitian)
        return auto.factor(a, *cutoff, decompose=decompose, trial=trial)

    # With singular triplets, a zero damping gives the undamped factors anyway. Where the
    # partitioner divides the batch, all devices would wait for the test for zeros.
    needs_own = trial is not None or d.shape[-1] > 1
    needs_own = needs_own and not everywhere and m >= n and target.is_whole
    factors, x, p = damped.factor(
        a,
        d,
        Cutoff(rtol, atol),
        decompose=decompose,
        of_augmented=triplets_of_plan(augmented, hermitian=False),
        attempt=_attempt(plan, target, truncates=not everywhere),
        trial=trial,
        undamped=undamped if needs_own else None,
    )
    # Not every route returns the batch axes of all operands.
    whole = jnp.broadcast_shapes(batch, rtol.shape, atol.shape)
    rank_of = {"u": 2, "s": 1, "v": 2, "kept": 1, "is_inverse": 0}
    ranks = (*(rank_of[name] for name in Factors._fields), 2, 2)
    return tuple(
        jnp.broadcast_to(y, (*whole, *y.shape[y.ndim - rank :]))
        for y, rank in zip((*factors, x, p), ranks, strict=True)
    )


def _attempt(plan: Plan, target: Target, *, truncates: bool) -> Factor | None:
    """The factorization to try without singular values, if any."""
    if plan.full_rank is None:
        return None
    if plan.full_rank == "gram_schmidt":
        return partial(damped_qr.by_rows, gram_schmidt=gram_schmidt_on(target))
    return partial(damped_qr.by_gram, truncates=truncates, halves=plan.halves)


damped_factor_p = _rules.primitive(
    "damped_factor", _damped_factor_impl, multiple_results=True
)


# values: a (..., m, n) -> all its singular values, descending


def _values_impl(a, *, method: Method, tuning, target):
    return values_of_plan(a, plan_of(a.shape, a, target, method, tuning))


values_p = _rules.primitive("values", _values_impl)


# triplets: a (..., m, n), and u, s and v of its factors -> its singular triplets


def _triplets_impl(a, u, s, v, *, hermitian, tuning, target: Target):
    plan = plan_of(a.shape, a, target, "svd", tuning)
    decompose = triplets_of_plan(plan, hermitian=hermitian)
    if not target.is_local:
        return decompose(a)
    gram = matmul(adjoint(v), v)
    off = jnp.max(jnp.abs(gram - identity(v)), axis=(-2, -1), initial=0)
    # Factors with a unitary V are triplets, unless a tiny singular value was set to 0.
    are_zeros = jnp.all(s > 0, axis=-1) | jnp.all(a == 0, axis=(-2, -1))
    serves = (off <= 64 * jnp.finfo(s.dtype).eps) & are_zeros
    serves = serves | jnp.any(jnp.isnan(s), axis=-1)

    def complete() -> Triplets:
        # Triplets that serve stay, so that no matrix depends on the others of its batch.
        here, others = serves[..., None, None], decompose(a)
        return (
            jnp.where(here, u, others[0]),
            jnp.where(here[..., 0], s, others[1]),
            jnp.where(here, v, others[2]),
        )

    return jax.lax.cond(jnp.all(serves), lambda: (u, s, v), complete)


triplets_p = _rules.primitive("triplets", _triplets_impl, multiple_results=True)


# top_inverse_of: x, the first columns of a pseudo-inverse, and its factors
#     -> x, with derivatives in the factored matrix


def top_inverse_of(factors: Factors, x: Array, tuning: Tuning) -> Array:
    """The first columns `x` of a pseudo-inverse, with derivatives in its matrix."""
    [x] = top_inverse_of_p.bind(x, *factors, tuning=tuning)
    return x


def _top_inverse_of_change(results, primals, e, *, tuning):
    _, *factors = primals
    change = pinv_form(factors, [None, e], truncates=True, tuning=tuning)
    return [jax.lax.slice_in_dim(change, 0, results[0].shape[-1], axis=-1)]


top_inverse_of_p = _rules.attached("top_inverse_of", 1, 1, _top_inverse_of_change)
