"""A search: which recordings a reader asks for.

`Query.from_params` is the one door through which a query string becomes a `Query`. A filter that is
not known is refused rather than ignored: a mistyped filter must not widen what is found.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from archive.access import Caller
from archive.errors import MalformedError
from archive.recording import LONGEST, CallType, Direction, is_text, parse_instant

SEALED_FILTERS = ("number", "agent", "queue", "customer", "contract", "call_id")
"""Filters on what is sealed; they are answered through keyed hashes."""

MOST = 200
DEFAULT_LIMIT = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the last recording that it showed."""

    started_at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Query:
    """What to find, newest first. Durations in seconds, `since` inclusive, `until` exclusive.

    `sealed` are pairs of a filter on what is sealed and its value; in a search by a person also of
    `asking.ANYTHING`, which any of those filters may meet.
    """

    call_types: frozenset[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    source: str | None = None
    direction: str | None = None
    min_duration: float | None = None
    max_duration: float | None = None
    sealed: tuple[tuple[str, str], ...] = ()
    limit: int = DEFAULT_LIMIT
    after: Place | None = None

    @classmethod
    def from_params(cls, params: Iterable[tuple[str, str]]) -> "Query":
        """Read a query string. MalformedError names every filter that is unknown or wrong."""
        reader = _Params(params)
        call_types = reader.choices("call_type", frozenset(CallType))
        direction = reader.choices("direction", frozenset(Direction), most=1)
        query = cls(
            call_types=call_types,
            since=reader.instant("from"),
            until=reader.instant("to"),
            source=reader.text("source"),
            direction=next(iter(direction)) if direction else None,
            min_duration=reader.seconds("min_duration"),
            max_duration=reader.seconds("max_duration"),
            sealed=tuple(
                (name, value) for name in SEALED_FILTERS if (value := reader.text(name)) is not None
            ),
            limit=reader.limit(),
        )
        reader.finish()
        return query

    def within(self, caller: Caller) -> "Query":
        """The same search, narrowed to the call types that the caller may know of."""
        known = caller.scope.call_types
        if known is None:
            return self
        asked = known if self.call_types is None else self.call_types
        return replace(self, call_types=asked & known)


class _Params:
    """Takes parameters one by one and collects what is wrong; what is left over is unknown."""

    def __init__(self, params: Iterable[tuple[str, str]]) -> None:
        self.values: dict[str, list[str]] = {}
        self.errors: dict[str, str] = {}
        for name, value in params:
            self.values.setdefault(name, []).append(value)

    def text(self, name: str) -> str | None:
        values = self.values.pop(name, [])
        if len(values) > 1:
            self.errors[name] = "may be given once"
        elif values and not (0 < len(values[0].strip()) <= LONGEST and is_text(values[0])):
            self.errors[name] = (
                f"must be 1 to {LONGEST} characters, none of them a control character"
            )
        elif values:
            return values[0].strip()
        return None

    def choices(
        self, name: str, allowed: frozenset[str], most: int | None = None
    ) -> frozenset[str] | None:
        values = self.values.pop(name, [])
        if not set(values) <= allowed:
            self.errors[name] = "must be one of " + ", ".join(sorted(allowed))
        elif most is not None and len(values) > most:
            self.errors[name] = "may be given once"
        elif values:
            return frozenset(values)
        return None

    def instant(self, name: str) -> datetime | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return parse_instant(text)
        except ValueError:
            self.errors[name] = "must be a time with an offset, like 2026-11-24T09:30:00+02:00"
            return None

    def seconds(self, name: str) -> float | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1
        if not 0 <= value <= 10**9:
            self.errors[name] = "must be a number of seconds"
            return None
        return value

    def limit(self) -> int:
        text = self.text("limit")
        if text is None:
            return DEFAULT_LIMIT
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST):
            self.errors["limit"] = f"must be a whole number from 1 to {MOST}"
            return DEFAULT_LIMIT
        return int(text)

    def finish(self) -> None:
        if self.values:
            self.errors["unknown"] = "there is a filter that the archive does not know"
        if self.errors:
            raise MalformedError(
                "Correct the filters named in `errors`; GET /openapi.json lists them all.",
                errors=self.errors,
            )
