"""What stands in a file beside the audio, and how it and the file's name become a call's fields.

A sidecar is JSON, XML or CSV. Whatever its form, it becomes one flat table of texts: a value within
a value is named by its path, `call.parties.0.number`, in XML `session.nameID.@aor` without the
outermost element. A mapping says which field is found under which name; a field that it does not
mention is looked for under its own.

XML with a document type or entities is refused: it could name files or grow without end. A time
without an offset is refused as long as nobody says in which zone it was written.
"""

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import PurePosixPath
from xml.parsers import expat

from archive import filenames
from archive.recording import TEXT_FIELDS, parse_instant

FIELDS = ("call_id", "call_type", "started_at", "direction", *TEXT_FIELDS)
"""What a mapping may name."""

MOST = 2**20
"""Bytes of a sidecar; more is none."""

_DEEPEST, _NAMES = 32, 1000
_EPOCH = re.compile(r"@?(\d{9,11})(\.\d{1,9})?|(\d{13})|(\d{16})")
_PLAIN = re.compile(r"(\d{4})-?(\d\d)-?(\d\d)[ T]?(\d\d):?(\d\d):?(\d\d)(?:[.,]\d+)?")
_DIRECTIONS = {
    "in": "inbound",
    "incoming": "inbound",
    "out": "outbound",
    "outgoing": "outbound",
    "local": "internal",
}


class UnclearError(ValueError):
    """It cannot be told what call this is; the message says why, and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the files of one place are read.

    `names`: the form of their names. `sidecar`: the name of the file beside, with `{stem}` or
    `{name}` for the audio's; None if there is none. `zone`: where times without an offset were
    written. `columns`: under which name a field stands. `values`: what a field's text means
    instead, by field and text. `given`: what holds where nothing else is said.
    """

    names: str = filenames.FREEPBX
    sidecar: str | None = None
    zone: tzinfo | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)

    def sidecar_of(self, name: str) -> str | None:
        """The name of the file beside an audio of this name."""
        if self.sidecar is None:
            return None
        # Not `format`: a name may hold braces.
        told = {"{stem}": filenames.stem(name), "{name}": name}
        return re.sub(r"\{stem\}|\{name\}", lambda found: told[found[0]], self.sidecar)

    @property
    def sidecars(self) -> re.Pattern[str] | None:
        """What files are called that lie beside an audio; None when they lie in another place."""
        if self.sidecar is None or self.sidecar.startswith("/"):
            return None
        name = re.escape(PurePosixPath(self.sidecar).name)
        return re.compile(re.sub(r"\\\{(?:stem|name)\\\}", ".+", name), re.DOTALL)


def check_form(sidecar: str) -> None:
    """Refuse what names no file beside an audio. Raises ValueError."""
    if not re.search(r"\{(stem|name)\}[^/]*\.(json|xml|csv|txt)$", sidecar):
        raise ValueError("is written like {stem}.json or {name}.xml")


def describe(rules: Rules, name: str, beside: Mapping[str, str]) -> dict[str, str]:
    """The fields of the call whose recording has this name, and this beside it.

    Raises UnclearError without a call id, a type or a start.
    """
    fields = {**rules.given, **filenames.said(rules.names, name), **_mapped(rules, beside)}
    fields = {key: rules.values.get((key, text), text) for key, text in fields.items()}
    if missing := [key for key in FIELDS[:3] if not fields.get(key)]:
        raise UnclearError(f"neither its name nor what lies beside it says {', '.join(missing)}")
    fields["started_at"] = instant(fields["started_at"], rules.zone)
    if way := fields.get("direction", "").lower():
        fields["direction"] = _DIRECTIONS.get(way, way)
    return {key: text for key in FIELDS if (text := fields.get(key))}


def _mapped(rules: Rules, beside: Mapping[str, str]) -> dict[str, str]:
    named = {key: beside.get(rules.columns.get(key, key), "") for key in FIELDS}
    return {key: text.strip() for key, text in named.items() if text.strip()}


def instant(text: str, zone: tzinfo | None) -> str:
    """A time as RFC 3339: of seconds since 1970 (of milli- and microseconds too), or written out.

    Raises UnclearError for one without an offset and without a zone, and for what is no time.
    """
    text = text.strip()
    if found := _EPOCH.fullmatch(text):
        seconds, part, milli, micro = found.groups()
        since = int(seconds or 0) + int(milli or 0) / 1e3 + int(micro or 0) / 1e6
        return datetime.fromtimestamp(since + float(part or 0), UTC).isoformat()
    if plain := _PLAIN.fullmatch(text):
        return _local([int(number) for number in plain.groups()], zone)
    try:
        return parse_instant(text).isoformat()
    except ValueError:
        raise UnclearError("its start is not a time") from None


