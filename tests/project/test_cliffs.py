"""The benchmark of times over shapes, on times that it is given."""

import json

import pytest

from tests.benchmarks import (
    cliffs,
)

pytestmark = pytest.mark.unoptimized


def test_a_cliff_is_a_step_beyond_more_elements_that_a_second_look_confirms():
    shapes = [cliffs.Shape(b, m, 8) for b in (31, 32) for m in (4088, 4096)]
    assert sorted(cliffs.neighbors(shapes)) == [
        *((shapes[0], shapes[1]), (shapes[0], shapes[2])),
        *((shapes[1], shapes[3]), (shapes[2], shapes[3])),
    ]
    ms = [3.2, 3.2, 5.2, 142.0]
    points = [
        cliffs.Point(shape, {cliffs.AUTO: t / 1e3}, 1.0, 1.0)
        for shape, t in zip(shapes, ms, strict=True)
    ]
    seen = dict(zip(shapes, [3.2, 3.2, 3.3, 142.0], strict=True))
    found = list(cliffs.steps(points, lambda x, y: seen[y] / seen[x]))
    factors = [round(step.factor, 2) for step in found]
    assert [(step.smaller, step.larger) for step in found] == [
        *((shapes[0], shapes[2]), (shapes[1], shapes[3]), (shapes[2], shapes[3])),
    ]
    assert factors == [1.0, 42.99, 42.95]
    short = [
        point._replace(seconds={cliffs.AUTO: t / 1e6})
        for point, t in zip(points, ms, strict=True)
    ]
    assert len(list(cliffs.steps(short, lambda x, y: 9.0))) == 2


@pytest.mark.slow
def test_times_over_shapes_are_printed_and_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cliffs, "measure", lambda shape, seconds: point(shape))

    def point(shape):
        seconds = {method: 1e-9 * shape.elements for method in cliffs.METHODS}
        return cliffs.Point(shape, seconds, 1.2 if shape.batch == 31 else 1.0, 1.0)

    arguments = ["--quick", "--only", "n=8", "m=1000,1001", "--out", str(tmp_path)]
    assert cliffs.main(arguments) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1.20 times the SVD: 31 x 1000x8"
    assert lines[-1] == "0 steps, 2 of 6 shapes slower than the SVD"
    assert (tmp_path / "cliffs.png").read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "cliffs.json").read_text())) == 6
