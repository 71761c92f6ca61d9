"""The examples in small size, and the parts that they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import jaxpinv
from examples.redundant_arm import __main__ as redundant_arm
from examples.redundant_arm import kinematics as arm_kinematics
from examples.redundant_arm import motion as arm_motion
from examples.variable_projection import __main__ as variable_projection
from examples.variable_projection import fitting, nist
from examples.variable_projection import table as fit_table
from examples.variable_projection.models import MODELS as models

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

jacobian = jax.jit(arm_kinematics.jacobian)
twist_between = jax.jit(arm_kinematics.twist_between)
_frames = jax.jit(arm_kinematics.frames)


def frames(q):
    """The frames of all links, as NumPy has them."""
    return np.asarray(_frames(q))


def test_misra1a_and_roszman1_reach_the_certified_digits(tmp_path, capsys):
    status = variable_projection.main(["Misra1a", "Roszman1", "--output", str(tmp_path)])
    assert status == 0
    printed = capsys.readouterr()
    assert "4 of 4 fits reach 9 digits" in printed.out
    assert printed.out.count("2.3894212918E+02") == 3, "certified and found from two starts"
    assert "Roszman1" in printed.err, "progress on the standard error"
    for name in ("Misra1a", "Roszman1"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG_SIGNATURE)


def test_digits_beyond_reach_give_a_failing_exit_status(tmp_path, capsys):
    status = variable_projection.main(
        ["BoxBOD", "--digits", "11.5", "--output", str(tmp_path)]
    )
    assert status == 1
    assert "missed: BoxBOD start 2" in capsys.readouterr().out


def test_an_unknown_set_is_refused_by_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        variable_projection.main(["Misra1b"])
    assert "got Misra1b" in capsys.readouterr().err


def test_mgh17_converges_from_decays_that_are_over_at_the_second_observation():
    dataset, model = nist.read("MGH17"), models["MGH17"]
    iterations = []
    result = fitting.fit(
        dataset, model, lambda iteration, losses: iterations.append(int(iteration))
    )
    assert np.all(fit_table.agreement(dataset, model, result).least > 9)
    # A Hessian without the derivative of the pseudo-inverse takes several times as many.
    assert result.iterations[1] < 12
    assert sorted(iterations) == list(range(1, result.iterations.max() + 1))


@pytest.mark.parametrize("name", [n for n in models if models[n].rss_in_reach])
def test_certified_parameters_give_the_certified_residual(name):
    dataset, model = nist.read(name), models[name]
    nonlinear = model.nonlinear_of(dataset.certified)
    linear = np.setdiff1d(dataset.certified, nonlinear, assume_unique=True)
    merged = model.parameters(nonlinear, linear)
    np.testing.assert_array_equal(merged, dataset.certified)

    @jax.jit
    def fit(x, b):
        return model.fixed(x, *b) + model.matrix(x, b) @ linear

    fitted = np.asarray(fit(jnp.asarray(dataset.x), jnp.asarray(nonlinear)))
    rss = np.sum((dataset.y - fitted) ** 2)
    assert nist.digits(rss, dataset.certified_rss) > 6


def test_the_parser_reads_the_lines_that_the_header_names():
    dataset = nist.read("ENSO")
    assert dataset.x.shape == dataset.y.shape == (168,)
    assert (dataset.x[0], dataset.y[0]) == (1.0, 12.9)
    assert (dataset.x[-1], dataset.y[-1]) == (168.0, 14.8)
    np.testing.assert_array_equal(dataset.starts[0, :4], [11.0, 3.0, 0.5, 40.0])
    np.testing.assert_array_equal(dataset.starts[1, 4:], [-1.5, 0.5, 26.0, -0.1, 1.5])
    assert dataset.certified[[0, -1]].tolist() == [10.510749193, 1.4966870418]
    assert dataset.certified_rss == 788.53978668


def test_digits_are_the_logarithm_of_the_relative_error():
    found = np.array([1.001, -1.0, 1.0 + 1e-13, np.nan, np.inf])
    np.testing.assert_allclose(nist.digits(found, 1.0), [3, 0, 11, 0, 0], atol=1e-9)
    assert nist.digits(1.001e-6, 1e-6) == pytest.approx(3)


def test_exchanged_terms_are_reported_in_the_order_of_nist():
    certified = nist.read("Lanczos3").certified
    found = certified[[4, 5, 0, 1, 2, 3]] * (1 + 1e-4)
    ordered = models["Lanczos3"].in_order_of(certified, found)
    np.testing.assert_allclose(ordered, certified, rtol=2e-4)


@pytest.fixture(scope="module")
def line() -> dict:
    """The line of the redundant arm, with its cutoff and without."""
    return {
        name: jax.device_get(arm_motion.follow_line(jnp.asarray(rtol)))
        for name, rtol in (("cut", arm_motion.LINE_RTOL), ("untruncated", 0.0))
    }


def test_arms_reach_their_targets_and_pass_the_singular_pose(tmp_path, capsys):
    status = redundant_arm.main(["--targets", "256", "--output", str(tmp_path)])
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert "256 arms, with null-space motion" in printed.err, "progress"
    assert (tmp_path / "redundant_arm.png").read_bytes().startswith(PNG_SIGNATURE)


def test_targets_out_of_reach_give_a_failing_exit_status(tmp_path, capsys, monkeypatch):
    def out_of_reach(targets, *rest):
        return arm_motion.reach(targets.at[:, :3, 3].multiply(5), *rest)

    monkeypatch.setattr(redundant_arm, "reach", out_of_reach)
    status = redundant_arm.main(["--targets", "256", "--output", str(tmp_path)])
    assert status == 1
    assert "missed: first round reaches" in capsys.readouterr().out


def test_the_ready_pose_is_where_the_robotics_toolbox_has_it():
    # Printed in its README for these joints, with a gripper of 103.4 mm turned by -45
    # degrees.
    pose = frames(np.array([0, -0.3, 0, -2.2, 0, 2.0, np.pi / 4]))[7]
    gripper = Rotation.from_euler("z", -np.pi / 4).as_matrix()
    turn = [[0.995, 0, 0.09983], [0, -1, 0], [0.09983, 0, -0.995]]
    np.testing.assert_allclose(pose[:3, :3] @ gripper, turn, atol=5e-5)
    place = pose[:3, 3] + 0.1034 * pose[:3, 2]
    np.testing.assert_allclose(place, [0.484, 0, 0.4126], atol=5e-5)


def test_the_kinematics_agree_with_the_links_of_the_robot_description(rng):
    # Roll about x and position of every link in the one before, as the URDF has them. The
    # published pose is planar: there signs of joints 1, 3 and 5 do not matter.
    rolls = np.array([0, -1, 1, 1, -1, 1, 1]) * np.pi / 2
    places = np.zeros((7, 3))
    places[[0, 2, 3, 4, 4, 6], [2, 1, 0, 0, 1, 0]] = [
        0.333, -0.316, 0.0825, -0.0825, 0.384, 0.088,
    ]  # fmt: skip
    for q in rng.uniform(arm_kinematics.LOWER, arm_kinematics.UPPER, (5, 7)):
        turn, place = Rotation.identity(), np.zeros(3)
        for roll, offset, angle in zip(rolls, places, q, strict=True):
            place = place + turn.apply(offset)
            turn = turn * Rotation.from_euler("x", roll) * Rotation.from_euler("z", angle)
        place = place + turn.apply([0, 0, 0.107])
        pose = frames(q)[7]
        np.testing.assert_allclose(pose[:3, 3], place, atol=1e-14)
        np.testing.assert_allclose(pose[:3, :3], turn.as_matrix(), atol=1e-14)


def test_the_geometric_jacobian_is_the_derivative_of_the_pose(rng):
    q = rng.uniform(arm_kinematics.LOWER, arm_kinematics.UPPER)
    chain = frames(q)
    slopes = jax.jit(jax.jacfwd(lambda q: arm_kinematics.frames(q)[7]))(q)
    slopes = np.asarray(slopes)
    spin = np.einsum("ijk,lj->ilk", slopes[:3, :3], chain[7, :3, :3])
    expected = np.stack([*slopes[:3, 3], spin[2, 1], spin[0, 2], spin[1, 0]])
    np.testing.assert_allclose(jacobian(chain), expected, atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 0.3, 3.1])
def test_a_twist_leads_from_one_pose_to_the_other(angle, rng):
    pose, target = np.eye(4), np.eye(4)
    pose[:3, :3] = Rotation.random(rng=rng).as_matrix()
    vector = angle * np.array([2, -1, 2]) / 3
    target[:3, :3] = Rotation.from_rotvec(vector).as_matrix() @ pose[:3, :3]
    pose[:3, 3], target[:3, 3] = rng.normal(size=(2, 3))
    twist = np.asarray(twist_between(pose, target))
    np.testing.assert_allclose(twist[3:], vector, atol=1e-13)
    np.testing.assert_allclose(twist[:3], target[:3, 3] - pose[:3, 3], atol=1e-15)


def test_the_gradient_of_a_twist_is_finite_where_there_is_none():
    pose = np.eye(4)
    slope = jax.jit(jax.jacrev(arm_kinematics.twist_between))(pose, pose)
    assert np.all(np.isfinite(slope))


def test_null_space_motion_leaves_the_hand_and_the_joint_limits(rng):
    q = rng.uniform(arm_kinematics.LOWER, arm_kinematics.UPPER)
    chain = frames(q)

    @jax.jit
    def motion_and_slope(q, chain, rtol, gain):
        dq, _ = arm_motion.velocity(q, chain, jnp.zeros(6), rtol, gain)
        return dq, jax.jvp(arm_kinematics.limit_cost, (q,), (dq,))[1]

    dq, slope = motion_and_slope(q, chain, 1e-6, 1.0)
    np.testing.assert_allclose(jacobian(chain) @ dq, np.zeros(6), atol=1e-14)
    assert slope < -1e-3


def test_the_velocity_has_the_derivative_of_differences(rng):
    q, way = np.asarray(arm_kinematics.READY), rng.normal(size=7)
    twist = rng.normal(size=6)

    def dq(q):
        chain = arm_kinematics.frames(q)
        return arm_motion.velocity(q, chain, twist, jnp.asarray(0.01), jnp.asarray(0.5))[0]

    @jax.jit
    def along(q):
        return jax.jvp(dq, (q,), (way,))

    _, slope = along(q)
    ahead, back = (np.asarray(along(q + step * way)[0]) for step in (1e-5, -1e-5))
    differences = (ahead - back) / 2e-5
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-7)


def test_the_line_leads_through_a_pose_of_rank_five():
    chain = frames(np.asarray(arm_motion.SINGULAR))
    j = jacobian(chain)
    assert int(jaxpinv.matrix_rank(j)) == 5
    # The line has a share in the direction that is lost.
    lost = np.linalg.svd(j)[0][:3, 5]
    assert abs(lost @ arm_motion.DIRECTION) > 0.1
    place = frames(np.asarray(arm_motion.LINE_START))[7, :3, 3]
    start = chain[7, :3, 3] - arm_motion.BEFORE * arm_motion.DIRECTION
    np.testing.assert_allclose(place, start, atol=2e-6)


def test_the_cutoff_bounds_joint_speeds_through_the_singular_pose(line):
    allowed = arm_kinematics.MAX_SPEED
    assert np.max(np.abs(line["cut"].speeds) / allowed) < 0.3
    assert np.max(np.abs(line["untruncated"].speeds) / allowed) > 5
    assert line["untruncated"].smallest.min() < 1e-3, "it comes by the singular pose"
    # Behind by a centimetre, and on the line again: the cutoff let go of the arm.
    assert 5e-3 < line["cut"].behind.max() < 15e-3
    assert line["cut"].behind[-1] < 1e-4


def test_the_blended_cutoff_leaves_no_jumps_in_joint_speeds(line):
    jumps = np.abs(np.diff(line["cut"].speeds, axis=0)).max()
    assert jumps < 0.01
