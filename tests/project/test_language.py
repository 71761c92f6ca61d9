"""The language of all texts: words that the field does not use stay away."""

import re

import pytest

from tests.project.pages import ROOT

#: What each is to be replaced by. Words are matched whole, in any case.
BANNED = {
    r"no test asks": "no test runs",
    r"for none was at hand": "because none was available",
    r"(?:is|be) looked at": "is read",
    r", for (?:in|it|they|none|through|the compiler)": "because",
    r"as they are computed with": "in the form for the computation",
    r"per cent": "percent",
    r"makes? of zeros": "rounding errors",
    r"\d+ %": "no space before %",
    r"for ever": "forever, or deadlock",
    r"lest": "so that ... not",
    r"second way": "fallback",
    r"beyond all numbers": "too large for the dtype",
    r"uncut": "of full numerical rank",
    r"(?:is|are|nothing|something|more) cut|cuts": "truncated",
    r"hopeless": "certain to fail",
    r"attempt is lost": "its time is wasted",
    r"data goes down only": "data moves one way",
    r"house|houses|floors": "layer",
    r"as caches and the threads of LAPACK like it": "in chunks that fit a cache",
    r"at hand": "available",
    r"so goes a": "state what happens",
    r"hither|thither|thereof|whereof|wherein|therein": "plain words",
    r"named rightly": "classified correctly",
    r"factoris\w+|regularis\w+|optimis\w+|minimis\w+|normalis\w+": "American spelling",
    r"orthonormalis\w+|linearis\w+|synchronis\w+|initialis\w+": "American spelling",
    r"colour\w*|centre\w*|behaviour\w*|metres?|grey\w*": "American spelling",
    r"neighbour\w*|favour\w*|labelled|modelling|travell\w+": "American spelling",
}
SUFFIXES = {".py", ".md", ".yml", ".yaml", ".toml", ".css"}
#: What has the words for its own reasons: this list, and names in other libraries.
EXEMPT = {"tests/project/test_language.py"}
#: Names of journals, of libraries and of their arguments.
QUOTED = re.compile(r"neighbou?r_\w+|cmap=\S+|Zentr\w+")
FILES = sorted(
    path
    for folder in ("jaxpinv", "tests", "examples", ".github")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in SUFFIXES and "site" not in path.parts
)
FILES += [ROOT / "README.md", ROOT / "CHANGELOG.md"]


def banned(text):
    """What a text should not say, each with the words for it."""
    # The words of names count too.
    plain = QUOTED.sub("", text).replace("_", " ")
    return [
        f"{found[0]!r}: say {better!r}"
        for pattern, better in BANNED.items()
        for found in re.finditer(rf"(?<!\w)(?:{pattern})(?!\w)", plain, re.IGNORECASE)
    ]


def test_banned_words_are_found_whole_and_in_any_case():
    assert banned("A Colour") == ["'Colour': say 'American spelling'"]
    assert banned("waits_for_ever") == ["'for ever': say 'forever, or deadlock'"]
    assert banned("the forever loop, everyone, the latest") == []
    assert banned("12 % larger") == ["'12 %': say 'no space before %'"]
    assert banned("12% larger, 12 %d") == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_is_banned(path):
    if path.relative_to(ROOT).as_posix() not in EXEMPT:
        assert banned(path.read_text("utf-8")) == []
