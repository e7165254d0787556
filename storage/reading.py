"""Letting a reader in to one recording: what they may know of, what hearing it asks for, and the
ledger's entry, in one statement before the first byte.

A budget is one row a person: the recordings that were heard within the hour that ends now, by any
key or account that is known to be theirs. Its lock makes it hold among all services, and the entry
of a listen comes to be only together with its place in it.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from archive import access
from archive.access import Caller, Scope
from archive.errors import (
    GoneError,
    NotFoundError,
    ReasonNeededError,
    TooLargeError,
    TooManyError,
    UnavailableError,
)
from archive.lifecycle import State
from archive.listening import HOUR, REASON_HOLDS
from storage import ledger
from storage.database import Connection, connection
from storage.keyring import NoDayKeyError, Ring
from storage.recordings import COLUMNS, Opened, as_heard, from_row, in_scope, scope_terms
from storage.vault import Vault

log = logging.getLogger("archive.reading")


@dataclass(frozen=True, slots=True)
class Act:
    """What is done with a recording, as the ledger tells it. `hears`: its audio is let out.

    `reason` is what the caller says for it; it is sealed.
    """

    name: str
    facts: Mapping[str, object]
    hears: bool = False
    reason: str | None = None


async def get(
    vault: Vault,
    caller: Caller,
    identifier: UUID,
    now: datetime,
    act: Act | None = None,
    *,
    original: bool = False,
) -> Opened:
    """The recording of this id as it may be heard and handed out: where a redacted copy stands,
    that copy in its place, for everybody.

    With an `act`, the ledger tells of it before this returns. `original`: what was sent, all the
    same; ForbiddenError for who may not hear that. Raises what `let_in` raises.
    """
    access.require(caller, access.ORIGINALS if original else access.READERS)
    row = await let_in(vault, caller, identifier, now, act)
    opened = from_row if original else as_heard
    return opened(vault.ring, row, caller.scope)


async def let_in(
    vault: Vault, caller: Caller, identifier: UUID, now: datetime, act: Act | None = None
) -> asyncpg.Record:
    """The row of a recording that the caller may know of, once the ledger tells of the act.

    Raises NotFoundError for one that never was or that the caller may not know of, GoneError from
    the instant of its expiry, and for who hears it ReasonNeededError and TooManyError. None of
    these acts is in the ledger. One is whose key turns out not to be there: then it is GoneError
    again where that was destroyed, and else UnavailableError.
    """
    access.require(caller, access.READERS)
    row = await _told(vault, caller, identifier, now, act)
    if row is None or row["state"] in (State.RECEIVING, State.ABANDONED) or not row["known"]:
        raise NotFoundError("There is no recording of this id that you may know of.")
    if row["state"] != State.STORED or now >= row["expires_at"]:
        raise _gone(identifier)
    if act is not None and act.hears and not row["reasoned"]:
        raise _reason_needed(identifier)
    if act is not None and not row["done"]:
        raise await _used_up(vault, caller, now)
    _require_key(vault.ring, row)
    return row


def _gone(identifier: UUID) -> GoneError:
    return GoneError(
        "Its period is over, or it was erased before. It cannot be brought back.",
        recording=str(identifier),
    )


def _require_key(ring: Ring, row: asyncpg.Record) -> None:
    """See that the key of its day is there: a database that was put back, or whose clock was, knows
    of recordings whose day is over.
    """
    try:
        ring.day_key(row["expires_on"])
    except NoDayKeyError:
        if row["expires_on"] in ring.destroyed():
            raise _gone(row["id"]) from None
        raise UnavailableError(
            "The key of its day is not there, and was not destroyed: tell the operator.", 60
        ) from None


async def stands(lent: Connection, caller: Caller, *opened: Opened) -> bool:
    """Whether nothing that is being sent is being erased meanwhile, and all of it is still what
    may be heard.
    """
    there: int = await lent.fetchval(
        "SELECT count(*) FROM recording r"
        " JOIN unnest($1::uuid[], $2::uuid[]) AS sent (id, attempt) USING (id)"
        " WHERE r.state = 'stored' AND (coalesce(r.redacted, r.attempt) = sent.attempt"
        " OR r.attempt = sent.attempt AND $3)",
        [each.recording.id for each in opened],
        [each.seal.identity.attempt for each in opened],
        caller.level in access.ORIGINALS,
    )
    return there == len(opened)


async def require_reason(vault: Vault, caller: Caller, opened: Opened, now: datetime) -> None:
    """Raise ReasonNeededError where hearing this would: for who asks for the headers alone."""
    recording = opened.recording
    if recording.call.call_type not in vault.listening.reasons(caller):
        return
    async with connection(vault.pool) as lent:
        if not await lent.fetchval(
            "SELECT true FROM reason WHERE actor = $1 AND recording = $2 AND until > $3",
            caller.id,
            recording.id,
            now,
        ):
            raise _reason_needed(recording.id)


def _reason_needed(identifier: UUID) -> ReasonNeededError:
    return ReasonNeededError(
        'Say why you listen: POST {"reason": "..."} to the address in `reasons`, then ask again'
        " within the hour; or send the header `Archive-Reason` along, percent-encoded.",
        reasons=f"/v1/recordings/{identifier}/reasons",
    )


_KNOWN = (
    "(($6::text[] IS NULL OR r.call_type = ANY ($6))"
    f" AND ($7::bigint[] IS NULL OR {in_scope('$7')}))"
)
_REASONED = (
    "(r.call_type <> ALL ($8::text[]) OR $10::bytea IS NOT NULL OR EXISTS (SELECT FROM reason g"
    " WHERE g.actor = $2 AND g.recording = r.id AND g.until > $5))"
)
_WHO = "coalesce((SELECT person FROM holder WHERE id = {}), {})"
_OTHERS = (
    "FROM unnest(l.recordings, l.heard) AS o(id, at) WHERE o.at > $5 - $12::interval AND o.id <> $1"
)
_HEARD = (
    " heard AS (INSERT INTO listener AS l (who, recordings, heard)"  # noqa: S608 - our own words
    f" SELECT {_WHO.format('$2', '$2')}, ARRAY[id], ARRAY[$5] FROM allowed WHERE reasoned"
    " ON CONFLICT (who) DO UPDATE SET"
    f" recordings = ARRAY(SELECT o.id {_OTHERS}) || EXCLUDED.recordings,"
    f" heard = ARRAY(SELECT o.at {_OTHERS}) || EXCLUDED.heard"
    f" WHERE (SELECT count(*) {_OTHERS}) < $11 RETURNING true)"
)
_NOT_HEARD = " heard AS (SELECT $11::integer, $12::interval)"
"""An act that hears nothing has nothing to count."""


async def _told(
    vault: Vault, caller: Caller, identifier: UUID, now: datetime, act: Act | None
) -> asyncpg.Record | None:
    """The row, whether the caller may know of it, and in the same statement the entry of an act.

    The work is the same whether there is such a recording or not; what may not be known of is not
    opened to find out.
    """
    said = act and act.reason
    day, sealed = None, None
    if said:
        day, sealed = ledger.seal(vault.ring, vault.policy.furthest(now), {"reason": said})
    heard = _HEARD if act and act.hears else _NOT_HEARD
    rules, types = vault.listening, caller.scope.call_types
    async with connection(vault.pool) as lent:
        return await lent.fetchrow(
            f"WITH r AS (SELECT {COLUMNS}, {_KNOWN} AS known, {_REASONED} AS reasoned"  # noqa: S608
            " FROM recording r WHERE r.id = $1), allowed AS (SELECT * FROM r WHERE known"
            f" AND state = 'stored' AND expires_at > $5 AND $3::text IS NOT NULL),{heard},"
            " entry AS (INSERT INTO ledger_waiting (actor, act, recording, facts, ends_on, details)"
            " SELECT $2, $3, id, $4, $9::date, $10::bytea FROM allowed, heard RETURNING true)"
            " SELECT r.*, EXISTS (SELECT FROM entry) AS done FROM r",
            identifier,
            caller.id,
            act and act.name,
            dict(act.facts if act else {}),
            now,
            None if types is None else sorted(types),
            await _scope_terms(vault, lent, caller.scope, identifier, now),
            sorted(rules.reasons(caller)),
            day,
            sealed,
            rules.recordings_per_hour,
            HOUR,
        )


async def _scope_terms(
    vault: Vault, lent: Connection, scope: Scope, identifier: UUID, now: datetime
) -> list[int] | None:
    """The terms of a scope on the day of this recording; those of today where there is none."""
    if scope.among is None:
        return None
    today = vault.policy.day_of(now)
    day = await lent.fetchval(
        "SELECT coalesce((SELECT expires_on FROM recording WHERE id = $1), $2)", identifier, today
    )
    keys = vault.ring.index_keys({today, day})
    key = keys.get(day, keys.get(today))
    return scope_terms(key, scope.among) if key else []


async def require_room(vault: Vault, caller: Caller, ids: Sequence[UUID], now: datetime) -> None:
    """Raise TooManyError unless the caller's budget has room for all of these recordings."""
    most = vault.listening.recordings_per_hour
    if len(ids) > most:
        raise TooLargeError(f"You may hear {most} recordings in an hour: ask for fewer.")
    async with connection(vault.pool) as lent:
        heard: list[UUID] = await lent.fetchval(
            "SELECT ARRAY(SELECT o.id FROM listener l,"  # noqa: S608 - our own words
            " unnest(l.recordings, l.heard) AS o(id, at)"
            f" WHERE l.who = {_WHO.format('$1', '$1')} AND o.at > $2)",
            caller.id,
            now - HOUR,
        )
    if len({*heard, *ids}) > most:
        raise await _used_up(vault, caller, now)


