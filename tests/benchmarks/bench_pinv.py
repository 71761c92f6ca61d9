"""The same methods under pytest-benchmark, for its histories and comparisons.

    python -m pytest tests/benchmarks/bench_pinv.py --benchmark-only

Its times are not interleaved: compare versions of one method with it, and methods with
`python -m tests.benchmarks.compare`. Named so that the plain test run collects nothing.
"""

import jax
import pytest

from tests.benchmarks import cases, peers

CASES = [case for case in cases.grid("cpu", quick=True) if case.rank == cases.FULL]


@pytest.fixture(scope="module", autouse=True)
def clean_caches():
    """Compiled code of one run must not stay for other tests."""
    yield
    jax.clear_caches()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
@pytest.mark.parametrize("peer", peers.available("cpu")[0], ids=lambda peer: peer.name)
def test_pinv(benchmark, peer, case):
    if not peer.supports(case):
        pytest.skip(f"{peer.name} has no {case.operation} for this")
    prepared = peer.prepare(case, cases.matrices(case), cases.directions(case))
    numbers = iter(range(10**9))
    benchmark.group = case.label
    benchmark(lambda: prepared.call(next(numbers)))
