"""A call and its recording: what is said of a call when it is handed over, and what is known later.

`Call.from_fields` is the one door through which raw metadata becomes a `Call`; it names every field
that is wrong at once.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

from archive.errors import InvalidError
from archive.retention import Expiry, Policy

_Choice = TypeVar("_Choice", bound=StrEnum)

AHEAD = timedelta(minutes=5)
"""How far a source's clock may be ahead of ours before its call is refused."""

IS_AHEAD = "lies more than 5 minutes ahead of the archive's clock"
"""What is wrong with such a start; of all that is wrong with a call this alone passes."""

LONGEST = 256
"""Characters of one text field, call_id included."""

TEXT_FIELDS = ("caller", "callee", "agent", "queue", "customer", "contract")
"""What identifies people or the contract: sealed wherever it is stored."""


class CallType(StrEnum):
    """What the call was about; the retention period is told by it."""

    CUSTOMER_SERVICE = "customer_service"
    DIRECT_MARKETING = "direct_marketing"
    FAULT_REPORT = "fault_report"
    CONTRACT = "contract"
    OTHER = "other"


class Direction(StrEnum):
    """Who rang whom, seen from the company."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Call:
    """One telephone conversation, as its source describes it, and its expiry."""

    call_id: str
    call_type: CallType
    started_at: datetime
    expiry: Expiry
    direction: Direction | None = None
    caller: str | None = None
    callee: str | None = None
    agent: str | None = None
    queue: str | None = None
    customer: str | None = None
    contract: str | None = None

    @classmethod
    def from_fields(cls, fields: Mapping[str, object], policy: Policy, now: datetime) -> "Call":
        """Read a call from raw fields; unknown ones are ignored.

        Raises InvalidError naming every wrong field: a time without an offset, a call past its
        year, one that starts more than five minutes ahead of `now`, a call type that is none.
        """
        reader = _Reader(fields)
        call_id = reader.text("call_id", required=True)
        call_type = reader.choice("call_type", CallType, required=True)
        started_at = reader.instant("started_at")
        direction = reader.choice("direction", Direction)
        texts = {name: reader.text(name) for name in TEXT_FIELDS}
        expiry = reader.expiry(policy, call_type, started_at, now) if started_at else None
        if reader.errors or not (call_id and call_type and started_at and expiry):
            raise InvalidError(reader.errors)
        return cls(call_id, call_type, started_at, expiry, direction, **texts)


@dataclass(frozen=True, slots=True)
class Audio:
    """What was measured of the audio; `duration` in seconds, `sha256` of the bytes as sent."""

    bytes: int
    sha256: str
    duration: float
    channels: int
    sample_rate: int
    codec: str
    container: str
    flaws: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """The audio of a call and all that is known of it; `redacted`: parts of it are silent."""

    id: UUID
    source: str
    received_at: datetime
    call: Call
    audio: Audio
    redacted: bool = False


_INSTANT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:?\d{2})?"
)


def parse_instant(text: str) -> datetime:
    """Read a time of RFC 3339, with an offset.

    A space where only a `+` makes sense is read as one: a query string that was not percent-encoded
    turns `+02:00` into ` 02:00`. Raises ValueError with what to do.
    """
    text = re.sub(r" (?=\d{2}:?\d{2}$)", "+", text.strip()) if text.count(":") >= 2 else text
    if not _INSTANT.fullmatch(text):
        raise ValueError("write the time like 2026-11-24T09:30:00+02:00")
    # RFC 3339 allows more digits of a second than Python reads.
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("the time needs an offset, like +02:00 or Z")
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time lies outside the calendar") from None
    return moment


def is_text(value: str) -> bool:
    """Whether a text can be kept and shown: no control characters, no breaks of lines, no halves of
    a character. A name as a telephone shows it may hold whatever else, joined signs included.
    """
    return not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in value)


def caseless(value: str) -> str:
    """A text as it is compared with others: neither case nor the way its marks are written counts.

    An "ä" is one sign, or an "a" and a mark, by the system that sent it. This is what Unicode 15.0,
    section 3.13, D145 calls a canonical caseless match; what it leaves is left as it is by itself.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", value).casefold())


class _Reader:
    """Reads fields one by one and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, object]) -> None:
        self.fields = fields
        self.errors: dict[str, str] = {}

    def text(self, name: str, *, required: bool = False) -> str | None:
        value = self.fields.get(name)
        if value is None or value == "":
            if required:
                self.errors[name] = "is required"
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            self.errors[name] = "must be one text"
            return None
        value = value.strip()
        if len(value) > LONGEST:
            self.errors[name] = f"is longer than {LONGEST} characters"
        elif not value or not is_text(value):
            self.errors[name] = "must hold no control characters"
        return None if name in self.errors else value

    def choice(self, name: str, kind: type[_Choice], *, required: bool = False) -> _Choice | None:
        text = self.text(name, required=required)
        if text is None:
            return None
        try:
            return kind(text)
        except ValueError:
            self.errors[name] = "must be one of " + ", ".join(kind)
            return None

    def instant(self, name: str) -> datetime | None:
        text = self.text(name, required=True)
        if text is None:
            return None
        try:
            return parse_instant(text)
        except ValueError as error:
            self.errors[name] = _plain(error)
            return None

    def expiry(
        self, policy: Policy, call_type: CallType | None, started_at: datetime, now: datetime
    ) -> Expiry | None:
        """Judge the start; of a call whose type is not known, by the period that is the longest."""
        types: list[str] = [call_type] if call_type else list(policy.periods)
        try:
            each = [policy.expiry(kind, started_at) for kind in types]
            expiry = max(each, key=lambda expiry: expiry.at)
        except (ValueError, OverflowError):
            self.errors["started_at"] = "lies outside the calendar"
            return None
        if started_at > now + AHEAD:
            self.errors["started_at"] = IS_AHEAD
        elif now >= expiry.at:
            self.errors["started_at"] = "lies so far back that the call may no longer be kept"
        return expiry


def _plain(error: ValueError) -> str:
    """Our own words, or a general text: the standard library's messages repeat what was sent."""
    text = str(error)
    return text if text.startswith(("write", "the time")) else "is not a time that exists"
