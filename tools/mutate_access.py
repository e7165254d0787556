"""Mutate the access rules, one comparison at a time, and see that a test notices each.

    .venv/bin/python tools/mutate_access.py             # all of them: an hour or so
    .venv/bin/python tools/mutate_access.py --pure      # those of the pure rules, as the suite does
    .venv/bin/python tools/mutate_access.py --only storage/reading.py --list

Each mutant has one thing changed: a comparison turned or moved by one, an `and` that becomes an
`or`, a guard or a level taken away, and the same within the SQL. It is put in the place of the
function or the constant in this very process, and the tests of its file are run until one fails:
those first that noticed a mutant before, then the quickest. What survives is printed, and the
status is 1.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import io
import sys
import types
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.access_mutants import Mutant, Target, mutants, parts  # noqa: E402

PURE = ("tests/archive/test_access.py", "tests/archive/test_listening.py")
DOORS = (
    "tests/storage/test_reading.py",
    "tests/web/test_doors.py",
    "tests/web/test_reasons.py",
    "tests/web/test_budget.py",
    "tests/web/test_scope.py",
    "tests/web/test_allowance.py",
    "tests/web/test_access_matrix.py",
)
KEYS = ("tests/storage/test_credentials.py", *DOORS, "tests/web/test_keys.py")


TARGETS = (
    Target("archive/access.py", (), PURE),
    Target("archive/listening.py", (), PURE),
    Target("archive/search.py", ("Query.within",), ("tests/archive/test_search.py",)),
    Target(
        "storage/scopes.py",
        ("COLUMNS", "read", "Members.pairs"),
        ("tests/web/test_scope.py", "tests/web/test_glass.py"),
    ),
    Target(
        "storage/credentials.py",
        ("authenticate", "_living", "_shows", "holds", "check_limits", "_check_teams", "revoke"),
        KEYS,
    ),
    Target(
        "storage/sessions.py",
        ("authenticate", "_LIVES", "_living", "holds"),
        ("tests/web/test_sessions.py", "tests/web/test_scope.py"),
    ),
    Target("storage/recordings.py", ("scope_terms", "in_scope", "from_row"), DOORS),
    Target(
        "storage/reading.py",
        ("get", "stands", "require_reason", "_KNOWN", "_REASONED", "_HEARD", "_told",
         "_scope_terms", "_used_up", "give_reason"),
        (*DOORS, "tests/web/test_redaction.py"),
    ),
    Target(
        "storage/search.py",
        ("find", "_rows", "_looks", "_rows_of"),
        (*DOORS, "tests/web/test_listen.py"),
    ),
    Target(
        "storage/certificates.py",
        ("of_erasure", "_of_recording", "_of_export"),
        (
            "tests/storage/test_certificates.py",
            "tests/storage/test_early.py",
            "tests/web/test_exports.py",
            *DOORS[4:],
        ),
    ),
    Target(
        "storage/intake.py",
        ("admit",),
        ("tests/storage/test_admitting.py", *DOORS[6:]),
    ),
    Target(
        "storage/four_eyes.py",
        ("person", "holder", "agree", "asker"),
        ("tests/storage/test_four_eyes.py",),
    ),
    Target("storage/policy.py", ("standing", "change"), ("tests/storage/test_policy.py",)),
    Target("storage/early.py", ("LEVELS", "ask", "_claim"), ("tests/storage/test_early.py",)),
    Target("storage/glass.py", ("APPROVERS", "ask", "grant", "end"), ("tests/web/test_glass.py",)),
    Target(
        "web/glass.py",
        ("readers_routes", "operators_routes", "ask"),
        (*DOORS[6:], "tests/web/test_glass.py"),
    ),
    Target(
        "web/doors.py",
        ("build", "_handler", "_let_in", "_check_bounds"),
        (*KEYS, "tests/web/test_sessions.py"),
    ),
    Target("web/allowance.py", ("Allowance._look", "Allowance._holds"), DOORS[5:]),
    Target(
        "web/retrieval.py",
        ("routes", "audio", "audio_head", "_open"),
        (*DOORS, "tests/web/test_listen.py"),
    ),
    Target("web/operations.py", ("routes",), DOORS[6:]),
    Target("web/ledger.py", ("routes",), DOORS[6:]),
    Target("web/certificates.py", ("routes",), DOORS[6:]),
    Target("web/ingest.py", ("routes",), DOORS[6:]),
)  # fmt: skip


_NOTICED: dict[Target, list[str]] = defaultdict(list)
"""The tests that noticed mutants of a target, the last first: they notice its neighbours too."""

_RECENT = 4
_PATIENCE = 40
"""Seconds for a test: one that waits for what a mutant never does has noticed it, too."""


def survives(mutant: Mutant) -> bool:
    """Whether all tests of the file pass with this change in it."""
    noticed = _NOTICED[mutant.target]
    with _in_place(mutant):
        tests = (*noticed[:_RECENT], *mutant.target.tests)
        found = next((failing for test in tests if (failing := _failing(test))), "")
    if found in noticed:
        noticed.remove(found)
        noticed.insert(0, found)
    elif found and not _failing(found):  # by itself it fails for no other reason
        noticed.insert(0, found)
    return not found


@contextlib.contextmanager
def _in_place(mutant: Mutant) -> Iterator[None]:
    """Let the changed part be what everybody uses who has the one of the file."""
    module = importlib.import_module(mutant.target.file.removesuffix(".py").replace("/", "."))
    owner: Any = module
    *outer, name = mutant.part.split(".")
    for each in outer:
        owner = getattr(owner, each)
    real = getattr(owner, name)
    changed = _run(module, mutant.node, name)
    if isinstance(real, types.FunctionType):
        code = real.__code__
        real.__code__ = changed.__code__
        places = _derived(module, name)
    else:
        code = None
        places = _places(real, changed)
    for place, attribute, _, new in places:
        setattr(place, attribute, new)
    try:
        yield
    finally:
        if code is not None:
            real.__code__ = code
        for place, attribute, old, _ in places:
            setattr(place, attribute, old)


Place = tuple[Any, str, Any, Any]
"""An object, its attribute, what that was, and what it is with the mutant."""

DERIVED = {("storage.recordings", "in_scope"): [("storage.reading", "_KNOWN")]}
"""What is made of a function once, at import."""


def _derived(module: types.ModuleType, name: str) -> list[Place]:
    places = []
    for other, constant in DERIVED.get((module.__name__, name), ()):
        user = importlib.import_module(other)
        tree = ast.parse(Path(str(user.__file__)).read_text("utf-8"))
        [node] = [part.node for part in parts(tree) if part.name == constant]
        places.append((user, constant, getattr(user, constant), _run(user, node, constant)))
    return places


def _places(real: object, changed: object) -> list[Place]:
    """Wherever a constant was imported to."""
    return [
        (module, name, real, changed)
        for module in list(sys.modules.values())
        if isinstance(module, types.ModuleType)
        for name, value in list(vars(module).items())
        if value is real
    ]


def _run(module: types.ModuleType, node: ast.stmt, name: str) -> Any:
    """What the statement gives within its module, without leaving it there."""
    tree = ast.Module([copy.deepcopy(node)], [])
    inner = tree.body[0]
    if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
        inner.decorator_list = []
    space = dict(vars(module))
    exec(compile(tree, str(module.__file__), "exec"), space)  # noqa: S102 - our own code
    return space[name]


_RUNS = 25


class _Shared:
    """One PostgreSQL for many runs: to start one takes longer than most of the tests. But what they
    leave in it fills a disk in the end.
    """

    def __init__(self) -> None:
        from tests import postgres

        self._real = postgres.Postgres
        self._server: Any = None
        self._runs = 0
        postgres.Postgres = self  # type: ignore[assignment,misc]

    def __call__(self) -> "_Shared":
        self._server = self._server or self._real()
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def stop(self) -> None:
        self._runs += 1
        if self._runs % _RUNS == 0:
            self.end()

    def end(self) -> None:
        if self._server:
            self._server.stop()
        self._server = None


class _First:
    """What pytest tells of the first test that failed."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def _failing(test: str, *, aloud: bool = False) -> str:
    """The first test that fails of a file, or the file when pytest fails; empty when all pass.

    Raises RuntimeError where there is no such test.
    """
    words = ["-q", "-x", "-p", "no:cacheprovider", f"--timeout={_PATIENCE}", f"--rootdir={ROOT}"]
    words.append(str(ROOT / test))
    said, first = io.StringIO(), _First()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = pytest.main(words, plugins=[first])
        except Exception:  # a failed test left something behind that pytest chokes on
            status = pytest.ExitCode.TESTS_FAILED
    if status in (pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"there is no test {test}: nothing can be said")
    passed = status == pytest.ExitCode.OK
    if aloud and not passed:
        print(said.getvalue())
    return "" if passed else first.name or test


