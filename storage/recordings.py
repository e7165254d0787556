"""Rows of recordings: how what is known of a call is sealed into one, found again, and read.

What identifies people stands in the row as one sealed block (`details`), under the recording's own
key. It is found through keyed hashes: an HMAC under the key of the expiry day, so that a search
computes one hash for each living day and asks for any of them. When the day's key goes, so does
every trace.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from archive import access
from archive.access import Scope
from archive.recording import (
    TEXT_FIELDS,
    Audio,
    Call,
    CallType,
    Direction,
    Recording,
    caseless,
)
from archive.redaction import Redaction, Span
from archive.retention import Expiry
from storage import numbers
from storage.keyring import Ring
from storage.sealing import DamagedError, Identity, Seal

COLUMNS = (
    "r.id, r.source, r.call_type, r.state, r.expires_on, r.expires_at, r.received_at, r.rule,"
    " r.attempt, r.header, r.details, r.added, r.redacted, r.redacted_header, r.redacted_details"
)


PLAIN = (
    "r.id, r.source, r.call_type, r.state, r.expires_on, r.expires_at, r.received_at, r.rule,"
    " r.attempt, r.digest, r.started_at, r.duration, r.bytes, r.channels, r.sample_rate, r.codec,"
    " r.container, r.flaws"
)
"""What of a row who takes in may read: nothing that is sealed."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A recording that may be read, with the keys that open its object.

    `offset` is where the sealed chunks begin in the object, in bytes. `redaction`: the object is
    the redacted copy, and the recording's audio that of the copy.
    """

    recording: Recording
    seal: Seal
    object_key: str
    offset: int
    redaction: Redaction | None = None


def object_key(expires_on: date, recording: UUID, attempt: UUID) -> str:
    """The name of an object: nothing in it comes from the caller, and it is never used again."""
    return f"{prefix(expires_on, recording)}{attempt}"


def prefix(expires_on: date, recording: UUID) -> str:
    """What the names of all objects of one recording begin with."""
    return f"{expires_on.isoformat()}/{recording}/"


def normalized(call: Call) -> Call:
    """The call with its telephone numbers as they are stored: E.164 where they can be parsed."""
    return replace(
        call,
        caller=call.caller and numbers.as_stored(call.caller),
        callee=call.callee and numbers.as_stored(call.callee),
    )


def call_hash(ring: Ring, source: str, call_id: str) -> bytes:
    """What makes a call unique without telling its id: an HMAC under one lookup key of the ring."""
    return _hmac(ring.lookup_key("call-id"), source, call_id)


def digest_hash(ring: Ring, sha256: bytes) -> bytes:
    """What two uploads of the same bytes share; a plain digest would be a lasting identifier."""
    return hmac.digest(ring.lookup_key("digest"), sha256, "sha256")


def terms(ring: Ring, call: Call) -> list[int]:
    """Everything that this call is to be found by, as keyed hashes of its expiry day."""
    key = ring.index_key(call.expiry.on)
    found = {term(key, "call_id", call.call_id)}
    for number in (call.caller, call.callee):
        if number:
            found |= {term(key, "number", text) for text in numbers.stored_terms(number)}
    for field in ("agent", "queue", "customer", "contract"):
        if value := getattr(call, field):
            found.add(term(key, field, value))
    return sorted(found)


def term(key: bytes, field: str, value: str) -> int:
    """The keyed hash of one value, cut to the 64 bits of a column: of what it is compared by."""
    return int.from_bytes(_hmac(key, field, caseless(value))[:8], "big", signed=True)


def scope_terms(key: bytes, among: Iterable[tuple[str, str]]) -> list[int]:
    """What the recordings of one expiry day that lie in a scope are found by."""
    return sorted(term(key, field, name) for field, name in among)


def in_scope(terms: str) -> str:
    """The condition in SQL that a recording `r` has one of these terms."""
    return (
        "EXISTS (SELECT FROM term s WHERE s.expires_on = r.expires_on"
        f" AND s.hash = ANY ({terms}) AND s.started_at = r.started_at AND s.recording = r.id)"
    )


def _hmac(key: bytes, *parts: str) -> bytes:
    return hmac.digest(key, b"\0".join(part.encode() for part in parts), hashlib.sha256)


def to_details(recording: Recording) -> bytes:
    """All that is known of a recording, as it is sealed into its row and into its object's head."""
    call, audio = recording.call, recording.audio
    known = {
        "v": 1,
        "source": recording.source,
        "received_at": recording.received_at.isoformat(),
        "call_id": call.call_id,
        "call_type": call.call_type,
        "started_at": call.started_at.isoformat(),
        "expires_at": call.expiry.at.isoformat(),
        "rule": call.expiry.rule,
        "direction": call.direction,
        **{field: getattr(call, field) for field in TEXT_FIELDS},
        "bytes": audio.bytes,
        "sha256": audio.sha256,
        "duration": audio.duration,
        "channels": audio.channels,
        "sample_rate": audio.sample_rate,
        "codec": audio.codec,
        "container": audio.container,
        "flaws": list(audio.flaws),
    }
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode()


