"""The version of a release, its changelog, and what its files hold."""

import re
import subprocess
import tomllib

import pytest

import jaxpinv
from tests.project import distribution
from tests.project.pages import ROOT

CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
METADATA = """\
Metadata-Version: 2.4
Name: jaxpinv
Version: {version}
Requires-Python: >=3.11
Requires-Dist: jax>=0.9
Requires-Dist: jaxlib>=0.9
Requires-Dist: numpy>=2.0
Requires-Dist: ruff>=0.12; extra == 'lint'
Description-Content-Type: text/markdown
""".format(version=PROJECT["version"])
INFO = f"jaxpinv-{PROJECT['version']}.dist-info"
WHEEL = distribution.modules() | {f"{INFO}/METADATA", f"{INFO}/licenses/LICENSE"}
SOURCE = distribution.modules() | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}


def test_versions_agree():
    assert jaxpinv.__version__ == PROJECT["version"]
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", CHANGELOG, re.M)
    assert releases[0] == PROJECT["version"]


def test_the_changelog_has_the_sections_of_its_format():
    for release in re.split(r"^## \[", CHANGELOG, flags=re.MULTILINE)[1:]:
        sections = re.findall(r"^### (\w+)$", release, re.MULTILINE)
        known = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert sections == [name for name in known if name in sections]
    assert "### Added" in CHANGELOG
    assert "### Fixed" in CHANGELOG


def test_the_project_names_its_people_and_places():
    assert PROJECT["authors"]
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(PROJECT["urls"])
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())


def test_complete_files_have_no_problems():
    assert "jaxpinv/py.typed" in WHEEL
    assert "jaxpinv/_calculus/form.py" in WHEEL
    assert distribution.problems_of_wheel(WHEEL, METADATA) == []
    assert distribution.problems_of_source(SOURCE) == []


@pytest.mark.parametrize("name", ["jaxpinv/py.typed", "jaxpinv/_pinv.py"])
def test_a_missing_file_is_found(name):
    assert distribution.problems_of_wheel(WHEEL - {name}, METADATA) == [
        f"the wheel lacks {name}"
    ]
    assert distribution.problems_of_source(SOURCE - {name}) == [f"the source lacks {name}"]


def test_a_missing_license_and_tests_that_are_shipped_are_found():
    wheel = (WHEEL - {f"{INFO}/licenses/LICENSE"}) | {"tests/conftest.py"}
    assert distribution.problems_of_wheel(wheel, METADATA) == [
        "the wheel has tests/conftest.py",
        "the wheel lacks LICENSE",
    ]
    assert distribution.problems_of_source(SOURCE | {"tests/conftest.py"}) == [
        "the source has tests/conftest.py"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Name: jaxpinv", "the metadata lacks Name: jaxpinv"),
        ("Requires-Dist: numpy>=2.0", "the metadata requires"),
        ("Requires-Python: >=3.11", "the metadata lacks Requires-Python: >=3.11"),
    ],
)
def test_missing_metadata_is_found(line, problem):
    [found] = distribution.problems_of_wheel(WHEEL, METADATA.replace(line + "\n", ""))
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/workflows").glob("*.yml")), ids=lambda path: path.stem
)
def test_workflows_call_the_scripts_that_everyone_can_run(path):
    commands = re.findall(r"^ +- run: (.*)$", path.read_text("utf-8"), re.MULTILINE)
    assert commands
    for command in commands:
        script, *arguments = command.split()
        text = (ROOT / script).read_text("utf-8")
        assert script in (".ci/run", ".ci/check")
        assert (ROOT / script).stat().st_mode & 0o111
        for argument in arguments[:1]:
            # The matrix of the tests names these.
            named = ("oldest", "newest") if "{{" in argument else (argument,)
            assert all(re.search(rf"\b{name}\b", text) for name in named)


@pytest.mark.parametrize("name", ["run", "check"])
def test_the_scripts_are_valid_shell(name):
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / name)], check=True)
