"""The logarithm of the volume of factored matrices, and its derivative.

The truncated columns of `V` are orthonormal and orthogonal to the others, and
`A V = U diag(s)`. So for every factorization, the logarithms of the kept singular values
sum to the sum of `log s` over the kept `s`, minus `log |det V|`.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.interpreters import ad

from jaxpinv import _rules
from jaxpinv._factorization import log_det, volume, volume_of_many
from jaxpinv._factors import Cutoff, Factors
from jaxpinv._linalg import normalize_scale, sum_of_rows, transpose
from jaxpinv._platform import chunking, determinant_plan, replacing
from jaxpinv._platform import plan as plans
from jaxpinv._platform.plan import Method, Plan
from jaxpinv._platform.tuning import Tuning
from jaxpinv._platform.workarounds import copied_in_branch, prevent_fusion
from jaxpinv._primitives import pinv_form, values_of_plan
from jaxpinv._shapes import evenly, is_static_shape


def log_volume(
    a: Array,
    cutoff: Cutoff,
    factors: Factors,
    *,
    method: Method,
    tuning: Tuning,
    is_stored: bool,
    is_wide: bool,
) -> tuple[Array, Array]:
    """Log-volumes, `(...)`, real, and ranks of matrices `(..., m, n)`, `m >= n`.

    Args:
        a: the matrices.
        cutoff: the tolerances.
        factors: the factors of the matrices. A program without derivatives may not need
            them, and then does not compute them.
        method: as for the factorization.
        tuning: as for the factorization.
        is_stored: whether another program may have made the factors.
        is_wide: whether the matrices are adjoints of those in memory.
    """
    _, s, v, kept, _ = factors
    value, rank = log_volume_p.bind(
        *(a, *cutoff, s, v, kept),
        method=method,
        tuning=tuning,
        is_stored=is_stored,
        is_wide=is_wide,
        has_factors=False,
    )
    [value] = log_volume_of_p.bind(value, *factors, tuning=tuning)
    return value, rank


# log_volume: a (..., m, n), rtol (...), atol (...), and s, v and kept of the factors
#     -> the log-volume (...), and the rank (...)


def _log_volume_impl(
    a, rtol, atol, s, v, kept, *, method, tuning, is_stored, is_wide, has_factors, target
):
    is_complex = jnp.iscomplexobj(a)
    planned = partial(
        plans.factorization, a.shape, target, is_complex=is_complex, tuning=tuning
    )
    how = determinant_plan.determinant(
        v.shape, target, is_complex=is_complex, tuning=tuning
    )
    is_one_each = jnp.broadcast_shapes(rtol.shape, atol.shape, a.shape[:-2]) == a.shape[:-2]
    may_loop = target.is_cpu and target.is_local
    if may_loop and is_one_each and not (has_factors or is_stored):
        # Without factors, a program takes less time to compile, which fewer calls make up.
        is_large = is_static_shape(a.shape) and math.prod(a.shape) >= tuning.repays_tiny
        is_direct = method == "auto" and is_large and a.shape[-1] > tuning.tiny
        plan = planned(method="direct" if is_direct else method)
        if plan.full_rank in ("lu", "cholesky_qr"):
            cutoff = Cutoff(rtol, atol)
            return _without_factors(a, cutoff, plan, how.chunk, tuning, is_wide=is_wide)
    logs = jnp.sum(jnp.log(jnp.where(kept, s, 1)), axis=-1)
    rank = jnp.sum(kept & ~jnp.isnan(s), axis=-1, dtype=jnp.int32)
    # For singular vectors, which are unitary, the determinant is 1. The plan tells whether
    # `v` has them, unless the factors may come from another program.
    if (not is_stored and planned(method=method).full_rank is None) or 0 in v.shape:
        return logs, rank
    by = log_det.by_gram_schmidt if how.by_gram_schmidt else log_det.by_lu
    [found] = chunking.in_calls(how.chunk, lambda v: (by(v),), v)
    return logs - found, rank


def _log_volume_types(a, rtol, atol, s, v, kept, **_):
    real = jnp.sum(jnp.where(kept, s, 1), axis=-1)
    return real, jnp.sum(kept & ~jnp.isnan(s), axis=-1, dtype=jnp.int32)


log_volume_p = _rules.primitive(
    "log_volume", _log_volume_impl, multiple_results=True, types=_log_volume_types
)


def _log_volume_jvp(primals, tangents, **params):
    # A derivative needs the factors anyway. From them, it and the value have one rank.
    params["has_factors"] = True
    return _rules.constant_jvp(log_volume_p, primals, tangents, **params)


ad.primitive_jvps[log_volume_p] = _log_volume_jvp


def _without_factors(
    a: Array,
    cutoff: Cutoff,
    plan: Plan,
    of_one_call: int | None,
    tuning: Tuning,
    *,
    is_wide: bool,
) -> tuple[Array, Array]:
    """Log-volumes and ranks, from singular values where full rank is not certified."""
    *batch, m, n = a.shape
    shape = () if math.prod(batch) == 1 else (math.prod(batch),)
    # A loop takes chunks of the matrices in memory, so that they are not copied before it.
    turned = transpose if is_wide and shape else lambda a: a
    a, *tolerances = (
        jnp.reshape(b := turned(a), (*shape, *b.shape[-2:])),
        *(jnp.reshape(jnp.broadcast_to(x, batch), shape) for x in cutoff),
    )

    size = determinant_plan.volumes_in_vectors(
        (*shape, m, n), tuning, is_complex=jnp.iscomplexobj(a)
    )
    is_large = math.prod(shape) * m * n >= tuning.repays_sharp
    sharply = plan.sharply or (n >= tuning.sharp_volumes and is_large)
    if size is not None:
        by = partial(volume_of_many.by_gram_schmidt, isolate=prevent_fusion)
    elif m == n:
        by = partial(volume.by_lu, sharply=sharply)
    else:
        by = partial(volume.by_gram, halves=plan.halves)

    def attempt(a: Array, rtol: Array, atol: Array) -> tuple[Array, ...]:
        pivots, scale, certified = by(turned(a), Cutoff(rtol, atol))
        # From an array, so that in `shard_map` it varies over the same devices.
        rank = jnp.where(certified, jnp.int32(n), 0)
        return volume.log_of_product(pivots, scale), rank, certified

    def by_values(a: Array, rtol: Array, atol: Array) -> tuple[Array, ...]:
        scaled, scale, finite = normalize_scale(turned(a))
        s, cutoff = values_of_plan(scaled, plan), Cutoff(rtol, atol / scale)
        kept = cutoff.keeps(s)
        finite = finite & ~cutoff.is_undefined() & ~jnp.any(jnp.isnan(s), axis=-1)
        value = volume.log_of_product(jnp.where(kept, s, 1 / scale[..., None]), scale)
        rank = jnp.sum(kept, axis=-1, dtype=jnp.int32)
        return jnp.where(finite, value, jnp.nan), jnp.where(finite, rank, 0)

    if shape:
        if size is None:
            # One matrix that needs a sharper certificate makes its whole chunk wait.
            elements = tuning.volumes * tuning.chunk // (2 if sharply else 1)
            most = max(1, elements // (m * n))
            size = evenly(*shape, most if of_one_call is None else min(most, of_one_call))
        *found, certified = chunking.in_chunks(attempt, size, a, *tolerances)
        found = replacing.replace(
            by_values, plan.remainder, ~certified, found, *(a, *tolerances)
        )
    else:
        *found, certified = attempt(a, *tolerances)
        operand = copied_in_branch(a)
        found = jax.lax.cond(
            certified, lambda: tuple(found), lambda: by_values(operand, *tolerances)
        )
    value, rank = (jnp.reshape(x, batch) for x in found)
    return value, rank


# log_volume_of: the log-volume, and the factors -> the log-volume, with its derivative
#     Re trace(pinv(A) E) along E


def _log_volume_of_change(results, primals, e, *, tuning):
    _, *factors = primals
    x = pinv_form(factors, [None], truncates=True, tuning=tuning)
    return [jnp.sum(sum_of_rows(jnp.real(transpose(x) * e)), axis=(-2, -1))]


log_volume_of_p = _rules.attached("log_volume_of", 1, 1, _log_volume_of_change)
