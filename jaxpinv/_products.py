"""Products in derivatives, skipped if no matrix of a batch needs them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import (
    ApplyU,
    Factors,
    any_oblique,
    product_with_u,
    times_gram,
)
from jaxpinv._platform import replacing
from jaxpinv._platform.form_plan import FormPlan


def apply_u(plan: FormPlan) -> ApplyU:
    """A function for products with `U`, which skips them if the plan allows."""

    def unless_all(factors: Factors, product: Callable, x: Array) -> Array:
        every = jnp.all(factors.is_inverse)
        return jax.lax.cond(every, lambda u, x: x, product, factors.u, x)

    def unless_each(factors: Factors, product: Callable, x: Array) -> Array:
        if factors.u.shape != x.shape:
            return unless_all(factors, product, x)
        u, found = (jnp.reshape(y, (-1, *y.shape[-2:])) for y in (factors.u, x))
        chosen = ~factors.is_inverse.ravel()
        [found] = replacing.replace(
            lambda u, x: (product(u, x),), plan.each, chosen, [found], u, found
        )
        return jnp.reshape(found, x.shape)

    return {"never": product_with_u, "all": unless_all, "each": unless_each}[plan.identity]


def with_gram(plan: FormPlan, f: Callable[..., Array]) -> Callable[..., Array]:
    """`f(apply_gram, *operands)` as a function of operands, which begin with the factors.

    It skips products with `V^H V` if the plan allows.
    """

    def if_any(factors: Factors) -> Callable[[Array], Array]:
        def product(s: Array, v: Array, kept: Array, x: Array) -> Array:
            return times_gram(factors._replace(s=s, v=v, kept=kept))(x)

        needed, row = any_oblique(factors), (factors.s, factors.v, factors.kept)
        return lambda x: jax.lax.cond(needed, product, lambda *row: row[-1], *row, x)

    def apart(*operands: Array) -> Array:
        needed = any_oblique(Factors(*operands[: len(Factors._fields)]))
        return jax.lax.cond(needed, always, partial(f, lambda _: lambda x: x), *operands)

    always = partial(f, times_gram)
    return {"always": always, "if any": partial(f, if_any), "apart": apart}[plan.gram]
