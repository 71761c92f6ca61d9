"""A photograph, a camera that moves while its shutter flutters, and what it restores."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib import cbook
from matplotlib.image import imread

#: Pixels of a line, slots of the shutter, standard deviation of the lens blur in pixels.
PIXELS, SLOTS, LENS = 64, 16, 1.0

#: Standard deviation of the noise: an open shutter admits 1, gray ranges from 0 to 1.
NOISE = 0.00625

#: Singular values that are kept: with an open shutter this many give the least error.
KEPT = 24

Pinv = Callable[..., Array]


def photograph() -> Array:
    """A portrait of Grace Hopper, `(PIXELS, PIXELS)`: lines as columns, of mean zero."""
    file = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    gray = imread(str(file))[:512, :512].mean(axis=-1) / 255
    block = 512 // PIXELS
    small = gray.reshape(PIXELS, block, PIXELS, block).mean(axis=(1, 3))
    return jnp.asarray(small.T - small.mean())


def blur(shutter: Array) -> Array:
    """The blur of a line by lens and shutter, `(SLOTS + PIXELS + 7, PIXELS)`."""
    # Four pixels beyond both ends collect the spread of the lens.
    spread = np.arange(-4, PIXELS + 4)
    distance = (spread[:, None] - np.arange(PIXELS)) / LENS
    lens = np.exp(-(distance**2) / 2) / (LENS * np.sqrt(2 * np.pi))
    slot = np.arange(SLOTS + len(spread) - 1)[:, None] - np.arange(len(spread))
    within = (slot >= 0) & (slot < SLOTS)
    motion = jnp.where(within, shutter[np.clip(slot, 0, SLOTS - 1)], 0)
    return motion @ jnp.asarray(lens, motion.dtype) / SLOTS


def restoration(pinv: Pinv, a: Array) -> Array:
    """The pseudo-inverse of a blur that keeps `KEPT` singular values."""
    s = jax.lax.stop_gradient(jnp.linalg.svd(a, compute_uv=False))
    return pinv(a, rtol=(s[KEPT - 1] + s[KEPT]) / (2 * s[0]))


def error(pinv: Pinv, lines: Array, logits: Array) -> Array:
    """Error of restored lines, `(PIXELS, k)`, root mean square and expected over noise."""
    a = blur(jax.nn.sigmoid(logits))
    x = restoration(pinv, a)
    missed = x @ (a @ lines) - lines
    return jnp.sqrt(jnp.mean(missed**2) + NOISE**2 * jnp.sum(x**2) / PIXELS)