async def _used_up(vault: Vault, caller: Caller, now: datetime) -> TooManyError:
    """What a caller is told whose budget stops them; on the ledger it is once an hour."""
    most = vault.listening.recordings_per_hour
    async with connection(vault.pool) as lent, lent.transaction():
        [row] = await lent.fetch(
            "WITH was AS (SELECT who, heard,"  # noqa: S608 - our own words
            " coalesce(told_at > $2::timestamptz - $3::interval, false) AS told"
            f" FROM listener WHERE who = {_WHO.format('$1', '$1')} FOR UPDATE),"
            " noted AS (UPDATE listener l SET stopped_at = $2,"
            " told_at = CASE WHEN was.told THEN told_at ELSE $2 END FROM was"
            " WHERE l.who = was.who)"
            " SELECT told, coalesce((SELECT at FROM unnest(heard) AS at ORDER BY at DESC"
            " OFFSET $4 - 1 LIMIT 1), (SELECT min(at) FROM unnest(heard) AS at"
            " WHERE at > $2 - $3::interval)) AS first FROM was",
            caller.id,
            now,
            HOUR,
            most,
        )
        if not row["told"]:
            await ledger.record(lent, caller.id, "listening.stopped", facts={"most": most})
    log.warning("%s has heard as many recordings as one may in an hour", caller.id)
    # The budget has a place again when the first of the latest so many is an hour old.
    left = (row["first"] + HOUR - now).total_seconds() if row["first"] else 0
    return TooManyError(
        f"You may hear {most} recordings in an hour, and have; go on after Retry-After seconds."
        " Those that you have heard in it stay open.",
        max(math.ceil(left), 1),
    )


async def give_reason(
    vault: Vault, caller: Caller, identifier: UUID, now: datetime, said: str
) -> datetime:
    """Open the audio of a recording to the caller for a while; returns until when.

    Raises what `get` raises.
    """
    await get(vault, caller, identifier, now, Act("reason.given", {}, reason=said))
    async with connection(vault.pool) as lent:
        until: datetime = await lent.fetchval(
            "WITH over AS (DELETE FROM reason WHERE until <= $3)"
            " INSERT INTO reason (actor, recording, until) VALUES ($1, $2, $3 + $4::interval)"
            " ON CONFLICT (actor, recording) DO UPDATE SET until = EXCLUDED.until RETURNING until",
            caller.id,
            identifier,
            now,
            REASON_HOLDS,
        )
    return until
