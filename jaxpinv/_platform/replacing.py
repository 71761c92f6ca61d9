"""Replaces results of the chosen matrices of a batch, as many at a time as a plan says."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxpinv._platform.chunking import Map
from jaxpinv._platform.tuning import DEFAULT, Tuning
from jaxpinv._shapes import last_true


def replacing(
    size: int | None, groups: int | None, *, is_local: bool, loops: bool = True
) -> Callable[..., tuple[Array, ...]]:
    """`replace`, or `replace_divided` if a batch may be divided, `size` at a time.

    Or, if it is local and `loops` is false, `replace_few`.
    """
    if size is not None and not loops:
        return lambda f, *operands: replace_few(f, size, *operands)
    if is_local:
        return lambda f, *operands: replace(f, size, *operands)
    return lambda f, *operands: replace_divided(f, groups, size, *operands)


def replace(
    f: Map, size: int | None, chosen: Array, found: Sequence[Array], *operands: Array
) -> tuple[Array, ...]:
    """`found`, with results of `f` in the places of the chosen matrices of a batch.

    `f` takes chunks of `size`, however many are chosen, so that no result depends on how
    many there are. If `size` is None, `f` takes all matrices if any is chosen.
    """
    batch = chosen.shape[0]
    if size is None:
        return _replace_at_once(f, chosen, found, *operands)
    if size == 1:
        return _replace_one_by_one(f, chosen, found, *operands)
    size = min(size, batch)
    count = jnp.sum(chosen, dtype=jnp.int32)
    # In a separate branch, which XLA shares among all replacements of the same matrices.
    order = jax.lax.cond(count > 0, _in_front, lambda x: x.astype(jnp.int32), chosen)

    def step(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        begin, found = state
        k = jax.lax.dynamic_slice_in_dim(order, begin, size)
        some = f(*(x.at[k].get(mode="clip") for x in operands))
        placed = (x.at[k].set(y, mode="drop") for x, y in zip(found, some, strict=True))
        return begin + size, tuple(placed)

    state = (jnp.zeros_like(count), tuple(found))
    return jax.lax.while_loop(lambda state: state[0] < count, step, state)[1]


def _in_front(chosen: Array, tuning: Tuning = DEFAULT) -> Array:
    """Indices of the chosen matrices first, then indices beyond the end of the batch."""
    batch = chosen.shape[0]
    if batch <= tuning.sorted:
        return jax.lax.sort(_index_or_end(chosen), is_stable=False)
    rank = jnp.cumsum(chosen, dtype=jnp.int32)
    # Made of the argument, so that both vary over the same devices in `shard_map`.
    beyond = 0 * rank + batch
    return beyond.at[jnp.where(chosen, rank - 1, batch)].set(
        jnp.arange(batch, dtype=jnp.int32), mode="drop"
    )


def _index_or_end(chosen: Array) -> Array:
    """The index of each chosen matrix, and for all others the size of the batch."""
    batch = chosen.shape[0]
    return jnp.where(chosen, jnp.arange(batch, dtype=jnp.int32), batch)


def replace_divided(
    f: Map,
    groups: int | None,
    size: int | None,
    chosen: Array,
    found: Sequence[Array],
    *operands: Array,
) -> tuple[Array, ...]:
    """Replace as `replace` does, without moving matrices between devices.

    The batch may have several axes. If it has one, which divides into equal groups (the
    shares of the devices), `f` takes `size` matrices of each group at a time. Otherwise `f`
    takes all matrices if any is chosen.
    """
    if groups and size and chosen.ndim == 1 and chosen.shape[0] % groups == 0:
        return _replace_in_groups(f, groups, size, chosen, found, *operands)
    return _replace_at_once(f, chosen, found, *operands)


def _replace_at_once(
    f: Map, chosen: Array, found: Sequence[Array], *operands: Array
) -> tuple[Array, ...]:
    """Replace in one branch, where `f` takes all matrices if any is chosen."""

    def complete(found: tuple[Array, ...]) -> tuple[Array, ...]:
        return _where_chosen(chosen, f(*operands), found)

    return jax.lax.cond(jnp.any(chosen), complete, lambda found: found, tuple(found))


def replace_few(
    f: Map, few: int, chosen: Array, found: Sequence[Array], *operands: Array
) -> tuple[Array, ...]:
    """`found`, with results of `f` in the places of the chosen matrices of a batch.

    `f` takes the chosen ones if they are at most `few`, and else all, in one branch.
    """
    if few >= chosen.shape[0]:
        return _replace_at_once(f, chosen, found, *operands)
    # Not in the branch: a GPU computes them in the kernel that decides what is chosen.
    places = _index_or_end(chosen)

    def some(found: tuple[Array, ...]) -> tuple[Array, ...]:
        k = jax.lax.sort(places, is_stable=False)[:few]
        results = f(*(x.at[k].get(mode="clip") for x in operands))
        return tuple(
            x.at[k].set(y, mode="drop") for x, y in zip(found, results, strict=True)
        )

    def complete(found: tuple[Array, ...]) -> tuple[Array, ...]:
        return _where_chosen(chosen, f(*operands), found)

    # Rounded up. Beyond the last branch, `switch` takes the last.
    which = (_count(chosen) + (few - 1)) // few
    return jax.lax.switch(which, [lambda x: x, some, complete], tuple(found))


def _count(chosen: Array, tuning: Tuning = DEFAULT) -> Array:
    """How many matrices are chosen.

    Parts of the batch are added first, because CUDA sums long arrays in two kernels.
    """
    batch = chosen.shape[0]
    parts = min(-(-batch // tuning.at_once), tuning.parts)
    length = -(-batch // parts)
    terms = jnp.pad(chosen.astype(jnp.int32), (0, parts * length - batch))
    return jnp.sum(sum(jnp.reshape(terms, (parts, length))), dtype=jnp.int32)


def _where_chosen(
    chosen: Array, new: Sequence[Array], found: Sequence[Array]
) -> tuple[Array, ...]:
    """The new results of the chosen matrices, and of all others those that were found."""
    return tuple(
        jnp.where(jnp.expand_dims(chosen, range(chosen.ndim, x.ndim)), y, x)
        for x, y in zip(found, new, strict=True)
    )


def _replace_in_groups(
    f: Map, groups: int, size: int, chosen: Array, found: Sequence[Array], *operands: Array
) -> tuple[Array, ...]:
    """Replace `size` matrices of each group at a time."""
    batch = chosen.shape[0]
    length = batch // groups
    size = min(size, length)

    def in_groups(x: Array) -> Array:
        return jnp.reshape(x, (groups, length, *x.shape[1:]))

    def places(chosen: Array) -> Array:
        rank = jnp.cumsum(chosen, dtype=jnp.int32)
        beyond = jnp.full(length, length, jnp.int32)
        index = jnp.arange(length, dtype=jnp.int32)
        return beyond.at[jnp.where(chosen, rank - 1, length)].set(index, mode="drop")

    chosen, operands = in_groups(chosen), tuple(map(in_groups, operands))
    count = jnp.max(jnp.sum(chosen, axis=1, dtype=jnp.int32))
    take = jax.vmap(lambda x, k: x.at[k].get(mode="clip"))
    put = jax.vmap(lambda x, k, y: x.at[k].set(y, mode="drop"))

    def complete(found: tuple[Array, ...]) -> tuple[Array, ...]:
        order = jax.vmap(places)(chosen)

        def step(state):
            begin, found = state
            k = jax.lax.dynamic_slice_in_dim(order, begin, size, axis=1)
            some = f(*(take(x, k) for x in operands))
            return begin + size, tuple(map(put, found, [k] * len(found), some))

        state = (jnp.zeros_like(count), tuple(map(in_groups, found)))
        _, found = jax.lax.while_loop(lambda state: state[0] < count, step, state)
        return tuple(jnp.reshape(x, (batch, *x.shape[2:])) for x in found)

    return jax.lax.cond(count > 0, complete, lambda found: found, tuple(found))


def _replace_one_by_one(
    f: Map, chosen: Array, found: Sequence[Array], *operands: Array
) -> tuple[Array, ...]:
    """Replace one matrix at a time, the last one first."""

    def step(state: tuple[Array, tuple[Array, ...]]) -> tuple[Array, tuple[Array, ...]]:
        last, found = state
        # Unsigned, because a negative one would count from the end.
        i = last.astype(jnp.uint32)
        some = f(*(jax.lax.dynamic_slice_in_dim(x, i, 1) for x in operands))
        return last_true(chosen, last), tuple(
            jax.lax.dynamic_update_slice_in_dim(x, y, i, 0)
            for x, y in zip(found, some, strict=True)
        )

    state = (last_true(chosen, chosen.shape[0]), tuple(found))
    return jax.lax.while_loop(lambda state: state[0] >= 0, step, state)[1]
