"""Checks a wheel and an sdist: `python -m tests.project.distribution dist`."""

import re
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def modules() -> set[str]:
    """The files of the package, as they are named in a wheel."""
    found = {path for path in (ROOT / "jaxpinv").rglob("*.py")} | {
        ROOT / "jaxpinv/py.typed"
    }
    return {path.relative_to(ROOT).as_posix() for path in found}


def problems_of_wheel(names: set[str], metadata: str) -> list[str]:
    """What is wrong with a wheel of these files and this metadata."""
    wanted = modules()
    inside = {name for name in names if ".dist-info/" not in name}
    found = [f"the wheel lacks {name}" for name in sorted(wanted - inside)]
    found += [f"the wheel has {name}" for name in sorted(inside - wanted)]
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        found.append("the wheel lacks LICENSE")
    for line in (
        f"Name: {PROJECT['name']}",
        f"Version: {PROJECT['version']}",
        f"Requires-Python: {PROJECT['requires-python']}",
        "Description-Content-Type: text/markdown",
    ):
        if not re.search(rf"^{re.escape(line)}$", metadata, re.MULTILINE):
            found.append(f"the metadata lacks {line}")
    required = re.findall(r"^Requires-Dist: ([\w-]+)[^;\n]*$", metadata, re.MULTILINE)
    declared = [re.split(r"[^\w-]", text)[0] for text in PROJECT["dependencies"]]
    if sorted(required) != sorted(declared):
        found.append(f"the metadata requires {required} and not {declared}")
    return found


def problems_of_source(names: set[str]) -> list[str]:
    """What is wrong with a source archive of these files, without its top folder."""
    wanted = modules() | {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"}
    found = [f"the source lacks {name}" for name in sorted(wanted - names)]
    return found + [
        f"the source has {name}"
        for name in sorted(names)
        if re.match(r"tests/|examples/|\.ci/|\.github/|dist/|\.venv", name)
    ]


def main() -> int:
    """Prints what is wrong with the files in a folder."""
    folder = Path(sys.argv[1])
    wheels, sources = list(folder.glob("*.whl")), list(folder.glob("*.tar.gz"))
    found = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            [metadata] = [name for name in names if name.endswith(".dist-info/METADATA")]
            found += problems_of_wheel(names, archive.read(metadata).decode())
    for source in sources:
        with tarfile.open(source) as archive:
            members = {member.name for member in archive.getmembers() if member.isfile()}
        found += problems_of_source({name.split("/", 1)[1] for name in members})
    if (len(wheels), len(sources)) != (1, 1):
        found.append(f"expected a wheel and a source archive, got {wheels + sources}")
    print("\n".join(found or ["the wheel and the source archive are complete"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
