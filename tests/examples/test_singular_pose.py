"""The arm on its line through a singular pose, and each rule against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.redundant_arm import kinematics
from examples.singular_pose import __main__ as example
from examples.singular_pose import motion

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: That of a small run, so that all tests share one program.
RATE = example.QUICK["rate"]


@pytest.fixture(scope="module")
def lines() -> dict[str, motion.Line]:
    """The line with every rule."""
    return motion.follow_all(motion.RULES, RATE)


def test_the_line_is_followed_as_claimed(tmp_path, capsys):
    status = example.main(["--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert "the line, 250 cycles per second" in printed.err, "progress"
    assert (tmp_path / "singular_pose.png").read_bytes().startswith(PNG_SIGNATURE)


def test_an_arm_that_is_not_damped_gives_a_failing_exit_status(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setitem(motion.RULES, "damped", motion.Rule())
    assert example.main(["--quick", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "missed: damped: speeds and accelerations below 50% of the limits" in printed
    assert "missed: truncated" not in printed


def test_damping_vanishes_above_the_threshold_and_is_full_in_the_singular_pose():
    w = motion.THRESHOLD * jnp.array([0.0, 0.5, 1.0, 7.0])
    found = motion.damping(w, jnp.full(4, 0.2))
    np.testing.assert_allclose(found, [0.2, 0.1, 0, 0], atol=1e-15)


def test_the_manipulability_of_a_jacobian_without_full_rank_is_zero(monkeypatch):
    def of_rank_five(chain):
        return jnp.eye(6, 7) * chain[0, 3, 3] * jnp.array([[1.0]] * 5 + [[0.0]])

    monkeypatch.setattr(motion, "jacobian", of_rank_five)
    w, uphill = jax.jit(motion.manipulability)(jnp.asarray(motion.START))
    assert w == 0
    assert jnp.all(jnp.isfinite(uphill))


jacobian_of = jax.jit(lambda q: kinematics.jacobian(kinematics.frames(q)))
frames_of, twist_between = map(jax.jit, (kinematics.frames, kinematics.twist_between))


@pytest.mark.parametrize("name", motion.RULES)
def test_joint_speeds_agree_with_normal_equations_and_differences(name, lines):
    line, rule = lines[name], motion.RULES[name]
    middle = np.asarray(frames_of(jnp.asarray(motion.SINGULAR)))[7]

    def log_volume(q):
        j = np.asarray(jacobian_of(q))
        return np.linalg.slogdet(j @ j.T)[1] / 2

    for instant in (0, int(1.7 * RATE), int(2.1 * RATE), int(4.2 * RATE)):
        q, phase = line.q[instant], np.pi * instant / RATE / motion.DURATION
        j = np.asarray(jacobian_of(q))
        wanted = middle.copy()
        wanted[:3, 3] -= motion.LENGTH / 2 * np.cos(phase) * motion.DIRECTION
        pose = frames_of(q)[7]
        error = np.asarray(twist_between(pose, jnp.asarray(wanted)))
        np.testing.assert_allclose(line.behind[instant], np.linalg.norm(error[:3]))
        correction = motion.FEEDBACK * error
        correction *= min(1, motion.LARGEST_CORRECTION / np.linalg.norm(correction))
        twist = correction
        rate_of_phase = np.pi / motion.DURATION
        twist[:3] += motion.LENGTH / 2 * rate_of_phase * np.sin(phase) * motion.DIRECTION

        uphill = np.array(
            [(log_volume(q + e) - log_volume(q - e)) / 2e-5 for e in 1e-5 * np.eye(7)]
        )
        z = rule.gain * uphill / max(1, np.linalg.norm(uphill))
        w = np.exp(log_volume(q))
        # What Nakamura and Hanafusa call k.
        k = rule.damp**2 * max(0, 1 - w / motion.THRESHOLD) ** 2
        inverse = j.T @ np.linalg.inv(j @ j.T + k * np.eye(6))
        s = np.linalg.svd(j, compute_uv=False)
        assert s[-1] > rule.rtol * s[0], "nothing is truncated here"
        expected = inverse @ (twist - j @ z) + z
        np.testing.assert_allclose(line.speeds[instant], expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(line.manipulability[instant], w, rtol=1e-9)
        np.testing.assert_allclose(line.damp[instant], np.sqrt(k), rtol=1e-6, atol=1e-12)


def test_the_plain_arm_passes_the_singular_pose_in_the_middle(lines):
    middle = len(lines["plain"].q) // 2
    least = int(np.argmin(lines["plain"].manipulability))
    assert abs(least - middle) < 0.02 * RATE
    np.testing.assert_allclose(lines["plain"].q[least], motion.SINGULAR, atol=0.05)
