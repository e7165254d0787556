"""The database's roles: each part of the service has a login of its own, with the fewest rights.

The tables belong to their owner, who makes them (`storage.schema.migrate`) and runs commands. No
part of the service is the owner, so that none can alter a table, switch a trigger off, or give the
archive another clock. What a role may do stands in RIGHTS and nowhere else: as PostgreSQL is told
it, and as docs/roles.md has it.
"""

from collections.abc import Mapping

import asyncpg

from storage.database import Connection

_KEYS = "SELECT, UPDATE (used_at)"
_ENTRY = "INSERT (actor, act, recording, facts, ends_on, details)"
_TOLD = "SELECT (position, at, actor, act, recording, facts, sealed)"
_WATCHED = (
    "SELECT (id, source, call_type, expires_on, state, lease_until, started_at, expires_at, rule,"
    " received_at, verified_at, damaged_at)"
)
_PEOPLE = {
    "account": "SELECT (id, level, call_types, queues, teams, locked_at)",
    "session": "SELECT, UPDATE (seen_at)",
}
_EVERYBODY = {
    "migration": "SELECT",
    "archive": "SELECT",
    "policy": "SELECT",
    "ledger_head": "SELECT",
    "ledger_tile": "SELECT",
}

RIGHTS: Mapping[str, Mapping[str, str]] = {
    "ingest": {
        **_EVERYBODY,
        "access_key": _KEYS,
        "team": "SELECT",
        "glass": "SELECT (reader, until, ended_at)",
        "handed_over": "SELECT, INSERT, UPDATE (bytes), DELETE",
        "recording": "SELECT (id, source, call_type, expires_on, state, lease_until, attempt,"
        " call_hash, digest, started_at, expires_at, rule, received_at, direction, duration, bytes,"
        " channels, sample_rate, codec, container, flaws), INSERT (id, source, call_type,"
        " expires_on, state, lease_until, attempt, call_hash, digest, started_at, expires_at, rule,"
        " received_at, direction, duration, bytes, channels, sample_rate, codec, container, flaws,"
        " header, details), UPDATE (state)",
        "term": "INSERT",
        "filed": "INSERT",
        "upload": "SELECT, INSERT, UPDATE (length, received, stored, recording, digest, header,"
        " details), DELETE",
        "cdr": "SELECT (source, call_hash, hashes, ended_at, expires_on, details), INSERT (source,"
        " call_hash, hashes, started_at, ended_at, expires_at, expires_on, received_at, actor,"
        " details), UPDATE (hashes, ended_at, received_at, actor, recording, details)",
        "notice": "SELECT, INSERT (id, hook, mark, expires_at, expires_on, details),"
        " UPDATE (state, due_at, tries, failures, failure, recording, details)",
        "landing": "SELECT, INSERT, UPDATE, DELETE",
        "landing_left": "SELECT, INSERT, UPDATE, DELETE",
        "ledger_waiting": _ENTRY,
    },
    "retrieval": {
        **_EVERYBODY,
        **_PEOPLE,
        "access_key": _KEYS,
        "team": "SELECT",
        "recording": "SELECT, UPDATE (redacted, redacted_at, redacted_bytes, redacted_header,"
        " redacted_details, redacting_until)",
        "redaction_attempt": "SELECT, INSERT, DELETE",
        "holder": "SELECT",
        "glass": "SELECT, INSERT (id, reader, approver, lasts), UPDATE (granted_at, until,"
        " ended_at)",
        "export": "SELECT, INSERT (id, asker, asked_at, expires_at, expires_on, number,"
        " recordings, mass, reason), UPDATE (agreed_by, ended)",
        "reason": "SELECT, INSERT, UPDATE (until), DELETE",
        "listener": "SELECT, INSERT, UPDATE",
        "told": "SELECT",
        "term": "SELECT",
        "filed": "SELECT",
        "ledger": _TOLD,
        "ledger_waiting": _ENTRY,
    },
    "operations": {
        **_EVERYBODY,
        **_PEOPLE,
        "access_key": _KEYS,
        "team": "SELECT",
        "recording": _WATCHED,
        "glass": "SELECT, UPDATE (granted_at, until, ended_at)",
        "listener": "SELECT (stopped_at)",
        "cdr": "SELECT (source, started_at, ended_at, expires_at, received_at, recording)",
        "notice": "SELECT (state, asked_at, expires_at)",
        "landing": "SELECT",
        "holder": "SELECT",
        "ledger": _TOLD,
        "ledger_waiting": f"SELECT (number, at), {_ENTRY}",
        "told": "SELECT",
        "day": "SELECT",
        "night": "SELECT",
    },
    "jobs": {
        **_EVERYBODY,
        "archive": "SELECT, UPDATE (clock_mark, released_through, hold)",
        "recording": "SELECT, UPDATE (state, epoch, lease_until, call_hash, direction, added,"
        " verified_at, damaged_at), DELETE",
        "redaction_attempt": "SELECT, UPDATE (lease_until, swept), DELETE",
        "term": "SELECT, INSERT, DELETE",
        "upload": "SELECT (id, place, expires_at, recording), DELETE",
        "cdr": "SELECT, UPDATE (recording, details), DELETE",
        "notice": "SELECT (expires_at), DELETE",
        "export": "SELECT, UPDATE (recordings, reason, epoch, lease_until, attempt, done, packed,"
        " header, bytes, made_at, ended, erased_at), DELETE",
        "filed": "SELECT, DELETE",
        "ledger": _TOLD,
        "ledger_waiting": _ENTRY,
        "told": "SELECT",
        "day": "SELECT, INSERT, UPDATE (compared_at, erased, closed_at)",
        "frozen": "SELECT, INSERT, DELETE",
        "night": "SELECT, INSERT",
    },
    "sequencer": {
        **_EVERYBODY,
        "ledger_head": "SELECT, UPDATE (size, published)",
        "ledger_tile": "SELECT, INSERT, UPDATE (hashes)",
        "ledger": f"{_TOLD}, INSERT",
        "ledger_waiting": "SELECT, DELETE",
    },
    "sign_in": {
        **_EVERYBODY,
        "account": "SELECT, INSERT (id, name, subject, level, call_types, queues, teams),"
        " UPDATE (level, call_types, queues, teams, password, initial_until, factor, factor_step,"
        " signed_in_at)",
        "session": "SELECT, INSERT, DELETE",
        "sign_in_try": "SELECT, INSERT, UPDATE, DELETE",
        "sign_in_done": "SELECT, INSERT, DELETE",
        "ledger_waiting": _ENTRY,
    },
}
"""For each role and table what it may do; of what is not here it may do nothing."""

