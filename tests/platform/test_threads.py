"""Many Python threads: the results are the serial ones, and nothing waits forever."""

import pytest

from tests import stress

pytestmark = pytest.mark.slow

# Of a part that takes seconds. One that waits forever fails, in a process of its own.
TIMEOUT = 300


@pytest.fixture(autouse=True)
def unoptimized_processes(monkeypatch):
    """The processes compile without optimizations, on which nothing here depends."""
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


@pytest.mark.parametrize(
    ("asynchronous", "shapes", "names"),
    [(True, "few", ["pinv auto"]), (False, "one", ["lstsq auto", "pinv svd"])],
    ids=["asynchronous", "synchronous"],
)
def test_threads_get_bit_for_bit_the_serial_results(asynchronous, shapes, names):
    found = stress.run(
        "threads",
        TIMEOUT,
        calls=8,
        shapes=shapes,
        names=names,
        asynchronous=asynchronous,
        seconds=0,
    )
    assert found["differing"] == 0
    assert found["calls"] == stress.THREADS * (8 + found["programs"])


def test_concurrent_decompositions_do_not_deadlock():
    # Two that do so wait forever on jaxlib 0.10 with two cores.
    arguments = {"kinds": ["eigh"], "calls": 25, "copies": 8, "shape": (100, 32, 32)}
    found = stress.run("decompositions", TIMEOUT, seconds=0, **arguments)
    assert found["calls"] == {"eigh": 25}
