"""What the documentation needs besides its pages: pages from the top, and mathematics.

Mathematics becomes MathML when the pages are built, so that reading them takes neither
scripts nor a network. `latex2mathml` and `mkdocs` are imported where they are used, for
the tests import every file of the examples and do without.
"""

import html
import importlib
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
IMAGES = "images"
#: Pages that are files at the top of the repository.
PAGES = {"index.md": "README.md", "changelog.md": "CHANGELOG.md"}


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages from the top of the repository, and their images."""
    File = importlib.import_module("mkdocs.structure.files").File
    for page, source in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
            name = f"{IMAGES}/{Path(path).name}"
            text = text.replace(f"({path})", f"({name})")
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
        files.append(File.generated(config, page, content=text))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Makes MathML of the mathematics."""
    # Between the marks the text is that of the source, with HTML's own characters escaped.
    content = re.sub(
        r'<div class="arithmatex">\\\[(.*?)\\\]</div>',
        lambda found: _mathml(found[1], "block"),
        content,
        flags=re.DOTALL,
    )
    content = re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>',
        lambda found: _mathml(found[1], "inline"),
        content,
        flags=re.DOTALL,
    )
    if "arithmatex" in content:
        raise ValueError("mathematics that was not converted")
    # A wide table scrolls by itself, and not the page.
    return content.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _mathml(latex: str, display: str) -> str:
    """Mathematics as MathML."""
    convert = importlib.import_module("latex2mathml.converter").convert
    # It does not know the environment under the name that has no numbers.
    source = html.unescape(latex).strip().replace("{aligned}", "{align*}")
    math = convert(source, display=display)
    # What it does not know it leaves as it stands.
    if "\\" in math or "<mi>&</mi>" in math:
        raise ValueError(f"mathematics that latex2mathml does not know: {source}")
    return f'<div class="display">{math}</div>' if display == "block" else math
