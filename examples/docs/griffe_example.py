"""Lets the reference show the example of a docstring as code.

Google's style names a section that holds one example `Example`, and `griffe` knows only the
plural.
"""

from typing import Any

import griffe


class Example(griffe.Extension):
    """Reads `Example` as `Examples`."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Renames the section."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:", "\nExamples:")
