"""Draws one fit: the data with the curve above, the residuals below."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from examples._style import FADED, INK, style, titled
from examples.variable_projection.models import Model
from examples.variable_projection.nist import Dataset

FIT = "#d1495b"
STARTS = ("#2a9d8f", "#b8860b")
SHADES = ("#8ecae6", "#ffb703", "#a7c957")
GRID_POINTS = 800


def draw(
    path: Path,
    dataset: Dataset,
    model: Model,
    *,
    found: tuple[NDArray, NDArray],
    initial: tuple[NDArray, NDArray],
    caption: str,
) -> None:
    """Writes the picture of a fit as PNG.

    Args:
        path: where to.
        dataset: the data.
        model: what was fitted to it.
        found: nonlinear and linear parameters of the fit, `(k,)` and `(p - k,)`.
        initial: the same before the first iteration for every start, with a leading axis.
        caption: one or two lines that say how good the fit is.
    """
    title = f"{dataset.name}  ·  {model.title}"
    figure = titled(title, (8, 6), dpi=150, layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1.2))
    for axes in (above, below):
        style(axes)

    x = np.linspace(dataset.x.min(), dataset.x.max(), GRID_POINTS)
    if model.shaded:
        terms = model.matrix(jnp.asarray(x), jnp.asarray(found[0])) * found[1][None, :]
        for term, color in zip(np.asarray(terms).T, SHADES, strict=True):
            above.fill_between(x, term, color=color, alpha=0.3, linewidth=0)
    for number, (color, nonlinear, linear) in enumerate(
        zip(STARTS, *initial, strict=True), start=1
    ):
        curve = _curve(model, x, nonlinear, linear)
        label = f"start {number}, projected"
        above.plot(x, curve, "--", color=color, linewidth=1.3, label=label)
    size = 34 if dataset.x.size < 60 else 14
    dots = {"s": size, "facecolor": "white", "edgecolor": INK, "linewidth": 1.0}
    above.scatter(dataset.x, dataset.y, label="data", zorder=3, **dots)
    curve = _curve(model, x, *found)
    above.plot(x, curve, color=FIT, linewidth=2.0, label="fit", zorder=4)
    low, high = min(dataset.y.min(), curve.min()), max(dataset.y.max(), curve.max())
    if model.shaded:
        low = min(low, 0.0)
    margin = 0.06 * (high - low)
    above.set_ylim(low - margin, high + margin)
    above.set_ylabel(model.y_label, color=INK)
    above.set_title(f"$y = {model.formula}$\n{caption}", loc="left", size=9.5, color=INK)
    legend = above.legend(loc="best", fontsize=9, framealpha=0.85, edgecolor="none")
    legend.set_zorder(5)

    residual = dataset.y - _curve(model, dataset.x, *found)
    below.axhline(0, color=FIT, linewidth=1.5)
    below.vlines(dataset.x, 0, residual, color=FADED, linewidth=0.8)
    below.scatter(dataset.x, residual, zorder=3, **dots | {"s": size / 2})
    below.set_xlabel(model.x_label, color=INK)
    below.set_ylabel("residual", color=INK)
    reach = 1.2 * np.abs(residual).max()
    below.set_ylim(-reach, reach)
    below.ticklabel_format(axis="y", scilimits=(-2, 3), useMathText=True)
    figure.align_ylabels()
    figure.savefig(path)


def _curve(model: Model, x: NDArray, nonlinear: NDArray, linear: NDArray) -> NDArray:
    """The model at `x`, in the shape of `x`."""
    grid, nonlinear_array = jnp.asarray(x), jnp.asarray(nonlinear)
    fixed: Array = model.fixed(grid, *nonlinear_array)
    return np.asarray(fixed + model.matrix(grid, nonlinear_array) @ jnp.asarray(linear))
