"""The embedded default: a real PostgreSQL and a real S3 server that live with the service.

Both come from installed packages and keep all that they have under `data_dir`:

    lock         who uses this data_dir (`app.claim`)
    postgres/    the cluster and, in it, its socket
    objects/     what the object store holds
    store.json   the object store's port and keys
    log/         what both say

Whatever is made here is open to its owner alone (0600, 0700), and no permission of anything else is
touched. The servers die with the service, also when it is killed; what one leaves behind is ended
and removed before the next starts; and one that dies alone is started again on the same address.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from app import claim, embedded_postgres, embedded_rclone
from app.child import Child, EmbeddedError
from app.claim import AlreadyRunningError, Claim, Found
from app.embedded_postgres import SocketFolder
from storage.roles import RIGHTS

__all__ = ["AlreadyRunningError", "Embedded", "EmbeddedError"]

log = logging.getLogger("archive.embedded")

CAUTION = (
    "the embedded %s for trial and small sites: one copy on this disk, no replica, no other"
    " machine takes over%s"
)
NO_FSYNC = (
    "; the object store does not wait for the disk, so a power cut may lose recordings that were"
    " acknowledged in the last minute"
)


class Embedded:
    """The embedded servers, from entering the context to leaving it.

    `join`: use those of a service that runs on this data_dir already, and leave them running.
    `own`: start them where no service does; without it that is an error.
    Entering raises AlreadyRunningError if the data_dir is in use, EmbeddedError if a server cannot
    be started, and OSError if the data_dir cannot be written. What is not wanted stays None.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        want_postgres: bool,
        want_s3: bool,
        join: bool = False,
        own: bool = True,
    ) -> None:
        self.database_url: str | None = None
        self.logins: dict[str, str] = {}
        self.endpoint: str | None = None
        self.access_key: str | None = None
        self.secret_key: str | None = None
        self.postgres: Child | None = None
        self.store: Child | None = None
        self._data_dir = data_dir.absolute()
        self._want_postgres = want_postgres
        self._want_s3 = want_s3
        self._join = join
        self._own = own
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Embedded":
        async with AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _open(self, stack: AsyncExitStack) -> None:
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (self._own or self._want_postgres or self._want_s3):
            return None  # a part beside others, which share the folder
        taken = await claim.take(self._data_dir / "lock", join=self._join)
        if isinstance(taken, Found):
            return self._use(taken, stack)
        stack.callback(taken.release)
        if not self._own and (self._want_postgres or self._want_s3):
            raise EmbeddedError(
                f"no service runs on {self._data_dir} whose embedded servers could be joined: the"
                " one with the jobs has them (`archive serve --only jobs`), start that first"
            )
        for name in ("log", "objects") if self._want_s3 else ("log",):
            (self._data_dir / name).mkdir(mode=0o700, exist_ok=True)
        if self._want_postgres or self._want_s3:
            await self._start(stack)
            self._warn()
        return self._publish(taken)

    async def _start(self, stack: AsyncExitStack) -> None:
        """Start both at once; if one cannot be, the other is ended by the stack."""
        starts = []
        if self._want_postgres:
            starts.append(asyncio.create_task(self._start_postgres(stack)))
        if self._want_s3:
            starts.append(asyncio.create_task(self._start_store(stack)))
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for each in starts:
                each.cancel()
            await asyncio.wait(starts)
            raise

    async def _start_postgres(self, stack: AsyncExitStack) -> None:
        cluster = self._data_dir / "postgres"
        user = await embedded_postgres.create_cluster(cluster)
        host = self._open_socket(cluster, stack)
        child = Child(
            embedded_postgres.program(cluster, user, host),
            self._data_dir / "log" / "postgres.log",
        )
        stack.push_async_callback(child.close)
        await child.start()
        self.postgres = child

    async def _start_store(self, stack: AsyncExitStack) -> None:
        unclean = self._data_dir / "objects.unclean"
        access = await asyncio.to_thread(
            embedded_rclone.choose_access, self._data_dir / "store.json"
        )
        child = Child(
            embedded_rclone.program(self._data_dir / "objects", access, unclean),
            self._data_dir / "log" / "rclone.log",
        )
        stack.push_async_callback(_close_store, child, unclean)
        await child.start()
        self.store = child
        self.endpoint = access.endpoint
        self.access_key, self.secret_key = access.access_key, access.secret_key

    def _use(self, found: Found, stack: AsyncExitStack) -> None:
        if (self._want_postgres and not found.postgres) or (self._want_s3 and not found.endpoint):
            raise EmbeddedError(
                f"the service that runs on {self._data_dir} has another configuration: use the"
                " same for both, or stop it"
            )
        if self._want_postgres and found.postgres:
            self._open_socket(Path(found.postgres), stack)
        if self._want_s3:
            self.endpoint = found.endpoint
            self.access_key, self.secret_key = found.access_key, found.secret_key

    def _open_socket(self, cluster: Path, stack: AsyncExitStack) -> str:
        sockets = SocketFolder(cluster)
        stack.callback(sockets.close)
        self.database_url = embedded_postgres.url(sockets.host)
        self.logins = {
            role: embedded_postgres.url(sockets.host, user=f"{embedded_postgres.NAME}_{role}")
            for role in RIGHTS
        }
        return sockets.host

    def _publish(self, taken: Claim) -> None:
        cluster = str(self._data_dir / "postgres") if self._want_postgres else None
        taken.publish(Found(cluster, self.endpoint, self.access_key, self.secret_key))

    def _warn(self) -> None:
        if self._want_postgres and self._want_s3:
            which = "database and object store are"
        else:
            which = "database is" if self._want_postgres else "object store is"
        log.warning(CAUTION, which, NO_FSYNC if self._want_s3 else "")


async def _close_store(child: Child, unclean: Path) -> None:
    """End the store; in good order means that no upload was just being written."""
    pid = child.pid
    orderly = pid is not None and not embedded_rclone.is_writing(pid)
    await child.close()
    if orderly:
        embedded_rclone.unmark(unclean)
