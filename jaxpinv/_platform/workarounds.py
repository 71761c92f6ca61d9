"""Workarounds for faults of libraries: what they are, and until when they are needed.

- Batches in LAPACK calls: see `matrices_of_one_call`.
- Slow starts of kernels on CPUs: see `STARTS_SLOWLY`.
- Fusion of chains of products on CPUs: see `prevent_fusion`.
- Copies of operands of branches on CPUs: see `copied_in_branch` and `replaced_if`.
- Maxima over short axes and of long matrices on CPUs: see `largest_of_short_axis` and
  `largest_of_matrices`.
- LAPACK's `gesdd` and `syevd` do not converge on some finite matrices, and jaxlib returns
  NaN: see `may_not_converge`. `jaxpinv._factorization.svd` decomposes such a matrix again.
- LAPACK's `gesdd` may loop forever on an Inf (Reference-LAPACK issue 1409). Until this is
  fixed, `jaxpinv._linalg.finite_or_zero` hides every Inf from decompositions.
- LAPACK's QR factorization sums over long columns term by term: see `ROWS_OF_QR`.
- XLA's CPU client hands over all but the smallest programs to another thread: see
  `is_handed_over`.
- JAX cannot lower a QR factorization if the type says how the batch is divided: see
  `can_lower_qr`.
- `vmap` and `grad` of a `jit` refuse operands if only some are on an explicit mesh: see
  `have_one_mesh`.
- JAX before 0.10 has another name for the axes over which an array varies in `shard_map`:
  see `varying_axes`.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import jaxlib
from jax import Array

from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._shapes import evenly

State = TypeVar("State", bound=tuple)

_VERSION: str = jaxlib.__version__  # pyright: ignore[reportPrivateImportUsage]

# jaxlib before 0.12 (`lapack_kernels.cc`, until commit 859992407d) divides the matrices of
# a LAPACK call among its threads, and waits for them on one of the same threads: when all
# of them wait, they deadlock. The fewest matrices that reach this many flops, by jaxlib's
# count, stay on one thread. Delete this when jaxlib 0.12 is the oldest supported.
SHARES_BATCHES = _IS_OLD = tuple(map(int, _VERSION.split(".")[:2])) < (0, 12)
_FLOPS_OF_ONE_THREAD = 200_000

# XLA before jaxlib 0.12 takes longer to start a kernel than arithmetic on a few vectors
# takes. Delete this when jaxlib 0.12 is the oldest supported.
STARTS_SLOWLY = _IS_OLD

# XLA runs programs of fewer counted operations in the thread that calls them.
_OPERATIONS_OF_CALLER = 1000

# LAPACK's SMLSIZ: divide and conquer passes matrices of at most this many columns to QR
# iteration, which has not been seen to fail.
_DIVIDED = 25

# XLA's CPU backend reduces so many terms at once.
_WINDOW = 32

#: LAPACK sums over the rows of a matrix in running sums, so errors grow with their number
#: (no release promises more). With so many rows at a time, Q and R of equal terms are off
#: by less than 8 eps in the norm: see `tests.factorization.test_thin_qr`.
ROWS_OF_QR = 256


def matrices_of_one_call(count: int, flops: int, *, shares: bool = SHARES_BATCHES) -> int:
    """How many of `count` matrices, of `flops` each, LAPACK is given at a time."""
    return evenly(count, -(-_FLOPS_OF_ONE_THREAD // flops)) if shares else count


def may_not_converge(m: int, n: int) -> bool:
    """Whether the decomposition of m by n matrices is known to fail sometimes.

    It fails for a few in a thousand matrices of low rank in double precision, with OpenBLAS
    (issue 3044 there), in every jaxlib so far. Singular values without vectors come from QR
    iteration and never failed. Delete this when `gesdd` converges.
    """
    return all(not isinstance(k, int) or k > _DIVIDED for k in (m, n))


def is_handed_over(operations: int) -> bool:
    """Whether XLA runs a program of that many arithmetic operations in another thread.

    That takes as long as the decomposition of a small matrix. XLA's count excludes library
    calls, and takes a single step of each loop (`cheap_computation_` in `cpu_client.cc`,
    in every version so far). Delete this when the count includes LAPACK.
    """
    return operations >= _OPERATIONS_OF_CALLER


def prevent_fusion(x: Array) -> Array:
    """`x`, which XLA's CPU backend then does not fuse into what uses it.

    XLA would fuse a chain of products and recompute each link for every element of the
    next (seen in all versions so far). It sees through `optimization_barrier`, but not
    through a branch whose two sides differ. A barrier on one side is a difference that
    needs no kernel.
    """
    barrier = jax.lax.optimization_barrier
    return jax.lax.cond(barrier(jnp.asarray(False)), barrier, lambda x: x, x)


def copied_in_branch(x: Array) -> Array:
    """`x`, as the operand of a branch that passes it to LAPACK.

    LAPACK takes columns where XLA has rows. If two conditionals use `x`, XLA copies it for
    such a branch in advance, even if the branch is not taken (seen in JAX 0.9 to 0.12).
    """
    return jax.lax.optimization_barrier(x)


def replaced_if(needed: Array, replace: Callable[..., State], found: State) -> State:
    """`replace(*found)` if that is needed, a scalar bool, or else `found`.

    A loop of at most one step: unlike a branch, it copies nothing if it is skipped.
    """
    return jax.lax.while_loop(
        lambda state: state[0],
        lambda state: (state[0] & False, replace(*state[1])),
        (needed, found),
    )[1]


def largest_of_short_axis(x: Array, tuning: Tuning = DEFAULT) -> Array:
    """The maximum of nonnegative `x` over its second-to-last axis, which is kept.

    For many matrices of a short axis, XLA's own reduction takes one at a time.
    """
    *batch, m, _ = x.shape
    is_known = all(isinstance(size, int) for size in x.shape)
    if is_known and 0 < m <= tuning.short and max(*batch, 1, 1) >= tuning.many_short:
        return functools.reduce(jnp.maximum, (x[..., i, None, :] for i in range(m)))
    return jnp.max(x, axis=-2, keepdims=True, initial=0)


def largest_of_matrices(x: Array, tuning: Tuning = DEFAULT) -> Array:
    """The maximum of nonnegative integers `x`, `(..., m, n)`, over both axes.

    XLA's CPU backend takes the rows of a long matrix in windows of 32, and if their number
    is no multiple of 32, it checks each element for whether it is beyond the end
    (`tree_reduction_rewriter.cc`, in all versions so far). Here it compares vectors, of
    which 32 lie apart in memory, and nothing is beyond the end.
    """
    *batch, m, n = x.shape
    if m < tuning.long_axis:
        return jnp.max(x, axis=(-2, -1), initial=0)
    rows = m // _WINDOW * _WINDOW
    apart = jnp.reshape(x[..., :rows, :], (*batch, _WINDOW, rows // _WINDOW * n))
    found = jnp.max(jnp.max(apart, axis=-2, initial=0), axis=-1, initial=0)
    if rows < m:
        found = jnp.maximum(found, jnp.max(x[..., rows:, :], axis=(-2, -1), initial=0))
    return found


def can_lower_qr(a: Array) -> bool:
    """Whether JAX can lower a QR factorization of `a`: only if its type divides no axis."""
    return not any(axis is not None for axis in jax.typeof(a).sharding.spec)


def have_one_mesh(arrays: Iterable[Array | None]) -> bool:
    """Whether JAX can map and differentiate a `jit` of these operands."""
    return len({jax.typeof(x).sharding.mesh for x in arrays if x is not None}) == 1


def varying_axes(x: Array) -> frozenset[str]:
    """The mesh axes over which `x` varies in `shard_map`.

    Delete this and the second name, `vma`, when JAX 0.10 is the oldest supported.
    """
    kind: Any = jax.typeof(x)
    return frozenset(kind.mat.varying if hasattr(kind, "mat") else kind.vma)
