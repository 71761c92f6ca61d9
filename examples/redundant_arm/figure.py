"""Draws both experiments of the redundant arm: reaching above, the singular pose below."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d import Axes3D
from numpy.typing import NDArray

from examples._style import FADED, HEADING, INK, style, titled
from examples.redundant_arm.kinematics import (
    DENAVIT_HARTENBERG,
    MAX_SPEED,
    frames,
    limit_margin,
)
from examples.redundant_arm.motion import PERIOD, Line, Reach

PATH = "#b8860b"
WITH, WITHOUT = "#2a9d8f", "#d1495b"
MOTION = LinearSegmentedColormap.from_list("motion", ["#c5dde8", "#2a6f97", "#12263a"])
ARMS_SHOWN = 8


def draw(path: Path, with_null: Reach, without: Reach, truncated: Line, full: Line) -> None:
    """Writes the picture as PNG.

    Args:
        path: where to.
        with_null: how the arms reached with null-space motion.
        without: the same without.
        truncated: the line with the cutoff.
        full: the same without.
    """
    title = "Franka Emika Panda  ·  differential inverse kinematics with a pseudo-inverse"
    figure = titled(title, (16, 10))
    sides = {"left": 0.02, "right": 0.98, "bottom": 0.065, "top": 0.89}
    grid = figure.add_gridspec(2, 3, **sides, wspace=0.24, hspace=0.34)

    for row, motion, text in (
        (0, _telling_motion(with_null, without), "From the ready pose to a target"),
        (1, np.asarray(truncated.q), "A straight line through a singular pose"),
    ):
        axes = figure.add_subplot(grid[row, 0], projection="3d")
        assert isinstance(axes, Axes3D)
        _arms(axes, motion)
        axes.set_title(text, **HEADING)

    _progress(figure.add_subplot(grid[0, 1]), with_null, without)
    _margins(figure.add_subplot(grid[0, 2]), with_null, without)
    _speeds(figure.add_subplot(grid[1, 1]), truncated, full)
    _lag(figure.add_subplot(grid[1, 2]), truncated, full)
    figure.savefig(path)


def _telling_motion(with_null: Reach, without: Reach) -> NDArray:
    """The first round for a target, `(t, 7)`, that null-space motion alone reached."""
    in_time = with_null.reached_in_time
    candidates = in_time[-1] & ~without.reached_in_time[-1]
    if not candidates.any():
        candidates = in_time[-1]
    moved = np.abs(with_null.first[-1] - with_null.first[0]).sum(axis=-1)
    arm = int(np.argmax(np.where(candidates, moved, -1)))
    return with_null.first[: max(2, int(np.argmax(in_time[:, arm])) + 1), arm]


def _arms(axes: Axes3D, motion: NDArray) -> None:
    """Stick figures along a motion, `(t, 7)`, light to dark, and the path of the hand."""
    chains = np.asarray(jax.jit(jax.vmap(frames))(jnp.asarray(motion)))
    hand = chains[:, 7, :3, 3]
    # Evenly along the path, not in time: reaching ends with many small steps.
    traveled = np.cumsum(np.linalg.norm(np.diff(hand, axis=0, prepend=hand[:1]), axis=1))
    shown = np.searchsorted(traveled, np.linspace(0, traveled[-1], ARMS_SHOWN))
    for place, instant in enumerate(np.minimum(shown, len(motion) - 1)):
        x, y, z = _skeleton(chains[instant]).T
        share = place / (ARMS_SHOWN - 1)
        last = place == ARMS_SHOWN - 1
        style = {"color": MOTION(share), "alpha": 0.35 + 0.65 * share**2}
        axes.plot(x, y, z, linewidth=4 if last else 2.4, solid_joinstyle="round", **style)
        joints = chains[instant, :7, :3, 3]
        axes.scatter(*joints.T, s=26 if last else 9, depthshade=False, **style)
    axes.plot(*hand.T, color=PATH, linewidth=2.2, zorder=10)
    axes.scatter(*hand[-1], color=PATH, s=55, depthshade=False, zorder=11)
    corners = np.concatenate([chains[..., :3, 3].reshape(-1, 3), np.zeros((1, 3))])
    low, high = corners.min(axis=0), corners.max(axis=0)
    center, reach = (low + high) / 2, 0.5 * (high - low).max()
    axes.set_xlim(center[0] - reach, center[0] + reach)
    axes.set_ylim(center[1] - reach, center[1] + reach)
    axes.set_zlim(0, 2 * reach)
    axes.set_box_aspect((1, 1, 1), zoom=1.2)  # pyright: ignore[reportArgumentType]
    for name, axis in zip("xyz", (axes.xaxis, axes.yaxis, axes.zaxis), strict=True):
        axis.set_label_text(f"{name} [m]", color=INK, size=10)
        axis.set_major_locator(MaxNLocator(4))
    axes.tick_params(colors=INK, labelsize=9)
    axes.view_init(elev=18, azim=-55)


def _skeleton(chain: NDArray) -> NDArray:
    """Corners of an arm from base to hand, `(k, 3)`, from its frames, `(8, 4, 4)`."""
    base, places = np.zeros((1, 3)), chain[:, :3, 3]
    # The table moves sideways from joint 4 to 5 before it follows the forearm.
    corner = places[3] + DENAVIT_HARTENBERG[4, 0] * chain[3, :3, 0]
    return np.concatenate([base, places[:4], corner[None], places[4:]])


def _progress(axes: Axes, with_null: Reach, without: Reach) -> None:
    """Share of targets reached during the first round, and after the others."""
    style(axes)
    steps = len(with_null.reached_in_time) - 1
    places = steps * (1 + 0.17 * np.arange(len(with_null.reached)))
    for run, color, name in _named(with_null, without):
        share = 100 * run.reached_in_time.mean(axis=1)
        axes.plot(share, color=color, linewidth=2.4, label=f"{name} null-space motion")
        rates = 100 * run.reached.mean(axis=1)
        axes.plot(places, rates, "o:", color=color, linewidth=1.5, markersize=6)
        # Above and to the left, or below and to the right: off the dotted line.
        shift, side = ((-5, 6), "right") if run is with_null else ((6, -13), "left")
        for place, rate in zip(places, rates, strict=True):
            axes.annotate(
                f"{rate:.0f}%",
                (place, rate),
                xytext=shift,
                textcoords="offset points",
                ha=side,
                color=color,
                size=10.5,
            )
    axes.axvline(steps, ymin=0.18, color=FADED, linewidth=0.8, linestyle="--")
    numbers = range(0, steps, 10)
    names = [*map(str, numbers), *("I", "II", "III", "IV")[: len(places)]]
    axes.set_xticks([*numbers, *places], names)
    axes.set_xlim(0, places[-1] + 0.16 * steps)
    axes.set_ylim(0, 110)
    axes.set_xlabel("steps of round I, then rounds of random starts", color=INK, size=11)
    axes.set_ylabel("targets reached within the limits [%]", color=INK, size=11)
    count = with_null.reached.shape[1]
    axes.set_title(f"{count} targets at once: 1 mm, 0.1°, joint limits", **HEADING)
    axes.legend(loc="lower right", fontsize=10.5, frameon=False)


def _margins(axes: Axes, with_null: Reach, without: Reach) -> None:
    """Distances of the arms from their joint limits after the first round."""
    style(axes)
    bins = np.linspace(-1, 1, 41)
    for run, color, name in _named(with_null, without):
        margins = np.asarray(jax.jit(jax.vmap(limit_margin))(jnp.asarray(run.first[-1])))
        beyond = 100 * np.mean(margins < 0)
        weights = np.full(margins.size, 100 / margins.size)
        label = f"{name}: {beyond:.0f}% of arms beyond"
        shape = {"bins": bins, "weights": weights, "color": color}
        inside = np.clip(margins, -1, 1)
        axes.hist(inside, histtype="stepfilled", alpha=0.25, **shape)
        axes.hist(inside, histtype="step", linewidth=2, label=label, **shape)
    axes.axvline(0, ymax=0.75, color=INK, linewidth=1.2, linestyle="--")
    axes.set_xlim(-1, 1)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])
    axes.set_xticks([-1, -0.5, 0, 0.5, 1], ["", "beyond", "at limit", "within", ""])
    axes.set_xlabel("margin of the joint nearest to its limit", color=INK, size=11)
    axes.set_ylabel("arms [%]", color=INK, size=11)
    axes.set_title("Joint limits after the first round", **HEADING)
    axes.legend(loc="upper left", fontsize=10.5, frameon=False)


def _speeds(axes: Axes, truncated: Line, full: Line) -> None:
    """Speed of the fastest joint over time, relative to what the arm allows."""
    style(axes)
    for line, color, name in (
        (full, WITHOUT, "nothing truncated"),
        (truncated, WITH, "truncated"),
    ):
        fastest = np.max(np.abs(np.asarray(line.speeds)) / MAX_SPEED, axis=1)
        label = f"{name}: {100 * fastest.max():.0f}% at most"
        axes.semilogy(_times(line), 100 * fastest, color=color, linewidth=2, label=label)
    axes.axhline(100, color=INK, linewidth=1.2, linestyle="--", label="speed limit")
    axes.set_xlabel("time [s]", color=INK, size=11)
    axes.set_ylabel("fastest joint [% of its speed limit]", color=INK, size=11)
    axes.set_title("Joint speed through the singular pose", **HEADING)
    axes.legend(loc="upper right", fontsize=10.5, frameon=False, handlelength=1.1)


def _lag(axes: Axes, truncated: Line, full: Line) -> None:
    """How far the hand is from where it should be, and how singular the pose is."""
    style(axes)
    for line, color, name in (
        (full, WITHOUT, "nothing truncated"),
        (truncated, WITH, "truncated"),
    ):
        axes.plot(
            _times(line),
            1e3 * np.asarray(line.behind),
            color=color,
            linewidth=2,
            label=name,
        )
    axes.set_xlabel("time [s]", color=INK, size=11)
    axes.set_ylabel("hand from its place on the line [mm]", color=INK, size=11)
    axes.set_title("What the cutoff costs", **HEADING)
    axes.legend(loc="upper right", fontsize=10.5, frameon=False)


def _named(with_null: Reach, without: Reach) -> tuple[tuple[Reach, str, str], ...]:
    """Both runs with their colors and names."""
    return (with_null, WITH, "with"), (without, WITHOUT, "without")


def _both(truncated: Line, full: Line) -> tuple[tuple[Line, str, str], ...]:
    """Both lines with their colors and names."""
    return (full, WITHOUT, "nothing truncated"), (truncated, WITH, "truncated")


def _times(line: Line) -> NDArray:
    """The instants of a line, `(t,)`, in seconds."""
    return PERIOD * np.arange(len(line.q))
