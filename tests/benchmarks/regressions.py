"""What became slower between two results, by more than noise.

Seconds of two runs cannot be compared, since the speed of a machine drifts. The ratio of a
method to `jaxpinv.pinv` was measured within single rounds: if that of a method that did not
change has become smaller, `jaxpinv.pinv` has become slower.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tests.benchmarks.peers import REFERENCE
from tests.benchmarks.report import CALIBRATED

#: Two processes differ by as much, even if nothing has changed.
MARGIN = CALIBRATED[1] - 1
#: The same for a method that is so slow that it was called only a few times.
SINGLE_MARGIN = 0.5
#: Standard errors beyond which a change is no noise.
ERRORS = 3

Row = dict[str, Any]


class Change(NamedTuple):
    """How the time of one case changed.

    Attributes:
        label: of the case.
        factor: time now over time before.
        limit: the largest factor that noise explains.
    """

    label: str
    factor: float
    limit: float

    @property
    def is_slower(self) -> bool:
        """Whether it takes longer by more than noise."""
        return self.factor > self.limit


def changes(now: Iterable[Row], before: Iterable[Row]) -> list[Change]:
    """The cases that both results have, the one that slowed down most first."""
    earlier = {row["label"]: row for row in before}
    found = [
        change
        for row in now
        if row["label"] in earlier
        if (change := _change(row, earlier[row["label"]])) is not None
    ]
    return sorted(found, key=lambda change: -change.factor)


def _change(now: Row, before: Row) -> Change | None:
    """The median over the methods that both rows have, if there is one."""
    names = (set(now["ratios"]) & set(before["ratios"])) - {REFERENCE}
    if not names:
        singles = set(now["single"]) & set(before["single"])
        factors = [before["single"][name] / now["single"][name] for name in singles]
        if not factors:
            return None
        return Change(now["label"], statistics.median(factors), 1 + SINGLE_MARGIN)
    factors, errors = [], []
    for name in sorted(names):
        factors.append(before["ratios"][name]["median"] / now["ratios"][name]["median"])
        errors.append(math.hypot(_error(now, name), _error(before, name)))
    noise = max(MARGIN, ERRORS * statistics.median(errors))
    return Change(now["label"], statistics.median(factors), 1 + noise)


def _error(row: Row, name: str) -> float:
    """Relative standard error of a median ratio, from its quartiles, as in `timing`."""
    ratio = row["ratios"][name]
    spread = (ratio["high"] - ratio["low"]) / ratio["median"]
    return 1.25 * 0.74 * spread / row["rounds"] ** 0.5


def report(found: Sequence[Change], now: Row, before: Row) -> str:
    """What became slower, in lines of text; `now` and `before` describe the machines."""
    lines = [
        f"{key} differs: {before[key]} before, {now[key]} now"
        for key in ("cpu", "cores", "device", "versions")
        if before[key] != now[key]
    ]
    slower = [change for change in found if change.is_slower]
    lines += [
        f"slower: {change.label} takes {change.factor:.2f} times as long "
        f"(noise explains {change.limit:.2f})"
        for change in slower
    ]
    lines.append(f"{len(slower)} of {len(found)} cases became slower by more than noise")
    return "\n".join(lines)
