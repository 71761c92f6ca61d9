"""Lets the reference show the example of a docstring as code.

A section of Google's style that holds one example is named `Example`, and `griffe` knows
the plural alone. It is looked for where this file is read, for the tests import every file
of the examples and do without.
"""

import importlib
from typing import Any

try:
    Extension: Any = importlib.import_module("griffe").Extension
except ImportError:
    Extension = object


class Example(Extension):
    """Reads `Example` as `Examples`."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Renames the section."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:", "\nExamples:")