def from_details(identifier: UUID, expires_on: date, plain: bytes) -> Recording:
    """Read what `to_details` wrote."""
    known = json.loads(plain)
    expiry = Expiry(datetime.fromisoformat(known["expires_at"]), expires_on, known["rule"])
    direction = known["direction"] and Direction(known["direction"])
    call = Call(
        known["call_id"],
        CallType(known["call_type"]),
        datetime.fromisoformat(known["started_at"]),
        expiry,
        direction,
        **{field: known[field] for field in TEXT_FIELDS},
    )
    measured = {name: known[name] for name in Audio.__dataclass_fields__}
    audio = Audio(**{**measured, "flaws": tuple(measured["flaws"])})
    received_at = datetime.fromisoformat(known["received_at"])
    return Recording(identifier, known["source"], received_at, call, audio)


ADDED = b"added"
"""The kind of the block that holds what became known of a call after it was stored."""


def opened_added(seal: Seal, row: asyncpg.Record) -> dict[str, str]:
    """What was added to a recording's fields. Raises DamagedError when it was tampered with."""
    return dict(json.loads(seal.open_details(row["added"], ADDED))) if row["added"] else {}


def with_added(call: Call, added: Mapping[str, str]) -> Call:
    """The call with what it did not say itself."""
    told: dict[str, Any] = dict(added)
    if way := told.get("direction"):
        told["direction"] = Direction(way)
    return replace(call, **told)


def from_plain(row: asyncpg.Record, call: Call, sha256: str) -> Recording:
    """A recording as far as a receipt needs it: of its call and digest the caller knows himself."""
    measured = {name: row[name] for name in Audio.__dataclass_fields__ if name != "sha256"}
    audio = Audio(sha256=sha256, **{**measured, "flaws": tuple(row["flaws"])})
    return Recording(row["id"], row["source"], row["received_at"], call, audio)


def from_row(ring: Ring, row: asyncpg.Record, scope: Scope = access.EVERYTHING) -> Opened:
    """Open a stored row. Raises DamagedError when it was tampered with.

    What access and expiry are decided by stands in plain columns and terms: it has to be what was
    sealed, or who can write to the database could show one recording under another's rules.
    """
    seal = Seal.unwrap(row["header"], ring.day_key(row["expires_on"]))
    if seal.identity != Identity(row["expires_on"], row["id"], row["attempt"]):
        raise DamagedError("the row holds the header of another recording")
    details = row["details"]
    recording = from_details(row["id"], row["expires_on"], seal.open_details(details))
    plain = (row["source"], row["call_type"], row["expires_at"])
    if plain != (recording.source, recording.call.call_type, recording.call.expiry.at):
        raise DamagedError("the row's source, type or expiry is not what was sealed")
    if row["added"]:
        recording = replace(recording, call=with_added(recording.call, opened_added(seal, row)))
    call = recording.call
    if not scope.covers(call.call_type, call.queue, call.agent):
        raise DamagedError("the row has terms that are not of what was sealed")
    key = object_key(row["expires_on"], row["id"], row["attempt"])
    return Opened(recording, seal, key, len(row["header"]) + len(details))


REDACTED = b"redacted"
"""The kind of the details of a redacted copy, by which its object is told from an original."""


def to_redacted(redaction: Redaction, audio: Audio) -> bytes:
    """All that is known of a redacted copy, as it is sealed into the row and the object's head."""
    known = {
        "v": 1,
        "made_at": redaction.made_at.isoformat(),
        "reason": redaction.reason,
        "spans": [[each.start, each.stop, each.channel] for each in redaction.spans],
        "bytes": audio.bytes,
        "sha256": audio.sha256,
    }
    return json.dumps(known, ensure_ascii=False, separators=(",", ":")).encode()


def from_redacted(plain: bytes, original: Audio) -> tuple[Redaction, Audio]:
    """Read what `to_redacted` wrote: a copy is a WAV as long as the original."""
    known = json.loads(plain)
    spans = tuple(Span(*each) for each in known["spans"])
    redaction = Redaction(datetime.fromisoformat(known["made_at"]), spans, known["reason"])
    return redaction, replace(
        original,
        bytes=known["bytes"],
        sha256=known["sha256"],
        codec="pcm_s16le",
        container="wav",
        flaws=(),
    )


def as_heard(ring: Ring, row: asyncpg.Record, scope: Scope = access.EVERYTHING) -> Opened:
    """What is heard of a stored row by whoever may hear it: the redacted copy, where one stands.

    Raises DamagedError when it was tampered with.
    """
    whole = from_row(ring, row, scope)
    return whole if row["redacted"] is None else copy_of(ring, row, whole)


def copy_of(ring: Ring, row: asyncpg.Record, whole: Opened) -> Opened:
    """The redacted copy that stands for a recording. One that is lost is not there to be heard."""
    identity = Identity(row["expires_on"], row["id"], row["redacted"])
    key = object_key(row["expires_on"], row["id"], row["redacted"])
    header, details = row["redacted_header"], row["redacted_details"]
    recording = replace(whole.recording, redacted=True)
    if header is None:
        return Opened(recording, Seal.new(identity), key, 0)
    seal = Seal.unwrap(header, ring.day_key(row["expires_on"]))
    if seal.identity != identity:
        raise DamagedError("the row holds the header of another copy")
    redaction, audio = from_redacted(seal.open_details(details, REDACTED), whole.recording.audio)
    recording = replace(recording, audio=audio)
    return Opened(recording, seal, key, len(header) + len(details), redaction)
