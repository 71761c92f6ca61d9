"""The example of a closed-form head in small size, and the parts that it is made of."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.closed_form_head import __main__ as example
from examples.closed_form_head import head
from examples.closed_form_head import tasks as drawn

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def run(output, steps):
    """The exit status of the example. Adam of optax mixes dtypes."""
    arguments = ["--seeds", 1, "--steps", steps, "--tasks", 25, "--output", output]
    with jax.numpy_dtype_promotion("standard"):
        return example.main([str(x) for x in arguments])


def test_features_learned_through_the_head_name_unseen_digits_best(tmp_path, capsys):
    status = run(tmp_path, 12)
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert "seed 0, closed-form head" in printed.err, "progress"
    assert (tmp_path / "closed_form_head.png").read_bytes().startswith(PNG_SIGNATURE)


def test_features_that_learn_nothing_give_a_failing_exit_status(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(example, "step", lambda loss, state, key, digits: state)
    assert run(tmp_path, 1) == 1
    assert "missed: 0.03 more than the others" in capsys.readouterr().out


def test_pictures_have_all_eight_orientations_and_are_moved_whole():
    picture = np.arange(1.0, 65).reshape(8, 8)
    keys = jax.random.split(jax.random.key(0), 8)
    place = jax.jit(jax.vmap(drawn.place, (0, None, 0)))
    fields = np.asarray(place(keys, picture, np.arange(8)))
    assert fields.shape == (8, 12, 12)
    ways = {tuple(field[field > 0]) for field in fields}
    turned = [np.rot90(picture, quarter) for quarter in range(4)]
    assert ways == {tuple(x.ravel()) for way in turned for x in (way, way[:, ::-1])}
    corners = {tuple(np.argwhere(field > 0)[0]) for field in fields}
    assert len(corners) > 1, "all in one place"


def test_a_task_has_every_picture_once_and_every_digit_in_its_row():
    # Picture `j` of digit `i` has a single value, `100 i + j + 1`.
    numbers = np.add.outer(100 * np.arange(6.0), np.arange(1.0, 21))
    digits = jnp.asarray(np.broadcast_to(numbers[..., None, None], (6, 20, 8, 8)))
    shots, queries = drawn.task(jax.random.key(1), digits, 8)
    assert shots.shape == (4, 5, 12, 12)
    assert queries.shape == (4, 10, 12, 12)
    values = np.concatenate([shots, queries], axis=1).max((2, 3))
    assert np.unique(values).size == 60
    rows = values // 100
    assert np.all(rows == rows[:, :1])
    assert np.unique(rows[:, 0]).size == 4


def test_digits_held_out_are_those_from_six():
    learned, held_out = drawn.pictures()
    data: Any = drawn.load_digits()
    assert learned.shape[:1] + held_out.shape[:1] == (6, 4)
    assert np.all((learned >= 0) & (learned <= 1))
    first = np.array([data.images[data.target == digit][0] for digit in range(10)]) / 16
    assert np.array_equal(np.concatenate([learned[:, 0], held_out[:, 0]]), first)


@partial(jax.jit, static_argnums=2)
def one_task(key, digits, ridge):
    """A task, and the scores of its pixels."""
    shots, queries = drawn.task(key, digits, 1)
    return shots, queries, head.scores((), ridge, shots, queries)


@pytest.mark.parametrize("ridge", [0.0, 0.5], ids=["least norm", "ridge"])
def test_scores_are_those_of_ridge_regression(ridge):
    digits = np.random.default_rng(0).random((4, 15, 8, 8), np.float32)
    shots, queries, said = one_task(jax.random.key(2), digits, ridge)
    z, others = (np.asarray(x, float).reshape(-1, 144) for x in (shots, queries))
    names = np.repeat(np.eye(4), 5, axis=0)
    weight = ridge**2 * np.mean(np.sum(z**2, axis=1))
    expected = others @ z.T @ np.linalg.solve(z @ z.T + weight * np.eye(20), names)
    assert said == pytest.approx(expected, abs=1e-5)
