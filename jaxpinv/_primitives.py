"""The primitives: each makes its plan at lowering and carries it out.

`factor` and `kept` take tall matrices and have no derivatives: `attach` adds the tangent of
the matrix to the factors, and `pinv_form` derives everything else from it.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._factorization import (
    auto,
    cholesky_qr,
    complement,
    gram_schmidt,
    lu,
    pivoted_qr,
    ranks,
    svd,
    thin_qr,
    triangular,
)
from jaxpinv._factorization.full_rank import CertifiedFactors, FullRank
from jaxpinv._factorization.thin_qr import Shorten
from jaxpinv._factors import Cutoff, Factors, Triplets
from jaxpinv._linalg import moderate_scale, moderate_scale_uncounted, with_tangent_of
from jaxpinv._pinv_form import pinv_form
from jaxpinv._platform import chunking, replacing
from jaxpinv._platform import plan as plans
from jaxpinv._platform.plan import Method, Plan
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._platform.workarounds import can_lower_qr, prevent_fusion


def _plan(a: Array, target: Target, method: Method, tuning: Tuning = DEFAULT) -> Plan:
    """The plan for a batch of matrices."""
    return plan_of(a.shape, a, target, method, tuning)


def plan_of(
    shape: tuple, a: Array, target: Target, method: Method, tuning: Tuning = DEFAULT
) -> Plan:
    """The plan for a batch of that shape, with the dtype of `a`."""
    return plans.factorization(
        shape, target, is_complex=jnp.iscomplexobj(a), method=method, tuning=tuning
    )


# factor: a (..., m, n), rtol (...), atol (...) -> the factors, and pinv(a) if wanted


def _factor_impl(a, rtol, atol, *, hermitian, method, with_pinv, tuning, target):
    plan = _plan(a, target, method, tuning)
    decompose = triplets_of_plan(plan, hermitian=hermitian)
    trial = trial_of(plan, target, hermitian=hermitian)
    factors, x = auto.factor(a, rtol, atol, decompose=decompose, trial=trial)
    return (*factors, x) if with_pinv else tuple(factors)


def triplets_of_plan(plan: Plan, *, hermitian: bool) -> Callable[[Array], Triplets]:
    """The function that computes singular triplets as a plan says."""
    return partial(
        svd.triplets,
        hermitian=hermitian,
        route=plan.triplets,
        shorten=shorten_of_plan(plan),
        calls=partial(chunking.in_calls, plan.svd_call),
        retries=plan.retries,
        by_qr_iteration=plan.by_qr_iteration,
    )


def shorten_of_plan(plan: Plan) -> Shorten:
    """The QR factorization of tall matrices that a plan says."""
    calls = partial(chunking.in_calls, plan.rows_call)
    return partial(thin_qr.shorten, rows=plan.rows, calls=calls)


def trial_of(plan: Plan, target: Target, *, hermitian: bool) -> auto.Trial | None:
    """How a factorization without singular values is tried, if the plan has one."""
    if plan.full_rank is None:
        return None

    def in_chunks(f: Callable, *operands: Array) -> tuple[Array, ...]:
        return chunking.in_chunks(f, plan.chunk, *operands)

    rank_revealing = partial(pivoted_qr.factor, by_halves=plan.by_halves)
    # Not for Hermitian matrices: eigenvectors take less time than singular vectors.
    tries = plan.pivoted_qr and not hermitian
    return auto.Trial(
        _full_rank(plan, target),
        in_chunks,
        replacing.replacing(
            plan.remainder, plan.groups, is_local=target.is_local, loops=plan.loops
        ),
        flattens=target.is_local,
        rank_revealing=rank_revealing if tries else None,
        packs=plan.packs,
    )


def gram_schmidt_of_plan(
    plan: Plan, target: Target
) -> Callable[[Array, Cutoff], CertifiedFactors]:
    """Gram-Schmidt as a plan says, in the form that suits the target."""
    return partial(
        gram_schmidt.factor,
        isolate=prevent_fusion if target.is_cpu else lambda x: x,
        may_branch=target.is_cpu and target.is_local,
        by_folds=target.is_cpu,
        # Devices that share a batch would gather from each other.
        gathers=target.is_cuda and target.is_local,
        rows_at_once=plan.rows_at_once,
    )


def _full_rank(plan: Plan, target: Target) -> FullRank:
    """The factorization without singular values that a plan names."""
    if plan.full_rank == "gram_schmidt":
        factor = gram_schmidt_of_plan(plan, target)
        return FullRank(factor, is_inverse=False, takes_any_size=True)
    options = {"sharply": plan.sharply, "gives_up_early": plan.pivoted_qr}
    if plan.full_rank == "cholesky_qr":
        orthonormalizer = partial(triangular.orthonormalizer, halves=plan.halves)
        factor = partial(cholesky_qr.factor, orthonormalizer=orthonormalizer)
        return FullRank(partial(factor, **options), is_inverse=False)
    factor = partial(lu.factor, swaps_rows=target.is_cpu)
    return FullRank(partial(factor, **options), is_inverse=True)


factor_p = _rules.primitive("factor", _factor_impl, multiple_results=True)


# singular_values: a (..., m, n), s of its factors (..., min(m, n)) -> all, descending


def _singular_values_impl(a, s, *, method, tuning, is_stored, target):
    # `a` and `method` are those that `factor` got. So the plan is the same, unless the
    # factors may come from another program.
    plan = _plan(a, target, method, tuning)
    if is_stored or plan.full_rank is not None:
        return jnp.broadcast_to(values_of_plan(a, plan), s.shape)
    # The factors have the singular values of all matrices, in any order.
    return jnp.sort(s, axis=-1, descending=True)


def values_of_plan(a: Array, plan: Plan, scale: svd.Scale = moderate_scale) -> Array:
    """The singular values of `a`, `(..., min(m, n))`, computed without vectors."""
    calls, shorten = partial(chunking.in_calls, plan.values_call), shorten_of_plan(plan)
    return svd.values(
        a,
        calls=calls,
        route=plan.values,
        shorten=shorten,
        by_qr_iteration=plan.values_by_qr_iteration,
        scale=scale,
    )


singular_values_p = _rules.primitive("singular_values", _singular_values_impl)


# kept: a (..., m, n), rtol (...), atol (...) -> which values are kept (..., n)


def _kept_impl(a, rtol, atol, *, method, tuning, target):
    plan = _plan(a, target, method, tuning)
    scale = moderate_scale_uncounted if plan.uncounted else moderate_scale
    values = partial(values_of_plan, plan=plan, scale=scale)
    kept = partial(ranks.kept_values, a, rtol, atol, values=values)
    if not plan.by_rank:
        return kept()

    def certify(a: Array, rtol: Array, atol: Array) -> Array:
        found = gram_schmidt_of_plan(plan, target)(a, Cutoff(rtol, atol))
        assert found.s is not None
        rank = jnp.sum(found.s > 0, axis=-1, dtype=jnp.int32)
        return jnp.where(found.certified, rank, -1)

    return kept(
        certify=partial(chunking.while_most, certify, plan.rank_chunk, tuning.rank_share),
        replace=replacing.replacing(
            plan.rank_remainder,
            plan.groups,
            is_local=target.is_local,
            loops=plan.loops,
        ),
        flattens=target.is_local,
    )


kept_p = _rules.primitive("kept", _kept_impl)


# complement: columns (..., n, k), which are kept (..., k) -> a basis of the orthogonal
#     complement of the kept columns (..., n, n), and its dimension (...)


def _complement_impl(columns, kept, *, target):
    plan = _plan(columns, target, "svd")
    calls = partial(chunking.in_calls, plan.qr_call)
    by_qr = can_lower_qr(columns)
    return complement.complement(columns, kept, calls=calls, by_qr=by_qr)


complement_p = _rules.primitive("complement", _complement_impl, multiple_results=True)


# Derivatives of factors and pseudo-inverses in their matrix


def attach(factors: Factors, a: Array) -> Factors:
    """Attach the tangent of `a` to its factors, which were computed without derivatives."""
    return factors._replace(u=with_tangent_of(factors.u, a))


def pseudo_inverse_of(factors: Factors, x: Array, tuning: Tuning) -> Array:
    """Attach a derivative to the pseudo-inverse `x` of the matrix with these factors."""
    [x] = pseudo_inverse_of_p.bind(x, *factors, tuning=tuning)
    return x


def _pseudo_inverse_of_change(results, primals, e, *, tuning):
    _, *factors = primals
    return [pinv_form(factors, [None, e], truncates=True, tuning=tuning)]


pseudo_inverse_of_p = _rules.attached("pseudo_inverse_of", 1, 1, _pseudo_inverse_of_change)
