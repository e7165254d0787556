"""The ledger of a database that was put back: its lost end is taken from the object store, and what
it tells is done again.

The published entries (`storage.published`) are believed as far as the archive signed them, since
their tree must have the signed root; the few after that, which a crash left unsigned, for the mark
that their bundle bears. Then the rows are made to agree: what is told as erased becomes a
tombstone, a day that is told as closed is closed, a key that is told as revoked opens nothing, and
nobody is signed in. What the ledger tells of and does not say, who is in a team and whose a key is,
is forgotten where it was changed since: the safe side is that a reader knows of nothing, and that a
key is no second person's.
"""

import asyncio
import logging
from dataclasses import dataclass

from archive.certificate import GRANTED
from archive.ledger import Entry
from archive.note import Checkpoint
from storage import days, ledger, published, tree
from storage.database import Connection, connection
from storage.signer import RewrittenError
from storage.vault import Vault

log = logging.getLogger("archive.rebuild")

_BATCH = 5000

_CHANGES = ["account.changed", "account.reset", "account.set_up"]
"""After which the row of a local account in a backup has rights or a password of before."""


@dataclass(slots=True)
class Replayed:
    """What was done again: entries taken back, tombstones made, days closed, keys revoked, accounts
    locked; `teams` removed, `persons` of keys and accounts forgotten, and whether the `periods` are
    others.

    `unfinished` rows of uploads that were under way then, or given up, were dropped: their objects
    decide what they are. `untombed` recordings were erased before their time and have no tombstone,
    since the backup has no row of them: their calls can be taken in again, until their day is over.
    """

    entries: int = 0
    erased: int = 0
    closed: int = 0
    revoked: int = 0
    locked: int = 0
    teams: int = 0
    persons: int = 0
    periods: int = 0
    unfinished: int = 0
    untombed: int = 0


async def run(vault: Vault) -> Replayed:
    """Make the ledger whole and the rows agree with it, in one transaction.

    From then on `archive.rebuilding` is set. Raises RewrittenError when what is published does not
    reach, or does not lead to, what was signed last; UnavailableError when database or store is
    away. Then nothing is changed. Doing it again does no harm.
    """
    last = await asyncio.to_thread(vault.signer.last)
    done = Replayed()
    async with connection(vault.pool) as lent, lent.transaction():
        await lent.execute("UPDATE archive SET rebuilding = true")
        size = await lent.fetchval("SELECT size FROM ledger_head FOR UPDATE")
        if last and size >= last.size:
            await _check(lent, last)
        done.entries = await _take_back(vault, lent, size, last)
        rotated = await _since(lent, size, "key", ["key.rotated"])
        changed = await _since(lent, size, "account", _CHANGES)
        locked = await _since(lent, size, "account", ["account.locked"])
        done.teams = await _forget_teams(lent, size)
        done.persons = await _forget_persons(lent, size)
        done.periods = await _change_periods(lent, size)
        await _drop_waiting(lent, size)
        done.erased = await _bury(lent)
        done.closed = await _close(lent)
        done.untombed = await _count_untombed(lent)
        done.revoked = await _revoke(lent, rotated)
        done.locked = await _lock(lent, changed, locked)
        done.unfinished = _count(
            await lent.execute("DELETE FROM recording WHERE state IN ('receiving', 'abandoned')")
        )
        await lent.execute("DELETE FROM redaction_attempt")
        await lent.execute(
            "UPDATE recording SET redacting_until = NULL WHERE redacting_until IS NOT NULL"
        )
    return done


async def _check(lent: Connection, last: Checkpoint) -> None:
    if (await tree.head(lent, last.size)).root != last.root:
        raise RewrittenError(
            f"the first {last.size} entries of the ledger are not those that were signed: the"
            " database was rewritten; put back one that was not"
        )


async def _take_back(vault: Vault, lent: Connection, size: int, last: Checkpoint | None) -> int:
    """Add the published entries that the database lacks; returns how many."""
    batch: list[Entry] = []
    first = size
    async for entry in published.entries(vault, size):
        batch.append(entry)
        signed = last is not None and entry.position + 1 == last.size
        if signed or len(batch) == _BATCH:
            await _add(lent, size, batch)
            size, batch = size + len(batch), []
        if signed and last:
            await _check(lent, last)
    await _add(lent, size, batch)
    size += len(batch)
    if last and size < last.size:
        raise RewrittenError(
            f"the object store has the ledger's entries up to {size} only, and {last.size} were"
            " signed: without the rest it is not known what was erased"
        )
    await lent.execute("UPDATE ledger_head SET published = size")
    return size - first


