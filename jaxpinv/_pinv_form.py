"""The primitives behind value and derivatives: `pinv_form` and `pinv_form_change`.

Both take the factors of tall matrices. Their derivatives are forms again.
"""

import functools
import operator
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from jaxpinv import _products, _rules
from jaxpinv._calculus import form
from jaxpinv._calculus.form import Layout, Outer, Slot
from jaxpinv._calculus.matrix_derivative import derivative
from jaxpinv._factors import ApplyGram, Factors
from jaxpinv._linalg import transpose
from jaxpinv._platform import chunking, form_plan
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._shapes import like, without_unit_axes

_FACTORS = len(Factors._fields)


# pinv_form: the factors, and what is in the slots -> the result of the open slot
#
# Linear in every slot. A tangent of a, which u carries, adds a slot. A cotangent fills the
# open slot, and the slot of the transposed operand becomes the open one.


def pinv_form(
    factors: Sequence[Array],
    slots: Sequence[Slot],
    *,
    truncates: bool,
    tuning: Tuning = DEFAULT,
) -> Array:
    """Bind `pinv_form`: see `form.evaluate`."""
    layout, operands = form.pack(slots)
    return pinv_form_p.bind(
        *factors, *operands, layout=layout, truncates=truncates, tuning=tuning
    )


def _pinv_form_impl(*operands, layout, truncates, tuning, target):
    return _evaluate(operands, layout, (), truncates, tuning, target)


def _plan(operands, layout, truncates, tuning, target):
    u = operands[0]
    batch = jnp.broadcast_shapes(*(x.shape[: u.ndim - 2] for x in operands))
    return form_plan.form(
        (*batch, *u.shape[-2:]),
        target,
        formula=form.formula(layout, truncates=truncates),
        order=len(layout) - 1,
        is_complex=jnp.iscomplexobj(u),
        tuning=tuning,
    )


def _evaluate(operands, layout, changed, truncates, tuning, target):
    def evaluate(*operands: Array) -> Array:
        return _evaluated(operands, layout, changed, truncates, tuning, target)

    return without_unit_axes(evaluate, operands[0].ndim - 2, *operands)


def _evaluated(operands, layout, changed, truncates, tuning, target):
    plan = _plan(operands, layout, truncates, tuning, target)

    def evaluate_with(apply_gram: ApplyGram, *operands: Array) -> Array:
        row = operands[_FACTORS:]
        count = len(row) - len(changed)
        of_matrix = partial(
            derivative,
            apply_u=_products.apply_u(plan),
            apply_gram=apply_gram,
            broadcasts=plan.broadcasts,
        )
        return form.evaluate(
            Factors(*operands[:_FACTORS]),
            form.unpack(layout, row[:count]),
            dict(zip(changed, row[count:], strict=True)),
            derivative=of_matrix,
            truncates=truncates,
            may_branch=plan.may_branch,
        )

    evaluate = _products.with_gram(plan, evaluate_with)
    rank = operands[0].ndim - 2
    if plan.chunk is None or not rank:
        return evaluate(*operands)
    return chunking.along_batch(evaluate, plan.chunk, rank, *operands)


def _pinv_form_types(*operands, layout, **_):
    factors, slots = operands[:_FACTORS], form.unpack(layout, operands[_FACTORS:])
    return form.like_result(Factors(*factors), slots)


def _pinv_form_jvp(primals, tangents, *, layout, **params):
    x = pinv_form_p.bind(*primals, layout=layout, **params)
    return x, _total(x, _changes(primals, tangents, layout, **params))


def _changes(primals, tangents, layout, **params) -> Iterator[Array]:
    """The terms of the tangent of a form."""
    e = tangents[0]
    moved = [i for i, t in enumerate(tangents) if i >= _FACTORS and type(t) is not ad.Zero]
    is_moved = type(e) is not ad.Zero
    if is_moved and moved and form.formula(layout, truncates=True) == "matrices":
        # In a form evaluated by matrices, each operand is one slot after the open one.
        slots = tuple(i - _FACTORS for i in moved)
        yield pinv_form_change_p.bind(
            *(*primals, e, *(tangents[i] for i in moved)),
            layout=(*layout, "dense"),
            changed=slots,
            **params,
        )
        return
    for i in moved:
        row = (*primals[:i], tangents[i], *primals[i + 1 :])
        yield pinv_form_p.bind(*row, layout=layout, **params)
    if is_moved:
        yield pinv_form_p.bind(*primals, e, layout=(*layout, "dense"), **params)


def _total(x, terms):
    """The sum of the terms of the tangent of `x`."""
    return functools.reduce(ad.add_tangents, terms, _rules.zero_tangent(x))


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
    return [*before, like(result, operand.aval), *after]


pinv_form_p = _rules.primitive("pinv_form", _pinv_form_impl, types=_pinv_form_types)
ad.primitive_jvps[pinv_form_p] = _pinv_form_jvp
ad.primitive_transposes[pinv_form_p] = _pinv_form_transpose


# pinv_form_change: the operands of a form of matrices, the tangent of a in the last slot,
#     and those of the slots `changed` -> the tangent of the form without the last slot
#
# The sum of one form for each tangent, which takes little longer than the first form.


def _pinv_form_change_impl(*operands, layout, changed, **options):
    if _plan(operands, layout, **options).chunk is None:
        return _evaluate(operands, layout, changed, **options)
    # In chunks, a second derivative and a first one take less time apart, because the
    # first one needs no chunks.
    return functools.reduce(
        operator.add,
        (
            _evaluate([operands[i] for i in places], kind, (), **options)
            for places, kind in _forms(len(operands), layout, changed)
        ),
    )


def _pinv_form_change_types(*operands, layout, changed, **_):
    factors, row = operands[:_FACTORS], operands[_FACTORS:]
    slots = form.unpack((*layout, *("dense" for _ in changed)), row)
    return form.like_result(Factors(*factors), slots)


def _forms(count: int, layout: Layout, changed: Sequence[int]):
    """The indices of the operands of each form of the sum, and its layout."""
    first = list(range(count - len(changed)))
    yield first, layout
    for k, slot in enumerate(changed):
        places = first[:-1]
        places[_FACTORS + slot] = len(first) + k
        yield places, layout[:-1]


def _pinv_form_change_jvp(primals, tangents, *, layout, changed, **params):
    x = pinv_form_change_p.bind(*primals, layout=layout, changed=changed, **params)
    terms = (
        term
        for places, kind in _forms(len(primals), layout, changed)
        for term in _changes(
            [primals[i] for i in places], [tangents[i] for i in places], kind, **params
        )
    )
    return x, _total(x, terms)


def _pinv_form_change_transpose(ct, *operands, layout, changed, **params):
    found: list[Any] = [None] * len(operands)
    for places, kind in _forms(len(operands), layout, changed):
        row = [operands[i] for i in places]
        if any(ad.is_undefined_primal(x) for x in row):
            cts = _pinv_form_transpose(ct, *row, layout=kind, **params)
            for i, x in zip(places, cts, strict=True):
                if x is not None:
                    found[i] = x if found[i] is None else ad.add_tangents(found[i], x)
    return found


pinv_form_change_p = _rules.primitive(
    "pinv_form_change", _pinv_form_change_impl, types=_pinv_form_change_types
)
ad.primitive_jvps[pinv_form_change_p] = _pinv_form_change_jvp
ad.primitive_transposes[pinv_form_change_p] = _pinv_form_change_transpose