def _local(parts: list[int], zone: tzinfo | None) -> str:
    if zone is None:
        raise UnclearError("its start has no offset, and nobody said in which zone it was written")
    try:
        # One that exists twice is the earlier; one that does not moves forward by the gap.
        wall = datetime(*parts, tzinfo=zone)  # type: ignore[arg-type,misc]
        return wall.astimezone(UTC).astimezone(zone).isoformat()
    except (ValueError, OverflowError):
        raise UnclearError("its start is not a time") from None


def read(name: str, content: bytes) -> dict[str, str]:
    """The table of a sidecar, by the ending of its name. Raises UnclearError."""
    if len(content) > MOST:
        raise UnclearError("what lies beside it is too large")
    ending = name.rpartition(".")[2].lower()
    forms = {"json": _json, "xml": _xml, "csv": _row, "txt": _row}
    if ending not in forms:
        raise UnclearError("what lies beside it is neither JSON, XML nor CSV")
    return forms[ending](content)


def flat(value: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every text and number of a JSON value under its path; RecursionError when it is too deep."""
    if depth > _DEEPEST:
        raise RecursionError
    before = f"{path}." if path else ""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from flat(each, f"{before}{key}", depth + 1)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from flat(each, f"{before}{number}", depth + 1)
    elif value is not None:
        yield path, str(value).lower() if isinstance(value, bool) else str(value)


def _json(content: bytes) -> dict[str, str]:
    try:
        value = json.loads(content)
        table = dict(flat(value))
    except (RecursionError, ValueError):
        raise UnclearError("what lies beside it is no JSON") from None
    if not isinstance(value, dict):
        raise UnclearError("what lies beside it is no JSON object")
    return table


class _Tree:
    """Collects an XML document into paths and texts."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._path: list[str] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._path.append(_local_name(tag))
        if len(self._path) > _DEEPEST:
            raise UnclearError("what lies beside it is XML that is nested too deep")
        for key, text in attributes.items():
            if key.startswith("xmlns"):
                continue
            self._keep([*self._path, f"@{_local_name(key)}"], text)

    def end(self, tag: str) -> None:
        self._path.pop()

    def text(self, text: str) -> None:
        self._keep(self._path, text)

    def _keep(self, path: list[str], text: str) -> None:
        # Without the outermost element; a text may come in pieces.
        key = ".".join(path[1:])
        self.found[key] = self.found.get(key, "") + text


def _local_name(name: str) -> str:
    return name.rpartition(":")[2]


def _xml(content: bytes) -> dict[str, str]:
    tree = _Tree()
    parser = expat.ParserCreate()
    parser.StartElementHandler = tree.start
    parser.EndElementHandler = tree.end
    parser.CharacterDataHandler = tree.text
    parser.StartDoctypeDeclHandler = _refuse
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        ours = error if isinstance(error, UnclearError) else None
        raise ours or UnclearError("what lies beside it is no XML") from None
    return {key: text.strip() for key, text in tree.found.items() if text.strip()}


def _refuse(*declared: object) -> None:
    raise UnclearError("what lies beside it is XML with a document type, which is not read")


def _row(content: bytes) -> dict[str, str]:
    rows = list(rows_of(io.StringIO(text_of(content), newline="")))
    if len(rows) != 1:
        raise UnclearError("what lies beside it is no CSV with a heading and one row")
    return rows[0]


def text_of(content: bytes) -> str:
    """Text of a system that may be older than UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def rows_of(file: io.TextIOBase) -> Iterator[dict[str, str]]:
    """The rows of a CSV by the names in its heading; it is parted by what the heading is.

    Raises UnclearError for what is no CSV.
    """
    heading = file.readline().lstrip("\ufeff")
    between = max(",;\t|", key=heading.count)
    try:
        names = next(csv.reader([heading], delimiter=between), [])
        if len(names) > _NAMES:  # each row costs as much as the heading has
            raise UnclearError(f"its heading has over {_NAMES} names")
        for row in csv.DictReader(file, names, delimiter=between, restval=""):
            yield {key: text for key, text in row.items() if key is not None}
    except csv.Error:
        raise UnclearError("this is no CSV") from None
