"""Notices of recordings that lie elsewhere: kept until the recording is fetched, and deleted there.

What holds: a notice is answered once its row is committed, so that it is never lost. A recording
is asked for once, by the name that its sender has for it, however often the notice comes. Whoever
works on a notice holds it for a minute at a time; one whose holder died is taken up by another.
Where the audio lies and what was said of the call is sealed under the key of the call's expiry day.
Of that only where it is to be deleted is kept once the recording is in the archive, so that nothing
of the call is left here when that is erased before its year, and nothing at all once it is done;
the row ends with the year of the call, whatever became of it.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
from cryptography.exceptions import InvalidTag

from archive.errors import UnavailableError
from archive.retention import Expiry
from storage import boxes, ledger, steps
from storage.database import Connection, connection
from storage.keyring import NoDayKeyError, Ring, key_to_seal
from storage.sealing import DamagedError
from storage.vault import Vault

log = logging.getLogger("archive.notices")

LEASE = timedelta(minutes=1)
"""How long a notice is held by who works on it; renewed meanwhile."""

FIRST, LONGEST = timedelta(seconds=5), timedelta(hours=3)
"""How long until a notice is worked on again: after the first failure, and at the most."""

OUR_OWN = timedelta(minutes=1)
"""The same at the most, when it was the archive itself that was not ready."""

_LABEL = b"notices"


@dataclass(frozen=True, slots=True)
class Job:
    """A notice that somebody holds. `details` are what was said, `tries` which try this is,
    `failures` how many failed by its host and the audio there, and `failure` why the last one did.

    `rest` is what of the details is kept, sealed, once it is only to be deleted where it came from;
    None where it is not.
    """

    id: UUID
    hook: str
    state: str
    tries: int
    failures: int
    failure: str | None
    details: Mapping[str, object] = field(repr=False)
    rest: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Left:
    """A notice that is not done, as an operator may see it."""

    id: UUID
    hook: str
    state: str
    asked_at: datetime
    tries: int
    failure: str | None


async def ask(
    vault: Vault, hook: str, name: str, expiry: Expiry, details: Mapping[str, object]
) -> bool:
    """Keep a notice; False for one that is known already, whatever has become of it.

    Raises UnavailableError when the day on which it ends has no key yet.
    """
    mark = _mark(vault.ring, hook, name)
    sealed = _seal(vault.ring, expiry.on, mark, details)
    async with connection(vault.pool) as lent:
        new = await lent.fetchval(
            "INSERT INTO notice (id, hook, mark, expires_at, expires_on, details)"
            " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (hook, mark) DO NOTHING RETURNING true",
            *(uuid4(), hook, mark, expiry.at, expiry.on, sealed),
        )
    steps.reached("asked")
    return bool(new)


async def recorded(vault: Vault, hook: str, name: str) -> bool:
    """Whether the recording that a notice names is in the archive by now."""
    async with connection(vault.pool) as lent:
        found = await lent.fetchval(
            "SELECT recording IS NOT NULL FROM notice WHERE hook = $1 AND mark = $2",
            *(hook, _mark(vault.ring, hook, name)),
        )
    return bool(found)


async def claim(vault: Vault, hooks: Sequence[str], most: int) -> list[Job]:
    """Take up notices that are due, those first which have waited longest.

    One that was changed keeps no other waiting: it stays, until it is told of as not fetched.
    """
    async with connection(vault.pool) as lent:
        rows = await lent.fetch(
            "UPDATE notice n SET due_at = archive_now() + $3::interval, tries = tries + 1"
            " FROM (SELECT id FROM notice WHERE state IN ('waiting', 'deleting')"
            " AND due_at <= archive_now() AND expires_at > archive_now() AND hook = ANY($1)"
            " ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) due"
            " WHERE n.id = due.id RETURNING n.*",
            *([*hooks], most, LEASE),
        )
    found = []
    for row in rows:
        try:
            found.append(_job(vault.ring, row))
        except NoDayKeyError:
            continue  # its day is just being closed
        except DamagedError as error:
            log.error("notice %s: %s", row["id"], error)  # noqa: TRY400 (it says all)
    return found


def _job(ring: Ring, row: asyncpg.Record) -> Job:
    day, mark = row["expires_on"], row["mark"]
    details = _open(ring, day, mark, row["details"])
    left = {"delete_url": details["delete_url"]}
    rest = _seal(ring, day, mark, left) if details["delete_url"] else None
    kept = {name: row[name] for name in ("id", "hook", "state", "tries", "failures", "failure")}
    return Job(**kept, details=details, rest=rest)


@asynccontextmanager
async def held(vault: Vault, job: Job) -> AsyncIterator[None]:
    """Hold a notice for as long as it is worked on."""
    renewing = asyncio.create_task(_renew(vault, job))
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def _renew(vault: Vault, job: Job) -> None:
    while True:
        await asyncio.sleep(LEASE.total_seconds() / 3)
        with suppress(UnavailableError):
            async with connection(vault.pool) as lent:
                await lent.execute(
                    "UPDATE notice SET due_at = archive_now() + $3::interval"
                    " WHERE id = $1 AND tries = $2 AND state IN ('waiting', 'deleting')",
                    *(job.id, job.tries, LEASE),
                )


async def took(vault: Vault, job: Job, recording: UUID) -> bool:
    """Note that the recording is in the archive, and keep no more than where it is to be deleted.

    False for who does not hold the notice any more: whoever does will need it there.
    """
    async with connection(vault.pool) as lent:
        done = await lent.execute(
            "UPDATE notice SET recording = $3, failure = NULL, details = $4,"
            " state = CASE WHEN $4::bytea IS NULL THEN 'done' ELSE 'deleting' END"
            " WHERE id = $1 AND tries = $2 AND state = 'waiting'",
            *(job.id, job.tries, recording, job.rest),
        )
    steps.reached("took")
    return done.endswith(" 1")


async def deleted(vault: Vault, job: Job, actor: str) -> None:
    """Note that it is deleted where it came from."""
    async with connection(vault.pool) as lent, lent.transaction():
        row = await lent.fetchrow(
            "UPDATE notice SET state = 'done', failure = NULL, details = NULL"
            " WHERE id = $1 AND tries = $2 AND state = 'deleting' RETURNING recording",
            *(job.id, job.tries),
        )
        if row:
            await ledger.record(lent, actor, "source.deleted", recording=row["recording"])


async def failed(vault: Vault, job: Job, why: str, *, final: bool, ours: bool) -> None:
    """Note why it could not be done. It is tried again later, but for what is `final`.

    What is `ours` says nothing of the host: it makes nobody wait longer for that, however long the
    archive was not ready.
    """
    failures = job.failures + (not ours)
    doubled = job.tries if ours else failures
    later = min(FIRST * 2 ** min(doubled - 1, 20), OUR_OWN if ours else LONGEST)
    async with connection(vault.pool) as lent:
        await lent.execute(
            "UPDATE notice SET failure = $3, due_at = archive_now() + $4::interval,"
            " state = CASE WHEN $5 THEN 'refused' ELSE state END,"
            " details = CASE WHEN $5 THEN NULL ELSE details END, failures = $6"
            " WHERE id = $1 AND tries = $2 AND state IN ('waiting', 'deleting')",
            *(job.id, job.tries, why, later, final, failures),
        )


async def left(lent: Connection) -> list[Left]:
    """Every notice that is not done, oldest first."""
    rows = await lent.fetch(
        "SELECT id, hook, state, asked_at, tries, failure FROM notice"
        " WHERE state <> 'done' AND expires_at > archive_now() ORDER BY asked_at, id"
    )
    return [Left(**dict(row)) for row in rows]


async def again(lent: Connection, notice: UUID) -> str | None:
    """Let a notice be worked on now, and return its state; None if none of this id is left.

    Nobody works on one that is refused: where its audio lies is forgotten.
    """
    state: str | None = await lent.fetchval(
        "UPDATE notice SET due_at = archive_now() WHERE id = $1 AND state <> 'done'"
        " RETURNING state",
        notice,
    )
    return state


async def drop(lent: Connection, notice: UUID) -> bool:
    """Give a notice up, for good: it is known when it comes again. False if there is none."""
    async with lent.transaction():
        hook = await lent.fetchval(
            "UPDATE notice SET state = 'done', details = NULL"
            " WHERE id = $1 AND state <> 'done' RETURNING hook",
            notice,
        )
        if hook is not None:
            await ledger.record(lent, ledger.SYSTEM, "notice.dropped", facts={"webhook": hook})
    return hook is not None


async def forget(vault: Vault) -> None:
    """Remove what may no longer be kept."""
    async with connection(vault.pool) as lent:
        await lent.execute("DELETE FROM notice WHERE expires_at <= archive_now()")


def _mark(ring: Ring, hook: str, name: str) -> bytes:
    return hmac.digest(ring.lookup_key("notice"), f"{hook}\0{name}".encode(), "sha256")


def _seal(ring: Ring, day: date, mark: bytes, details: Mapping[str, object]) -> bytes:
    key = boxes.key_for(key_to_seal(ring, day), _LABEL)
    return boxes.seal(key, json.dumps(details).encode(), mark)


def _open(ring: Ring, day: date, mark: bytes, sealed: bytes) -> dict[str, object]:
    try:
        plain = boxes.unseal(boxes.key_for(ring.day_key(day), _LABEL), sealed, mark)
    except InvalidTag:
        raise DamagedError("a notice was changed, or belongs to another") from None
    return dict(json.loads(plain))
