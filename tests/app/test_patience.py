"""Commands that look at everything are not cut off as a statement of the service is."""

from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from app import config, expire, rebuild
from app.config import Config
from archive.errors import UnavailableError
from storage import database

COMMANDS: list[tuple[Callable[[Config], Awaitable[int]], float]] = [
    (lambda loaded: rebuild.run(loaded, as_json=True), database.LONG),
    (lambda loaded: expire.act(loaded, date(2026, 11, 25), "", as_json=True), database.LONG),
    (lambda loaded: expire.say(loaded, None, as_json=True), database.PATIENCE),
]


@pytest.mark.parametrize(("command", "patience"), COMMANDS)
async def test_a_rebuild_and_a_release_take_the_time_that_they_need(
    command: Callable[[Config], Awaitable[int]],
    patience: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look at a ledger of millions, or at all that a missed month left, that ends after a minute
    would end so each time.
    """
    asked: list[float] = []

    async def open_pool(url: str, size: int = 20, patience: float = database.PATIENCE) -> Any:
        asked.append(patience)
        raise UnavailableError("The database is away; try again.")

    monkeypatch.setattr(database, "open_pool", open_pool)
    monkeypatch.delenv("ARCHIVE_TOKEN_FILE", raising=False)
    loaded = config.load(
        None,
        {
            "ARCHIVE_SERVER_DATA_DIR": str(tmp_path),
            "ARCHIVE_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
            "ARCHIVE_OBJECTS_ENDPOINT": "http://127.0.0.1:9",
            "ARCHIVE_OBJECTS_ACCESS_KEY": "key",
            "ARCHIVE_OBJECTS_SECRET_KEY": "secret",
        },
    )
    with pytest.raises(UnavailableError):
        await command(loaded)
    assert asked == [patience]
