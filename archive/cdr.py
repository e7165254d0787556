"""Call detail records: what a telephone system says of its calls, recorded or not.

Each system writes them in its own form: Asterisk's CSV with or without a heading, FreeSWITCH's
`json_cdr`, and rows of our own fields as JSON or CSV. All become a `Detail`: by which ids the
recording of the call may be known, when it was, whether somebody answered, and who spoke.

One call has several records where it went through several hands. Those that a system itself counts
as one call (Asterisk's `linkedid`, FreeSWITCH's `call_uuid`) are one here.
"""

import binascii
import csv
import io
import json
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from urllib.parse import parse_qs, unquote

from archive import filenames, sidecar
from archive.recording import LONGEST, TEXT_FIELDS, Direction, is_text
from archive.sidecar import UnclearError

FIELDS = ("direction", *TEXT_FIELDS)
"""What a record may tell of a call that its recording did not."""

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


def read(body: bytes, media: str, zone: tzinfo | None) -> list[Detail | UnclearError]:
    """Every record of a body, in its order; one that cannot be understood is its error.

    `zone`: where times without an offset were written. Raises UnclearError for what is no body of
    records at all.
    """
    found: list[Detail | UnclearError] = []
    for row in _rows(body, media):
        try:
            found.append(_detail({key.lower(): text.strip() for key, text in row.items()}, zone))
        except UnclearError as error:
            found.append(error)
    return found


def merged(details: Iterable[Detail]) -> list[Detail]:
    """One for each call: answered if any part of it was, over at the end of its last."""
    calls: dict[str, Detail] = {}
    for detail in details:
        known = calls.get(detail.ids[0])
        calls[detail.ids[0]] = _both(known, detail) if known else detail
    return list(calls.values())


def _both(one: Detail, other: Detail) -> Detail:
    start = min(one.started_at, other.started_at)
    end = max(one.ended_at, other.ended_at)
    return replace(
        one,
        ids=tuple(dict.fromkeys((*one.ids, *other.ids))),
        started_at=start,
        answered=one.answered or other.answered,
        seconds=(end - start).total_seconds(),
        fields={**other.fields, **one.fields},
    )


def _rows(body: bytes, media: str) -> Iterator[dict[str, str]]:
    if media.startswith("application/x-www-form-"):
        body = _form(body, base64=media.endswith("base64-encoded"))
    if body.lstrip()[:1] in (b"{", b"["):
        yield from json_rows(body)
    else:
        yield from csv_rows(io.StringIO(sidecar.text_of(body), newline=""))


def _form(body: bytes, *, base64: bool) -> bytes:
    """FreeSWITCH's `cdr=`, percent-encoded or in base64."""
    try:
        if base64:
            return b64decode(body.removeprefix(b"cdr="), validate=True)
        return parse_qs(body.decode("ascii"), strict_parsing=True)["cdr"][0].encode()
    except (binascii.Error, ValueError, KeyError):
        raise UnclearError("the form holds no `cdr`") from None


def json_rows(body: bytes) -> Iterator[dict[str, str]]:
    """The rows of one JSON object, or of a list of them. Raises UnclearError for what is none."""
    try:
        value = json.loads(body)
        rows = [dict(sidecar.flat(each)) for each in _listed(value)]
    except (RecursionError, ValueError):
        raise UnclearError("the body is not JSON") from None
    yield from rows


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


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
    told = {key: text for key in FIELDS if (text := fields.get(key, "")) and _is_kept(key, text)}
    return Detail(known, datetime.fromisoformat(start), answered, length, told)


def _is_kept(key: str, text: str) -> bool:
    """Of a record that is only a help, what cannot be kept is left out and hinders nothing."""
    if key == "direction":
        return text in tuple(Direction)
    return len(text) <= LONGEST and is_text(text)
