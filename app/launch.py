"""The last step before a server's own program: run as a script, it becomes that program.

Between fork and exec a server gets what it cannot give itself. It dies with the service. It holds
its folder as an open directory under a fixed number, so that no parent folder has to be opened to
anybody, and an exclusive lock on it, which every process that it forks shares: while the lock can
be taken, none of them is left. And where the service is root, which PostgreSQL refuses, it is
nobody of note: root's number without root's rights in a user namespace of its own, or where these
are forbidden a number that nobody else has.

It is a program of its own since the service has threads, beside which no Python may run after a
fork. Whatever is in the way ends it with one of the statuses below and one sentence on stderr.
"""

import ctypes
import errno
import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

FOLDER = "/proc/self/fd/9"
"""What the server calls its folder."""

NO_PARENT = 95
NO_NAMESPACE = 96
NO_PROGRAM = 97
IN_USE = 98

PATIENCE = 5.0
"""Seconds to wait for the processes of an earlier server that still hold the folder."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000


@dataclass(frozen=True, slots=True)
class User:
    """As whom a server runs: as the service itself, or under `number`.

    `namespaced`: it believes to be `number`, in a namespace where the service's own number is
    called so. Its files are the service's, and it has no rights over others'.
    """

    number: int | None = None
    namespaced: bool = False

    @classmethod
    def parse(cls, word: str) -> "User":
        """Read what `str` wrote."""
        if word == "same":
            return cls()
        return cls(int(word.removeprefix("namespaced:")), word.startswith("namespaced:"))

    def __str__(self) -> str:
        if self.number is None:
            return "same"
        return f"namespaced:{self.number}" if self.namespaced else str(self.number)


def command(
    user: User, death: signal.Signals, folder: Path | None, program: list[str]
) -> list[str]:
    """The command line by which this process starts a program through this file.

    Without a folder the program holds none.
    """
    start = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(death))]
    return [*start, str(folder or ""), str(user), *program]


def main(parent: int, death: int, folder: str, user: User, program: list[str]) -> NoReturn:
    """Become `program`."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o077)
    os.setsid()  # a Ctrl-C at the terminal is for the service, which still needs its servers
    if folder:
        try:
            os.dup2(hold(folder), int(Path(FOLDER).name), inheritable=True)
        except TimeoutError as error:
            _fail(IN_USE, str(error))
    if user.number is not None and user.namespaced:
        _enter_namespace(libc, user.number)
    elif user.number is not None:
        os.setgroups([])
        os.setresgid(user.number, user.number, user.number)
        os.setresuid(user.number, user.number, user.number)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, death)  # after the change of user, which would clear it
    if os.getppid() != parent:
        _fail(NO_PARENT, "the service ended")
    try:
        os.execv(program[0], program)  # noqa: S606 (no shell is what is wanted)
    except OSError as error:
        _fail(NO_PROGRAM, f"{program[0]} cannot be run: {error.strerror}")


def hold(folder: str) -> int:
    """Open a folder and take its lock when all processes of an earlier server are gone.

    Raises TimeoutError when that takes longer than PATIENCE.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return opened
        except BlockingIOError:
            if time.monotonic() > until:
                os.close(opened)
                raise TimeoutError(f"another server still works in {folder}") from None
            time.sleep(0.02)


def _enter_namespace(libc: ctypes.CDLL, inside: int) -> None:
    user, group = os.geteuid(), os.getegid()
    try:
        with suppress(PermissionError):  # only root may; others keep their groups
            os.setgroups([])
        if libc.unshare(_CLONE_NEWUSER):
            _fail(NO_NAMESPACE, f"no user namespace here: {os.strerror(ctypes.get_errno())}")
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{inside} {user} 1"),
            ("gid_map", f"{inside} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123
                file.write(line)
    except OSError as error:
        _fail(NO_NAMESPACE, f"no user namespace here: {os.strerror(error.errno or errno.EPERM)}")


def _fail(status: int, sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], User.parse(sys.argv[4]), sys.argv[5:])
