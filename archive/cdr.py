"""Call detail records: what a telephone system says of its calls, recorded or not.

Each system writes them in its own form: Asterisk's CSV with or without a heading, FreeSWITCH's
`json_cdr`, and rows of our own fields as JSON or CSV. All become a `Detail`: by which ids the
recording of the call may be known, when it was, whether somebody answered, and who spoke.

One call has several records where it went through several hands. Those that a system itself counts
as one call (Asterisk's `linkedid`, FreeSWITCH's `call_uuid`) are one here.
"""

import csv
import io
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from itertools import chain, islice
from urllib.parse import unquote, unquote_plus

from archive import filenames, sidecar
from archive.errors import TooLargeError
from archive.recording import LONGEST, TEXT_FIELDS, Direction, is_text
from archive.sidecar import UnclearError

FIELDS = ("direction", *TEXT_FIELDS)
"""What a record may tell of a call that its recording did not."""

MOST = 10_000
"""Records of one body."""

TOLD = 100
"""Records whose fault is told, at the most."""

_JSON = ("{", "[")

_OBJECTS, _VALUES = 10 * MOST, 50_000
"""Objects and lists of one body, and values that are read of one record: more than any needs."""

_MASTER = (
    *("accountcode", "src", "dst", "dcontext", "clid", "channel", "dstchannel", "lastapp"),
    *("lastdata", "start", "answer", "end", "duration", "billsec", "disposition", "amaflags"),
    *("uniqueid", "userfield"),
)
"""The columns of Asterisk's Master.csv, which has no heading."""

_DISPOSITION = _MASTER.index("disposition")
_DISPOSITIONS = {"ANSWERED", "NO ANSWER", "BUSY", "FAILED", "CONGESTION"}
_YES = {"1", "true", "yes", "answered"}

_LONGEST_CALL = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Detail:
    """What is known of one call; `seconds` from its start to its end.

    `ids`: under which its recording may be, the call's own first.
    """

    ids: tuple[str, ...]
    started_at: datetime
    answered: bool
    seconds: float
    fields: Mapping[str, str]

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.seconds)


@dataclass(slots=True)
class Records:
    """What a body held: what was understood, how many were not, and why, by their places in it."""

    details: list[Detail] = field(default_factory=list)
    wrong: int = 0
    errors: dict[int, str] = field(default_factory=dict)


def read(body: bytes, zone: tzinfo | None) -> Records:
    """Every record of a body; one that cannot be understood hinders no other.

    `zone`: where times without an offset were written. Raises UnclearError for what is no body of
    records at all, and TooLargeError for too many.
    """
    found, text = Records(), text_of(body)
    # Those that are empty take fifty times as much memory as they do in the body.
    if text.startswith(_JSON) and text.count("{") + text.count("[") > _OBJECTS:
        raise _too_many()
    for number, row in enumerate(rows_of(text)):
        if number == MOST:
            raise _too_many()
        try:
            told = _detail({key.lower(): text.strip() for key, text in row.items()}, zone)
        except UnclearError as error:
            found.wrong += 1
            if found.wrong <= TOLD:
                found.errors[number] = str(error)
        else:
            found.details.append(told)
    return found


def merged(details: Iterable[Detail]) -> list[Detail]:
    """One for each call: answered if any part of it was, over at the end of its last."""
    calls: dict[str, list[Detail]] = {}
    for detail in details:
        calls.setdefault(detail.ids[0], []).append(detail)
    return [_one(parts) for parts in calls.values()]


def _one(parts: Sequence[Detail]) -> Detail:
    """Where two say otherwise of a field, the first counts."""
    start = min(part.started_at for part in parts)
    end = max(part.ended_at for part in parts)
    return replace(
        parts[0],
        ids=tuple(dict.fromkeys(chain.from_iterable(part.ids for part in parts))),
        started_at=start,
        answered=any(part.answered for part in parts),
        seconds=(end - start).total_seconds(),
        fields={name: text for part in reversed(parts) for name, text in part.fields.items()},
    )


def _too_many() -> TooLargeError:
    said = f"A body may hold {MOST} records at the most: send them in several."
    return TooLargeError(said, max_records=MOST)


def text_of(body: bytes) -> str:
    """A body as it was before FreeSWITCH percent-encoded it or put it into base64.

    That is told from its beginning: FreeSWITCH sends JSON under the name of a form, too, and writes
    into `err-log-dir` what should have come behind `cdr=`. Raises UnclearError.
    """
    text = sidecar.text_of(body)
    told = text.strip()
    bare = told.removeprefix("cdr=")
    if bare.startswith(_JSON):
        return bare
    if bare[:3].upper() in ("%7B", "%5B"):
        return unquote_plus(bare.partition("&")[0])
    with suppress(ValueError):
        if (decoded := b64decode(bare, validate=True).decode()).startswith(_JSON):
            return decoded
    if bare != told:
        raise UnclearError("the form holds no JSON")
    return text


