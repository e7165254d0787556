"""One server process: started, kept alive, its words written down, and ended.

It is started again whenever it dies while the service runs. Those that a killed service left alive
are found by a mark on their command line that only this folder's servers bear, and ended before a
new one starts.
"""

import asyncio
import logging
import os
import re
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("archive.embedded")

PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Seconds before a server that died is started again: the first time, the second, ..."""

STEADY = 30.0
"""Seconds that a server must live for its next death to count as the first again."""

READY_WITHIN = 60.0
"""Seconds until a new server must answer; PostgreSQL may have to read its journal first."""

POLL = 0.02
"""Seconds between two looks at whether something has happened that nobody tells of."""

LOG_BYTES = 5_000_000
"""A log begins anew at this size; the one before is kept beside it."""


class EmbeddedError(Exception):
    """An embedded server cannot be started. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a server is: how to start it, to see that it answers, and to end it.

    `prepare` runs before each start and gives the command line. `ready` returns when the server
    answers; ConnectionError and OSError mean not yet. `endings` are the signals that end it, each
    with the seconds that it gets to do so. `boring` are words of log lines that are dropped.
    """

    name: str
    environment: Mapping[str, str]
    prepare: Callable[[], Awaitable[Sequence[str]]]
    ready: Callable[[], Awaitable[None]]
    mark: str
    endings: Sequence[tuple[signal.Signals, float]]
    boring: bytes | None = None


class Child:
    """A running `Program`, from `start` to `close`."""

    def __init__(self, program: Program, log_file: Path) -> None:
        self._program = program
        self._log_file = log_file
        self._last_words: deque[str] = deque(maxlen=8)
        self._process: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it, wait until it answers, and keep it alive from then on.

        Raises EmbeddedError when it ends instead, or does not answer in READY_WITHIN.
        """
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End it, gently first; returns when it is gone."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._end()

    async def _keep(self) -> None:
        deaths, started = 0, time.monotonic()
        while self._process:
            status = await self._process.wait()
            deaths = 0 if time.monotonic() - started > STEADY else deaths
            log.error("%s ended (%s); starting it again", self._program.name, describe(status))
            await asyncio.sleep(PAUSES[min(deaths, len(PAUSES) - 1)])
            deaths, started = deaths + 1, time.monotonic()
            try:
                await self._launch()
            except (EmbeddedError, OSError) as error:
                log.error("%s does not start: %s", self._program.name, error)  # noqa: TRY400
            else:
                log.warning("%s answers again", self._program.name)

    async def _launch(self) -> None:
        await end_leftovers(self._program.mark, self._program.endings)
        command = await self._program.prepare()
        self._last_words.clear()
        self._process = process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._program.environment,
            cwd="/",
        )
        self._listener = asyncio.create_task(self._listen(process, self._listener))
        try:
            await self._until_ready(process)
        except EmbeddedError:
            await self._end()
            raise

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        name = self._program.name
        ended = asyncio.create_task(process.wait())
        try:
            async with asyncio.timeout(READY_WITHIN):
                while not ended.done():
                    with suppress(OSError):
                        return await self._program.ready()
                    await asyncio.wait([ended], timeout=POLL)
        except TimeoutError:
            raise EmbeddedError(f"{name} does not answer after {READY_WITHIN:.0f} s") from None
        finally:
            ended.cancel()
        if self._listener:
            await asyncio.wait([self._listener], timeout=1)
        said = " | ".join(self._last_words) or describe(ended.result())
        raise EmbeddedError(
            f"{name} did not start; its last words, also in {self._log_file}: {said}"
        )

    async def _end(self) -> None:
        process = self._process
        for number, patience in self._program.endings if process else ():
            if process is None or process.returncode is not None:
                break
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience)
        await end_leftovers(self._program.mark, self._program.endings[-1:])
        if self._listener:
            await asyncio.wait([self._listener], timeout=0.5)  # its last words
            self._listener.cancel()
            await asyncio.wait([self._listener])

    async def _listen(
        self, process: asyncio.subprocess.Process, before: "asyncio.Task[None] | None"
    ) -> None:
        """Write down what it says; nobody else reads the pipe, so a full disk must not end this."""
        if before:
            before.cancel()
        assert process.stdout
        rest = b""
        while block := await process.stdout.read(65536):
            *lines, rest = (rest + block).split(b"\n")
            rest = rest[-65536:]
            boring = self._program.boring
            wanted = [line for line in lines if not (boring and boring in line)]
            self._last_words.extend(line.decode(errors="replace")[:300] for line in wanted)
            with suppress(OSError):
                append(self._log_file, b"".join(line + b"\n" for line in wanted))


def append(file: Path, text: bytes) -> None:
    """Add to a log that only its owner reads, keeping at most two files of LOG_BYTES."""
    if not text:
        return
    opened = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(opened, text)
        if os.fstat(opened).st_size > LOG_BYTES:
            file.replace(file.with_suffix(".log.1"))
    finally:
        os.close(opened)


def describe(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"status {status}"
    return f"signal {signal.Signals(-status).name}"


def mark_of(folder: Path) -> str:
    """What the servers of this folder bear on their command lines, and no others."""
    facts = folder.stat()
    return f"archive-{facts.st_dev:x}-{facts.st_ino:x}"


def leftovers(mark: str) -> list[int]:
    """The living processes that bear the mark, in one of the places where a server wears it."""
    worn = re.compile(rb"(postgres: |cluster_name=|--user-agent=)" + mark.encode() + rb"(?![\w-])")
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it ended meanwhile
                if worn.search(Path(entry.path, "cmdline").read_bytes()):
                    found.append(int(entry.name))
    return found


async def end_leftovers(mark: str, endings: Sequence[tuple[signal.Signals, float]]) -> None:
    """End every process that bears the mark, gently first; those just ending get their time."""
    for number, patience in endings:
        alive = leftovers(mark)
        if not alive:
            return
        log.info("ending %d processes of an earlier start (%s)", len(alive), number.name)
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        for _ in range(int(patience / POLL)):
            if not leftovers(mark):
                return
            await asyncio.sleep(POLL)
