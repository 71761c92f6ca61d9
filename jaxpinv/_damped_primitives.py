"""The primitives of damped matrices: factors of `[A; D]`, and their derivatives."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from jaxpinv import _rules
from jaxpinv._calculus import damped as damped_calculus
from jaxpinv._factorization import auto, damped, damped_qr
from jaxpinv._factorization.choice import where_holds
from jaxpinv._factorization.damped import Factor
from jaxpinv._factors import Cutoff, Factors, Triplets
from jaxpinv._linalg import adjoint, identity, matmul, pad_rows, transpose, with_tangent_of
from jaxpinv._platform.plan import Method, Plan
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import Tuning
from jaxpinv._primitives import (
    gram_schmidt_of_plan,
    pinv_form,
    plan_of,
    trial_of,
    triplets_of_plan,
    values_of_plan,
)
from jaxpinv._shapes import like

Results = tuple[Array, ...]

# damped_factor: a (..., m, n), d (..., n) or (..., 1), rtol (...), atol (...)
#     -> the factors of [A; D], the first m columns of its pseudo-inverse, and
#     (A^H A + D^2)^-1, arbitrary where a value is truncated


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
        return partial(damped_qr.by_rows, gram_schmidt=gram_schmidt_of_plan(plan, target))
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


# top_inverse_of: x, the first m columns of the pseudo-inverse of [A; D], and what its
#     derivative needs: p, [A; d] with the diagonal d of D, rtol and atol, and the factors
#     -> x, with derivatives in [A; d]


def top_inverse_of(
    x: Array, p: Array, a: Array, d: Array, cutoff: Cutoff, factors: Factors, **params: Any
) -> Array:
    """The first columns `x` of the pseudo-inverse of `[A; D]`, with derivatives in both.

    `x`, `p` and `factors` are what `damped_factor` returns, with the same arguments, method
    and tuning.
    """
    row = d[..., None, :].astype(a.dtype)
    row = jnp.broadcast_to(row, (*row.shape[:-1], a.shape[-1]))
    both = damped_qr.stacked(a, row)
    [x] = top_inverse_of_p.bind(x, p, both, *cutoff, *factors, **params)
    return x


def _top_inverse_of_change(results, primals, e, **params):
    return [top_change_p.bind(*primals, e, transposed=False, **params)]


top_inverse_of_p = _rules.attached("top_inverse_of", 1, 2, _top_inverse_of_change)


# top_change: the operands of top_inverse_of, and the tangent of [A; d] -> that of x, or, if
#     transposed, the cotangent of x -> that of [A; d]


def _top_change_impl(x, p, both, rtol, atol, *rest, transposed, method, tuning, target):
    *factors, e = rest
    _, s, _, kept, _ = factors
    m, n = both.shape[-2] - 1, both.shape[-1]
    batch = jnp.broadcast_shapes(x.shape[:-2], e.shape[:-2])
    plan = plan_of((*batch, m, n), x, target, method, tuning)
    trial = trial_of(plan, target, hermitian=False)
    # For wide matrices, products with `p` lose digits: see `DampedMatrix`.
    if trial is None or plan.full_rank == "gram_schmidt" or m < n:
        return _top_change(Factors(*factors), e, transposed, tuning)
    augmented = plan_of((*batch, m + n, n), x, target, "svd", tuning)
    decompose = triplets_of_plan(augmented, hermitian=False)

    def usual(a: Array, d: Array, e: Array, _r, _t, x: Array, p: Array) -> Results:
        d = d[..., None, :]
        if transposed:
            of_a, moved = damped_calculus.gradient(x, p, a, transpose(e))
            return of_a, (2 * d * jnp.real(moved)).astype(e.dtype)
        moved, e = 2 * d * jnp.real(e[..., m:, :]), e[..., :m, :]
        image = matmul(x, e) + p * moved.astype(e.dtype)
        return (damped_calculus.change(x, p, a, e, image),)

    def general(a: Array, d: Array, e: Array, rtol: Array, atol: Array, *_) -> Results:
        # Factored again: what is stored for a few matrices is stored for all.
        factors = damped.by_triplets(a, d, Cutoff(rtol, atol), decompose)
        found = _top_change(factors, e, transposed, tuning)
        return (found[..., :m, :], found[..., m:, :]) if transposed else (found,)

    # Where `p` exists and its products stay in range. What is not finite is NaN anyway.
    limit = 2.0 ** (jnp.finfo(s.dtype).maxexp // 4)
    is_near_1 = ((s > 1 / limit) & (s < limit)) | jnp.isnan(s)
    is_usual = jnp.all(kept & is_near_1, axis=-1)
    # Kept apart, because the loops would copy a joint array.
    a, d = both[..., :m, :], jnp.real(both[..., m, :])
    operands = (a, 2), (d, 1), (e, 2), (rtol, 0), (atol, 0), (x, 2), (p, 2)
    found = where_holds(is_usual, usual, general, operands, trial)
    return jnp.concatenate(found, axis=-2)


def _top_change(factors: Factors, e: Array, transposed: bool, tuning: Tuning) -> Array:
    """The result of `top_change` from factors of any matrix."""
    n = factors.u.shape[-1]
    m = factors.u.shape[-2] - n
    if not transposed:
        e = _augmented(e)
        found = pinv_form(factors, [None, e], truncates=True, tuning=tuning)
        return jax.lax.slice_in_dim(found, 0, m, axis=-1)
    e = pad_rows(transpose(e), below=n)
    found = transpose(pinv_form(factors, [None, e], truncates=True, tuning=tuning))
    below = jnp.diagonal(found[..., m:, :], axis1=-2, axis2=-1)[..., None, :]
    return jnp.concatenate([found[..., :m, :], jnp.real(below).astype(e.dtype)], axis=-2)


def _augmented(both: Array) -> Array:
    """The matrix `[A; D]` from `[A; d]`."""
    m = both.shape[-2] - 1
    return damped_qr.augment(both[..., :m, :], jnp.real(both[..., m, :]))


def _top_change_jvp(primals, tangents, *, transposed, **params):
    *rest, e = primals
    found = top_change_p.bind(*primals, transposed=transposed, **params)
    moved, along = tangents[2], tangents[-1]
    if type(moved) is ad.Zero:
        if type(along) is ad.Zero:
            return found, along
        return found, top_change_p.bind(*rest, along, transposed=transposed, **params)

    def change(both: Array, e: Array) -> Array:
        factors = Factors(*rest[5:])
        factors = factors._replace(u=with_tangent_of(factors.u, _augmented(both)))
        return _top_change(factors, e, transposed, params["tuning"])

    if type(along) is ad.Zero:
        return found, jax.jvp(partial(change, e=e), (rest[2],), (moved,))[1]
    return found, jax.jvp(change, (rest[2], e), (moved, along))[1]


def _top_change_transpose(ct, *operands, transposed, **params):
    *rest, e = operands
    nothing = [None] * len(rest)
    if type(ct) is ad.Zero:
        return [*nothing, None]
    found = top_change_p.bind(*rest, ct, transposed=not transposed, **params)
    return [*nothing, like(found, e.aval)]


top_change_p = _rules.primitive("top_change", _top_change_impl)
ad.primitive_jvps[top_change_p] = _top_change_jvp
ad.primitive_transposes[top_change_p] = _top_change_transpose
