"""What the rules of all primitives have in common.

All operands of a primitive have the same rank, and their leading batch axes broadcast: each
has the common length or 1. So a `vmap` never copies operands that it does not map.
"""

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxpinv._platform import target as targets
from jaxpinv._platform.target import ANYWHERE, Target


def primitive(
    name: str, impl: Callable, *, types: Callable | None = None, multiple_results=False
) -> Primitive:
    """A primitive with its rules. Its derivative is zero unless set afterwards.

    Args:
        name: its name in a jaxpr.
        impl: computes the results from arrays and `target`, which says where it runs.
        types: traced for the types of the results. By default `impl`, for any target.
        multiple_results: whether `impl` returns a tuple.
    """
    p = Primitive(name)
    p.multiple_results = multiple_results
    p.def_impl(partial(_impl, p, impl))
    p.def_abstract_eval(partial(_abstract_eval, p, types or partial(impl, target=ANYWHERE)))
    ad.primitive_jvps[p] = partial(constant_jvp, p)
    batching.primitive_batchers[p] = partial(_batching, p)
    lower = partial(_lowering, p, impl)
    for platform in (None, "cpu", "cuda"):
        rule = partial(lower, platform=platform)
        mlir.register_lowering(p, rule, platform=platform)
    return p


def attached(name: str, count: int, source: int, change: Callable) -> Primitive:
    """A primitive that returns its first `count` operands with tangents of their own.

    Not `jax.custom_jvp`, whose rule JAX drops where it evaluates the known part of a loop
    in advance, as in reverse over reverse mode through a scan. Results without another
    derivative would then silently get zero.

    Args:
        name: its name in a jaxpr.
        count: how many operands are results.
        source: index of the operand whose tangent determines those of the results.
        change: computes these tangents from results, operands and the tangent of `source`.
    """
    p = Primitive(name)
    p.multiple_results = True
    p.def_impl(lambda *args, **params: list(args[:count]))
    p.def_abstract_eval(lambda *avals, **params: avals[:count])
    ad.primitive_jvps[p] = partial(_attached_jvp, p, source, change)
    batching.primitive_batchers[p] = partial(_attached_batching, p, count)
    mlir.register_lowering(p, lambda ctx, *args, **params: args[:count])
    return p


def constant_jvp(p, primals, tangents, **params):
    """The rule of a primitive whose derivative is zero."""
    results = p.bind(*primals, **params)
    if p.multiple_results:
        return results, [zero_tangent(x) for x in results]
    return results, zero_tangent(results)


def zero_tangent(x: Array) -> ad.Zero:
    """The tangent of `x` if nothing that it depends on moves."""
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def _attached_jvp(p, source, change, primals, tangents, **params):
    results = p.bind(*primals, **params)
    if type(tangents[source]) is ad.Zero:
        return results, [zero_tangent(x) for x in results]
    return results, change(results, primals, tangents[source], **params)


def _attached_batching(p, count, args, axes, **params):
    size, args = _with_mapped_in_front(args, axes)
    results = (jnp.broadcast_to(x, (size, *x.shape[1:])) for x in args[:count])
    return p.bind(*results, *args[count:], **params), [0] * count


def _impl(p, impl, *args, **params):
    # Without `jit`, this rule would call itself forever.
    if jax.config.jax_disable_jit:
        return impl(*args, target=targets.here(), **params)
    return _compiled(p, **params)(*args)


@functools.cache
def _compiled(p, **params):
    """The compiled primitive: outside of `jit` it is compiled once for every shape."""
    return jax.jit(partial(p.bind, **params))


def _abstract_eval(p, types, *avals, **params):
    found = _types(types, *avals, **params)
    return found if p.multiple_results else found[0]


@functools.lru_cache
def _types(types, *avals, **params):
    """Avals of results, with sharding and varying axes, which only tracing tells."""
    return tuple(jax.make_jaxpr(partial(types, **params))(*avals).out_avals)


def _with_mapped_in_front(args, axes):
    """The length of mapped axes, and operands with these, or one of length 1, in front."""
    pairs = list(zip(args, axes, strict=True))
    [size] = {x.shape[axis] for x, axis in pairs if axis is not None}
    return size, [
        x[None] if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in pairs
    ]


def _batching(p, args, axes, **params):
    size, args = _with_mapped_in_front(args, axes)
    results = p.bind(*args, **params)
    if not p.multiple_results:
        return results, 0
    mapped = [x.shape[0] == size for x in results]
    return (
        [x if is_mapped else x[0] for x, is_mapped in zip(results, mapped, strict=True)],
        [0 if is_mapped else None for is_mapped in mapped],
    )


def _lowering(p, impl, ctx, *args, platform, **params):
    target: Target = targets.of_lowering(ctx, platform=platform)
    impl = partial(impl, target=target, **params)
    return mlir.lower_fun(impl, multiple_results=p.multiple_results)(ctx, *args)
