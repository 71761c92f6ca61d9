"""The primitives `factor` and `pinv_form`, those without derivatives, and their rules.

They work on leading batch axes that broadcast against each other: all operands of one
rank, each batch axis as long as the others' or 1. So nothing that a `vmap` leaves alone,
the singular vectors in a Jacobian for one, is ever copied. `factor`, `kept` and
`pinv_form` take tall matrices.
"""

import functools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxpinv._calculus import form as _form
from jaxpinv._calculus.form import Outer, Slot
from jaxpinv._factorization.auto import factor
from jaxpinv._factorization.complement import complement
from jaxpinv._factorization.ranks import kept_values
from jaxpinv._factorization.svd import values
from jaxpinv._factors import Factors
from jaxpinv._linalg import transpose
from jaxpinv._platform.chunking import Ways
from jaxpinv._rules import abstract_eval, batch, eager, is_local, is_on_one_device

# factor: a (..., m, n), rtol (...), atol (...) -> the factors, and pinv(a) if wanted
#
# The factors serve the form alone, which knows how it changes with a. The tangent that
# rides on u is that of a, which has its shape: so that a need not be saved as well.

_FACTORS = len(Factors._fields)


def _factor_impl(a, rtol, atol, *, with_pinv, in_blocks=True, **params):
    factors, x = factor(a, rtol, atol, in_blocks=in_blocks, **params)
    return (*factors, x) if with_pinv else tuple(factors)


def _factor_abstract_eval(*avals, direct, **params):
    # The types of the results do not depend on the way to them, and only this one serves
    # a batch that is divided over devices.
    impl = partial(abstract_eval, _factor_impl, direct=False, in_blocks=False)
    return impl(*avals, **params)


def _factor_jvp(primals, tangents, *, with_pinv, **params):
    results = factor_p.bind(*primals, with_pinv=with_pinv, **params)
    zeros = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in results]
    e = tangents[0]
    if type(e) is ad.Zero:
        return results, zeros
    if not with_pinv:
        return results, (e, *zeros[1:])
    dx = pinv_form(results[:_FACTORS], [None, e], cuts=True)
    return results, (e, *zeros[1:-1], dx)


def _factor_batching(args, axes, **params):
    results, size = batch(factor_p, args, axes, **params)
    mapped = [r.shape[0] == size for r in results]
    return (
        [r if is_mapped else r[0] for r, is_mapped in zip(results, mapped, strict=True)],
        [0 if is_mapped else None for is_mapped in mapped],
    )


def _factor_lowering(ctx, *args, direct, in_blocks=False, **params):
    # To gather the matrices that need singular values would move them between devices.
    # Nor may a loop over matrices go from one device to the next.
    local = is_local(ctx)
    direct, in_blocks = direct and local, in_blocks and local
    impl = partial(_factor_impl, direct=direct, in_blocks=in_blocks, **params)
    return mlir.lower_fun(impl, multiple_results=True)(ctx, *args)


factor_p = Primitive("factor")
factor_p.multiple_results = True
factor_p.def_impl(eager(factor_p, _factor_impl))
factor_p.def_abstract_eval(_factor_abstract_eval)
ad.primitive_jvps[factor_p] = _factor_jvp
batching.primitive_batchers[factor_p] = _factor_batching
mlir.register_lowering(factor_p, _factor_lowering)
mlir.register_lowering(factor_p, partial(_factor_lowering, in_blocks=True), platform="cpu")


# Without derivatives: their arguments must have none
#
# singular_values: a (..., m, n) -> all of them, descending (..., min(m, n))
# kept: a (..., m, n), rtol (...), atol (...) -> which values are kept (..., n)
# complement: columns (..., n, k), which are kept (..., k) -> a basis of what is orthogonal
#     to these (..., n, n), and its dimension (...)


