"""The primitives: each makes its plan at lowering, and carries it out.

`factor`, `kept` and `pinv_form` take tall matrices. Only `pinv_form` has derivatives, which
are forms again: what else changes with a matrix is attached by `attach`.
"""

import functools
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from jaxpinv import _products, _rules
from jaxpinv._calculus import form
from jaxpinv._calculus.form import Outer, Slot
from jaxpinv._factorization import (
    auto,
    cholesky_qr,
    complement,
    gram_schmidt,
    lu,
    pivoted_qr,
    ranks,
    svd,
    triangular,
)
from jaxpinv._factorization.full_rank import Attempt, FullRank
from jaxpinv._factors import ApplyGram, Cutoff, Factors
from jaxpinv._linalg import transpose, with_tangent_of
from jaxpinv._platform import chunking
from jaxpinv._platform import plan as plans
from jaxpinv._platform.plan import Method, Plan
from jaxpinv._platform.target import Target
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._platform.workarounds import can_lower_qr, prevent_fusion

_FACTORS = len(Factors._fields)


def _plan(a: Array, target: Target, method: Method, tuning: Tuning = DEFAULT) -> Plan:
    """The plan for a batch of matrices."""
    return plan_of(a.shape, a, target, method, tuning)


def plan_of(
    shape: tuple, a: Array, target: Target, method: Method, tuning: Tuning = DEFAULT
) -> Plan:
    """The plan for a batch of that shape, of the dtype of `a`."""
    return plans.factorization(
        shape, target, is_complex=jnp.iscomplexobj(a), method=method, tuning=tuning
    )


# factor: a (..., m, n), rtol (...), atol (...) -> the factors, and pinv(a) if wanted


def _factor_impl(a, rtol, atol, *, hermitian, method, with_pinv, tuning, target):
    plan = _plan(a, target, method, tuning)
    decompose = partial(
        svd.triplets,
        hermitian=hermitian,
        calls=partial(chunking.in_calls, plan.svd_call),
        retries=plan.retries,
    )
    trial = trial_of(plan, target, hermitian=hermitian)
    factors, x = auto.factor(a, rtol, atol, decompose=decompose, trial=trial)
    return (*factors, x) if with_pinv else tuple(factors)


def trial_of(plan: Plan, target: Target, *, hermitian: bool) -> auto.Trial | None:
    """How a factorization without singular values is tried, if the plan has one."""
    if plan.full_rank is None:
        return None

    def in_chunks(f: Callable, *operands: Array) -> tuple[Array, ...]:
        return chunking.in_chunks(f, plan.chunk, *operands)

    deficient = partial(pivoted_qr.factor, by_halves=plan.by_halves)
    # Eigenvectors take less time than singular vectors do.
    tries = plan.pivoted_qr and not hermitian
    return auto.Trial(
        _full_rank(plan, target),
        in_chunks,
        chunking.replacing(plan.remainder, plan.groups, is_local=target.is_local),
        flattens=target.is_local,
        deficient=deficient if tries else None,
    )


def gram_schmidt_on(target: Target) -> Callable[[Array, Cutoff], Attempt]:
    """Gram-Schmidt as it runs there."""
    return partial(
        gram_schmidt.factor,
        isolate=prevent_fusion if target.is_cpu else lambda x: x,
        may_branch=target.is_cpu and target.is_local,
        by_folds=target.is_cpu,
    )


def _full_rank(plan: Plan, target: Target) -> FullRank:
    """The factorization without singular values of a plan."""
    if plan.full_rank == "gram_schmidt":
        return FullRank(gram_schmidt_on(target), is_inverse=False, takes_any_size=True)
    options = {"sharply": plan.sharply, "gives_up_early": plan.pivoted_qr}
    if plan.full_rank == "cholesky_qr":
        factor = partial(cholesky_qr.factor, width=plan.width)
        return FullRank(partial(factor, **options), is_inverse=False)
    invert = {
        "at once": triangular.inverse_at_once,
        "by columns": partial(triangular.inverse_by_columns, width=plan.width),
        "by rows": partial(triangular.inverse_by_rows, width=plan.width),
    }[plan.inverse]
    return FullRank(partial(lu.factor, invert=invert, **options), is_inverse=True)


factor_p = _rules.primitive("factor", _factor_impl, multiple_results=True)


# singular_values: a (..., m, n), s of its factors (..., min(m, n)) -> all, descending


def _singular_values_impl(a, s, *, method, tuning, is_stored, target):
    # The plan is that of the factors, unless these may come from another program: `a` and
    # `method` are those that `factor` got.
    plan = _plan(a, target, method, tuning)
    if is_stored or plan.full_rank is not None:
        return jnp.broadcast_to(values_of_plan(a, plan), s.shape)
    # Of all matrices the factors have them, in any order.
    return jnp.sort(s, axis=-1, descending=True)


def values_of_plan(a: Array, plan: Plan) -> Array:
    """Singular values without vectors."""
    calls = partial(chunking.in_calls, plan.values_call)
    return svd.values(a, calls=calls, of_triangular=plan.of_triangular)


singular_values_p = _rules.primitive("singular_values", _singular_values_impl)


# kept: a (..., m, n), rtol (...), atol (...) -> which values are kept (..., n)


