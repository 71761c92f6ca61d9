"""Workarounds for faults of libraries: what, where, since when, until when.

- Batches in LAPACK calls: see `matrices_of_one_call`.
- Fusion of chains of products on CPUs: see `prevent_fusion`.
- Maxima over short axes on CPUs: see `largest_of_short_axis`.
- LAPACK's `gesdd` and `syevd` do not converge on some finite matrices, and jaxlib answers
  NaN: see `may_not_converge`. `jaxpinv._factorization.svd` decomposes such a matrix again.
- LAPACK's `gesdd` may loop forever on an Inf (Reference-LAPACK issue 1409): no
  decomposition sees one, by `jaxpinv._linalg.finite_or_zero`, until LAPACK returns.
- OpenBLAS starts threads for small calls, and these spin on after it: see
  `OPENBLAS_ONE_THREAD`.
- JAX cannot lower a QR factorization where a type says how a batch is divided: see
  `can_lower_qr`.
- `vmap` and `grad` of a `jit` refuse operands of which some are on an explicit mesh and
  some are not: see `have_one_mesh`.
- JAX before 0.10 has another name for the axes over which an array varies in `shard_map`:
  see `varying_axes`.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jax import Array

_VERSION: str = jaxlib.__version__  # pyright: ignore[reportPrivateImportUsage]

# jaxlib before 0.12 (`lapack_kernels.cc`, until commit 859992407d) divides the matrices of
# a LAPACK call among its threads, and waits for these on such a thread itself: when all of
# them wait, they wait forever. It leaves the fewest matrices of this many flops, as it
# counts them, to one thread. Delete this when jaxlib 0.12 is the oldest.
SHARES_BATCHES = tuple(map(int, _VERSION.split(".")[:2])) < (0, 12)
_FLOPS_OF_ONE_THREAD = 200_000

# LAPACK's SMLSIZ: divide and conquer leaves matrices of up to so many columns to QR
# iteration, which has not been seen to fail.
_DIVIDED = 25

#: OpenBLAS takes one thread for a triangular solve of fewer elements. Threads that it
#: starts spin after it, and slow down whatever comes next where cores are shared.
OPENBLAS_ONE_THREAD = 1024

# XLA's CPU backend reduces an axis as short as this one matrix after the other. So many
# matrices make the compilation of another method pay off.
_SHORT, _MANY = 8, 256


def matrices_of_one_call(count: int, flops: int, *, shares: bool = SHARES_BATCHES) -> int:
    """How many of `count` matrices LAPACK may be given at a time, of so many flops each."""
    return min(count, -(-_FLOPS_OF_ONE_THREAD // flops)) if shares else count


def may_not_converge(m: int, n: int) -> bool:
    """Whether the decomposition of matrices of that shape is known to fail sometimes.

    It fails for a few in a thousand matrices of low rank in double precision, with OpenBLAS
    (issue 3044 there), in every jaxlib so far. Singular values without vectors come from QR
    iteration and never failed. Delete it when `gesdd` converges.
    """
    return all(not isinstance(k, int) or k > _DIVIDED for k in (m, n))


def prevent_fusion(x: Array) -> Array:
    """`x`, which XLA's CPU backend does not fuse into what uses it.

    XLA would merge a chain of products there and compute each link anew for every element
    of the next (seen in all versions so far). It looks through `optimization_barrier`, but
    not through a branch, if its two sides differ. A barrier is a difference that needs no
    kernel.
    """
    barrier = jax.lax.optimization_barrier
    return jax.lax.cond(barrier(jnp.asarray(False)), barrier, lambda x: x, x)


def largest_of_short_axis(x: Array) -> Array:
    """The maximum over the second axis from the end, nonnegative, keeping the axis."""
    *batch, m, _ = x.shape
    is_known = all(isinstance(size, int) for size in x.shape)
    if is_known and 0 < m <= _SHORT and max(*batch, 1, 1) >= _MANY:
        return functools.reduce(jnp.maximum, (x[..., i, None, :] for i in range(m)))
    return jnp.max(x, axis=-2, keepdims=True, initial=0)


def can_lower_qr(a: Array) -> bool:
    """Whether JAX can lower a QR factorization of `a`: its type divides no axis."""
    return not any(axis is not None for axis in jax.typeof(a).sharding.spec)


def have_one_mesh(arrays: Iterable[Array | None]) -> bool:
    """Whether a `jit` of these operands can be mapped and differentiated by JAX."""
    return len({jax.typeof(x).sharding.mesh for x in arrays if x is not None}) == 1


def varying_axes(x: Array) -> frozenset[str]:
    """The mesh axes over which `x` varies in `shard_map`.

    Delete this and its second name, `vma`, when JAX 0.10 is the oldest.
    """
    kind: Any = jax.typeof(x)
    return frozenset(kind.mat.varying if hasattr(kind, "mat") else kind.vma)
