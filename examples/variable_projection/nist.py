"""Reads the nonlinear regression sets of NIST's Statistical Reference Datasets."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

DIRECTORY = Path(__file__).parents[1] / "data" / "nist_strd" / "nonlinear"

#: NIST prints its certified values with this many digits.
CERTIFIED_DIGITS = 11


@dataclass(frozen=True)
class Dataset:
    """One data set: `m` observations, a model with `p` parameters.

    Attributes:
        name: NIST's name of the set.
        x: predictor, `(m,)`.
        y: response, `(m,)`.
        starts: NIST's two starting points, `(2, p)`.
        certified: certified parameters, `(p,)`.
        certified_rss: certified residual sum of squares.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    starts: NDArray[np.float64]
    certified: NDArray[np.float64]
    certified_rss: float


def read(name: str) -> Dataset:
    """Reads a data set by the line ranges that its header gives.

    Args:
        name: NIST's name of the set, such as `"Misra1a"`.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: if the set is not shipped with the examples.
        ValueError: if the file has no certified residual sum of squares.
    """
    text = (DIRECTORY / f"{name}.dat").read_text(encoding="ascii")
    # A row of parameters is "b1 = start 1, start 2, certified, standard deviation".
    parameters = _numbers(text, "Starting Values")
    observations = _numbers(text, "Data")
    residual = re.search(r"Residual Sum of Squares:\s+(\S+)", text)
    if residual is None:
        raise ValueError(f"{name}: expected a certified residual sum of squares")
    return Dataset(
        name=name,
        x=observations[:, 1],
        y=observations[:, 0],
        starts=parameters[:, :2].T,
        certified=parameters[:, 2],
        certified_rss=float(residual[1]),
    )


def digits(found: ArrayLike, certified: ArrayLike) -> NDArray[np.float64]:
    """Number of decimal digits in which two arrays agree, element by element.

    It is `-log10` of the relative error, between zero and the digits that NIST certifies.

    Args:
        found: what was computed; a value that is not finite has no digits.
        certified: what is correct, not zero.

    Returns:
        The digits, in the broadcast shape.

    Example:
        >>> digits([2.0, 2.02, float("nan")], 2.0).round(1).tolist()
        [11.0, 2.0, 0.0]
    """
    found, certified = np.asarray(found), np.asarray(certified)
    with np.errstate(divide="ignore"):
        agree = -np.log10(np.abs(found - certified) / np.abs(certified))
    return np.nan_to_num(np.clip(agree, 0, CERTIFIED_DIGITS), nan=0.0)


def _numbers(text: str, part: str) -> NDArray[np.float64]:
    """The numbers in the lines of one part, without labels such as `b1 =`."""
    lines = re.search(rf"{part}\s+\(lines\s+(\d+)\s+to\s+(\d+)\)", text)
    if lines is None:
        raise ValueError(f"expected a header that names the lines of {part!r}")
    first, last = int(lines[1]), int(lines[2])
    rows = text.splitlines()[first - 1 : last]
    return np.array([row.split("=")[-1].split() for row in rows], np.float64)
