"""What type checkers say of calls as users write them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CHECKERS = {
    "mypy": ["mypy", "--strict", "--follow-imports=silent", f"--cache-dir={os.devnull}"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_calls_as_users_write_them_are_accepted(checker):
    command = [sys.executable, "-m", *CHECKERS[checker], "tests/project/typed_calls.py"]
    # So pyright does not ask the network for a newer version.
    env = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