ERASES = "jobs"
"""The one role that may take a recording's last steps."""

_MAKE = (
    "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT"
)


async def grant(lent: Connection) -> list[str]:
    """Give each role its rights and take all others, as the owner of the tables.

    A role is named after the owner: `archive_ingest` where that is `archive`. Those that are not
    there are made where the owner may; returns the statements for the others, for who may.
    """
    owner: str = await lent.fetchval("SELECT current_user")
    own: str = await lent.fetchval(  # an extension's, or another's, are not ours to grant
        "SELECT string_agg(quote_ident(relname), ', ') FROM pg_class WHERE relkind IN ('r', 'v')"
        " AND relnamespace = 'public'::regnamespace AND pg_get_userbyid(relowner) = current_user"
    )
    missing = []
    async with lent.transaction():
        await lent.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        for role, tables in RIGHTS.items():
            name = await _quoted(lent, f"{owner}_{role}")
            if not await _made(lent, f"{owner}_{role}", _MAKE.format(name)):
                missing.append(_MAKE.format(name) + ";")
                continue
            await lent.execute(
                f"REVOKE ALL ON {own} FROM {name};"
                f"REVOKE ALL ON FUNCTION may_erase(), may_unmake(), may_grant()"
                f" FROM {name};"
                f"GRANT USAGE ON SCHEMA public TO {name};"
                + "".join(
                    f"GRANT {rights} ON {table} TO {name};" for table, rights in tables.items()
                )
                + (f"GRANT EXECUTE ON FUNCTION may_erase() TO {name};" if role == ERASES else "")
            )
    return missing


async def _made(lent: Connection, name: str, make: str) -> bool:
    """Whether the role is there now."""
    if await lent.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", name):
        return True
    try:
        async with lent.transaction():
            await lent.execute(make)
    except asyncpg.InsufficientPrivilegeError:
        return False
    except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
        pass  # another database of the same server was just given its roles
    return True


async def _quoted(lent: Connection, name: str) -> str:
    found: str = await lent.fetchval("SELECT quote_ident($1)", name)
    return found
