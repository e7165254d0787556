"""Finding recordings: plain columns through their indexes, sealed details through keyed hashes.

A keyed hash is made under the key of an expiry day, so the same agent has another hash on each day.
A search for an agent therefore walks the days, newest first, a few at first and more as it goes on,
and stops as soon as its page is full: a frequent value is found on the first days, a rare one costs
one look per living day.

A reader who is limited to queues or teams searches in the same way: where nothing sealed is asked
for, the days are walked once for each queue and agent of the scope; where something is, what it
finds has to have a term of the scope as well. No row outside a scope is opened.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

import asyncpg

from archive import access
from archive.access import Caller, Scope
from archive.asking import ANYTHING
from archive.recording import Recording
from archive.search import MOST, SEALED_FILTERS, Place, Query
from storage import ledger, numbers
from storage.database import Connection, connection
from storage.keyring import Ring
from storage.recordings import COLUMNS, as_heard, in_scope, scope_terms, term
from storage.vault import Vault

_STRIDES = (4, 16, 64)
"""Days of calls that are looked at first, then next; the last stride is all the rest."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a search found, newest first, and where the next page starts (None: there is none)."""

    items: list[Recording]
    next: Place | None


@dataclass(frozen=True, slots=True)
class _Stride:
    """Calls that started in a span of whole UTC days, and every day that any of them expires on."""

    since: datetime
    before: datetime
    expiry_days: set[date]


async def find(vault: Vault, caller: Caller, query: Query, now: datetime) -> Page:
    """What the caller may know of and asks for; the search is in the ledger before its answer."""
    access.require(caller, access.READERS)
    asked = ledger.seal(vault.ring, vault.policy.furthest(now), _asked(query))
    async with connection(vault.pool) as lent, lent.transaction():
        await ledger.record(lent, caller.id, "searched", sealed=asked)
        return await _page(vault, lent, caller, query, now)


async def every(
    vault: Vault, caller: Caller, query: Query, now: datetime, reason: str, most: int
) -> AsyncIterator[Page]:
    """All that the caller may know of and asks for, `most` at the most, a page at a time; a `next`
    of the last page tells that there is more. It is in the ledger, once, before the first page.

    What comes to its end while the pages are sent is in no later one.
    """
    access.require(caller, access.READERS)
    terms = {**_asked(query), "reason": reason}
    asked = ledger.seal(vault.ring, vault.policy.furthest(now), terms)
    async with connection(vault.pool) as lent:
        await ledger.record(lent, caller.id, "listed", facts={"most": most}, sealed=asked)
    left = most
    while left:
        query = replace(query, limit=min(left, MOST))
        async with connection(vault.pool) as lent, lent.transaction():
            now = await lent.fetchval("SELECT archive_now()")
            page = await _page(vault, lent, caller, query, now)
        left -= len(page.items)
        yield page
        if page.next is None:
            return
        query = replace(query, after=page.next)


async def _page(
    vault: Vault, lent: Connection, caller: Caller, query: Query, now: datetime
) -> Page:
    # Planned for its own values: a rare one and a frequent one differ.
    await lent.execute("SET LOCAL plan_cache_mode = force_custom_plan")
    rows = await _rows(lent, vault.ring, query.within(caller), caller.scope, now)
    shown, gone = rows[: query.limit], vault.ring.destroyed()
    items = [
        as_heard(vault.ring, row, caller.scope).recording
        for row in shown
        # A database that was put back, or whose clock was, knows of days that are over.
        if row["expires_on"] not in gone
    ]
    last = shown[-1] if len(rows) > query.limit else None
    return Page(items, Place(last["started_at"], last["id"]) if last else None)


def _asked(query: Query) -> dict[str, object]:
    """The search as it was asked, for the ledger's sealed part."""
    return {
        "call_types": sorted(query.call_types or ()),
        "from": query.since and query.since.isoformat(),
        "to": query.until and query.until.isoformat(),
        "source": query.source,
        "direction": query.direction,
        "min_duration": query.min_duration,
        "max_duration": query.max_duration,
        "sealed": {field: text for field, text in query.sealed if field != ANYTHING},
        "anything": [text for field, text in query.sealed if field == ANYTHING],
        "further_page": query.after is not None,
    }


async def _rows(
    lent: Connection, ring: Ring, query: Query, scope: Scope, now: datetime
) -> list[asyncpg.Record]:
    """The rows of one page and one more, which tells that there is a next page."""
    if not query.sealed and scope.among is None:
        conditions = _Conditions(query, now)
        return await lent.fetch(
            f"SELECT {COLUMNS}, r.started_at FROM recording r WHERE {conditions.text}"  # noqa: S608
            f" ORDER BY r.started_at DESC, r.id DESC LIMIT {query.limit + 1}",
            *conditions.values,
        )
    rows: list[asyncpg.Record] = []
    async for stride in _strides(lent, query, now):
        # A team of a thousand, and a year of days, take a while.
        keys = ring.index_keys(stride.expiry_days)
        looks = await asyncio.to_thread(_looks, keys, query, scope)
        rows += await _rows_of(lent, looks, query, now, stride)
        if len(rows) > query.limit:
            break
    return rows[: query.limit + 1]


@dataclass(frozen=True, slots=True)
class _Look:
    """One look into the terms of an expiry day: `term`, one of each of `others`, and one of `scope`
    unless it is None.
    """

    day: date
    term: int
    others: Sequence[Sequence[int]] = ()
    scope: Sequence[int] | None = None


