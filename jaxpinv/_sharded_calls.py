"""What the functions of a matrix with its rows on many devices begin with."""

from functools import partial

from jax import Array

from jaxpinv import _inputs, _row_sharded
from jaxpinv._inputs import Tolerances
from jaxpinv._mesh import Placement
from jaxpinv._solver import Strategy


def strategy(place: Placement, *, with_pinv: bool) -> Strategy:
    """Every matrix is factored where its rows lie."""
    factor = partial(_row_sharded.factor, place, with_pinv=with_pinv)
    return Strategy(with_pinv=with_pinv, factor=factor, caps_default=True)


def numbers(function: str, tolerances: Tolerances) -> list[Array | None]:
    """Both tolerances, checked before they are traced."""
    found = []
    for name, value in tolerances.items():
        tolerance = None if value is None else _inputs.as_tolerance(function, name, value)
        if tolerance is not None and tolerance.ndim:
            raise ValueError(
                f"{function}: expected {name} to be a number, got shape {tolerance.shape}"
            )
        found.append(tolerance)
    return found