def _kept_impl(a, rtol, atol, *, method, tuning, target):
    plan = _plan(a, target, method, tuning)
    kept = partial(
        ranks.kept_values, a, rtol, atol, values=partial(values_of_plan, plan=plan)
    )
    if not plan.by_rank:
        return kept()

    def certify(a: Array, rtol: Array, atol: Array) -> Array:
        found = gram_schmidt_on(target)(a, Cutoff(rtol, atol))
        assert found.s is not None
        rank = jnp.sum(found.s > 0, axis=-1, dtype=jnp.int32)
        return jnp.where(found.certified, rank, -1)

    return kept(
        certify=partial(chunking.while_most, certify, plan.rank_chunk, tuning.rank_share),
        replace=chunking.replacing(
            plan.rank_remainder, plan.groups, is_local=target.is_local
        ),
        flattens=target.is_local,
    )


kept_p = _rules.primitive("kept", _kept_impl)


# complement: columns (..., n, k), which are kept (..., k) -> a basis of what is orthogonal
#     to these (..., n, n), and its dimension (...)


def _complement_impl(columns, kept, *, target):
    plan = _plan(columns, target, "svd")
    calls = partial(chunking.in_calls, plan.qr_call)
    by_qr = can_lower_qr(columns)
    return complement.complement(columns, kept, calls=calls, by_qr=by_qr)


complement_p = _rules.primitive("complement", _complement_impl, multiple_results=True)


# pinv_form: the factors, and what is in the slots -> the result of the open slot
#
# Linear in every slot. A tangent of a, riding on u, is one slot more. A cotangent fills
# the open slot, and the slot that it is transposed to becomes the open one.


def pinv_form(
    factors: Sequence[Array],
    slots: Sequence[Slot],
    *,
    truncates: bool,
    tuning: Tuning = DEFAULT,
) -> Array:
    """Binds `pinv_form`: see `form.evaluate`."""
    layout, operands = form.pack(slots)
    return pinv_form_p.bind(
        *factors, *operands, layout=layout, truncates=truncates, tuning=tuning
    )


def _pinv_form_impl(*operands, layout, truncates, tuning, target):
    u = operands[0]
    batch = jnp.broadcast_shapes(*(x.shape[: u.ndim - 2] for x in operands))
    plan = plans.form(
        (*batch, *u.shape[-2:]),
        target,
        formula=form.formula(layout, truncates=truncates),
        order=len(layout) - 1,
        tuning=tuning,
    )

    def evaluate_with(apply_gram: ApplyGram, *operands: Array) -> Array:
        return form.evaluate(
            Factors(*operands[:_FACTORS]),
            form.unpack(layout, operands[_FACTORS:]),
            truncates=truncates,
            may_branch=plan.may_branch,
            apply_u=_products.apply_u(plan),
            apply_gram=apply_gram,
        )

    evaluate = _products.with_gram(plan, evaluate_with)
    if plan.chunk is None or not batch:
        return evaluate(*operands)
    return chunking.along_batch(evaluate, plan.chunk, len(batch), *operands)


def _pinv_form_jvp(primals, tangents, *, layout, **params):
    bind = partial(pinv_form_p.bind, **params)
    x = bind(*primals, layout=layout)
    dx = [
        bind(*primals[:i], t, *primals[i + 1 :], layout=layout)
        for i, t in enumerate(tangents)
        if i >= _FACTORS and type(t) is not ad.Zero
    ]
    e = tangents[0]
    if type(e) is not ad.Zero:
        dx.append(bind(*primals, e, layout=(*layout, "dense")))
    zero = ad.Zero(jax.typeof(x).to_tangent_aval())
    return x, functools.reduce(ad.add_tangents, dx, zero)


def _pinv_form_transpose(ct, *operands, layout, **params):
    [linear] = [i for i, x in enumerate(operands) if ad.is_undefined_primal(x)]
    before, after = [None] * linear, [None] * (len(operands) - linear - 1)
    if type(ct) is ad.Zero:
        return [*before, None, *after]
    operand = operands[linear]
    opened, *others = form.unpack(layout, operands[_FACTORS:])
    slots = [form.close(opened, ct), *others]
    [at] = [
        i
        for i, slot in enumerate(slots)
        if slot is operand or (isinstance(slot, Outer) and any(x is operand for x in slot))
    ]
    slot = slots.pop(at)
    is_outer = isinstance(slot, Outer)
    opened = Outer(*(None if x is operand else x for x in slot)) if is_outer else None
    result = pinv_form(operands[:_FACTORS], [opened, *slots], **params)
    result = result if is_outer else transpose(result)
    stretched = [i for i, n in enumerate(operand.aval.shape) if n != result.shape[i]]
    if stretched:
        result = jnp.sum(result, axis=stretched, keepdims=True)
    return [*before, result, *after]


pinv_form_p = _rules.primitive("pinv_form", _pinv_form_impl)
ad.primitive_jvps[pinv_form_p] = _pinv_form_jvp
ad.primitive_transposes[pinv_form_p] = _pinv_form_transpose


# What changes with a matrix: its factors, and its pseudo-inverse


def attach(factors: Factors, a: Array) -> Factors:
    """The factors of `a`, found without derivatives, with the tangent that they owe."""
    return factors._replace(u=with_tangent_of(factors.u, a))


def pseudo_inverse_of(factors: Factors, x: Array, tuning: Tuning) -> Array:
    """The pseudo-inverse `x` that factors have, which changes with their matrix."""
    [x] = pseudo_inverse_of_p.bind(x, *factors, tuning=tuning)
    return x


def _pseudo_inverse_of_change(results, primals, e, *, tuning):
    _, *factors = primals
    return [pinv_form(factors, [None, e], truncates=True, tuning=tuning)]


pseudo_inverse_of_p = _rules.attached("pseudo_inverse_of", 1, 1, _pseudo_inverse_of_change)
