"""The files that a reader reads, and the tables in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "examples" / "docs" / "pages"
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: All files of prose.
PROSE = sorted(
    path for glob in ("*.md", "*/*.md", ".github/*.md") for path in ROOT.glob(glob)
) + sorted(PAGES.glob("*.md"))


def page(name: str) -> str:
    """The text of a page of the documentation."""
    return (PAGES / name).read_text("utf-8")


def tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a text, each a list of rows, each a list of cells."""
    for found in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[x.strip() for x in row[1:-1].split("|")] for row in found.splitlines()]
        yield [rows[0], *rows[2:]]
