"""The primitives of damped solutions for a few right-hand sides, and their derivatives.

`w` is in one of two slots: "right", with the result `X w`, or "left", with `X^T w`, where
`X` is the first m columns of the pseudo-inverse of `[A; D]`. The results and their first
derivatives come from Cholesky factors where those are certified, and else from factors of
`[A; D]`, as do higher derivatives.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from jaxpinv import _rules
from jaxpinv._damped_form import Slot, change, value
from jaxpinv._factorization import damped, damped_cholesky
from jaxpinv._factorization.auto import Trial
from jaxpinv._factorization.choice import where_holds
from jaxpinv._factorization.damped_qr import augment, diagonal
from jaxpinv._factors import Cutoff, Factors, largest_met
from jaxpinv._linalg import adjoint, matmul, with_tangent_of
from jaxpinv._platform.plan import Plan
from jaxpinv._platform.target import Target
from jaxpinv._primitives import plan_of, trial_of, triplets_of_plan
from jaxpinv._shapes import is_static_shape, like

# Operands of `damped_change` before the factors.
_BEFORE = 9
_FACTORS = len(Factors._fields)


def solution(
    w: Array,
    a: Array,
    d: Array,
    cutoff: Cutoff,
    factors: Factors,
    *,
    slot: Slot,
    may_truncate: bool,
    **params: Any,
) -> Array:
    """`X w`, with `w` `(..., m, k)`, or `X^T w`, with `w` `(..., n, k)`.

    `factors` are what `damped_factor` returns, with the same arguments, method and tuning.
    `a` has at least as many rows as columns. `may_truncate` says whether a cutoff may be
    positive.
    """
    constant = map(jax.lax.stop_gradient, (a, d, *cutoff))
    c, certified = damped_cholesky_p.bind(*constant, may_truncate=may_truncate, **params)
    operands = w, a, d, *cutoff, c, certified, *factors
    return damped_solution_p.bind(*operands, slot=slot, **params)[0]


def _trial(
    a: Array, d: Array, c_batch: tuple, target: Target, *others: Array, **params: Any
) -> tuple[Plan, Trial] | None:
    """The plan and the loops for Cholesky factors of that batch shape, if they are used.

    `others` are arrays, `(..., length, k)`, that go through the loops, too.
    """
    m, n = a.shape[-2:]
    shapes = [x.shape for x in others]
    if not all(map(is_static_shape, shapes)) or any(0 in shape for shape in shapes):
        return None
    if c_batch != a.shape[:-2] and d.shape[-1] == 1:
        # One decomposition serves all dampings of a matrix.
        return None
    plan = plan_of((*c_batch, m, n), a, target, **params)
    trial = trial_of(plan, target, hermitian=False)
    if trial is None or plan.full_rank == "gram_schmidt" or not target.is_local:
        return None
    return plan, trial


def _factors(
    a: Array, d: Array, cutoff: Cutoff, target: Target, params: dict[str, Any]
) -> Factors:
    """Factors of `[A; D]`, computed for a few matrices of a batch."""
    # Factored again: what is stored for a few matrices is stored for all.
    m, n = a.shape[-2:]
    batch = jnp.broadcast_shapes(a.shape[:-2], d.shape[:-1])
    # If all unknowns share a damping, those of `a` alone suffice.
    rows = m if d.shape[-1] == 1 else m + n
    plan = plan_of((*batch, rows, n), a, target, "svd", params["tuning"])
    decompose = triplets_of_plan(plan, hermitian=False)
    own = decompose if d.shape[-1] == 1 else None
    return damped.by_triplets(a, d, cutoff, decompose, own)


# damped_cholesky: a (..., m, n), d (..., n) or (..., 1), rtol (...), atol (...) -> the
#     Cholesky factors of A^H A + D^2, and where they are certified


def _cholesky_impl(a, d, rtol, atol, *, may_truncate, target: Target, **params):
    batch = jnp.broadcast_shapes(a.shape[:-2], d.shape[:-1])
    found = _trial(a, d, batch, target, **params)
    if found is None:
        return _cholesky_types(a, d)
    plan, trial = found
    factor = partial(damped_cholesky.factor, halves=plan.halves, may_truncate=may_truncate)
    tolerances = ((largest_met(x, [*batch]), 0) for x in (rtol, atol))
    operands = ((a, 2), (d, 1), *tolerances)
    return where_holds(None, factor, partial(factor, again=True), operands, trial)


def _cholesky_types(a, d, *_, **__):
    gram = matmul(adjoint(a), a) + diagonal(d, a)
    return gram, jnp.zeros_like(jnp.trace(gram, axis1=-2, axis2=-1), bool)


damped_cholesky_p = _rules.primitive(
    "damped_cholesky", _cholesky_impl, types=_cholesky_types, multiple_results=True
)


# damped_solution: w, a (..., m, n), d (..., n) or (..., 1), rtol (...), atol (...), the
#     results of damped_cholesky, the factors of [A; D] -> the solution in that slot, and
#     the other part of (R, X) of damped_cholesky.solve, arbitrary where not certified


def _solution_impl(w, a, d, rtol, atol, c, certified, *factors, slot, target, **params):
    m = a.shape[-2]
    found = _trial(a, d, c.shape[:-2], target, w, **params)
    if found is None:
        return _solution_types(w, a, d, rtol, atol, c, certified, *factors, slot=slot)

    def fast(
        a: Array, d: Array, rtol: Array, atol: Array, c: Array, w: Array
    ) -> tuple[Array, Array]:
        if slot == "right":
            r, x = damped_cholesky.solve(a, d, c, w, None)
            return x, r
        r, x = damped_cholesky.solve(a, d, c, None, jnp.conj(w))
        return -jnp.conj(r), x

    def full(
        a: Array, d: Array, rtol: Array, atol: Array, c: Array, w: Array
    ) -> tuple[Array, Array]:
        factors = _factors(a, d, Cutoff(rtol, atol), target, params)
        x = value(factors, w, m, slot)
        return x, _other(a, x, slot)

    def solve(w: Array) -> tuple[Array, ...]:
        matrices = (a, 2), (d, 1), (rtol, 0), (atol, 0), (c, 2)
        return where_holds(certified, fast, full, (*matrices, (w, 2)), found[1])

    own = jnp.broadcast_shapes(c.shape[:-2], rtol.shape, atol.shape)
    return damped_cholesky.among_columns(solve, own, w)


def _other(a: Array, x: Array, slot: Slot) -> Array:
    """Any array of the type of the second result of `damped_solution`."""
    return matmul(a if slot == "right" else adjoint(a), x)


def _solution_types(w, a, d, rtol, atol, c, certified, *factors, slot, **_):
    x = value(Factors(*factors), w, a.shape[-2], slot)
    return x, _other(a, x, slot)


def _solution_jvp(primals, tangents, *, slot, **params):
    _, *rest = primals
    found = damped_solution_p.bind(*primals, slot=slot, **params)
    moved = tangents[:3]
    if all(type(t) is ad.Zero for t in moved[1:]):
        if type(moved[0]) is ad.Zero:
            return found, [_rules.zero_tangent(x) for x in found]
        change, _ = damped_solution_p.bind(moved[0], *rest, slot=slot, **params)
    else:
        dw, e, dd = map(ad.instantiate_zeros, moved)
        [change] = damped_change_p.bind(
            *(*found, *primals, e, dd, dw), slot=slot, transposed=False, **params
        )
    # The other part only serves `damped_change`, which knows how it moves.
    return found, [change, _rules.zero_tangent(found[1])]


def _solution_transpose(cts, w, *rest, slot, **params):
    nothing = [None] * len(rest)
    if type(cts[0]) is ad.Zero:
        return [None, *nothing]
    opposite = "left" if slot == "right" else "right"
    found, _ = damped_solution_p.bind(cts[0], *rest, slot=opposite, **params)
    return [like(found, w.aval), *nothing]


damped_solution_p = _rules.primitive(
    "damped_solution", _solution_impl, types=_solution_types, multiple_results=True
)
ad.primitive_jvps[damped_solution_p] = _solution_jvp
ad.primitive_transposes[damped_solution_p] = _solution_transpose


# damped_change: the results and operands of damped_solution, and the tangents of a, d and w
#     -> that of the solution, or, if transposed, the cotangent of the solution -> those of
#     a, d and w


def _change_impl(*operands, slot, transposed, target, **params):
    out, other, w, a, d, rtol, atol, c, certified = operands[:_BEFORE]
    linear = operands[_BEFORE + _FACTORS :]
    found = _trial(a, d, c.shape[:-2], target, w, linear[-1], **params)
    if found is None:
        return _change_types(*operands, slot=slot, transposed=transposed)

    def fast(a, d, rtol, atol, c, w, out, other, *linear):
        solved = (other, out) if slot == "right" else (-jnp.conj(out), other)
        if transposed:
            [g] = linear
            pair = (None, g) if slot == "right" else (-jnp.conj(g), None)
            *of_matrix, of_f, of_h = damped_cholesky.gradient(a, d, c, solved, pair)
            return *of_matrix, of_f if slot == "right" else jnp.conj(of_h)
        e, dd, dw = linear
        of_f, of_h = (dw, None) if slot == "right" else (None, jnp.conj(dw))
        r, x = damped_cholesky.change(a, d, c, solved, (e, dd, of_f, of_h))
        return (x if slot == "right" else -jnp.conj(r),)

    def full(a, d, rtol, atol, c, w, out, other, *linear):
        factors = _factors(a, d, Cutoff(rtol, atol), target, params)
        return change(factors, w, a, d, linear, slot=slot, transposed=transposed)

    matrices = (a, 2), (d, 1), (rtol, 0), (atol, 0), (c, 2), (w, 2), (out, 2), (other, 2)
    ranks = (2,) if transposed else (2, 1, 2)
    along = zip(linear, ranks, strict=True)
    return where_holds(certified, fast, full, (*matrices, *along), found[1])


def _change_types(*operands, slot, transposed, **_):
    _, _, w, a, d = operands[:5]
    factors = Factors(*operands[_BEFORE : _BEFORE + _FACTORS])
    linear = operands[_BEFORE + _FACTORS :]
    return change(factors, w, a, d, linear, slot=slot, transposed=transposed)


def _change_jvp(primals, tangents, *, slot, transposed, **params):
    params = {"slot": slot, "transposed": transposed, **params}
    found = damped_change_p.bind(*primals, **params)
    begin = _BEFORE + _FACTORS
    linear, along = primals[begin:], tangents[begin:]
    moved = [*tangents[2:5], *along]
    if all(type(t) is ad.Zero for t in moved):
        return found, [_rules.zero_tangent(x) for x in found]
    if all(type(t) is ad.Zero for t in moved[:3]):
        along = map(ad.instantiate_zeros, along)
        return found, damped_change_p.bind(*primals[:begin], *along, **params)
    factors = Factors(*primals[_BEFORE:begin])

    def changed(w: Array, a: Array, d: Array, *linear: Array) -> tuple[Array, ...]:
        u = with_tangent_of(factors.u, augment(a, d))
        return change(
            factors._replace(u=u), w, a, d, linear, slot=slot, transposed=transposed
        )

    at = (*primals[2:5], *linear)
    return found, list(jax.jvp(changed, at, tuple(map(ad.instantiate_zeros, moved)))[1])


def _change_transpose(cts, *operands, transposed, **params):
    begin = _BEFORE + _FACTORS
    nothing, linear = [None] * begin, operands[begin:]
    if all(type(ct) is ad.Zero for ct in cts):
        return [*nothing, *(None for _ in linear)]
    cts = map(ad.instantiate_zeros, cts)
    row = (*operands[:begin], *cts)
    found = damped_change_p.bind(*row, transposed=not transposed, **params)
    return [
        *nothing,
        *(
            like(x, y.aval) if ad.is_undefined_primal(y) else None
            for x, y in zip(found, linear, strict=True)
        ),
    ]


damped_change_p = _rules.primitive(
    "damped_change", _change_impl, types=_change_types, multiple_results=True
)
ad.primitive_jvps[damped_change_p] = _change_jvp
ad.primitive_transposes[damped_change_p] = _change_transpose
