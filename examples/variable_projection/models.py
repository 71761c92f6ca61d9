"""Models of the NIST data sets, split into linear and nonlinear parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray


def _zero(x: Array, *nonlinear: Array) -> Array:
    """The fixed term of most models."""
    return jnp.zeros_like(x)


@dataclass(frozen=True)
class Model:
    """A model that is linear in some of its parameters.

    `y = fixed(x, *nonlinear) + sum_j linear[j] * columns(x, *nonlinear)[j]`.

    Attributes:
        title: what was measured.
        formula: the model, for the title of a figure.
        nonlinear: numbers that NIST gives to the nonlinear parameters. The others are
            the coefficients of the columns, in their order.
        columns: functions of `x` with a free coefficient.
        fixed: the term without one.
        exchangeable: groups of parameters that may change places, as those of two
            exponentials may: the fit is the same.
        shaded: whether single terms are worth showing in a figure.
        rss_in_reach: whether double precision resolves the residual sum of squares.
        x_label: name of the predictor.
        y_label: name of the response.
    """

    title: str
    formula: str
    nonlinear: tuple[int, ...]
    columns: Callable[..., Sequence[Array]]
    fixed: Callable[..., Array] = _zero
    exchangeable: tuple[tuple[int, ...], ...] = ()
    shaded: bool = False
    rss_in_reach: bool = True
    x_label: str = "x"
    y_label: str = "y"

    def nonlinear_of(self, parameters: NDArray) -> NDArray:
        """The nonlinear parameters, `(..., k)`, out of all, `(..., p)`."""
        return parameters[..., np.array(self.nonlinear) - 1]

    def matrix(self, x: Array, nonlinear: Array) -> Array:
        """The columns as a matrix, `(m, p - k)`."""
        return jnp.stack(self.columns(x, *nonlinear), axis=1)

    def parameters(self, nonlinear: NDArray, linear: NDArray) -> NDArray:
        """All parameters, `(..., p)`, in the order of NIST."""
        count = nonlinear.shape[-1] + linear.shape[-1]
        index = np.array(self.nonlinear) - 1
        merged = np.empty((*linear.shape[:-1], count))
        merged[..., index] = nonlinear
        merged[..., np.setdiff1d(np.arange(count), index)] = linear
        return merged

    def in_order_of(self, certified: NDArray, parameters: NDArray) -> NDArray:
        """Parameters `(p,)` with exchangeable groups in the order nearest to NIST's."""
        candidates = []
        for order in permutations(self.exchangeable):
            candidate = parameters.copy()
            for group, source in zip(self.exchangeable, order, strict=True):
                candidate[np.array(group) - 1] = parameters[np.array(source) - 1]
            candidates.append(candidate)
        return min(candidates, key=lambda c: np.linalg.norm((c - certified) / certified))


def _saturation(title: str, x_label: str, y_label: str) -> Model:
    return Model(
        title=title,
        formula=r"b_1 (1 - e^{-b_2 x})",
        nonlinear=(2,),
        columns=lambda x, b2: [1 - jnp.exp(-b2 * x)],
        x_label=x_label,
        y_label=y_label,
    )


def _exponentials(title: str, *, rss_in_reach: bool = True) -> Model:
    return Model(
        title=title,
        formula=r"b_1 e^{-b_2 x} + b_3 e^{-b_4 x} + b_5 e^{-b_6 x}",
        nonlinear=(2, 4, 6),
        columns=lambda x, *rates: [jnp.exp(-rate * x) for rate in rates],
        exchangeable=((1, 2), (3, 4), (5, 6)),
        shaded=True,
        rss_in_reach=rss_in_reach,
    )


def _peaks(title: str) -> Model:
    return Model(
        title=title,
        formula=r"b_1 e^{-b_2 x} + b_3 e^{-(x-b_4)^2/b_5^2} + b_6 e^{-(x-b_7)^2/b_8^2}",
        nonlinear=(2, 4, 5, 7, 8),
        columns=lambda x, b2, b4, b5, b7, b8: [
            jnp.exp(-b2 * x),
            jnp.exp(-(((x - b4) / b5) ** 2)),
            jnp.exp(-(((x - b7) / b8) ** 2)),
        ],
        exchangeable=((3, 4, 5), (6, 7, 8)),
        shaded=True,
    )


