"""What all examples have in common, and the two short ones."""

import importlib
import pkgutil
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

import examples
import jaxpinv
from examples import _command
from examples.inverse_kinematics import __main__ as inverse_kinematics
from examples.uncertain_rank import __main__ as uncertain_rank

pytestmark = pytest.mark.unoptimized

ROOT = Path(examples.__file__).parents[1]
NAMES = sorted(module.name for module in pkgutil.iter_modules(examples.__path__))
PACKAGES = [name for name in NAMES if not name.startswith("_")]
FIRST_CONTACTS = {
    "inverse_kinematics": inverse_kinematics,
    "uncertain_rank": uncertain_rank,
}
QUICK = {"count": 3, "names": ["one"]}


def options(tmp_path, *arguments):
    """Options of a command line with a count and names."""
    parser = _command.parser("examples.one", "What it does.", QUICK)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("names", nargs="*", default=["one", "two"])
    output = ["--output", str(tmp_path / "new")]
    return _command.parsed(parser, QUICK, [*arguments, *output])


def test_a_quick_run_changes_the_defaults_of_all_kinds_of_options(tmp_path):
    usual, quick = options(tmp_path), options(tmp_path, "--quick")
    assert (usual.count, usual.names) == (100, ["one", "two"])
    assert (quick.count, quick.names) == (3, ["one"])
    chosen = options(tmp_path, "three", "--count", "5", "--quick")
    assert (chosen.count, chosen.names) == (5, ["three"])
    assert (tmp_path / "new").is_dir()


def test_a_claim_that_does_not_hold_is_printed_and_fails(capsys):
    checks = {"the sky is blue": True, "two is three": 2 == 3}
    assert _command.verdict(checks, 0.0, Path("a.png")) == 1
    printed = capsys.readouterr().out
    assert "missed: two is three\n1 of 2 checks passed" in printed
    assert "blue" not in printed
    assert _command.verdict({"the sky is blue": True}, 0.0, Path("a.png")) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(PACKAGES) - set(FIRST_CONTACTS)))
def test_help_is_the_docstring_and_names_the_small_run(name, capsys):
    module = importlib.import_module(f"examples.{name}.__main__")
    with pytest.raises(SystemExit, match="0"):
        module.main(["--help"])
    printed = capsys.readouterr().out
    assert (module.__doc__ or "").splitlines()[0] in printed
    assert printed.startswith(f"usage: python -m examples.{name} [-h] [--quick]")
    for option in module.QUICK:
        assert option in printed.split("--quick")[-1]


def test_the_hand_reaches_its_target_and_the_joints_straighten(capsys):
    assert inverse_kinematics.main() == 0
    assert "step 19: 0.00000" in capsys.readouterr().out


def test_the_hand_is_where_the_links_put_it():
    # Up, then to the right, then down twice.
    q = jnp.array([jnp.pi / 2, -jnp.pi / 2, -jnp.pi / 2, 0.0])
    assert jnp.allclose(inverse_kinematics.hand(q), jnp.array([1.0, -1.0]))


def test_the_rank_that_the_data_supports_gives_the_small_solution(capsys):
    assert uncertain_rank.main() == 0
    ranks = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert ranks == ["rtol 1e-06: rank 3", "rtol 0.001: rank 2", "rtol 0.9: rank 1"]


@pytest.mark.parametrize("name", FIRST_CONTACTS)
def test_a_wrong_least_squares_solution_fails(name, monkeypatch):
    def doubled(*arguments):
        found = jaxpinv.lstsq(*arguments)
        return found._replace(solution=-9 * found.solution)

    broken = SimpleNamespace(lstsq=doubled, null_projection=jaxpinv.null_projection)
    module = FIRST_CONTACTS[name]
    monkeypatch.setattr(module, "jaxpinv", broken)
    if name == "inverse_kinematics":
        # Another function, because JAX would find the program of this one.
        step = module.step.__wrapped__
        monkeypatch.setattr(module, "step", jax.jit(lambda q, target: step(q, target)))
    assert module.main() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FIRST_CONTACTS)
def test_a_first_contact_runs_by_its_name(name):
    command = [sys.executable, "-W", "error", "-m", f"examples.{name}"]
    subprocess.run([*command, "--quick"], check=True, cwd=ROOT)


@pytest.mark.parametrize("name", FIRST_CONTACTS)
def test_a_first_contact_takes_no_options_but_for_help(name, capsys, monkeypatch):
    module = f"examples.{name}.__main__"
    for option, status in (("--help", "0"), ("--slow", "2")):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setattr(sys, "argv", [name, option])
        with pytest.raises(SystemExit, match=status):
            runpy.run_module(f"examples.{name}", run_name="__main__", alter_sys=True)
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: python -m examples.{name} [-h] [--quick]")
    assert (FIRST_CONTACTS[name].__doc__ or "").splitlines()[0] in shown
