"""The reports of the nightly job, kept so that a missed night is seen and made up."""

from collections.abc import Mapping
from datetime import datetime

from storage.database import Connection


async def record(lent: Connection, ran_at: datetime, report: Mapping[str, object]) -> None:
    """Keep the report of one run."""
    await lent.execute("INSERT INTO night (ran_at, report) VALUES ($1, $2)", ran_at, dict(report))


async def last(lent: Connection) -> datetime | None:
    """When the nightly job last ran to its end, by the database's clock."""
    found: datetime | None = await lent.fetchval("SELECT max(ran_at) FROM night")
    return found