def _cubic_over_cubic(title: str, x_label: str, y_label: str) -> Model:
    return Model(
        title=title,
        formula=r"(b_1 + b_2 x + b_3 x^2 + b_4 x^3)\,/\,(1 + b_5 x + b_6 x^2 + b_7 x^3)",
        nonlinear=(5, 6, 7),
        columns=lambda x, b5, b6, b7: [
            x**power / (1 + b5 * x + b6 * x**2 + b7 * x**3) for power in range(4)
        ],
        x_label=x_label,
        y_label=y_label,
    )


def _wave(x: Array, period: Array | float) -> list[Array]:
    phase = 2 * jnp.pi * x / period
    return [jnp.cos(phase), jnp.sin(phase)]


#: Every NIST set in the folder that is separable as written, in one predictor.
MODELS = {
    "Misra1a": _saturation("Dental adsorption", "pressure", "volume"),
    "BoxBOD": _saturation(
        "Biochemical oxygen demand", "incubation time, days", "oxygen demand, mg/l"
    ),
    # The residuals are 1e-13, a thousand rounding errors of the data: their squares have at
    # most three digits in double precision.
    "Lanczos1": _exponentials("Three decays, 14 digits", rss_in_reach=False),
    "Lanczos2": _exponentials("Three decays, 6 digits"),
    "Lanczos3": _exponentials("Three decays, 5 digits"),
    "MGH17": Model(
        title="Two decays that nearly cancel",
        formula=r"b_1 + b_2 e^{-b_4 x} + b_3 e^{-b_5 x}",
        nonlinear=(4, 5),
        columns=lambda x, b4, b5: [jnp.ones_like(x), jnp.exp(-b4 * x), jnp.exp(-b5 * x)],
        exchangeable=((2, 4), (3, 5)),
    ),
    "Gauss1": _peaks("Two peaks, apart"),
    "Gauss2": _peaks("Two peaks, slightly blended"),
    "Gauss3": _peaks("Two peaks, strongly blended"),
    "ENSO": Model(
        title="El Niño and the Southern Oscillation",
        formula=r"b_1 + \mathrm{waves\ of\ period}\ 12,\ b_4,\ b_7\ \mathrm{months}",
        nonlinear=(4, 7),
        columns=lambda x, b4, b7: [
            jnp.ones_like(x),
            *_wave(x, 12.0),
            *_wave(x, b4),
            *_wave(x, b7),
        ],
        exchangeable=((4, 5, 6), (7, 8, 9)),
        x_label="time, months",
        y_label="pressure difference",
    ),
    "MGH09": Model(
        title="A rational function",
        formula=r"b_1 (x^2 + b_2 x)\,/\,(x^2 + b_3 x + b_4)",
        nonlinear=(2, 3, 4),
        columns=lambda x, b2, b3, b4: [(x**2 + b2 * x) / (x**2 + b3 * x + b4)],
    ),
    "Kirby2": Model(
        title="Line widths in an electron microscope",
        formula=r"(b_1 + b_2 x + b_3 x^2)\,/\,(1 + b_4 x + b_5 x^2)",
        nonlinear=(4, 5),
        columns=lambda x, b4, b5: [
            x**power / (1 + b4 * x + b5 * x**2) for power in range(3)
        ],
    ),
    "Hahn1": _cubic_over_cubic(
        "Thermal expansion of copper", "temperature, K", "expansion coefficient"
    ),
    "Thurber": _cubic_over_cubic(
        "Electrons in a semiconductor", "logarithm of density", "mobility"
    ),
    "Bennett5": Model(
        title="Magnetism of a superconductor",
        formula=r"b_1 (b_2 + x)^{-1/b_3}",
        nonlinear=(2, 3),
        columns=lambda x, b2, b3: [(b2 + x) ** (-1 / b3)],
        x_label="logarithm of time",
        y_label="magnetism",
    ),
    "Roszman1": Model(
        title="Quantum defects of an atom",
        formula=r"b_1 - b_2 x - \arctan(b_3/(x-b_4))/\pi",
        nonlinear=(3, 4),
        columns=lambda x, b3, b4: [jnp.ones_like(x), -x],
        fixed=lambda x, b3, b4: -jnp.arctan(b3 / (x - b4)) / jnp.pi,
        x_label="energy of the excited state",
        y_label="quantum defect",
    ),
}
