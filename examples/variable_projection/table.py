"""Compares fits with the certified values of NIST, and prints them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from examples.variable_projection.models import Model
from examples.variable_projection.nist import Dataset, digits


class Fit(NamedTuple):
    """A fit from each of `s` starts: `p` parameters, `k` of them nonlinear.

    Attributes:
        parameters: all parameters in NIST's order, `(s, p)`.
        rss: residual sums of squares, `(s,)`.
        iterations: of the optimizer, `(s,)`.
        found: nonlinear and linear parameters, `(s, k)` and `(s, p - k)`.
        initial: the same before the first iteration.
        seconds: the time of all starts together.
        compile_seconds: the time to compile, before that.
    """

    parameters: NDArray
    rss: NDArray
    iterations: NDArray
    found: tuple[NDArray, NDArray]
    initial: tuple[NDArray, NDArray]
    seconds: float
    compile_seconds: float


class Agreement(NamedTuple):
    """Digits that agree with NIST's.

    Attributes:
        parameters: of each parameter, `(s, p)`.
        rss: of the residual sum of squares, `(s,)`.
        least: the fewest of those that double precision can reach, `(s,)`.
    """

    parameters: NDArray
    rss: NDArray
    least: NDArray


def agreement(dataset: Dataset, model: Model, result: Fit) -> Agreement:
    """Compares a fit with the certified values of NIST."""
    parameters = digits(result.parameters, dataset.certified[None, :])
    rss = digits(result.rss, dataset.certified_rss)
    least = parameters.min(axis=-1)
    least = np.minimum(least, rss) if model.rss_in_reach else least
    return Agreement(parameters, rss, least)


HEADER = (
    f"{'data set':10}{'':12}{'certified':>17}{'start 1':>20}{'digits':>8}"
    f"{'start 2':>20}{'digits':>8}"
)


def table(dataset: Dataset, model: Model, result: Fit, agreed: Agreement) -> str:
    """The lines of one data set under `HEADER`."""
    lines = []

    def row(quantity: str, certified: float, found: NDArray, agree: NDArray) -> None:
        cells = "".join(
            f"{value:20.10E}{count:8.1f}" for value, count in zip(found, agree, strict=True)
        )
        name = dataset.name if not lines else ""
        lines.append(f"{name:10}{quantity:12}{certified:17.10E}{cells}")

    for index, certified in enumerate(dataset.certified):
        found = result.parameters[:, index], agreed.parameters[:, index]
        row(f"b{index + 1}", certified, *found)
    row("residual", dataset.certified_rss, result.rss, agreed.rss)
    if not model.rss_in_reach:
        lines.append(f"{'':10}not required: double precision does not resolve it")
    counts = "".join(f"{count:20d}{'':8}" for count in result.iterations)
    lines.append(f"{'':10}{'iterations':12}{'':17}{counts}".rstrip())
    lines.append(
        f"{'':10}{'seconds':12}{result.seconds:17.3f}"
        f"   for both starts, after {result.compile_seconds:.1f} to compile"
    )
    return "\n".join(lines)


def caption(dataset: Dataset, result: Fit, agree: Agreement, best: int) -> str:
    """The lines under the title of the figure, of one start."""
    counts = " and ".join(str(count) for count in result.iterations)
    return (
        f"residual sum of squares {result.rss[best]:#.11g}, certified "
        f"{dataset.certified_rss:#.11g}\n"
        f"{agree.parameters[best].min():.1f} digits of every parameter, "
        f"{agree.rss[best]:.1f} of the residual; {counts} iterations from two starts"
    )