async def _add(lent: Connection, size: int, entries: list[Entry]) -> None:
    if not entries:
        return
    await lent.execute(
        "INSERT INTO ledger (position, at, actor, act, recording, facts, sealed)"
        " SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::text[],"
        " $5::uuid[], $6::jsonb[], $7::text[])",
        [entry.position for entry in entries],
        [entry.at for entry in entries],
        [entry.actor for entry in entries],
        [entry.act for entry in entries],
        [entry.recording for entry in entries],
        [entry.facts for entry in entries],
        [entry.sealed for entry in entries],
    )
    await tree.extend(lent, size, entries)


async def _drop_waiting(lent: Connection, size: int) -> None:
    """Drop what waited for its place then and is known to have got it since."""
    await lent.execute(
        "DELETE FROM ledger_waiting w USING ledger l WHERE l.position >= $1 AND l.at = w.at"
        " AND l.actor = w.actor AND l.act = w.act AND l.facts = w.facts"
        " AND l.recording IS NOT DISTINCT FROM w.recording",
        size,
    )


async def _bury(lent: Connection) -> int:
    """Make tombstones of the rows of recordings that are told as erased, when they were due or
    people had decided so: more than one part of the service can say what is not true.

    Only where two people had it erased before its time does the tombstone still know the call, as
    after any erasing.
    """
    rows = await lent.fetch(
        "WITH dug AS (DELETE FROM recording r USING ledger l WHERE l.recording = r.id"  # noqa: S608
        " AND l.act = 'erased' AND r.state <> 'erased'"
        f" AND (l.at >= r.expires_at OR {ledger.DECIDED})"
        " RETURNING r.id, r.source, r.call_type, r.expires_on, CASE WHEN EXISTS (SELECT FROM ledger"
        " g WHERE g.recording = r.id AND g.act = $1) THEN r.call_hash END AS call_hash)"
        " INSERT INTO recording (id, source, call_type, expires_on, state, call_hash)"
        " SELECT DISTINCT id, source, call_type, expires_on, 'erased', call_hash FROM dug"
        " RETURNING id, expires_on",
        GRANTED,
    )
    ids = [row["id"] for row in rows]
    await lent.execute(
        "DELETE FROM term t USING unnest($1::date[], $2::uuid[]) AS gone(expires_on, id)"
        " WHERE t.expires_on = gone.expires_on AND t.recording = gone.id",
        [row["expires_on"] for row in rows],
        ids,
    )
    await lent.execute("DELETE FROM cdr WHERE recording = ANY($1)", ids)
    await lent.execute("DELETE FROM upload WHERE recording = ANY($1)", ids)
    return len(rows)


async def _count_untombed(lent: Connection) -> int:
    """Count what two people had erased before its time and no row knows, on days still open."""
    found: int = await lent.fetchval(
        "SELECT count(DISTINCT e.recording) FROM ledger e JOIN ledger g"
        " ON g.recording = e.recording AND g.act = $1 WHERE e.act = 'erased'"
        " AND NOT EXISTS (SELECT FROM recording r WHERE r.id = e.recording) AND NOT EXISTS (SELECT"
        " FROM day d WHERE to_char(d.expires_on, 'YYYY-MM-DD') = e.facts->>'day'"
        " AND d.closed_at IS NOT NULL)",
        GRANTED,
    )
    return found


