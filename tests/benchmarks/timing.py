"""Interleaved timing, and the ratio that comes out of it.

On a shared machine the speed drifts by tens of percent within seconds, so that neither
the fastest nor the median time of one method can be compared with that of another. Here
every round times all methods one after the other, A B A B, and only times of one round are
divided. The result is the median of these ratios over the rounds: drift cancels in each,
and a round that was disturbed in the middle counts no more than any other. Every second
round runs backwards, since the method before leaves caches and threads in its own state.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

#: A block of calls lasts at least this long: several time slices of the scheduler.
BLOCK_SECONDS = 0.03
#: Worker threads of the method before still spin for about a millisecond.
SETTLE_SECONDS = 0.005
#: No call that lasts as long needs a warm-up.
LONG_CALL_SECONDS = 1.0
MIN_ROUNDS = 6
MAX_ROUNDS = 60
#: Rounds end early when every ratio is known this well. The width alone decides, never
#: the value, or the calibration would choose its own result.
STANDARD_ERROR = 0.02

Method = Callable[[int], object]


class Clock(NamedTuple):
    """The two functions of time that a measurement needs."""

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


class Ratio(NamedTuple):
    """Time of a method over that of the reference: median and quartiles over rounds."""

    median: float
    low: float
    high: float


def rounds(
    methods: Mapping[str, Method],
    *,
    seconds: float,
    block: float = BLOCK_SECONDS,
    clock: Clock | None = None,
) -> dict[str, list[float]]:
    """Seconds per call of every method in every round.

    Args:
        methods: called with 0, 1, 2, ..., which picks the input. The first one is the
            reference of the ratios that decide when to stop.
        seconds: no pair of rounds begins after this time, once there are enough.
        block: shortest time of all calls of a method in one round.
        clock: for tests.

    Returns:
        One list for each method, all of one even length.
    """
    clock = clock or Clock()
    begin = clock.now()
    reference = next(iter(methods))
    calls = {name: _calls(method, block, clock) for name, method in methods.items()}
    started = dict.fromkeys(methods, 0)
    times: dict[str, list[float]] = {name: [] for name in methods}
    order = list(methods)
    for done in range(1, MAX_ROUNDS + 1):
        for name in order:
            clock.sleep(SETTLE_SECONDS)
            first = started[name]
            started[name] += calls[name]
            start = clock.now()
            for index in range(first, started[name]):
                methods[name](index)
            times[name].append((clock.now() - start) / calls[name])
        order.reverse()
        if done % 2 or done < MIN_ROUNDS:
            continue
        others = [name for name in methods if name != reference]
        if clock.now() - begin > seconds or all(
            _standard_error(times[name], times[reference]) < STANDARD_ERROR
            for name in others
        ):
            break
    return times


def single(method: Method, clock: Clock | None = None) -> float:
    """Seconds of the fastest of three calls, of two if they are long."""
    clock = clock or Clock()
    found: list[float] = []
    while len(found) < 2 or (len(found) < 3 and min(found) < LONG_CALL_SECONDS):
        start = clock.now()
        method(len(found))
        found.append(clock.now() - start)
    return min(found)


def ratio(times: list[float], reference: list[float]) -> Ratio:
    """Median and quartiles of the ratios of single rounds."""
    found = [t / r for t, r in zip(times, reference, strict=True)]
    low, median, high = statistics.quantiles(found, n=4, method="inclusive")
    return Ratio(median, low, high)


def median(times: list[float]) -> float:
    """Median seconds per call."""
    return statistics.median(times)


def _calls(method: Method, block: float, clock: Clock) -> int:
    """Number of calls that fills a block."""
    once = single(method, clock)
    return max(1, round(block / once)) if once > 0 else 1


def _standard_error(times: list[float], reference: list[float]) -> float:
    """Relative standard error of the median ratio, from the quartiles.

    A normal distribution is assumed: its deviation is 0.74 of the distance between the
    quartiles, and the median has 1.25 times the error of the mean.
    """
    median, low, high = ratio(times, reference)
    return 1.25 * 0.74 * (high - low) / median / len(times) ** 0.5