def _without_derivatives(name, function, *, multiple_results=False):
    """The primitive of a function of arrays that may loop over the matrices."""

    def impl(*args, in_blocks=True, **params):
        return function(*args, in_blocks=in_blocks, **params)

    def result_types(*avals, **params):
        # As for `factor`, the type does not depend on the way.
        params |= {"direct": False} if "direct" in params else {}
        found = abstract_eval(impl, *avals, in_blocks=False, **params)
        return found if multiple_results else found[0]

    def batching_rule(args, axes, **params):
        found, _ = batch(primitive, args, axes, **params)
        return found, [0] * len(found) if multiple_results else 0

    def lowering(ctx, *args, in_blocks=False, **params):
        in_blocks = in_blocks and is_local(ctx)
        lower = partial(impl, in_blocks=in_blocks, **params)
        return mlir.lower_fun(lower, multiple_results=multiple_results)(ctx, *args)

    primitive = Primitive(name)
    primitive.multiple_results = multiple_results
    primitive.def_impl(eager(primitive, impl))
    primitive.def_abstract_eval(result_types)
    batching.primitive_batchers[primitive] = batching_rule
    mlir.register_lowering(primitive, lowering)
    mlir.register_lowering(primitive, partial(lowering, in_blocks=True), platform="cpu")
    return primitive


singular_values_p = _without_derivatives("singular_values", values)
kept_p = _without_derivatives("kept", kept_values)
complement_p = _without_derivatives("complement", complement, multiple_results=True)


# pinv_form: the factors, and what is in the slots -> the result of the open slot
#
# Linear in every slot. A tangent of a, riding on u, is one slot more. A cotangent fills
# the open slot, and the slot of what it is transposed to is the open one then.


# What holds wherever a form is evaluated without being lowered.
_AT_ONCE = Ways(may_branch=True, in_blocks=False)


def pinv_form(factors: Sequence[Array], slots: Sequence[Slot], *, cuts: bool) -> Array:
    """Binds `pinv_form`: see `_form.evaluate`."""
    layout, operands = _form.pack(slots)
    return pinv_form_p.bind(*factors, *operands, layout=layout, cuts=cuts)


def _pinv_form_impl(*operands, layout, cuts, ways=_AT_ONCE):
    factors, slots = operands[:_FACTORS], _form.unpack(layout, operands[_FACTORS:])
    return _form.evaluate(Factors(*factors), slots, ways, cuts=cuts)


def _pinv_form_abstract_eval(*avals, layout, cuts):
    return abstract_eval(_pinv_form_impl, *avals, layout=layout, cuts=cuts)[0]


def _pinv_form_jvp(primals, tangents, *, layout, cuts):
    bind = partial(pinv_form_p.bind, cuts=cuts)
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


def _pinv_form_transpose(ct, *operands, layout, cuts):
    [linear] = [i for i, x in enumerate(operands) if ad.is_undefined_primal(x)]
    before, after = [None] * linear, [None] * (len(operands) - linear - 1)
    if type(ct) is ad.Zero:
        return [*before, None, *after]
    operand = operands[linear]
    opened, *others = _form.unpack(layout, operands[_FACTORS:])
    slots = [_form.close(opened, ct), *others]
    [at] = [
        i
        for i, slot in enumerate(slots)
        if slot is operand or (isinstance(slot, Outer) and any(x is operand for x in slot))
    ]
    slot = slots.pop(at)
    is_outer = isinstance(slot, Outer)
    opened = Outer(*(None if x is operand else x for x in slot)) if is_outer else None
    result = pinv_form(operands[:_FACTORS], [opened, *slots], cuts=cuts)
    result = result if is_outer else transpose(result)
    stretched = [i for i, n in enumerate(operand.aval.shape) if n != result.shape[i]]
    if stretched:
        result = jnp.sum(result, axis=stretched, keepdims=True)
    return [*before, result, *after]


def _pinv_form_batching(args, axes, *, layout, cuts):
    result, _ = batch(pinv_form_p, args, axes, layout=layout, cuts=cuts)
    return result, 0


def _pinv_form_lowering(ctx, *args, in_blocks=False, **params):
    ways = Ways(is_on_one_device(ctx), in_blocks and is_local(ctx))
    impl = partial(_pinv_form_impl, ways=ways)
    return mlir.lower_fun(impl, multiple_results=False)(ctx, *args, **params)


pinv_form_p = Primitive("pinv_form")
pinv_form_p.def_impl(eager(pinv_form_p, _pinv_form_impl))
pinv_form_p.def_abstract_eval(_pinv_form_abstract_eval)
ad.primitive_jvps[pinv_form_p] = _pinv_form_jvp
ad.primitive_transposes[pinv_form_p] = _pinv_form_transpose
batching.primitive_batchers[pinv_form_p] = _pinv_form_batching
mlir.register_lowering(pinv_form_p, _pinv_form_lowering)
mlir.register_lowering(
    pinv_form_p, partial(_pinv_form_lowering, in_blocks=True), platform="cpu"
)
