"""The README and the pages of the documentation: what they say is what happens."""

import importlib
import inspect
import itertools
import json
import pkgutil
import re
import sys
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxpinv
from examples.docs import figures
from tests import comparison, matrices, mpmath_oracle
from tests.benchmarks import picture, publish
from tests.benchmarks.accuracy import Point
from tests.project import code_blocks
from tests.project.pages import PAGES, PROSE, README, ROOT, page, tables

pytestmark = pytest.mark.unoptimized


def test_the_elements_that_the_page_derives_are_those_of_the_derivative(rng):
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
    line = re.search(
        rf"^    {name}  +(\w+(?: -> \w+)+)$", page("architecture.md"), re.MULTILINE
    )
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
def test_calls_take_the_paths_of_the_architecture_page(name, function, shape, rng):
    a = jnp.asarray(matrices.gaussian(rng, shape))
    assert path_of(name) <= calls_between_modules(function, a)


def test_the_citation_has_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"version = {{{project['version']}}}" in page("citing.md")


def test_every_example_has_its_row_and_its_picture():
    folder = ROOT / "examples"
    text = (folder / "README.md").read_text("utf-8")
    packages = {path.parent.name for path in folder.glob("*/__main__.py")}
    listed = {re.sub(r"\[(\w+)\].*", r"\1", row[0]) for row in next(tables(text))[1:]}
    assert listed == packages
    drawn = {path.parent.name for path in folder.glob("*/figure.py")}
    assert {path.parent.name for path in folder.glob("*/figure.png")} == drawn
    assert all(f"]({name}/figure.png)" in text for name in drawn)


def test_the_navigation_names_pages_that_are_there():
    folder = PAGES.parent
    config = (folder / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r"^ +- [\w ]+: (\w+\.md)$", config, re.MULTILINE))
    hooks = (folder / "hooks.py").read_text("utf-8")
    elsewhere = set(re.findall(r'^    "(\w+\.md)": ROOT', hooks, re.MULTILINE))
    assert len(elsewhere) >= 5
    assert named == {path.name for path in PAGES.glob("*.md")} | elsewhere


def test_the_search_loads_no_script_over_the_network():
    # The plugin for offline reading adds one unless a script of that name is there.
    config = (PAGES.parent / "mkdocs.yml").read_text("utf-8")
    [scripts] = re.findall(r"^  polyfills:\n((?:    .*\n)+)", config, re.MULTILINE)
    named = re.findall(r"^    - (.+)$", scripts, re.MULTILINE)
    assert [name for name in named if "iframe-worker" in name]
    assert all((PAGES / name).exists() for name in named)


def test_the_readme_is_short():
    assert len(README.split()) <= 900
    assert README.count("\n") <= 150


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target.read_text("utf-8")), link


