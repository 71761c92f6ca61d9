"""The examples of batches in small size, and the parts that they are made of."""

import contextlib
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.beamforming import __main__ as beamforming
from examples.beamforming import model
from examples.sharded_batch import __main__ as sharded_batch
from examples.sharded_batch import plans
from tests.comparison import bound
from tests.matrices import matrix

pytestmark = [pytest.mark.slow, pytest.mark.unoptimized]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: The sizes of every run of the example: they share compiled programs.
STATIONS = 128


#: Four users, each at one angle.
ORTHOGONAL = model.Paths(
    jnp.array([[-0.5], [-0.25], [0.0], [0.25]]), jnp.ones((4, 1), complex)
)
serve = jax.jit(model.serve, static_argnums=3)


@pytest.fixture(scope="module")
def waves():
    return model.paths(np.random.default_rng(0), STATIONS)


def beams(output, steps):
    """The exit status of the example of beamforming."""
    arguments = ["--stations", STATIONS, "--steps", steps, "--output", output]
    # Adam of optax takes powers of an integer.
    with jax.numpy_dtype_promotion("standard"):
        return beamforming.main([str(x) for x in arguments])


def test_antennas_move_to_higher_sum_rates(tmp_path, capsys):
    status = beams(tmp_path, 20)
    printed = capsys.readouterr()
    assert status == 0, printed.out
    assert f"{STATIONS} stations, antennas move" in printed.err, "progress"
    assert (tmp_path / "beamforming.png").read_bytes().startswith(PNG_SIGNATURE)


def test_antennas_that_stand_still_give_a_failing_exit_status(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(beamforming, "LEARNING_RATE", 0.0)
    assert beams(tmp_path, 1) == 1
    assert "missed: 2.0 bit/s/Hz more" in capsys.readouterr().out


def test_antennas_stay_within_the_aperture_and_apart(rng):
    theta = 5 * rng.standard_normal((50, model.ANTENNAS + 1))
    x = np.asarray(jax.jit(jax.vmap(model.positions))(theta))
    assert np.diff(x, axis=1).min() >= model.LEAST_GAP - 1e-12
    assert x.min() >= 0
    assert x.max() <= model.APERTURE + 1e-12


def test_the_channel_is_the_sum_of_its_waves(rng):
    sines, gains = rng.uniform(-1, 1, (2, 3)), np.exp(1j * rng.uniform(0, 6, (2, 3)))
    x = rng.uniform(0, 10, 5)
    h = np.asarray(jax.jit(model.channel)(x, model.Paths(sines, gains)))
    for user in range(2):
        waves = np.exp(2j * np.pi * np.outer(sines[user], x))
        assert np.allclose(h[user], gains[user] @ waves, rtol=0, atol=1e-12)


def test_users_who_coincide_have_equal_rows_and_the_others_unit_power(waves):
    x = np.arange(model.ANTENNAS, dtype=np.float32) / 2
    h = np.asarray(jax.jit(jax.vmap(model.channel, (None, 0)))(x, waves))
    same = np.all(h[:, 0] == h[:, 1], axis=1)
    assert np.flatnonzero(same).tolist() == list(range(0, STATIONS, model.COINCIDE))
    # Of 128 stations with four users; the power is that of one wave and three random ones.
    assert np.mean(np.abs(h) ** 2) == pytest.approx(1, abs=0.05)


def test_orthogonal_users_share_the_power_without_interference():
    # Of half a wavelength and eight antennas, beams at multiples of 2 / 8 are orthogonal.
    service = serve(np.arange(8.0) / 2, ORTHOGONAL, 0.1, model.zero_forcing)
    # `W = H^H / 8` of squared norm 1 / 2: each user receives `2 SNR`.
    assert service.rate == pytest.approx(4 * np.log2(1 + 2 * model.SNR), rel=1e-12)
    assert service.rank == 4
    assert service.leak <= bound(np.float64)


def test_a_leak_between_users_is_found_and_costs_those_who_hear_it():
    def leaking(h, rtol):
        w, rank = model.zero_forcing(h, rtol)
        return w.at[0, 0].add(1e-3), rank

    service = serve(np.arange(8.0) / 2, ORTHOGONAL, 0.1, leaking)
    assert service.leak == pytest.approx(1e-3, rel=1e-9)
    # One antenna more for the first user: 1e-3 of its field is heard by all the others.
    power = model.SNR / (1 / 2 + 2e-3 / 8 + 1e-6)
    first = 1.001**2 * power
    rates = np.log2(1 + np.array([first, *[power / (1 + 1e-6 * power)] * 3]))
    assert service.rate == pytest.approx(rates.sum(), rel=1e-12)


@pytest.fixture(scope="module")
def batch_run(tmp_path_factory):
    """The example of a sharded batch: its status, output, and what it measured."""
    output, runs = tmp_path_factory.mktemp("sharded_batch"), []
    improve = plans.improve

    def recorded(*args):
        runs.append(improve(*args))
        return runs[-1]

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sharded_batch, "improve", recorded)
        status = sharded_batch.main(["--matrices", "4003", "--output", str(output)])
    return status, out.getvalue(), err.getvalue(), output, runs


