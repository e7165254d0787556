"""Mutate the access rules, one comparison at a time, and see that a test notices each.

    .venv/bin/python tools/mutate_access.py             # all of them: an hour or so
    .venv/bin/python tools/mutate_access.py --pure      # those of the pure rules, as the suite does
    .venv/bin/python tools/mutate_access.py --only storage/reading.py --list

Each mutant has one thing changed: a comparison turned or moved by one, an `and` that becomes an
`or`, a guard or a level taken away, and the same within the SQL. It is put in the place of the
function or the constant in this very process, and the tests of its file are run, the quickest
first, until one fails. What survives is printed, and the status is 1. EQUIVALENT names what no test
can notice, and why.
"""

import argparse
import ast
import contextlib
import copy
import importlib
import io
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

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


@dataclass(frozen=True)
class Target:
    """A file, the functions and constants in it that decide (none: all), and their tests."""

    file: str
    names: tuple[str, ...]
    tests: tuple[str, ...]


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
    Target("storage/recordings.py", ("scope_terms", "in_scope", "from_row"), DOORS),
    Target(
        "storage/reading.py",
        ("get", "stands", "require_reason", "_KNOWN", "_REASONED", "_HEARD", "_told",
         "_scope_terms", "_used_up", "give_reason"),
        DOORS,
    ),
    Target("storage/search.py", ("find", "_rows", "_looks", "_rows_of"), DOORS),
    Target("storage/certificates.py", ("of_recording",), DOORS[4:]),
    Target("storage/intake.py", ("admit",), DOORS[6:]),
    Target(
        "storage/four_eyes.py",
        ("person", "agree", "asker"),
        ("tests/storage/test_four_eyes.py",),
    ),
    Target("storage/policy.py", ("standing", "change"), ("tests/storage/test_policy.py",)),
    Target("storage/early.py", ("LEVELS", "ask", "_claim"), ("tests/storage/test_early.py",)),
    Target("storage/glass.py", ("APPROVERS", "ask", "grant", "end"), ("tests/web/test_glass.py",)),
    Target("web/glass.py", ("readers_routes", "operators_routes", "ask"), DOORS[6:]),
    Target("web/doors.py", ("build", "_handler", "_let_in", "_check_bounds"), KEYS),
    Target("web/allowance.py", ("Allowance._look", "Allowance._holds"), DOORS[5:]),
    Target("web/retrieval.py", ("routes", "audio", "audio_head", "_open"), DOORS),
    Target("web/operations.py", ("routes",), DOORS[6:]),
    Target("web/ledger.py", ("routes",), DOORS[6:]),
    Target("web/certificates.py", ("routes",), DOORS[6:]),
    Target("web/ingest.py", ("routes",), DOORS[6:]),
)  # fmt: skip

EQUIVALENT: dict[tuple[str, str], str] = {}
"""By file and change: why nobody can notice it."""

_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_SQL = (
    (r" AND ", " OR "), (r" OR ", " AND "), (r" <= ", " < "), (r" < ", " <= "), (r" >= ", " > "),
    (r" > ", " >= "), (r" = ", " <> "), (r" <> ", " = "), (r"IS NOT NULL", "IS NULL"),
    (r"IS NULL", "IS NOT NULL"), (r"(?<!NOT )EXISTS", "NOT EXISTS"), (r"ANY \(", "ALL ("),
    (r"ALL \(", "ANY ("), (r" <@ ", " @> "), (r"'stored'", "'erasing'"), (r"min\(", "max("),
)  # fmt: skip
_STATEMENT = re.compile(r"\b(SELECT|WHERE|AND|OR|EXISTS|CASE|WHEN|SET|FROM|INSERT)\b")
_OTHERS = {"READERS": "OPERATORS", "OPERATORS": "READERS", "UPLOADERS": "READERS"}