def _looks(keys: Mapping[date, bytes], query: Query, scope: Scope) -> list[_Look]:
    """What to look for on each of these days, which have these keys."""
    # What may be in any field is looked up once for each, unless something else narrows it first.
    parts = [_fields(*part) for part in sorted(query.sealed, key=lambda part: part[0] == ANYTHING)]
    looks = []
    for day, key in keys.items():
        inside = None if scope.among is None else scope_terms(key, scope.among)
        if parts:
            first, *others = [[term(key, *each) for each in part] for part in parts]
            looks += [_Look(day, one, others, inside) for one in first]
        else:
            looks += [_Look(day, one) for one in inside or ()]
    return looks


def _fields(field: str, text: str) -> list[tuple[str, str]]:
    """The fields that a part may be in, and what it is there: of these, any."""
    return [
        (each, numbers.query_term(text) if each == "number" else text)
        for each in (SEALED_FILTERS if field == ANYTHING else (field,))
    ]


async def _rows_of(
    lent: Connection, looks: Sequence[_Look], query: Query, now: datetime, stride: _Stride
) -> list[asyncpg.Record]:
    """The newest rows of one stride that any of these looks finds."""
    if not looks:
        return []
    conditions = _Conditions(query, now)
    days = conditions.value([look.day for look in looks])
    terms = conditions.value([look.term for look in looks])
    # These have another size on each look: as text, since arrays of arrays have one shape.
    sets = {"inside": [_array(look.scope) for look in looks]}
    for number in range(len(looks[0].others)):
        sets[f"other{number}"] = [_array(look.others[number]) for look in looks]
    arrays = "".join(f", {conditions.value(texts)}::text[]" for texts in sets.values())
    names = "".join(f", {name}" for name in sets)
    read = "".join(f", {name}::bigint[] AS {name}" for name in sets)
    others = "".join(
        " AND EXISTS (SELECT FROM term o WHERE o.expires_on = d.expires_on"
        f" AND o.hash = ANY(d.other{number}) AND o.started_at = t.started_at"
        " AND o.recording = t.recording)"
        for number in range(len(looks[0].others))
    )
    if looks[0].scope is not None:
        others += f" AND {in_scope('d.inside')}"
    since, before = conditions.value(stride.since), conditions.value(stride.before)
    return await lent.fetch(
        # Found twice, by its queue and by its agent, it is shown once.
        "SELECT DISTINCT ON (found.started_at, found.id) found.* FROM"  # noqa: S608 - our own words
        f" (SELECT expires_on, hash{read} FROM"
        f" unnest({days}::date[], {terms}::bigint[]{arrays}) AS n(expires_on, hash{names})"
        " OFFSET 0) d CROSS JOIN LATERAL ("
        f"SELECT {COLUMNS}, r.started_at FROM term t JOIN recording r ON r.id = t.recording"
        f" WHERE t.expires_on = d.expires_on AND t.hash = d.hash"
        f" AND t.started_at >= {since} AND t.started_at < {before}"
        f"{others} AND {conditions.text}"
        f" ORDER BY t.started_at DESC, t.recording DESC LIMIT {query.limit + 1}) found"
        f" ORDER BY found.started_at DESC, found.id DESC LIMIT {query.limit + 1}",
        *conditions.values,
    )


def _array(terms: Sequence[int] | None) -> str | None:
    """An array as Postgres reads it."""
    return None if terms is None else "{" + ",".join(map(str, terms)) + "}"


async def _strides(lent: Connection, query: Query, now: datetime) -> AsyncIterator[_Stride]:
    """The days on which calls started, newest first, with the days that they expire on."""
    latest = min(
        (moment for moment in (query.until, query.after and query.after.started_at) if moment),
        default=now + timedelta(days=1),
    )
    rows = await lent.fetch(
        "SELECT started_on, array_agg(expires_on) AS expiry_days FROM filed WHERE started_on <= $1"
        " AND ($2::date IS NULL OR started_on >= $2) GROUP BY started_on ORDER BY started_on DESC",
        _utc_day(latest),
        query.since and _utc_day(query.since),
    )
    for count in (*_STRIDES, len(rows)):
        taken, rows = rows[:count], rows[count:]
        if taken:
            since, last = taken[-1]["started_on"], taken[0]["started_on"]
            ends = {end for row in taken for end in row["expiry_days"]}
            yield _Stride(_midnight(since), _midnight(last + timedelta(days=1)), ends)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


def _utc_day(moment: datetime) -> date:
    return (moment - (moment.utcoffset() or timedelta())).date()


class _Conditions:
    """The plain part of a search as SQL: a text, and the values of its `$n`."""

    def __init__(self, query: Query, now: datetime) -> None:
        self.values: list[object] = []
        self._parts = ["r.state = 'stored'", f"r.expires_at > {self.value(now)}"]
        if query.call_types is not None:
            self._types(sorted(query.call_types))
        self._where("r.started_at >= {}", query.since)
        self._where("r.started_at < {}", query.until)
        self._where("r.source = {}", query.source)
        self._where("r.direction = {}", query.direction)
        self._where("r.duration >= {}", query.min_duration)
        self._where("r.duration <= {}", query.max_duration)
        if query.after:
            started_at, last = self.value(query.after.started_at), self.value(query.after.id)
            self._parts.append(f"(r.started_at, r.id) < ({started_at}, {last})")

    @property
    def text(self) -> str:
        return " AND ".join(self._parts)

    def value(self, value: object) -> str:
        """Add a value; returns the `$n` that stands for it."""
        self.values.append(value)
        return f"${len(self.values)}"

    def _where(self, condition: str, value: object) -> None:
        if value is not None:
            self._parts.append(condition.format(self.value(value)))

    def _types(self, types: list[str]) -> None:
        # One type reads its own index in order; several are a filter on the newest.
        if len(types) == 1:
            self._parts.append(f"r.call_type = {self.value(types[0])}")
        else:
            self._parts.append(f"r.call_type = ANY({self.value(types)})")
