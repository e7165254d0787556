"""A directory that others write into: what lies in it, read and removed without following anybody.

Whoever may write there may give files any name and put links, pipes and folders in each other's
place while they are looked at. So nothing is opened by its whole path: every part is opened for
itself and never through a link, what was opened is compared with what was seen, and only a regular
file is read. Names are bytes to the system and may be no text; here they are `str` with the
system's escapes.

A file is quiet when its size, its time and its inode stayed the same for a while. Asterisk does not
write while a call is paused, though, and keeps the file open: where the kernel can say that a
process still has it open for writing (a lease, on file systems of this machine), that counts too.
"""

import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Self

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ENTER = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY

_TEMPORARY = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", "~")


class ChangedError(Exception):
    """What was seen is not there any more, or is another file by now."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A regular file as it was seen: its path from the directory on, and its stamp."""

    path: str
    size: int
    changed: int
    inode: int

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def stamp(self) -> str:
        """What changes when somebody writes to it."""
        return f"{self.size}-{self.changed}-{self.inode}"

    @property
    def key(self) -> bytes:
        """What it is remembered by: a name may tell of a person."""
        return hashlib.sha256(os.fsencode(self.path)).digest()[:16]

    def beside(self, name: str) -> str:
        """The path of another file in the same folder, or `name` itself if it is a whole path."""
        return str(PurePosixPath(self.path).parent / name)


class Folder:
    """A directory that is held open. `close` it, or use it as a context."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Who breaks a lease sends this signal, and it ends a process that has not said otherwise.
        signal.signal(signal.SIGIO, signal.SIG_IGN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._fd)

    def lock(self) -> bool:
        """Hold the directory for as long as it is open; False when somebody does already.

        Where a file system knows no such lock (NFS) nobody is kept out: two who deliver the same
        file hurt nothing, they are only slower.
        """
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def files(self) -> Iterator[Seen]:
        """Every regular file in it and in its folders, but hidden and temporary ones.

        Nothing is followed; a folder that cannot be read is left out.
        """
        for root, folders, names, fd in os.fwalk(".", dir_fd=self._fd):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                if name.startswith(".") or name.lower().endswith(_TEMPORARY):
                    continue
                with suppress(OSError):
                    facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(facts.st_mode):
                        yield _seen(os.path.normpath(f"{root}/{name}"), facts)

    def look(self, path: str) -> Seen | None:
        """The regular file of this path, as it is now; None when there is none."""
        try:
            with self.opened(path) as fd:
                return _seen(path, os.fstat(fd))
        except (ChangedError, PermissionError):
            return None

    @contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A file of this path, open for reading.

        Raises ChangedError when there is no such file, PermissionError when it may not be read.
        """
        try:
            with self._parent(path) as parent:
                fd = os.open(PurePosixPath(path).name, _OPEN, dir_fd=parent)
        except PermissionError:
            raise
        except OSError:
            raise ChangedError("it is gone") from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ChangedError("it is not a regular file")
            yield fd
        finally:
            os.close(fd)

    def remove(self, seen: Seen) -> bool:
        """Remove a file, if it still is what was seen; whether it did."""
        if self.look(seen.path) != seen:
            return False
        try:
            with self._parent(seen.path) as parent:
                os.unlink(seen.name, dir_fd=parent)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _parent(self, path: str) -> Iterator[int]:
        *folders, _ = PurePosixPath(path).parts
        if path.startswith("/"):
            # A whole path is of the configuration, not of who writes here.
            fd, folders = os.open(PurePosixPath(path).parent, _ENTER & ~os.O_NOFOLLOW), []
        else:
            fd = os.dup(self._fd)
        try:
            for part in folders:
                below = os.open(part, _ENTER, dir_fd=fd)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)


def _seen(path: str, facts: os.stat_result) -> Seen:
    return Seen(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


def is_being_written(fd: int) -> bool:
    """Whether a process of this machine has the file open for writing; False if nobody can say.

    The kernel gives a read lease only when nobody has. It gives one only to the file's owner (or
    with CAP_LEASE) and knows nothing of writers on other machines.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


class Quiet:
    """Since when each file has been as it is. Times are those of a clock that only goes forward."""

    def __init__(self) -> None:
        self._before: dict[bytes, tuple[str, float]] = {}
        self._since: dict[bytes, tuple[str, float]] = {}

    def begin(self) -> None:
        """Begin a look at all files; what is not asked for until the next is forgotten."""
        self._before, self._since = self._since, {}

    def for_how_long(self, seen: Seen, now: float) -> float:
        """Seconds for which it was seen with this stamp, and no other."""
        stamp, since = self._before.get(seen.key, ("", now))
        if stamp != seen.stamp:
            since = now
        self._since[seen.key] = seen.stamp, since
        return now - since
