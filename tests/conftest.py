"""What every test shares."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from storage import schema
from storage.objects import ObjectStore
from storage.vault import Vault
from tests import years
from tests.postgres import Postgres
from tests.services import Service, open_service, open_vault
from tests.stores.servers import rclone_server, rclone_store
from tests.unhidden import pytest_sessionfinish, pytest_terminal_summary

__all__ = [
    "pytest_sessionfinish",
    "pytest_terminal_summary",
    "rclone_server",
    "rclone_store",
]

# A machine that is busy is no fault of what is tried.
settings.register_profile("archive", deadline=None)
settings.load_profile("archive")


@pytest.fixture(autouse=True)
def clocks_that_go_on() -> Iterator[None]:
    """A test may wait for the end of a year whenever it runs."""
    with years.going_on():
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL of this test process."""
    server = Postgres()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def database_url(postgres: Postgres) -> str:
    """A database with the schema, for this test alone."""
    return await postgres.fresh_database(schema.migrate)


@pytest.fixture
async def vault(
    database_url: str, rclone_store: ObjectStore, tmp_path: Path
) -> AsyncIterator[Vault]:
    """A vault over a real database and a real store."""
    async with open_vault(database_url, rclone_store, tmp_path, as_roles=True) as opened:
        yield opened


@pytest.fixture
async def service(vault: Vault) -> AsyncIterator[Service]:
    """The three doors, over the same."""
    async with open_service(vault) as opened:
        yield opened
