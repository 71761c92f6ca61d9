"""The checks that all functions of a row-sharded matrix begin with."""

from jax import Array

from jaxpinv import _inputs
from jaxpinv._inputs import Tolerances


def numbers(function: str, tolerances: Tolerances) -> list[Array | None]:
    """Both tolerances as arrays without axes, or None, checked before they are traced."""
    found = []
    for name, value in tolerances.items():
        tolerance = None if value is None else _inputs.as_tolerance(function, name, value)
        if tolerance is not None and tolerance.ndim:
            raise ValueError(
                f"{function}: expected {name} to be a number, got shape {tolerance.shape}"
            )
        found.append(tolerance)
    return found
