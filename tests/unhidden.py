"""In CI nothing hides a promise: a run in which a test was skipped, or failed as expected, fails.

Elsewhere a test may be skipped, for a machine that lacks what it needs; the closing line says so.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

HIDDEN = ("skipped", "xfailed", "xpassed")


def hidden(stats: Mapping[str, Sequence[Any]]) -> list[str]:
    """The tests that neither passed nor failed, each with the word for it."""
    return [f"{word}: {report.nodeid}" for word in HIDDEN for report in stats.get(word, ())]


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Name what was hidden, above the closing line."""
    if os.environ.get("CI") and (found := hidden(terminalreporter.stats)):
        terminalreporter.section("hidden in CI, where every test must run", red=True)
        for line in found:
            terminalreporter.line(line)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Make the run a failure. A worker of xdist has no reporter: its controller counts."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and hidden(reporter.stats) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
