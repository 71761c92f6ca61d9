"""The primitives `pinv` and `pinv_derivative` and their rules under JAX's transformations.

Both work on tall matrices and leading batch axes that broadcast against each other: all
operands of one rank, each batch axis as long as the others' or 1. So nothing that a
`vmap` leaves alone, the singular vectors in a Jacobian for one, is ever copied.
"""

import functools
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxpinv._arrays import adjoint, transpose
from jaxpinv._derivatives import derivative
from jaxpinv._factors import Factors, factor, pseudo_inverse


def _abstract_eval(impl, *avals, **params):
    """Avals of the results, with the sharding and varying axes that only `impl` knows."""
    return jax.make_jaxpr(partial(impl, **params))(*avals).out_avals


def _batch(primitive, args, axes, **params):
    """Binds with the mapped axes in front and length-1 axes for what is not mapped."""
    [size] = {x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None}
    args = [
        x[None] if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args, axes, strict=True)
    ]
    return primitive.bind(*args, **params), size


# pinv: a (..., m, n), rtol (...), atol (...) -> x (..., n, m), u, s, v, kept
#
# The results after x are the residuals, for the derivatives alone. The tangent that
# rides on u is that of a, which has its shape: so that a need not be saved as well.


@partial(jax.jit, static_argnames="hermitian")
def _pinv_impl(a: Array, rtol: Array, atol: Array, *, hermitian: bool):
    factors = factor(a, rtol, atol, hermitian=hermitian)
    return pseudo_inverse(factors), *factors


def _pinv_abstract_eval(*avals, hermitian):
    return _abstract_eval(_pinv_impl, *avals, hermitian=hermitian)


def _pinv_jvp(primals, tangents, *, hermitian):
    e, *_ = tangents
    x, u, s, v, kept = pinv_p.bind(*primals, hermitian=hermitian)
    zeros = [ad.Zero(jax.typeof(r).to_tangent_aval()) for r in (x, u, s, v, kept)]
    if type(e) is ad.Zero:
        return (x, u, s, v, kept), zeros
    if hermitian:
        e = (e + adjoint(e)) / 2
    dx = pinv_derivative_p.bind(u, s, v, kept, e)
    return (x, u, s, v, kept), (dx, e, *zeros[2:])


def _pinv_batching(args, axes, *, hermitian):
    results, size = _batch(pinv_p, args, axes, hermitian=hermitian)
    mapped = [r.shape[0] == size for r in results]
    return (
        [r if is_mapped else r[0] for r, is_mapped in zip(results, mapped, strict=True)],
        [0 if is_mapped else None for is_mapped in mapped],
    )


_pinv_lowering = mlir.lower_fun(_pinv_impl, multiple_results=True)

pinv_p = Primitive("pinv")
pinv_p.multiple_results = True
pinv_p.def_impl(_pinv_impl)
pinv_p.def_abstract_eval(_pinv_abstract_eval)
ad.primitive_jvps[pinv_p] = _pinv_jvp
batching.primitive_batchers[pinv_p] = _pinv_batching
mlir.register_lowering(pinv_p, _pinv_lowering)


# pinv_derivative: u, s, v, kept, e_1 (..., m, n), ..., e_k -> d^k x (..., n, m)
#
# The transpose of x is the gradient of the sum of the logarithms of the kept singular
# values. Its derivatives are therefore symmetric in all their arguments, the cotangent
# included: the transpose in any direction is the map itself.


@jax.jit
def _pinv_derivative_impl(u: Array, s: Array, v: Array, kept: Array, *directions: Array):
    return derivative(Factors(u, s, v, kept), directions)


def _pinv_derivative_abstract_eval(*avals):
    return _abstract_eval(_pinv_derivative_impl, *avals)[0]


def _pinv_derivative_jvp(primals, tangents):
    factors, directions = primals[:4], primals[4:]
    e, moving = tangents[0], tangents[4:]
    terms = [
        (*directions[:i], t, *directions[i + 1 :])
        for i, t in enumerate(moving)
        if type(t) is not ad.Zero
    ]
    if type(e) is not ad.Zero:
        terms.append((*directions, e))
    x = pinv_derivative_p.bind(*primals)
    dx = [pinv_derivative_p.bind(*factors, *term) for term in terms]
    zero = ad.Zero(jax.typeof(x).to_tangent_aval())
    return x, functools.reduce(ad.add_tangents, dx, zero)


def _pinv_derivative_transpose(ct, *operands):
    [slot] = [i for i, x in enumerate(operands) if ad.is_undefined_primal(x)]
    before, after = [None] * slot, [None] * (len(operands) - slot - 1)
    if type(ct) is ad.Zero:
        return [*before, None, *after]
    shape = operands[slot].aval.shape
    swapped = (*operands[:slot], transpose(ct), *operands[slot + 1 :])
    result = transpose(pinv_derivative_p.bind(*swapped))
    stretched = [i for i, n in enumerate(shape) if n != result.shape[i]]
    if stretched:
        result = jnp.sum(result, axis=stretched, keepdims=True)
    return [*before, result, *after]


def _pinv_derivative_batching(args, axes):
    result, _ = _batch(pinv_derivative_p, args, axes)
    return result, 0


_pinv_derivative_lowering = mlir.lower_fun(_pinv_derivative_impl, multiple_results=False)

pinv_derivative_p = Primitive("pinv_derivative")
pinv_derivative_p.def_impl(_pinv_derivative_impl)
pinv_derivative_p.def_abstract_eval(_pinv_derivative_abstract_eval)
ad.primitive_jvps[pinv_derivative_p] = _pinv_derivative_jvp
ad.primitive_transposes[pinv_derivative_p] = _pinv_derivative_transpose
batching.primitive_batchers[pinv_derivative_p] = _pinv_derivative_batching
mlir.register_lowering(pinv_derivative_p, _pinv_derivative_lowering)