def headings(text):
    """Anchors of the headings of a page, as Markdown names them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", publish.FILES, ids=lambda path: path.name)
def test_tables_of_speed_are_those_of_the_results(path):
    results = json.loads(publish.RESULTS.read_text("utf-8"))
    text = path.read_text("utf-8")
    assert "<!-- generated: " in text
    assert publish.filled(text, results) == text


def test_the_page_says_how_much_longer_compilation_takes():
    shown = re.findall(r"(\d\.\d)\s+to\s+([\d.]+) times as long", page("performance.md"))
    found = json.loads(publish.RESULTS.read_text("utf-8"))["costs"]["compile"]
    direct = r"20000 x 6x7|2000 x 32x32|500x500|2000x400"
    for said, is_direct in zip(shown, (False, True), strict=True):
        rows = [x for name, x in found.items() if bool(re.match(direct, name)) == is_direct]
        ratios = [1 / row["jnp.linalg.pinv"] for row in rows]
        assert said == (f"{min(ratios):.1f}", f"{max(ratios):.1f}")


def test_a_changed_result_changes_the_table():
    results = json.loads(publish.RESULTS.read_text("utf-8"))
    for row in results["timings"]:
        if row["label"] == "1000x1000 float32 full value":
            row["ratios"]["jnp.linalg.pinv"]["median"] = 98.76
            row["compile_seconds"]["jaxpinv.pinv"] = 54.32
    line = next(x for x in publish.speed(results).splitlines() if "1000x1000" in x)
    cells = [cell.strip() for cell in line.split("|")]
    assert (cells[2], cells[6]) == ("98.76", "54.32")


CODE = [
    str(path.relative_to(ROOT)) for path in PROSE if "```python" in path.read_text("utf-8")
]


# JAX takes a number of devices only before its first array, so they run alone.
ALONE = {"README.md", str((PAGES / "scaling.md").relative_to(ROOT))}


@pytest.mark.slow_unless("README")
@pytest.mark.parametrize("name", CODE)
def test_code_runs_and_prints_what_is_shown(name):
    names = [name] if name in ALONE else [x for x in CODE if x not in ALONE]
    assert code_blocks.failures_of_files(*names)[name] == []


def test_wrong_code_and_wrong_output_are_found():
    right = "```python\nx = 1\nprint(x)\n```\n\n```text\n1\n```\n"
    assert code_blocks.failures(right) == []
    assert code_blocks.failures("```python\n>>> 1 + 1\n2\n```\n") == []
    wrong = right.replace("print(x)", "print(x + 1)")
    assert "expected\n1\nprinted\n2\n" in code_blocks.failures(wrong, "a.md")[0]
    assert code_blocks.failures(wrong, "a.md")[0].startswith("a.md:2: ")
    later = right + "```python\nprint(y)\n```\n"
    assert "NameError" in code_blocks.failures(later)[0]
    assert "Got:" in code_blocks.failures("```python\n>>> 1 + 1\n3\n```\n")[0]
    # Text that something stands before is not output.
    assert code_blocks.failures(wrong.replace("```\n\n", "```\n\nNot:\n\n")) == []


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


def test_the_diagram_shows_the_imports_of_the_package():
    found = figures.imports()
    assert {("_pinv", "_solver"), ("_solver", "_primitives"), ("sharded", "_mesh")} <= found
    assert ("_calculus", "_linalg") in found, "imports of a sub-package"
    assert ("_linalg", "_calculus") not in found
    depth = {name: i for i, row in enumerate(figures.layers()) for name in row}
    modules = {path.stem for path in Path(jaxpinv.__file__).parent.glob("*.py")}
    assert set(depth) >= modules - {"__init__"}
    assert all(depth[importer] < depth[imported] for importer, imported in found)


def test_the_diagram_leaves_out_the_imports_that_others_imply():
    pairs = {("a", "b"), ("b", "c"), ("c", "d"), ("a", "c"), ("a", "d"), ("a", "e")}
    assert figures.reduced(pairs) == {("a", "b"), ("b", "c"), ("c", "d"), ("a", "e")}


def test_the_page_and_the_published_diagram_have_the_modules_of_today():
    names = {name for row in figures.layers() for name in row}
    listed = {
        name.removesuffix("/")
        for row in next(tables(page("architecture.md")))[1:]
        for name in re.findall(r"`([\w/]+)`", row[0])
    }
    assert listed == names
    with Image.open(PAGES / "images" / "architecture.png") as picture_file:
        drawn = picture_file.info.get("modules", "").split()
    assert set(drawn) == names, "run python -m examples.docs.figures"


@pytest.mark.slow
def test_the_figures_of_the_documentation_are_drawn(tmp_path):
    for draw in (figures.cutoffs, figures.communication, figures.architecture):
        draw(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
        assert (PAGES / "images" / f"{draw.__name__}.png").exists()


def test_the_picture_is_drawn_without_pytorch(tmp_path):
    points = [
        Point(sweep, dtype, 10.0, order, "jaxpinv.pinv", 1e-7)
        for sweep, dtype, *_ in picture.PANELS
        for order in picture.STYLES
    ]
    picture.draw(points, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
