"""The rows of a day as `storage.upkeep.comparison` walks them: the objects that they name, and how
long those are.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import date
from uuid import UUID

import asyncpg

from archive.lifecycle import State
from storage import recordings
from storage.database import connection
from storage.sealing import sealed_length
from storage.vault import Vault

_PAGE = 1000


@dataclass(slots=True)
class Row:
    """What a row says of an object: where it is and, in bytes, how long.

    `over`: its time has run out. `whole`: its object was seen. `copy` is the redacted copy that
    stands, if one does.
    """

    id: UUID
    state: str
    key: str
    length: int
    over: bool
    whole: bool = False
    copy: "Row | None" = None

    @property
    def name(self) -> str:
        """What follows the day in the names of all its objects."""
        return f"{self.id}/"


async def rows(vault: Vault, day: date) -> AsyncGenerator[Row, None]:
    """The rows of a day in the order of their ids, which is that of their objects' names."""
    after = UUID(int=0)
    while True:
        async with connection(vault.pool) as lent:
            page = await lent.fetch(
                "SELECT id, attempt, state, bytes, length(header) + length(details) AS head,"
                " redacted, redacted_bytes, length(redacted_header) + length(redacted_details)"
                " AS redacted_head,"
                " coalesce(lease_until < (SELECT archive_now()), false) AS over FROM recording"
                " WHERE expires_on = $1 AND id > $2 ORDER BY id LIMIT $3",
                day,
                after,
                _PAGE,
            )
        for row in page:
            key, length, copy = "", 0, None
            if row["state"] == State.STORED:
                key = recordings.object_key(day, row["id"], row["attempt"])
                length = row["head"] + sealed_length(row["bytes"])
                copy = _copy(day, row)
            yield Row(row["id"], row["state"], key, length, row["over"], copy=copy)
        if len(page) < _PAGE:
            return
        after = page[-1]["id"]


def _copy(day: date, row: asyncpg.Record) -> Row | None:
    if row["redacted"] is None:
        return None
    key = recordings.object_key(day, row["id"], row["redacted"])
    # What is known as lost already has no length that an object could have.
    head = row["redacted_head"]
    length = head + sealed_length(row["redacted_bytes"]) if head else 1
    return Row(row["id"], row["state"], key, length, over=False)