def test_many_matrices_reach_their_minimum(batch_run):
    status, out, err, output, runs = batch_run
    assert status == 0, out
    assert "4000 matrices, 8 devices, shard_map" in out
    assert "in shard_map" in err, "progress"
    assert (output / "sharded_batch.png").read_bytes().startswith(PNG_SIGNATURE)
    shards = [shard.data.shape for shard in runs[0].plans.addressable_shards]
    assert shards == [(500, 7, 6)] * 8


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        (lambda run: {"collectives": ["all-reduce"]}, "nothing is sent"),
        (lambda run: {"donated": False}, "steps take the memory of their argument"),
        (lambda run: {"plans": np.asarray(run.plans) + np.float32(0.01)}, "minimum to"),
        (lambda run: {"losses": 1.1 * run.losses}, "both agree"),
    ],
    ids=["sent", "copied", "elsewhere", "different"],
)
def test_what_is_missed_gives_a_failing_exit_status(
    batch_run, tmp_path, capsys, monkeypatch, change, missed
):
    local, divided = batch_run[-1]
    replayed = iter([local._replace(**change(local)), divided])
    monkeypatch.setattr(sharded_batch, "improve", lambda *args: next(replayed))
    monkeypatch.setattr(sharded_batch, "draw", lambda *args: None)
    assert sharded_batch.main(["--matrices", "4003", "--output", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("missed: ") == 1
    assert f"missed: {missed}" in printed


def test_a_step_that_sends_and_copies_is_found(monkeypatch):
    def sending(a, a0):
        return a[:, :3], jax.lax.psum(a, "batch")[:, 0, 0] + a0[:, 0, 0]

    mesh = jax.make_mesh((8,), ("batch",))

    def divide(f):
        batch = plans.BATCH
        return jax.shard_map(f, mesh=mesh, in_specs=batch, out_specs=batch)

    monkeypatch.setattr(plans, "step", sending)
    monkeypatch.setattr(plans, "value", lambda a: a)
    start = sharded_batch._divided(np.ones((8, 7, 6), np.float32), mesh)
    with pytest.warns(UserWarning, match="donated buffers were not usable"):
        run = plans.improve(divide, start, 1, "sending")
    assert "all-reduce" in run.collectives
    assert not run.donated


def test_the_minimum_has_no_gradient(rng):
    a0 = matrix(rng, (6, 7, 6), [3.0, 2.0, 1.0, 0.1, 0.02, 0.004])
    a0[0] = matrix(rng, (7, 6), [3.0, 2.0, 1.0, 0.1, 0.02, 0.001])
    best = plans.minimum(a0)
    x = np.linalg.pinv(best, rcond=plans.CUTOFF)
    # The gradient of the variance is -2 X^T X X^T.
    xt = x.transpose(0, 2, 1)
    assert np.abs(best - a0 - 2 * xt @ x @ xt).max() <= 1e-12
    assert np.linalg.matrix_rank(best, tol=0.01).tolist() == [5, 6, 6, 6, 6, 6]


def test_a_step_is_the_gradient_and_at_most_the_largest_step(rng):
    a0 = np.stack([matrix(rng, (7, 6), [2.0] * 6), matrix(rng, (7, 6), [2.0] * 5 + [0.1])])
    away = 0.01 * rng.standard_normal(a0.shape)
    now = a0 + away
    a, losses = jax.jit(plans.step)(jnp.asarray(now), jnp.asarray(a0))
    x = np.linalg.pinv(now)
    expected = np.sum(x**2, axis=(1, 2)) + np.sum(away**2, axis=(1, 2)) / 2
    assert np.allclose(losses, expected, rtol=1e-12)
    xt = x.transpose(0, 2, 1)
    move = plans.STEP * (2 * xt @ x @ xt - away)
    assert np.allclose(a[0] - now[0], move[0], rtol=0, atol=1e-12)
    short = plans.LARGEST_STEP * move[1] / np.linalg.norm(move[1])
    assert np.allclose(a[1] - now[1], short, rtol=0, atol=1e-12)