def rows_of(text: str) -> Iterator[dict[str, str]]:
    """The rows of a JSON object, of a list of them, or of a CSV. Raises UnclearError."""
    if text.startswith(_JSON):
        yield from _json_rows(text)
    else:
        yield from csv_rows(io.StringIO(text, newline=""))


def _json_rows(text: str) -> Iterator[dict[str, str]]:
    try:
        value = json.loads(text)
        for each in value if isinstance(value, list) else [value]:
            yield dict(islice(sidecar.flat(each), _VALUES))
    except (RecursionError, ValueError):
        raise UnclearError("the body is not JSON") from None


def csv_rows(file: io.TextIOBase) -> Iterator[dict[str, str]]:
    """The rows of a CSV, with its own heading or Asterisk's, as they are asked for.

    Raises UnclearError for what is no CSV.
    """
    try:
        first = next(csv.reader(file), [])
        file.seek(0)
        if len(first) > _DISPOSITION and first[_DISPOSITION] in _DISPOSITIONS:
            for row in csv.reader(file):
                yield dict(zip(_MASTER, row, strict=False))
        else:
            yield from sidecar.rows_of(file)
    except csv.Error:
        raise UnclearError("the body is no CSV") from None


def _detail(row: Mapping[str, str], zone: tzinfo | None) -> Detail:
    if "variables.uuid" in row:
        return _freeswitch({key: unquote(text) for key, text in row.items()})
    return _asterisk(row, zone) if "uniqueid" in row else _own(row, zone)


def _own(row: Mapping[str, str], zone: tzinfo | None) -> Detail:
    seconds = row.get("duration") or "0"
    answered = row.get("answered") or row.get("disposition")
    return _checked(
        [row.get("call_id", "")],
        sidecar.instant(row.get("started_at", ""), zone),
        answered=answered.lower() in _YES if answered else seconds.strip("0.") != "",
        seconds=seconds,
        fields=row,
    )


def _asterisk(row: Mapping[str, str], zone: tzinfo | None) -> Detail:
    file = row.get("recordingfile", "")
    call = row.get("linkedid") or row["uniqueid"]
    # The unique id knows no time zone; the columns are local, or not, by a setting of cdr.conf.
    start = filenames.started(call) or sidecar.instant(
        row.get("start") or row.get("calldate", ""), zone
    )
    of_file = [filenames.said(filenames.FREEPBX, file).get("call_id", ""), filenames.stem(file)]
    return _checked(
        [call, row["uniqueid"], *of_file],
        start,
        answered=row.get("disposition", "").upper() in ("ANSWERED", "8"),
        seconds=row.get("duration", "0"),
        fields={
            "caller": row.get("cnum") or row.get("src", ""),
            "callee": row.get("did") or row.get("dst", ""),
        },
    )


def _freeswitch(row: Mapping[str, str]) -> Detail:
    def said(name: str) -> str:
        return row.get(f"variables.{name}", "")

    # `direction` says how a leg came to the switch; what the call was is FusionPBX's to say.
    way = said("call_direction")
    return _checked(
        [said("call_uuid") or said("uuid"), said("uuid"), filenames.stem(said("record_name"))],
        sidecar.instant(said("start_uepoch") or said("start_epoch"), None),
        answered=said("answer_epoch") not in ("", "0"),
        seconds=said("duration") or "0",
        fields={
            "direction": "internal" if way == "local" else way,
            "caller": row.get("callflow.0.caller_profile.caller_id_number", ""),
            "callee": row.get("callflow.0.caller_profile.destination_number", ""),
        },
    )


def _checked(
    ids: list[str], start: str, *, answered: bool, seconds: str, fields: Mapping[str, str]
) -> Detail:
    known = tuple(dict.fromkeys(each for each in ids if each and len(each) <= LONGEST))
    if known[:1] != (ids[0],) or not all(is_text(each) for each in known):
        raise UnclearError("it names no call")
    try:
        length = float(seconds)
    except ValueError:
        length = -1.0
    if not 0 <= length <= _LONGEST_CALL:
        raise UnclearError("its duration is no number of seconds")
    begun = datetime.fromisoformat(start)
    if datetime.max.replace(tzinfo=begun.tzinfo) - begun < timedelta(seconds=length):
        raise UnclearError("its end lies outside the calendar")
    told = {key: text for key in FIELDS if (text := fields.get(key, "")) and _is_kept(key, text)}
    return Detail(known, begun, answered, length, told)


def _is_kept(key: str, text: str) -> bool:
    """Of a record that is only a help, what cannot be kept is left out and hinders nothing."""
    if key == "direction":
        return text in tuple(Direction)
    return len(text) <= LONGEST and is_text(text)
