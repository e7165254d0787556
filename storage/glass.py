"""Breaking the glass: a reader knows of everything for an hour at the most, with a reason, because
somebody whom they named lets them.

The level stays: whoever may not hear a call does not by this either. Of both it has to be said who
they are (storage/persons.py), lest one person name themselves. It is in force from the granting on,
and ends by itself, or when one of the two ends it. Each step is on the ledger, and an alarm sounds
while it lasts and for an hour after.
"""

import logging
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from archive import access
from archive.access import Caller, Level
from archive.errors import ForbiddenError, MalformedError, NotFoundError
from archive.ledger import instant
from storage import ledger
from storage.database import connection
from storage.vault import Vault

log = logging.getLogger("archive.glass")

MOST = timedelta(minutes=60)
"""How long it is broken, at the most."""

WAITS = timedelta(hours=24)
"""How long it can be granted after it was asked for."""

APPROVERS = frozenset({Level.PRIVACY, Level.ADMIN})
"""Who can be named."""


async def ask(vault: Vault, caller: Caller, approver: str, lasts: timedelta, reason: str) -> UUID:
    """Ask for it; returns what the approver has to be told.

    Raises MalformedError for an approver who cannot be one: `approver` is the name of a key or an
    account, or its id where two have that name.
    """
    access.require(caller, access.READERS)
    if not timedelta(minutes=1) <= lasts <= MOST:
        raise MalformedError("`minutes` is a whole number from 1 to 60.")
    identifier = uuid4()
    async with connection(vault.pool) as lent, lent.transaction():
        row = await lent.fetchrow(
            "WITH other AS (SELECT h.id FROM holder h WHERE $2 IN (h.name, h.id) AND h.valid"
            " AND h.level = ANY ($3) AND two_people(h.id, $4) ORDER BY h.id LIMIT 1)"
            " INSERT INTO glass (id, reader, approver, lasts) SELECT $1, $4, id, $5 FROM other"
            " RETURNING approver, asked_at",
            identifier,
            approver,
            sorted(APPROVERS),
            caller.id,
            lasts,
        )
        if row is None:
            raise MalformedError(
                "`approver` is the name of a key or an account of another person, of level privacy"
                " or admin. Of yours and theirs it must have been said whose they are."
            )
        facts = {"glass": str(identifier), "approver": row["approver"]}
        day = vault.policy.furthest(row["asked_at"])
        sealed = ledger.seal(vault.ring, day, {"reason": reason})
        await ledger.record(lent, caller.id, "glass.asked", facts=facts, sealed=sealed)
    log.warning("%s asks %s to break the glass: %s", caller.id, row["approver"], identifier)
    return identifier


async def grant(vault: Vault, caller: Caller, identifier: UUID) -> datetime:
    """Let the reader who asked know of everything; returns until when.

    Raises NotFoundError for what this caller was not asked for, or too long ago.
    """
    access.require(caller, APPROVERS)
    async with connection(vault.pool) as lent, lent.transaction():
        row = await lent.fetchrow(
            "WITH n AS MATERIALIZED (SELECT archive_now() AS now)"
            " UPDATE glass SET granted_at = n.now, until = n.now + lasts FROM n"
            " WHERE id = $1 AND approver = $2 AND granted_at IS NULL AND ended_at IS NULL"
            " AND two_people(reader, approver)"
            " AND asked_at > archive_now() - $3::interval RETURNING reader, until",
            identifier,
            caller.id,
            WAITS,
        )
        if row is None:
            raise NotFoundError("Nobody asked you for this, or it was answered, or is too old.")
        until: datetime = row["until"]
        facts = {"glass": str(identifier), "reader": row["reader"], "until": instant(until)}
        await ledger.record(lent, caller.id, "glass.broken", facts=facts)
    log.warning("the glass is broken: %s lets %s, %s", caller.id, row["reader"], identifier)
    return until


async def end(vault: Vault, caller: Caller, identifier: UUID) -> None:
    """End it, or take the asking back: by either of the two. Raises NotFoundError."""
    if caller.level not in access.READERS | APPROVERS:
        raise ForbiddenError("This is for who asked, and for whom they named.")
    async with connection(vault.pool) as lent, lent.transaction():
        row = await lent.fetchrow(
            "UPDATE glass SET ended_at = archive_now() WHERE id = $1 AND $2 IN (reader, approver)"
            " AND ended_at IS NULL AND (until IS NULL OR until > archive_now()) RETURNING reader",
            identifier,
            caller.id,
        )
        if row is None:
            raise NotFoundError("There is nothing of yours to end here.")
        facts = {"glass": str(identifier), "reader": row["reader"]}
        await ledger.record(lent, caller.id, "glass.ended", facts=facts)
    log.warning("the glass is whole again: %s ended %s", caller.id, identifier)
