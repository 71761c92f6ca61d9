"""The examples that learn, in small size, and the parts that they are made of."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from examples.truncated_regularization import __main__ as example
from examples.truncated_regularization import camera

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

blur = jax.jit(camera.blur)
restoration = jax.jit(partial(camera.restoration, jaxpinv.pinv))


def run(*arguments: str) -> int:
    """The exit status of the example. Adam of optax mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        return example.main(arguments)


def test_a_shutter_is_learned_as_claimed(tmp_path, capsys):
    status = run("--starts", "2", "--steps", "60", "--output", str(tmp_path))
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert "exact gradient" in printed.err, "progress on the standard error"
    figure = tmp_path / "truncated_regularization.png"
    assert figure.read_bytes().startswith(PNG_SIGNATURE)


def test_a_wrong_gradient_gives_a_failing_exit_status(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(example, "jaxpinv", SimpleNamespace(pinv=jnp.linalg.pinv))
    status = run("--starts", "1", "--steps", "10", "--output", str(tmp_path))
    assert status == 1
    printed = capsys.readouterr().out
    assert "missed: the exact gradient agrees with differences" in printed


def test_a_blur_moves_and_spreads_a_point_and_keeps_its_light():
    shutter = np.zeros(camera.SLOTS)
    shutter[[0, 5]] = camera.SLOTS / 2
    point = np.asarray(blur(shutter))[:, 30]
    assert point.sum() == pytest.approx(1, abs=1e-4)
    # Copies at 30 and 35, behind the margin of 4 pixels.
    position = np.arange(len(point)) - 4
    copies = [np.exp(-((position - center) ** 2) / 2) for center in (30, 35)]
    expected = np.sum(copies, axis=0) / np.sqrt(2 * np.pi) / 2
    np.testing.assert_allclose(point[4:68], expected[4:68], atol=1e-12)


def test_the_restoration_keeps_as_many_singular_values_as_it_says():
    a = blur(np.ones(camera.SLOTS))
    s = np.linalg.svd(a, compute_uv=False)
    assert s[-1] > 1e-12 * s[0], "what is truncated is not zero"
    x = np.asarray(restoration(a))
    assert np.linalg.matrix_rank(x) == camera.KEPT
    np.testing.assert_allclose(np.linalg.norm(x, 2), 1 / s[camera.KEPT - 1])


def test_the_error_is_the_mean_over_noise(rng):
    lines = np.asarray(camera.photograph())[:, :8]
    logits = np.full(camera.SLOTS, 2.0)
    a = np.asarray(blur(1 / (1 + np.exp(-logits))))
    x = np.asarray(restoration(a))
    noise = camera.NOISE * rng.normal(size=(400, len(a), 8))
    squares = np.mean((x @ (a @ lines + noise) - lines) ** 2)
    expected = jax.jit(partial(camera.error, jaxpinv.pinv))(lines, logits)
    assert np.sqrt(squares) == pytest.approx(float(expected), rel=5e-3)
