"""What factorizations without singular values return.

Each takes a matrix `A`, `(m, n)`, or matrices in one batch axis, `(B, m, n)`, with
`m >= n` and elements of size about 1, and finds `W` such that the columns of `A W = Q` are
orthonormal. Then `pinv(A) = W Q^H`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from jaxpinv._factors import Cutoff


class CertifiedFactors(NamedTuple):
    """Factors of matrices, and where they are certified.

    Attributes:
        q: `(..., m, n)`.
        w: `(..., n, n)`.
        x: the pseudo-inverse, `(..., n, m)`.
        certified: `(...)`, bool. Where it is False, the other fields are arbitrary.
        s: `(..., n)`, 0 where truncated. `q`, `s`, `w` are `u`, `s`, `v` of `Factors`. None
            stands for ones, in units of the scale of the matrix. NaN if that is not finite.
        may_be_rounding: `(...)`, bool. If it is False and full rank is not certified, more
            than rounding is very likely truncated. None means that nothing is known.
        largest: `(...)`, what `largest_element` finds, if it is known.
    """

    q: Array
    w: Array
    x: Array
    certified: Array
    s: Array | None = None
    may_be_rounding: Array | None = None
    largest: Array | None = None


class FullRank(NamedTuple):
    """A factorization without singular values.

    Attributes:
        factor: the factors of matrices, given tolerances.
        is_inverse: whether `q` is the identity where the factors are certified.
        takes_any_size: whether `factor` takes matrices of any scale, and returns `s` and
            `largest`.
    """

    factor: Callable[[Array, Cutoff], CertifiedFactors]
    is_inverse: bool
    takes_any_size: bool = False

    def of_full_rank(self) -> "FullRank":
        """This factorization, but certified only where the matrix has full rank."""

        def factor(a: Array, cutoff: Cutoff) -> CertifiedFactors:
            found = self.factor(a, cutoff)
            if found.s is None:
                return found
            full_rank = jnp.all(found.s > 0, axis=-1)
            return found._replace(certified=found.certified & full_rank)

        return self._replace(factor=factor)