@dataclass(frozen=True)
class Part:
    """A function, a method or a constant: its name within the module, and its source as a tree."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign


@dataclass(frozen=True)
class Mutant:
    """One change of one part of a file; `node` is the part as it is then."""

    target: Target
    part: str
    line: int
    change: str
    node: ast.stmt


def mutants(target: Target) -> Iterator[Mutant]:
    """Every change of what decides in this file."""
    tree = ast.parse((ROOT / target.file).read_text("utf-8"))
    parts = [part for part in _parts(tree) if not target.names or part.name in target.names]
    if missing := set(target.names) - {part.name for part in parts}:
        raise SystemExit(f"there is no {missing} in {target.file} any more: correct TARGETS")
    for part in parts:
        for node in _decides(part.node):
            for change in _changes(node):
                if (target.file, change[0]) not in EQUIVALENT:
                    yield _made(target, part, node, change)


_ASIDE = ("annotation", "returns", "decorator_list", "targets")


def _decides(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the part is used: annotations and defaults do not."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in _ASIDE or isinstance(value, ast.arguments):
            continue
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, ast.AST):
                yield from _decides(inner)


def _parts(tree: ast.Module | ast.ClassDef, within: str = "") -> Iterator[Part]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Part(within + node.name, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not within:
            yield Part(node.targets[0].id, node)
        elif isinstance(node, ast.ClassDef):
            yield from _parts(node, f"{node.name}.")


Change = tuple[str, str, object]
"""What it is called, the field of the node that changes, and its new value."""


def _changes(node: ast.AST) -> Iterator[Change]:
    for kind, changes in _KINDS.items():
        if isinstance(node, kind):
            yield from changes(node)


def _of_compare(node: ast.Compare) -> Iterator[Change]:
    for at, op in enumerate(node.ops):
        turned = _TURNED[type(op)]()
        ops = [*node.ops[:at], turned, *node.ops[at + 1 :]]
        yield f"{_text(node)}: {type(op).__name__} to {type(turned).__name__}", "ops", ops


def _of_and_or(node: ast.BoolOp) -> Iterator[Change]:
    yield f"{_text(node)}: and/or", "op", ast.Or() if isinstance(node.op, ast.And) else ast.And()
    for at in range(len(node.values)):
        left = node.values[:at] + node.values[at + 1 :]
        yield f"{_text(node)}: without part {at + 1}", "values", [*left, left[-1]]


def _of_bits(node: ast.BinOp) -> Iterator[Change]:
    if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        swapped = ast.BitOr() if isinstance(node.op, ast.BitAnd) else ast.BitAnd()
        yield f"{_text(node)}: &/|", "op", swapped


def _of_condition(node: ast.comprehension) -> Iterator[Change]:
    if node.ifs:
        yield f"without the condition {_text(node.ifs[0])}", "ifs", node.ifs[1:]


def _of_set(node: ast.Set) -> Iterator[Change]:
    for at, one in enumerate(node.elts):
        left = node.elts[:at] + node.elts[at + 1 :]
        yield f"{_text(node)}: without {_text(one)}", "elts", left or [ast.Constant("")]


def _of_name(node: ast.Name) -> Iterator[Change]:
    if node.id in _OTHERS:
        yield f"{node.id}: {_OTHERS[node.id]}", "id", _OTHERS[node.id]


def _of_body(node: Any) -> Iterator[Change]:
    for at, inner in enumerate(node.body):
        if _is_guard(inner):
            body = [*node.body[:at], ast.Pass(), *node.body[at + 1 :]]
            yield f"without `{_text(inner)}`", "body", body


def _is_guard(node: ast.stmt) -> bool:
    """A statement that lets nobody through who may not: an `if` that ends it, or a call for it."""
    if isinstance(node, ast.If):
        return isinstance(node.body[-1], (ast.Raise, ast.Return)) and not node.orelse
    call = node.value if isinstance(node, ast.Expr) else None
    call = call.value if isinstance(call, ast.Await) else call
    return isinstance(call, ast.Call) and "require" in _text(call.func)


def _of_constant(node: ast.Constant) -> Iterator[Change]:
    if isinstance(node.value, bool):
        yield f"{node.value}: {not node.value}", "value", not node.value
    elif isinstance(node.value, str) and _STATEMENT.search(node.value):
        for pattern, other in _SQL:
            for match in re.finditer(pattern, node.value):
                text = node.value[: match.start()] + other + node.value[match.end() :]
                near = node.value[max(match.start() - 25, 0) : match.end() + 25].strip()
                yield f"SQL `{near}`: {match[0].strip()} to {other.strip()}", "value", text


_KINDS: dict[Any, Callable[[Any], Iterator[Change]]] = {
    ast.Compare: _of_compare,
    ast.BoolOp: _of_and_or,
    ast.BinOp: _of_bits,
    ast.comprehension: _of_condition,
    ast.Set: _of_set,
    ast.Name: _of_name,
    ast.Constant: _of_constant,
    (ast.FunctionDef, ast.AsyncFunctionDef, ast.If, ast.With, ast.AsyncWith): _of_body,
}


def _made(target: Target, part: Part, node: ast.AST, change: Change) -> Mutant:
    name, field, value = change
    before = getattr(node, field)
    setattr(node, field, value)
    try:
        changed = ast.fix_missing_locations(copy.deepcopy(part.node))
    finally:
        setattr(node, field, before)
    return Mutant(target, part.name, getattr(node, "lineno", 0), name, changed)


def _text(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."


def survives(mutant: Mutant) -> bool:
    """Whether all tests of the file pass with this change in it."""
    with _in_place(mutant):
        return all(_passes(test) for test in mutant.target.tests)


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
        [node] = [part.node for part in _parts(tree) if part.name == constant]
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


class _Shared:
    """One PostgreSQL for all runs: to start one takes longer than most of the tests."""

    def __init__(self) -> None:
        from tests import postgres

        self._real = postgres.Postgres
        self._server: Any = None
        postgres.Postgres = self  # type: ignore[assignment,misc]

    def __call__(self) -> "_Shared":
        self._server = self._server or self._real()
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def stop(self) -> None: ...

    def end(self) -> None:
        if self._server:
            self._server.stop()


def _passes(test: str, *, aloud: bool = False) -> bool:
    words = ["-q", "-x", "-p", "no:cacheprovider", f"--rootdir={ROOT}", str(ROOT / test)]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            passed = pytest.main(words) == 0
        except Exception:  # a failed test left something behind that pytest chokes on
            passed = False
    if aloud and not passed:
        print(said.getvalue())
    return passed


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
    sys.path.insert(0, str(ROOT))
    shared = _Shared()
    try:
        return _try(wanted, proven=asked.at_once)
    finally:
        shared.end()


def _try(wanted: Sequence[Mutant], *, proven: bool) -> int:
    survivors = 0
    tests = set() if proven else {test for mutant in wanted for test in mutant.target.tests}
    for test in sorted(tests):
        if not _passes(test, aloud=True):
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
