"""The package itself: what importing it does, and what it depends on."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jaxpinv

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "jaxpinv"


def run(script):
    """Runs a script in a process of its own, from the repository."""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, cwd=ROOT)


def imported(path):
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_importing_changes_no_setting_and_starts_no_backend():
    run(
        "import jax\n"
        "before = dict(jax.config.values)\n"
        "import jaxpinv\n"
        "assert dict(jax.config.values) == before\n"
        # Refused once a backend has started.
        "jax.config.update('jax_num_cpu_devices', 3)\n"
        "assert jax.device_count() == 3\n"
    )


def unknown(name):
    """The version of a package that is not installed."""
    raise metadata.PackageNotFoundError(name)


def test_the_version_is_that_of_the_installed_metadata(monkeypatch):
    installed = metadata.version("jaxpinv")
    assert jaxpinv.__version__ == installed
    cases = ((lambda name: f"{name} 7.8.9", "jaxpinv 7.8.9"), (unknown, "0+unknown"))
    for version, expected in cases:
        with monkeypatch.context() as patch:
            patch.setattr(metadata, "version", version)
            assert importlib.reload(jaxpinv).__version__ == expected
    assert importlib.reload(jaxpinv).__version__ == installed


def test_nothing_private_of_jax_is_imported():
    names = [name for path in PACKAGE.rglob("*.py") for name in imported(path)]
    assert "jax.extend.core.Primitive" in names
    assert not [name for name in names if "._" in name and not name.startswith("jaxpinv.")]
    assert "jax._src" not in "".join(p.read_text("utf-8") for p in PACKAGE.rglob("*.py"))


def test_the_package_imports_only_what_it_declares():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w-]", d)[0] for d in project["dependencies"]}
    names = {
        name.split(".")[0] for path in PACKAGE.rglob("*.py") for name in imported(path)
    }
    assert names - set(sys.stdlib_module_names) - {"jaxpinv"} <= declared


def test_the_package_is_typed_and_exports_what_it_says():
    assert (PACKAGE / "py.typed").exists()
    assert set(jaxpinv.__all__) == {
        "Factorization",
        "LstsqResult",
        "NullSpaceResult",
        "factorize",
        "log_pdet",
        "lstsq",
        "matrix_rank",
        "null_projection",
        "null_space",
        "pinv",
        "pinverse",
    }
