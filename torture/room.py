"""The room itself: real servers, and an archive over a fresh database and bucket for each round."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from archive import frozen
from storage import schema
from storage.objects import ObjectStore
from tests.app.child_service import House
from tests.postgres import Postgres
from tests.services import Service, open_service, open_vault
from tests.stores.servers import Server, running_rclone, running_rgw


@dataclass(frozen=True, slots=True)
class Room:
    """A PostgreSQL and an rclone that run; `gateway` gives Ceph's, and starts it if need be."""

    postgres: Postgres
    rclone: Server
    gateway: Callable[[], Server]
    folder: Path

    def place(self) -> Path:
        """A new folder."""
        place = self.folder / uuid4().hex[:12]
        place.mkdir(mode=0o700)
        return place

    async def database(self) -> str:
        """A new database with the schema; its address."""
        return await self.postgres.fresh_database(schema.migrate)

    def versioned(self) -> Server:
        """Ceph's gateway, with buckets that keep versions."""
        return replace(self.gateway(), kind="rgw-versioned", versioned=True)

    @asynccontextmanager
    async def store(self, server: Server | None = None) -> AsyncIterator[ObjectStore]:
        """A new bucket."""
        store = await (server or self.rclone).connect()
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def service(self, server: Server | None = None) -> AsyncIterator[Service]:
        """An archive in this process over a new database and bucket."""
        async with (
            self.store(server) as store,
            open_vault(await self.database(), store, self.place()) as vault,
            open_service(vault) as opened,
        ):
            yield opened

    @asynccontextmanager
    async def house(self) -> AsyncIterator[tuple[House, Service]]:
        """What services in processes of their own have in common, and a look behind them."""
        url, folder = await self.database(), self.place()
        async with (
            self.store() as store,
            open_vault(url, store, folder) as vault,
            open_service(vault) as service,
        ):
            yield House(url, self.rclone, bucket_of(store), folder), service


def bucket_of(store: ObjectStore) -> str:
    """The name of a store's bucket."""
    return store._bucket._path.removeprefix("/")


@dataclass(slots=True)
class _Gateway:
    """Ceph's gateway, from the first that asks until the room is left."""

    stack: ExitStack
    shared: Path
    server: Server | None = field(default=None)

    def __call__(self) -> Server:
        if self.server is None:
            self.server = self.stack.enter_context(running_rgw(self.shared))
        return self.server


ANY_NUMBER = 1 << 40


@contextmanager
def uncapped() -> Iterator[None]:
    """Let any number of recordings fall due that were not known a day ago.

    Here nothing lasts a day, and the fuse would wait for a person.
    """
    usual = frozen.FEW
    frozen.FEW = ANY_NUMBER
    try:
        yield
    finally:
        frozen.FEW = usual


@contextmanager
def opened(folder: Path) -> Iterator[Room]:
    """Start the servers; all that they kept is gone at the end."""
    with ExitStack() as stack:
        stack.enter_context(uncapped())
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = Postgres(autovacuum="on")
        stack.callback(postgres.stop)
        rclone = stack.enter_context(running_rclone(folder / "rclone"))
        yield Room(postgres, rclone, _Gateway(stack, folder), folder)
