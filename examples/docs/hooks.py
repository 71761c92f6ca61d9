"""Adds to the documentation files from other folders, and turns mathematics into MathML.

Some pages are files outside this folder, and pages link to such files. MathML is made when
the pages are built, so reading them takes neither scripts nor a network.
"""

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "pages"
#: Pages that are files elsewhere in the repository.
SOURCES = {
    "index.md": ROOT / "README.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / ".github" / "CONTRIBUTING.md",
    "examples.md": ROOT / "examples" / "README.md",
    "testing.md": ROOT / "tests" / "README.md",
}
#: Links to files, with the part of the page that they lead to.
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages from elsewhere, and the files that pages link to."""
    for page, path in SOURCES.items():
        text = path.read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for page in list(files.documentation_pages()):
        for link, _ in LINK.findall(page.content_string):
            path = _linked(page.src_uri, link)
            target = _target(path)
            if target.startswith("files/") and files.get_file_from_path(target) is None:
                file = File.generated(config, target, abs_src_path=str(path))
                files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrites links to the places of the files in the documentation."""

    def changed(found: re.Match) -> str:
        return f"]({_target(_linked(page.file.src_uri, found[1]))}{found[2] or ''})"

    return LINK.sub(changed, markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Converts the mathematics to MathML, and lets figures and tables be wider."""
    # Between the marks is the source text, with the special characters of HTML escaped.
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
    # A click on a figure shows it in its full size.
    content = re.sub(r'<img [^>]*?src="([^"]+)"[^>]*>', r'<a href="\1">\g<0></a>', content)
    # A wide table scrolls; the page does not.
    return content.replace("<table>", '<div class="wide"><table>').replace(
        "</table>", "</table></div>"
    )


def _linked(page: str, link: str) -> Path:
    """The file that a page links to."""
    return (SOURCES.get(page, FOLDER / page).parent / link).resolve()


def _target(path: Path) -> str:
    """Where a file of the repository is in the documentation."""
    for page, source in SOURCES.items():
        if path == source:
            return page
    if path.is_relative_to(FOLDER):
        return path.relative_to(FOLDER).as_posix()
    # Pictures of several folders may have one name.
    return "files/" + path.relative_to(ROOT).as_posix().replace("/", "-").lstrip(".")


def _mathml(latex: str, display: str) -> str:
    """Mathematics as MathML."""
    # The converter knows only the starred name of this environment.
    source = html.unescape(latex).strip().replace("{aligned}", "{align*}")
    math = convert(source, display=display)
    # The converter leaves unknown commands as they are.
    if "\\" in math or "<mi>&</mi>" in math:
        raise ValueError(f"mathematics that latex2mathml does not know: {source}")
    return f'<div class="display">{math}</div>' if display == "block" else math
