"""Runs the code of Markdown files as a reader would, with the default settings of JAX.

    python -m tests.project.code_blocks README.md

The blocks of a file share their names. If a block of plain text follows a
block of code, it must be what the code prints. Blocks with prompts are doctests.
"""

import contextlib
import doctest
import functools
import io
import json
import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tests.project.pages import ROOT

BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block of code.

    Attributes:
        line: that of its first line of code in the file.
        code: what it says.
        output: what it should print, if that is shown.
    """

    line: int
    code: str
    output: str | None


def blocks(text: str) -> Iterator[Block]:
    """The blocks of code of a text, in order."""
    found = list(BLOCK.finditer(text))
    for index, block in enumerate(found):
        if block[1] != "python":
            continue
        follower = found[index + 1] if index + 1 < len(found) else None
        is_output = (
            follower is not None
            and follower[1] == "text"
            and not text[block.end() : follower.start()].strip()
        )
        line = text.count("\n", 0, block.start()) + 2
        yield Block(line, block[2], follower[2] if follower and is_output else None)


def failures(text: str, name: str = "text") -> list[str]:
    """What goes wrong when the code of a text runs, one entry for each block that fails."""
    names: dict[str, Any] = {"__name__": "__main__"}
    return [
        f"{name}:{block.line}: {problem}"
        for block in blocks(text)
        if (problem := _failure(block, names))
    ]


def _failure(block: Block, names: dict[str, Any]) -> str:
    """What goes wrong with one block; it changes the names."""
    printed = io.StringIO()
    if block.code.startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(block.code, names, "block", None, 0)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(test, out=printed.write, clear_globs=False)
        # A doctest works on a copy of the names.
        names |= test.globs
        return printed.getvalue()
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(block.code, "block", "exec"), names)
    except Exception:
        return traceback.format_exc()
    if block.output is not None and printed.getvalue() != block.output:
        return f"expected\n{block.output}printed\n{printed.getvalue()}"
    return ""


@functools.cache
def failures_of_files(*names: str) -> dict[str, list[str]]:
    """What goes wrong with the code of files that share a process."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    if "README.md" not in names:
        # What a page prints does not depend on it, and it compiles in half of the time.
        environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.project.code_blocks", *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert run.stdout, run.stderr
    return json.loads(run.stdout)


def main() -> int:
    """Runs the files of the command line and prints the failures of each as JSON."""
    found = {}
    for path in sys.argv[1:]:
        found[path] = failures(Path(path).read_text("utf-8"), path)
        # A file may enable double precision, and the next one starts without.
        jax.config.update("jax_enable_x64", False)
    print(json.dumps(found, indent=1))
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
