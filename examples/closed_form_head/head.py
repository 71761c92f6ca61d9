"""The net, the closed-form head on its features, and two losses to train them."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import jaxpinv
from examples.closed_form_head.tasks import ORIENTATIONS, QUERY, SHOT, WAY, place, tasks

#: Tasks per step.
BATCH = 8
#: Weight of the slack, relative to the root mean squared norm of the features.
RIDGE = 0.5
CHANNELS = (1, 16, 32)

Net = tuple[tuple[Array, Array], ...]


def random_net(key: Array) -> Net:
    """Kernels and biases of the convolutions, for ReLU."""
    layers = []
    for draw, size in zip(jax.random.split(key), pairwise(CHANNELS), strict=True):
        kernel = jax.random.normal(draw, (3, 3, *size), jnp.float32)
        bias = jnp.zeros((1, 1, 1, size[1]), jnp.float32)
        layers.append((kernel * np.float32((4.5 * size[0]) ** -0.5), bias))
    return tuple(layers)


def features(net: Net, x: Array) -> Array:
    """Features of pictures `(..., 12, 12)`, a row for each; without layers, the pixels."""
    x = x.reshape(-1, *x.shape[-2:], 1)
    layout = ("NHWC", "HWIO", "NHWC")
    for kernel, bias in net:
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", None, None, layout)
        count, height, width, channels = x.shape
        blocks = (x + bias).reshape(count, height // 2, 2, width // 2, 2, channels)
        x = jax.nn.relu(blocks).max((2, 4))
    return x.reshape(len(x), -1)


def scores(net: Net, ridge: float, shots: Array, queries: Array) -> Array:
    """Scores of the closed-form head for the queries of a task, `(40, 4)`."""
    names = jnp.repeat(jnp.eye(WAY, dtype=jnp.float32), SHOT, axis=0)
    z = features(net, shots)
    scale = jnp.sqrt(jnp.mean(jnp.sum(z * z, axis=1)))
    slack = ridge * jnp.eye(len(z), dtype=z.dtype)
    head = jaxpinv.lstsq(jnp.concatenate([z / scale, slack], axis=1), names).solution
    return features(net, queries) @ head[: z.shape[1]] / scale


@jax.jit
def accuracy(net: Net, held_out: tuple[Array, Array]) -> Array:
    """Share of queries that the head classifies correctly, with the better ridge."""
    truth = jnp.repeat(jnp.arange(WAY), QUERY)[None]

    def named(ridge: float) -> Array:
        one = partial(scores, net, ridge)
        return jax.lax.map(lambda task: one(*task).argmax(-1), held_out, batch_size=25)

    return jnp.maximum(*(jnp.mean(named(ridge) == truth) for ridge in (0.0, RIDGE)))


def head_loss(parameters: tuple[Net, Array], key: Array, digits: Array) -> Array:
    """Cross-entropy of scaled scores, over the queries of a batch of tasks."""
    net, log_scale = parameters
    batch = tasks(key, digits, BATCH, ORIENTATIONS)
    said = jax.vmap(partial(scores, net, RIDGE))(*batch)
    truth = jnp.tile(jnp.repeat(jnp.arange(WAY), QUERY), (BATCH, 1))
    logits = jnp.exp(log_scale) * said
    return optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()


def softmax_loss(parameters: tuple[Net, Array], key: Array, digits: Array) -> Array:
    """Cross-entropy of a linear layer that classifies digits and orientations."""
    net, layer = parameters
    count = BATCH * WAY * (SHOT + QUERY)
    which, shot, turn, move = jax.random.split(key, 4)
    digit = jax.random.randint(which, (count,), 0, digits.shape[0])
    drawn = digits[digit, jax.random.randint(shot, (count,), 0, digits.shape[1])]
    turns = jax.random.randint(turn, (count,), 0, ORIENTATIONS)
    x = jax.vmap(place)(jax.random.split(move, count), drawn, turns)
    logits, truth = features(net, x) @ layer, ORIENTATIONS * digit + turns
    return optax.softmax_cross_entropy_with_integer_labels(logits, truth).mean()
