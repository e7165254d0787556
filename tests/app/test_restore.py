"""The restore drill of the documents, as an operator runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

DRILL = Path(__file__).parents[2] / "tools" / "restore_drill.py"


@pytest.mark.timeout(600)
def test_the_restore_drill_passes() -> None:
    done = subprocess.run(
        [sys.executable, str(DRILL)], capture_output=True, text=True, timeout=590, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert done.stdout.endswith("the restore drill passed\n")
    assert "Traceback" not in done.stderr
