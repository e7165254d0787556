"""A skipped test fails a run in CI, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import unhidden

ROOT = Path(__file__).parent.parent

CONFTEST = "from tests.unhidden import pytest_sessionfinish, pytest_terminal_summary\n"
PASSES = "def test_it(): assert True\n"
HIDES = """
import pytest
def test_skips(): pytest.skip("not here")
@pytest.mark.xfail
def test_fails_as_expected(): assert False
@pytest.mark.xfail
def test_surprises(): assert True
"""


def run(folder: Path, text: str, ci: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_one.py").write_text(text)
    (folder / "test_two.py").write_text(PASSES)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environ = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT)}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "."]
    return subprocess.run(
        command, cwd=folder, env=environ, text=True, capture_output=True, timeout=60
    )


def test_a_hidden_test_fails_in_ci_alone(tmp_path: Path) -> None:
    found = run(tmp_path, HIDES, "true")
    assert found.returncode == 1, found.stdout
    for line in (
        "skipped: test_one.py::test_skips",
        "xfailed: test_one.py::test_fails_as_expected",
        "xpassed: test_one.py::test_surprises",
    ):
        assert line in found.stdout
    assert "1 passed" in found.stdout.splitlines()[-1]
    assert run(tmp_path, HIDES, "").returncode == 0


def test_a_skipped_file_fails_with_workers_too_and_what_passes_passes(tmp_path: Path) -> None:
    skips = "import pytest\npytest.skip('not here', allow_module_level=True)\n"
    assert run(tmp_path, skips, "true", "-p", "xdist", "-n", "1").returncode == 1
    assert run(tmp_path, PASSES, "true").returncode == 0


def test_the_suite_itself_is_run_so(pytestconfig: pytest.Config) -> None:
    assert any(
        getattr(plugin, "pytest_sessionfinish", None) is unhidden.pytest_sessionfinish
        for plugin in pytestconfig.pluginmanager.get_plugins()
    )
