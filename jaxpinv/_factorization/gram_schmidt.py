"""QR by modified Gram-Schmidt, for matrices of few rows and columns."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._factorization import certificate
from jaxpinv._factorization.full_rank import Attempt
from jaxpinv._factors import Cutoff
from jaxpinv._linalg import adjoint, frobenius_norm, identity, matmul


def factor(a: Array, cutoff: Cutoff) -> Attempt:
    """QR by modified Gram-Schmidt, twice, for matrices of few columns."""
    m, n = a.shape[-2:]
    # The batch goes last, so that all arithmetic is that of long vectors. The operations
    # that make the columns of A orthonormal make W of the columns of the identity.
    z = jnp.transpose(jnp.concatenate([a, identity(a)], axis=1), (2, 1, 0))

    def orthonormalize(_, z: Array) -> Array:
        columns = list(z)
        for k in range(n):
            square = _dot(columns[k], columns[k], m)
            columns[k] = columns[k] / jnp.sqrt(square)[None]
            for j in range(k + 1, n):
                overlap = _dot(columns[k], columns[j], m)
                columns[j] = columns[j] - overlap[None] * columns[k]
        return jnp.stack(columns)

    z = jnp.transpose(jax.lax.fori_loop(0, 2, orthonormalize, z), (2, 1, 0))
    q, w = z[:, :m], z[:, m:]
    # In this order, or one truncated matrix would have all others of its chunk looked at.
    norm = frobenius_norm(a)
    full_rank = certificate.certify_full_rank(a, norm, w, cutoff)
    certified = certificate.is_orthonormalized(a, norm, w, q, full_rank)
    return Attempt(q, w, matmul(w, adjoint(q)), certified)


def _dot(x: Array, y: Array, rows: int) -> Array:
    """Scalar product of the first rows of two columns, `(rows, B)`: `(B,)`."""
    return jnp.sum(jnp.conj(x[:rows]) * y[:rows], axis=0)
