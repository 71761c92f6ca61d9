"""Damped solutions and their derivatives from factors of `[A; D]`, of any matrix.

`w` is in one of two slots: "right", with the result `X w`, or "left", with `X^T w`, where
`X` is the first m columns of the pseudo-inverse of `[A; D]`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._calculus.form import Outer
from jaxpinv._calculus.form import Slot as FormSlot
from jaxpinv._factorization.damped_qr import augment
from jaxpinv._factors import Factors
from jaxpinv._linalg import pad_rows, transpose
from jaxpinv._pinv_form import pinv_form

Slot = Literal["right", "left"]


def value(factors: Factors, w: Array, m: int, slot: Slot) -> Array:
    """The solution, `(..., n, k)` or `(..., m, k)`, with `w` in that slot."""
    return _form(factors, m, _filled(w, factors, slot))


def change(
    factors: Factors,
    w: Array,
    a: Array,
    d: Array,
    linear: tuple[Array, ...],
    *,
    slot: Slot,
    transposed: bool,
) -> tuple[Array, ...]:
    """The tangent of the solution along those of `a`, `d` and `w`, or its transpose.

    `linear` has these tangents or, if `transposed`, the cotangent of the solution.
    """
    m = a.shape[-2]
    if not transposed:
        e, dd, dw = linear
        moved = _form(factors, m, _filled(w, factors, slot), augment(e, dd))
        return (moved + value(factors, dw, m, slot),)
    [g] = linear
    of_w = value(factors, g, m, "left" if slot == "right" else "right")
    b, c = (w, g) if slot == "right" else (g, w)
    found = transpose(
        _form(factors, None, None, Outer(pad_rows(b, below=factors.u.shape[-1]), c))
    )
    of_d = jnp.real(jnp.diagonal(found[..., m:, :], axis1=-2, axis2=-1))
    if d.shape[-1] == 1:
        of_d = jnp.sum(of_d, axis=-1, keepdims=True)
    batch = jnp.broadcast_shapes(*(x.shape[:-2] for x in (w, g, factors.u)))
    return tuple(
        jnp.broadcast_to(x, (*batch, *x.shape[x.ndim - rank :]))
        for x, rank in ((found[..., :m, :], 2), (of_d, 1), (of_w, 2))
    )


def _form(factors: Factors, m: int | None, *slots: FormSlot) -> Array:
    """The form `pinv_form`, in the first slot without the rows of `D`."""
    found = pinv_form(factors, slots, truncates=False)
    is_left = isinstance(slots[0], Outer) and slots[0].b is None
    return jax.lax.slice_in_dim(found, 0, m, axis=-2) if is_left else found


def _filled(w: Array, factors: Factors, slot: Slot) -> FormSlot:
    """The slot of a form that holds `w`."""
    return (
        Outer(pad_rows(w, below=factors.u.shape[-1]), None)
        if slot == "right"
        else Outer(None, w)
    )
