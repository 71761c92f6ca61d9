"""The README and the pages beside the examples: what they say is what happens."""

import importlib
import inspect
import itertools
import pkgutil
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpinv
from tests import comparison, matrices, mpmath_oracle
from tests.benchmarks import features, libraries, picture
from tests.benchmarks.accuracy import Point

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "examples" / "docs" / "pages"
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARIES = (
    libraries.of_jaxpinv(),
    libraries.of_jnp(),
    libraries.of_numpy(),
    libraries.of_scipy(),
)
EPS = float(np.finfo(np.float64).eps)


def table(title):
    """Rows of the first table of a section, each a list of cells."""
    section = README.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)
    cells = [[cell.strip() for cell in row.split("|")] for row in rows]
    return [cells[0], *cells[2:]]


def test_every_feature_has_its_row():
    assert [row[0] for row in table("What the others do")[1:]] == list(features.ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("row", features.ROWS)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_a_cell_says_what_a_call_returns(library, row):
    head, *rows = table("What the others do")
    cells = next(cells for cells in rows if cells[0] == row)
    said = dict(zip(head, cells, strict=True))[library.name]
    found = features.cell(row, library)
    if row == "error of the second derivative" and said != features.NONE:
        # Its digits are rounding, which no two machines share.
        assert found is not None
        assert abs(np.log10(float(found) / float(said))) < 0.7
    elif row == features.NO_CONVERGENCE:
        # On another machine, or with more threads, LAPACK may converge, or lose digits.
        ours = library.name == "jaxpinv"
        assert found in ((said,) if ours else (said, features.RIGHT, "wrong"))
    else:
        assert found == (None if said == "hangs" else said)


# The smallest singular value, between any two of the default cutoffs 1e-15, 6 eps and 60
# eps, and the tolerances. Neither 6e-4 alone cuts 1e-3, but both together do, and 1e-15 is
# small enough for a default `rtol` beside it to be seen.
LADDER = {5e-16: 6e-4, 1.2e-15: 1e-15, 5e-15: 6e-4, 1e-13: 1e-15}
MIGRATIONS = table("Moving over")[1:]


def namespace(smallest, unit):
    """What the code of the table is about, with that singular value, in that unit."""
    a = np.zeros((6, 4))
    a[[3, 0, 5, 2], range(4)] = [1, -0.5, 1e-3, smallest]
    # Its eigenvalues are exact as well.
    h = np.diag([1, -0.5, 1e-3, smallest])
    b = np.array([1.0, 2.0, -1.0, 0.5, 3.0, 1.5])
    a, h = unit * a, unit * h
    names = {"jax": jax, "jnp": jnp, "numpy": np, "jaxpinv": jaxpinv, "eps": EPS}
    tolerance = LADDER[smallest]
    names |= {"r": tolerance, "t": tolerance, "norm": np.linalg.norm}
    return names | {"a": a, "b": b, "h": h}


# In the second one absolute tolerances are not relative ones.
@pytest.mark.slow
@pytest.mark.parametrize("unit", [1, 0.75])
@pytest.mark.parametrize("smallest", LADDER)
@pytest.mark.parametrize(("theirs", "ours"), MIGRATIONS, ids=[row[0] for row in MIGRATIONS])
def test_code_that_moves_over_gives_the_same_numbers(theirs, ours, smallest, unit):
    names: dict[str, Any] = namespace(smallest, unit)
    library = theirs.strip("`").split(".")[0]
    if library in ("torch", "scipy"):
        names[library] = pytest.importorskip(library)
        importlib.import_module(f"{library}.linalg")
    their_names = dict(names)
    if library == "torch":
        their_names |= {k: names["torch"].tensor(names[k]) for k in "abh"}
    expected = eval(theirs.strip("`"), their_names)
    found = eval(ours.strip("`"), names)
    if not isinstance(expected, tuple):
        expected, found = (expected,), (found,)
    for x, y in zip(found, expected, strict=True):
        x, y = (np.asarray(z) for z in (x, y))
        if "null_space" in theirs:
            x, y = (z @ z.conj().T for z in (x, y))
        assert comparison.relative_error(x, y) <= comparison.bound(np.float64)


def test_the_four_lines_of_mathematics_are_the_derivative(rng):
    spectrum, rtol = [3.0, 2.0, 0.3, 0.2, 0.0], 0.2
    a = matrices.matrix(rng, (7, 5), spectrum, np.complex128)
    e = matrices.gaussian(rng, a.shape, np.complex128)
    u, values, vh = np.linalg.svd(a)
    w = u.conj().T @ e @ vh.conj().T
    s = np.pad(values, (0, 2))
    kept = s > rtol * s[0]
    d = np.zeros((5, 7), complex)
    for i, j in np.ndindex(d.shape):
        # There is no v_j beyond the columns, and its value is zero.
        w_ij = w[i, j] if j < 5 else 0
        w_ji = w[j, i].conj()
        if kept[i] and kept[j]:
            d[i, j] = -w_ij / (s[i] * s[j])
        elif kept[i]:
            d[i, j] = (s[i] * w_ji + s[j] * w_ij) / (s[i] * (s[i] ** 2 - s[j] ** 2))
        elif kept[j]:
            d[i, j] = (s[j] * w_ji + s[i] * w_ij) / (s[j] * (s[j] ** 2 - s[i] ** 2))
    expected = mpmath_oracle.exact_derivative(a, [e], rtol * spectrum[0])
    found = vh.conj().T @ d @ u.conj().T
    assert comparison.relative_error(found, expected) < comparison.bound(np.float64, 15)


def calls_between_modules(function, *arguments):
    """Pairs of modules of the package of which the first one called the second one."""
    package = str(Path(jaxpinv.__file__).parent)
    modules, calls = [], set()

    def watch(frame, event, _):
        if not frame.f_code.co_filename.startswith(package):
            return
        module = Path(frame.f_code.co_filename).stem
        if event == "call":
            calls.add((modules[-1], module) if modules else (None, module))
            modules.append(module)
        elif event == "return" and modules:
            modules.pop()

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return calls


def path_of(name):
    """The modules on one path of the drawing, each with the next one."""
    line = re.search(rf"^    {name}  +(\w+(?: -> \w+)+)$", README, re.MULTILINE)
    assert line is not None
    return set(itertools.pairwise(line[1].split(" -> ")))


# Shapes that no other test has: what is compiled already calls nothing.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "function", "shape"),
    [
        ("value", lambda a: jaxpinv.pinv(a, method="direct"), (11, 11)),
        ("by SVD", lambda a: jaxpinv.pinv(a, method="svd"), (11, 3)),
        ("gradient", lambda a: jax.grad(lambda a: jnp.sum(jaxpinv.pinv(a)))(a), (11, 5)),
        (
            "lstsq",
            lambda a: jax.grad(lambda a: jnp.sum(jaxpinv.lstsq(a, a[:, 0]).solution))(a),
            (11, 4),
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_calls_take_the_path_that_the_readme_draws(name, function, shape, rng):
    a = jnp.asarray(matrices.gaussian(rng, shape))
    assert path_of(name) <= calls_between_modules(function, a)


def test_the_citation_has_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"version = {{{project['version']}}}" in README


def test_every_example_has_its_row():
    scripts = {
        path.name
        for path in (ROOT / "examples").glob("*.py")
        if "__main__" in path.read_text("utf-8")
    }
    assert {row[0].strip("`") for row in table("Examples")[1:]} == scripts


def test_the_navigation_names_pages_that_are_there():
    config = (PAGES.parent / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"^ +- [\w ]+: (\w+\.md)$", config, re.MULTILINE))
    # These two are made of the files at the top.
    written = {path.name for path in PAGES.glob("*.md")}
    assert named == written | {"index.md", "changelog.md"}


@pytest.mark.parametrize("name", jaxpinv.__all__)
def test_no_line_of_a_docstring_begins_a_quotation(name):
    # Markdown makes one of a line that begins with the sign for greater.
    lines = (inspect.getdoc(getattr(jaxpinv, name)) or "").splitlines()
    begun = [line for line in lines if line.startswith(">")]
    assert lines
    assert not begun


def test_every_public_name_is_in_the_reference():
    reference = (PAGES / "reference.md").read_text("utf-8")
    named = set(re.findall(r"^::: ([\w.]+)$", reference, re.MULTILINE))
    modules = [jaxpinv] + [
        importlib.import_module(f"jaxpinv.{module.name}")
        for module in pkgutil.iter_modules(jaxpinv.__path__)
        if not module.name.startswith("_")
    ]
    public = {
        f"{module.__name__}.{name}"
        for module in modules
        for name in getattr(module, "__all__", [])
    }
    assert named == public


def test_the_picture_is_drawn_without_pytorch(tmp_path):
    points = [
        Point(sweep, dtype, 10.0, order, "jaxpinv.pinv", 1e-7)
        for sweep, dtype, *_ in picture.PANELS
        for order in picture.STYLES
    ]
    picture.draw(points, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