def main() -> int:
    """Try them; 1 if one survives."""
    parser = argparse.ArgumentParser(description="Mutate the access rules; see docs/security.md.")
    parser.add_argument("--pure", action="store_true", help="those of the pure rules alone")
    parser.add_argument("--only", default="", help="of one file")
    parser.add_argument("--match", default="", help="whose name has this in it")
    parser.add_argument("--list", action="store_true", help="name them, try none")
    parser.add_argument("--at-once", action="store_true", help="without a run of the tests as is")
    asked = parser.parse_args()
    wanted = [
        mutant
        for target in TARGETS
        if (not asked.pure or target.tests == PURE) and target.file.startswith(asked.only)
        for mutant in mutants(target)
        if asked.match in mutant.change
    ]
    if asked.list:
        for mutant in wanted:
            print(_name(mutant))
        print(len(wanted))
        return 0
    shared = _Shared()
    try:
        return _try(wanted, proven=asked.at_once)
    finally:
        shared.end()


def _try(wanted: Sequence[Mutant], *, proven: bool) -> int:
    survivors = 0
    tests = set() if proven else {test for mutant in wanted for test in mutant.target.tests}
    for test in sorted(tests):
        if _failing(test, aloud=True):
            print(f"{test} fails as it is: nothing can be said")
            return 1
    for mutant in wanted:
        if survives(mutant):
            survivors += 1
            print(f"SURVIVED {_name(mutant)}", flush=True)
    print(f"{len(wanted)} mutants, {len(wanted) - survivors} caught, {survivors} survived")
    return 1 if survivors else 0


def _name(mutant: Mutant) -> str:
    return f"{mutant.target.file}:{mutant.line}: {mutant.part}: {mutant.change}"


if __name__ == "__main__":
    sys.exit(main())
