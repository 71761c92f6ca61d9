"""The arithmetic of the weak-scaling figures, by hand and by what the compiler counts."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from jaxpinv import sharded
from tests.benchmarks import weak_scaling
from tests.benchmarks.weak_scaling import Machine, paper

pytestmark = pytest.mark.unoptimized


def test_counts_are_those_of_a_calculation_by_hand():
    found = paper(4 * 30, 3, 4, itemsize=8)
    assert found.rows == 30
    assert found.rounds == 4
    assert found.round_bytes == 72
    assert found.sum_bytes == 1.5 * (72 + 24)
    # QR and Q: 36 (30 - 1). Two products of 2 * 30 * 9.
    assert found.row_flops == pytest.approx(36 * 29 + 2 * 540)
    # Twice QR and Q of 6 by 3, 36 (6 - 1), and two products of 54; values, 21 * 27.
    assert found.tree_flops == pytest.approx(2 * (36 * 5 + 2 * 54) + 567)
    assert found.held_bytes == 4 * 30 * 3 * 8 + 2 * 2 * 72
    assert found.gradient_flops == 4 * 540


def test_rounds_and_their_bytes_are_those_of_the_compiled_program():
    n = 3
    mesh = jax.make_mesh(
        (6,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:6]
    )
    f = jax.jit(lambda a: sharded.pinv(a, mesh=mesh))
    text = f.lower(np.zeros((24, n))).compile().as_text() or ""
    sent = re.findall(r" = f64\[(\d+),(\d+)\]\S* collective-permute", text)
    found = paper(24, n, 6, itemsize=8)
    assert len(sent) == found.rounds
    assert {int(i) * int(j) * 8 for i, j in sent} == {found.round_bytes}


def test_times_are_counts_over_speeds():
    machine = Machine(flops=2.0, memory=4.0, link=8.0, latency=0.5)
    found = paper(120, 3, 4, itemsize=8)
    seconds = found.seconds(machine)
    assert seconds["rows, arithmetic"] == pytest.approx(found.row_flops / 2)
    assert seconds["rows, one pass over memory"] == found.held_bytes / 4
    # Four rounds of the tree, and a sum in as many steps.
    assert seconds["network"] == (4 * 72 + 144) / 8 + 8 * 0.5


def test_efficiency_is_one_where_devices_beyond_the_cores_take_their_turns():
    seconds = {1: 0.1, 2: 0.1, 4: 0.2, 8: 0.8}
    found = weak_scaling.efficiencies(seconds, cores=2)
    assert found == pytest.approx({1: 1.0, 2: 1.0, 4: 1.0, 8: 0.5})
    last = weak_scaling.table_of_measurements(seconds, 2).splitlines()[-1]
    assert [x.strip() for x in last.split("|")[1:-1]] == ["8", "800.00", "400.00", "0.50"]
