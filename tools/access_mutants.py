"""The mutants of a file: its functions and constants with one thing changed that decides.

A comparison is turned or moved by one, an `and` becomes an `or`, a guard or a level is taken away,
and the same within the SQL. `tools/mutate_access.py` says of which files, and tries them.
"""

import ast
import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

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
class Target:
    """A file, the functions and constants in it that decide (none: all), and their tests."""

    file: str
    names: tuple[str, ...]
    tests: tuple[str, ...]


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
    chosen = [part for part in parts(tree) if not target.names or part.name in target.names]
    if missing := set(target.names) - {part.name for part in chosen}:
        raise SystemExit(f"there is no {missing} in {target.file} any more: correct TARGETS")
    for part in chosen:
        for node in _decides(part.node):
            for change in _changes(node):
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


def parts(tree: ast.Module | ast.ClassDef, within: str = "") -> Iterator[Part]:
    """The functions, methods and constants of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield Part(within + node.name, node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and not within:
            yield Part(node.targets[0].id, node)
        elif isinstance(node, ast.ClassDef):
            yield from parts(node, f"{node.name}.")


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
