"""What is taken from JAX: nothing private."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("jaxpinv", "tests", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def private_names(source):
    """Chains of attributes, like `jax.x._y`, of which one is private, and such imports."""
    modules = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in ("jax", "jaxlib"):
                    modules.add((alias.asname or alias.name).split(".")[0])
                    if is_private(alias.name):
                        yield alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in (
            "jax",
            "jaxlib",
        ):
            for alias in node.names:
                modules.add(alias.asname or alias.name)
                if is_private(f"{node.module}.{alias.name}"):
                    yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            chain, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                chain.append(inner.attr)
                inner = inner.value
            if (
                isinstance(inner, ast.Name)
                and inner.id in modules
                and is_private(node.attr)
            ):
                yield ".".join([inner.id, *reversed(chain)])


def is_private(name):
    """Whether a part of a dotted name begins with one underscore."""
    return any(p.startswith("_") and not p.startswith("__") for p in name.split("."))


def test_a_private_name_is_found_wherever_it_stands():
    source = (
        "import jax\nimport jax._src.core\n"
        "from jax._src import ad\nfrom jax import numpy as n\n"
        "jax.numpy._x.y\nn._z\njax.__version_info__\nself._private\n"
    )
    assert set(private_names(source)) == {
        "jax._src.core",
        "jax._src.ad",
        "jax.numpy._x",
        "n._z",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_name_of_jax_is_used(path):
    assert list(private_names(path.read_text("utf-8"))) == []
