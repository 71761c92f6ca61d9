"""Processes that share a batch: the results are those of one, and a loss is an error."""

import pytest

from tests import stress

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ended():
    """Exit codes and outputs of two processes, of which the last one leaves at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        hosts = stress.start_hosts(2, "leave", devices=1)
    return stress.finish(hosts, timeout=300)


def test_gradient_steps_of_a_shared_batch_are_those_of_one_process(ended):
    _, outputs = ended
    assert all("trained 3 steps on 2 devices" in output for output in outputs), outputs


def test_when_one_process_is_gone_the_other_fails_and_does_not_wait(ended):
    codes, outputs = ended
    assert codes[1] == 17, outputs[1]
    assert codes[0] not in (None, 0)
    # Not an error of ours.
    assert "AssertionError" not in outputs[0]
