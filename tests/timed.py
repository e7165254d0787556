"""What ends by the database's clock alone, without a look at the fuse: one of each."""

from datetime import datetime
from uuid import UUID

from archive.access import Caller, Level
from archive.recording import Call
from storage import database, exports, notices, uploads
from tests.roles import acting, connection
from tests.services import Service
from tests.web.test_cdrs import record, told
from tests.web.test_listen import upload

KINDS = frozenset({"record", "notice", "upload", "export"})


async def plant(service: Service, started_at: str, name: str) -> None:
    """The record of a call that started then, a notice that waits, an upload that is not finished,
    and an export that was asked for.
    """
    ingest, retrieval = (acting(service.vault, role) for role in ("ingest", "retrieval"))
    now = await database.now(service.vault.pool)
    fields = {"call_id": f"{name}-call", "call_type": "other", "started_at": started_at}
    call = Call.from_fields(fields, ingest.policy, now)
    await told(service, record(f"{name}-record", started_at=started_at))
    await notices.ask(ingest, "recorder", f"{name}-notice", call.expiry, {"delete_url": None})
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT level, id FROM access_key WHERE name LIKE 'test-%'")
    keys = {row["level"]: row["id"] for row in rows}
    sender = Caller(keys["uploader"], Level.UPLOADER, source="pbx")
    await uploads.begin(ingest, sender, call, {}, 1000, now)
    exported = UUID(await upload(service, f"{name}-exported", started_at=started_at))
    asker = Caller(keys["supervisor"], Level.SUPERVISOR)
    await exports.ask(retrieval, asker, [exported], "a complaint", now)


async def there(service: Service) -> dict[tuple[str, str], datetime]:
    """What of it there is, by its kind and name, and when it is over."""
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT 'record' AS kind, call_hash::text AS name, expires_at FROM cdr"
            " UNION ALL SELECT 'notice', id::text, expires_at FROM notice"
            " UNION ALL SELECT 'upload', id::text, expires_at FROM upload"
            " UNION ALL SELECT 'export', id::text, expires_at FROM export WHERE ended IS NULL"
        )
    return {(row["kind"], row["name"]): row["expires_at"] for row in rows}
