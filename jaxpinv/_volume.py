"""The logarithm of the volume of factored matrices, and its derivative.

The truncated columns of `V` are orthonormal and orthogonal to the others, and
`A V = U diag(s)`. So for every factorization, the logarithms of the kept singular values
sum to the sum of `log s` over the kept `s`, minus `log |det V|`.
"""

import jax.numpy as jnp
from jax import Array

from jaxpinv import _rules
from jaxpinv._factorization import log_det
from jaxpinv._factors import Factors
from jaxpinv._linalg import sum_of_rows, transpose
from jaxpinv._platform import chunking
from jaxpinv._platform import plan as plans
from jaxpinv._platform.plan import Method
from jaxpinv._platform.tuning import Tuning
from jaxpinv._primitives import pinv_form


def log_volume(
    a: Array, factors: Factors, *, method: Method, tuning: Tuning, is_stored: bool
) -> Array:
    """The log-volume, `(...)`, real, of matrices `(..., m, n)`, `m >= n`, with factors.

    `method` and `tuning` are those of the factorization, and `is_stored` says that another
    program may have made the factors.
    """
    logs = jnp.log(jnp.where(factors.kept, factors.s, 1))
    less = log_det_p.bind(a, factors.v, method=method, tuning=tuning, is_stored=is_stored)
    value = jnp.sum(logs, axis=-1) - less
    [value] = log_volume_of_p.bind(value, *factors, tuning=tuning)
    return value


# log_det: a (..., m, n), v of its factors (..., n, n) -> log |det v|, (...)


def _log_det_impl(a, v, *, method, tuning, is_stored, target):
    # For singular vectors, which are unitary, the result is 0. The plan tells whether `v`
    # has them, unless the factors may come from another program.
    is_complex = jnp.iscomplexobj(v)
    plan = plans.factorization(
        a.shape, target, is_complex=is_complex, method=method, tuning=tuning
    )
    if (not is_stored and plan.full_rank is None) or 0 in v.shape:
        return _log_det_types(a, v)
    plan = plans.determinant(v.shape, target, is_complex=is_complex, tuning=tuning)
    by = log_det.by_gram_schmidt if plan.by_gram_schmidt else log_det.by_lu
    [found] = chunking.in_calls(plan.chunk, lambda v: (by(v),), v)
    return found


def _log_det_types(a, v, **_):
    return jnp.where(False, jnp.sum(jnp.real(v), axis=(-2, -1)), 0)


log_det_p = _rules.primitive("log_det", _log_det_impl, types=_log_det_types)


# log_volume_of: the log-volume, and the factors -> the log-volume, with its derivative
#     Re trace(pinv(A) E) along E


def _log_volume_of_change(results, primals, e, *, tuning):
    _, *factors = primals
    x = pinv_form(factors, [None], truncates=True, tuning=tuning)
    return [jnp.sum(sum_of_rows(jnp.real(transpose(x) * e)), axis=(-2, -1))]


log_volume_of_p = _rules.attached("log_volume_of", 1, 1, _log_volume_of_change)
