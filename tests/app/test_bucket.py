"""Whose bucket it is: an archive starts on its own, and on no other's."""

from pathlib import Path
from uuid import uuid4

import pytest

from app import config, rebuild
from app.config import Config
from app.vault import opened
from storage import schema
from storage.keyring import KeyRingError
from tests.postgres import Postgres
from tests.stores.servers import Server


async def test_no_archive_starts_on_the_bucket_of_another(
    postgres: Postgres, rclone_server: Server, tmp_path: Path
) -> None:
    bucket = f"shared-{uuid4()}"

    async def archive(name: str) -> Config:
        return config.load(
            None,
            {
                "ARCHIVE_SERVER_DATA_DIR": str(tmp_path / name),
                "ARCHIVE_KEYS_STORE": f"file:{tmp_path / name / 'keys'}",
                "ARCHIVE_KEYS_ROOT_FILE": str(tmp_path / name / "root.key"),
                "ARCHIVE_DATABASE_URL": await postgres.fresh_database(schema.migrate),
                "ARCHIVE_OBJECTS_ENDPOINT": rclone_server.endpoint,
                "ARCHIVE_OBJECTS_ACCESS_KEY": rclone_server.access_key,
                "ARCHIVE_OBJECTS_SECRET_KEY": rclone_server.secret_key,
                "ARCHIVE_OBJECTS_BUCKET": bucket,
            },
        )

    ours, other = await archive("ours"), await archive("other")
    for _ in range(2):
        async with opened(ours):
            pass
    with pytest.raises(KeyRingError, match="belongs to another archive"):
        async with opened(other):
            pass
    with pytest.raises(KeyRingError, match="belongs to another archive"):
        await rebuild.run(other, as_json=True)
    async with opened(ours):
        pass
