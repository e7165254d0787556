"""Services that are born quickly: a process that has imported the whole archive, and forks.

To start a Python that imports all of it takes longer than to open the doors. A fork of one that has
is the same service, in a process of its own that dies by the same kill. The processes that decode
for it, which cost more than all the rest, are forked here as well, as it asks for them.

Run as a module it reads one order a line on its input, answers with a process id, and writes the
status of each that died beside its log. All of them die with it, and it with who started it.
"""

import ctypes
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import IO, Any, NoReturn, Self

from tests.app.child_service import Child, House

ROOT = Path(__file__).resolve().parent.parent
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True)
class Forked:
    """A service that another process is the parent of."""

    pid: int
    status: Path

    def poll(self) -> int | None:
        """How it ended, as `subprocess` tells it; None while it lives."""
        with suppress(FileNotFoundError, ValueError):
            return os.waitstatus_to_exitcode(int(self.status.read_text()))
        return None

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        until = time.monotonic() + timeout
        while (ended := self.poll()) is None:
            if time.monotonic() > until:
                raise TimeoutError("the service does not end")
            time.sleep(0.001)
        return ended


class Nursery:
    """The process that forks; made by entering it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "torture.nursery"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def bear(
        self, house: House, name: str, *, crash_at: str = "", passes: int = 0, ahead: float = 0
    ) -> Child:
        """Start a service, as `House.start` does; it comes by its last step so often unharmed."""
        environment = house.environment(name, crash_at=crash_at, ahead=ahead)
        environment["TEST_PASSES"] = str(passes)
        log = house.log(name)
        assert self._process.stdin and self._process.stdout
        log.touch()
        order = {"environment": environment, "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        return Child(Forked(pid, log.with_suffix(".status")), log)


class Decoder:
    """In a service, in the place of a worker's process: it lives until its socket is closed."""

    returncode = None

    def __init__(self, hand: socket.socket, *_: object, pass_fds: tuple[int], **__: object) -> None:
        socket.send_fds(hand, [b"w"], list(pass_fds))

    def poll(self) -> int | None:
        """None: how it ended nobody here can tell."""
        return None

    def kill(self) -> None:
        """Its socket is closed next, and that ends it."""

    def wait(self) -> None:
        """The nursery waits for it."""


class _Mother:
    """The nursery's own side: what it gave birth to, and where those ask for more."""

    def __init__(self) -> None:
        self._born: dict[int, Path] = {}
        self.asked, self._hand = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        signal.signal(signal.SIGCHLD, self._note)

    def serve(self, order: dict[str, Any]) -> int:
        """Fork a service; its process id."""
        log = Path(order["log"])
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if not pid:
            _serve(order["environment"], log.open("ab"), self._hand)
        self._born[pid] = log.with_suffix(".status")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        return pid

    def decode(self) -> None:
        """Fork a process that decodes, for whoever asked."""
        _, descriptors, _, _ = socket.recv_fds(self.asked, 1, 1)
        parent = os.getpid()
        if not os.fork():
            _decode(descriptors[0], parent)
        os.close(descriptors[0])

    def _note(self, *_: object) -> None:
        """Write down who died."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if place := self._born.pop(ended[0], None):
                    with suppress(FileNotFoundError):  # nobody wants to know any more
                        place.with_suffix(".new").write_text(str(ended[1]))
                        place.with_suffix(".new").replace(place)


def main() -> None:
    """Be the nursery."""
    _die_with_parent()
    mother = _Mother()
    with selectors.DefaultSelector() as waiting:
        waiting.register(0, selectors.EVENT_READ)
        waiting.register(mother.asked, selectors.EVENT_READ)
        orders = b""
        while True:
            for key, _ in waiting.select():
                if key.fileobj is mother.asked:
                    mother.decode()
                    continue
                if not (more := os.read(0, 1 << 16)):
                    return
                *lines, orders = (orders + more).split(b"\n")
                for line in lines:
                    print(mother.serve(json.loads(line)), flush=True)


def _serve(environment: dict[str, str], log: IO[bytes], hand: socket.socket) -> NoReturn:
    """Be a service."""
    from storage.audio import pool
    from tests.app import child_service

    _begin(log.fileno())
    log.close()
    os.environ.clear()
    os.environ.update(environment)
    _die_at(environment.get("ARCHIVE_CRASH_AT"), int(environment["TEST_PASSES"]))
    if environment.get("TEST_HURRY"):
        from torture.hands import hurry

        hurry()
    popen = partial(Decoder, hand)
    pool.subprocess = SimpleNamespace(Popen=popen, DEVNULL=None)  # type: ignore[assignment]
    status = 1
    try:
        child_service.main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _die_at(step: str | None, passes: int) -> None:
    """Die at a step, after it was reached so often before."""
    from storage import steps

    left = {step: passes}
    steps._crash_at = step
    usual = steps.reached

    def reached(name: str) -> None:
        if name == step and left[step]:
            left[step] -= 1
        else:
            usual(name)

    steps.reached = reached


def _decode(descriptor: int, parent: int) -> NoReturn:
    """Be a process that decodes, and has nothing else open."""
    from storage.audio import worker

    worker._warm_up = lambda: None  # whoever forked this one has done it
    _begin(os.open(os.devnull, os.O_WRONLY))
    os.dup2(descriptor, worker._CONTROL)
    os.closerange(worker._CONTROL + 1, 1024)
    try:
        worker.main(worker._CONTROL, parent)
    finally:
        os._exit(0)


def _begin(out: int) -> None:
    """Be a process of one's own, which says what it says to `out`."""
    _die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _die_with_parent() -> None:
    """And be told of the end of whatever those leave behind who are born here."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


if __name__ == "__main__":
    # All that is imported and loaded when they run, so that none has to do it again.
    import gc

    import uvloop  # noqa: F401

    from app import check, serve  # noqa: F401
    from archive import frozen
    from storage.audio.worker import _warm_up
    from torture.room import ANY_NUMBER

    frozen.FEW = ANY_NUMBER

    _warm_up()
    gc.freeze()  # and that none looks through it
    main()