async def _close(lent: Connection) -> int:
    """Count what is told as erased of each day, and close the days that are told as closed."""
    await lent.execute(
        "INSERT INTO day (expires_on, erased) SELECT (facts->>'day')::date, count(*) FROM ledger"
        " WHERE act = 'erased' AND facts->>'day' LIKE '____-__-__' GROUP BY 1"
        " ON CONFLICT (expires_on) DO UPDATE SET erased = EXCLUDED.erased"
    )
    rows = await lent.fetch(
        "INSERT INTO day AS d (expires_on, closed_at) SELECT (facts->>'day')::date, min(at)"
        " FROM ledger WHERE act = 'day.closed' AND facts->>'day' LIKE '____-__-__'"
        " GROUP BY 1 ON CONFLICT (expires_on)"
        " DO UPDATE SET closed_at = EXCLUDED.closed_at WHERE d.closed_at IS NULL"
        " RETURNING expires_on"
    )
    await days.forget(lent, [row["expires_on"] for row in rows])
    return len(rows)


async def _since(lent: Connection, size: int, fact: str, acts: list[str]) -> list[str]:
    """What is told in such acts since, in its order: the rows of these keys, accounts and teams
    know what was before, which may have been changed because it leaked.
    """
    rows = await lent.fetch(
        "SELECT l.facts->>$2 AS told FROM ledger l WHERE l.position >= $1"
        " AND l.act = ANY ($3) AND l.facts ? $2 AND NOT EXISTS (SELECT FROM ledger_waiting w"
        " WHERE w.act = l.act AND w.at = l.at AND w.facts = l.facts) ORDER BY l.position",
        size,
        fact,
        acts,
    )
    return [row["told"] for row in rows]


async def _forget_teams(lent: Connection, size: int) -> int:
    """Remove the teams that were changed or removed since: who is in them now is sealed in entries
    whose sealed part is lost, and whoever is limited to them alone knows of nothing.
    """
    names = await _since(lent, size, "team", ["team.changed", "team.removed"])
    rows = await lent.fetch("DELETE FROM team WHERE name = ANY($1) RETURNING name", names)
    for row in rows:
        log.warning("team %s was changed since the backup: say who is in it again", row["name"])
    return len(rows)


async def _forget_persons(lent: Connection, size: int) -> int:
    """Forget whose keys and accounts are of which it was said since: it may be somebody else's, and
    who nobody is known to be is no second person.
    """
    keys = await _since(lent, size, "key", ["key.person"])
    accounts = await _since(lent, size, "account", ["account.person"])
    forgotten = 0
    for table, ids in (("access_key", keys), ("account", accounts)):
        forgotten += _count(
            await lent.execute(
                f"UPDATE {table} SET person = NULL WHERE id = ANY($1)"  # noqa: S608 - our own
                " AND person IS NOT NULL",
                ids,
            )
        )
    return forgotten


async def _change_periods(lent: Connection, size: int) -> int:
    """Put into force again what two people granted since; also in an empty database, which has the
    periods of the configuration, that one person's hand writes.
    """
    wanted = await _since(lent, size, "wanted", ["retention.changed"])
    return _count(
        await lent.execute(
            "INSERT INTO policy AS p (periods) SELECT unnest($1::text[])::jsonb"
            " ON CONFLICT (only_row) DO UPDATE SET periods = EXCLUDED.periods"
            " WHERE p.periods <> EXCLUDED.periods",
            wanted[-1:],
        )
    )


async def _revoke(lent: Connection, rotated: list[str]) -> int:
    """Revoke what is told as revoked, and what was rotated since."""
    ended = _count(
        await lent.execute(
            "UPDATE access_key SET revoked_at = archive_now() WHERE id = ANY($1)"
            " AND revoked_at IS NULL",
            rotated,
        )
    )
    return ended + _count(
        await lent.execute(
            "UPDATE access_key k SET revoked_at = l.at FROM ledger l WHERE l.act = 'key.revoked'"
            " AND l.facts->>'key' = k.id AND k.revoked_at IS NULL"
        )
    )


async def _lock(lent: Connection, changed: list[str], locked: list[str]) -> int:
    """Sign everybody out, and lock the accounts that were locked or made safe since. A provider
    grants its people their rights anew at each sign-in.
    """
    await lent.execute("DELETE FROM session")
    return _count(
        await lent.execute(
            "UPDATE account SET locked_at = archive_now() WHERE locked_at IS NULL"
            " AND (id = ANY ($1) OR (id = ANY ($2) AND subject IS NULL))",
            locked,
            changed,
        )
    )


def _count(status: str) -> int:
    """How many rows a command says that it touched."""
    return int(status.rsplit(" ", 1)[1])
