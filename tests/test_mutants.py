"""Mutants of the pure access rules, each caught; `tools/mutate_access.py` tries the others."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.timeout(900)
def test_every_mutant_of_the_pure_access_rules_is_caught() -> None:
    words = [sys.executable, "tools/mutate_access.py", "--pure"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = int(done.stdout.split()[0])
    assert tried >= 25
    assert f"{tried} caught, 0 survived" in done.stdout


def test_what_is_to_be_mutated_is_still_there() -> None:
    words = [sys.executable, "tools/mutate_access.py", "--list"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 300
