"""Hostile audio: mutated samples of every codec and playlists in every disguise, through the real
workers.

    .venv/bin/python tools/fuzz_audio.py --count 100000 --seed 1

Each body is received as an upload is, measured, and if it is taken sometimes copied and drawn. It
may be refused, taken, given up (for want of a word for what is wrong) or cost a worker its life;
nothing else may happen. A listener, a file and the folder for temporary files are watched: a
playlist that was followed would show there. But for the canary's name, a case is made from the seed
and its number alone, so that `--first N --count 1` makes one again; `--keep` writes the bodies that
were given up, or killed a worker, into a folder. The exit status is 0 when all promises held.
"""

import argparse
import asyncio
import ctypes
import os
import re
import select
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from random import Random
from typing import ClassVar
from uuid import UUID

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from archive.errors import NotAudioError, TooLargeError, UnavailableError  # noqa: E402
from storage.audio import pool as pool_module  # noqa: E402
from storage.audio.formats import NAMES  # noqa: E402
from storage.audio.pool import AudioPool, Format, SealedSource  # noqa: E402
from storage.sealing import Identity, Seal  # noqa: E402
from storage.spool import Spool  # noqa: E402
from tests.storage.soundfiles import tone, wav  # noqa: E402
from tools.fuzz_disguises import Playlists, case, samples  # noqa: E402

LIMIT = 12 * 3600.0
_IN_OPEN_OR_ACCESS = 0x21
_IN_NONBLOCK = 0o4000


class Canary:
    """A sound file and a listener that nobody has reason to touch."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "canary.wav"
        self.file.write_bytes(wav(tone(1)))
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._tcp.getsockname()[1])
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(_IN_NONBLOCK)
        if libc.inotify_add_watch(self._watch, os.fsencode(self.file), _IN_OPEN_OR_ACCESS) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def sang(self) -> list[str]:
        """What was touched so far."""
        ready = select.select([self._tcp, self._udp, self._watch], [], [], 0)[0]
        names = {self._tcp: "a connection", self._udp: "a datagram", self._watch: "the file"}
        return [names[each] for each in ready]

    def is_awake(self) -> bool:
        """Would it have noticed? Only to be asked at the end, for this touches it."""
        self.file.read_bytes()
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"x", ("127.0.0.1", self.port))
        return len(self.sang()) == 3

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()
        os.close(self._watch)


class _Seen(pool_module._Worker):
    """A worker of which it is remembered how it ended."""

    all: ClassVar[list["_Seen"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.all.append(self)


@dataclass
class Found:
    """What became of the bodies, and what must not have happened."""

    outcomes: Counter[str] = field(default_factory=Counter)
    deaths: Counter[int] = field(default_factory=Counter)  # by the status of the process
    given_up: list[int] = field(default_factory=list)
    memory: int = 0
    slowest: tuple[float, int] = (0.0, -1)
    faults: list[str] = field(default_factory=list)


class Run:
    """Cases `first` and on, of `seed`, through `workers` workers."""

    def __init__(self, seed: int, folder: Path, workers: int, keep: Path | None) -> None:
        self.found = Found()
        self._seed, self._workers, self._keep = seed, workers, keep
        self._spool = folder / "spool"
        self._spool.mkdir()
        (folder / "canary").mkdir()
        self._canary = Canary(folder / "canary")
        self._whole = samples()
        self._lists = Playlists(self._canary.file, self._canary.port)
        self._pool = AudioPool(workers)

    async def cases(self, first: int, count: int) -> Found:
        numbers = iter(range(first, first + count))

        async def some() -> None:
            for number in numbers:
                await self._one(number)
                if number % 5000 == 0:
                    print(f"{number}: {dict(self.found.outcomes)}", flush=True)

        try:
            await asyncio.gather(*(some() for _ in range(self._workers)))
            await self._still_well()
        finally:
            statuses = [worker.process.returncode for worker in _Seen.all]
            self.found.deaths.update(each for each in statuses if each is not None)
            await self._pool.close()
            self._look_for_traces()
            self._canary.close()
        return self.found

    async def _one(self, number: int) -> None:
        fate = Random(f"{self._seed}/{number}")  # noqa: S311
        body, media = case(fate, self._whole, self._lists)
        begun = time.monotonic()
        try:
            outcome = await self._feed(body, media, fate)
        except Exception as error:
            outcome = "fault"
            self.found.faults.append(f"case {number}: {type(error).__name__}")
        self.found.outcomes[outcome] += 1
        self.found.slowest = max(self.found.slowest, (time.monotonic() - begun, number))
        if outcome.startswith("given up"):
            self.found.given_up.append(number)
            if self._keep:
                (self._keep / f"{self._seed}-{number}").write_bytes(body)
        self._weigh()

    async def _feed(self, body: bytes, media: str | None, fate: Random) -> str:
        seal = Seal.new(Identity(date(2027, 1, 1), UUID(int=1), UUID(int=2)))
        with await Spool.receive(self._spool, seal, _pieces(body), 1 << 29) as spool:
            source = SealedSource(spool.fd, 0, spool.size, seal.reader_keys())
            try:
                facts = await self._pool.probe(source, media, NAMES, LIMIT)
            except NotAudioError as error:
                return "given up in measuring" if "safely" in error.detail else "refused"
            except TooLargeError:
                return "too long"
            if not (0 < facts.duration <= LIMIT and 1 <= facts.channels <= 16):
                raise ValueError("impossible facts")
            if facts.duration < 600 and fate.random() < 0.1:
                again = SealedSource(spool.fd, 0, spool.size, source.keys, facts.container)
                return await self._use(again, fate)
        return "taken"

    async def _use(self, source: SealedSource, fate: Random) -> str:
        formats: tuple[Format, ...] = ("wav", "mp3", "ogg")
        try:
            await self._pool.waveform(source, 100)
            async with self._pool.transcode(source, fate.choice(formats)) as pieces:
                async for _ in pieces:
                    pass
        except UnavailableError:
            return "given up in copying"
        except NotAudioError as error:
            return "given up in drawing" if "safely" in error.detail else "taken, not copied"
        return "taken, drawn and copied"

    def _weigh(self) -> None:
        for worker in self._pool._all:
            with suppress(FileNotFoundError):
                status = Path(f"/proc/{worker.process.pid}/status").read_text()
                if most := re.search(r"VmHWM:\s+(\d+)", status):
                    self.found.memory = max(self.found.memory, int(most[1]))

    async def _still_well(self) -> None:
        body = wav(tone(2))
        for _ in range(self._workers):
            if await self._feed(body, None, Random(0)) not in ("taken", "taken, drawn and copied"):  # noqa: S311
                self.found.faults.append("afterwards a plain WAV was not taken")

    def _look_for_traces(self) -> None:
        self.found.faults += [f"the canary sang: {what}" for what in self._canary.sang()]
        left = [*self._spool.iterdir(), *(Path(tempfile.gettempdir()).iterdir())]
        self.found.faults += [f"left over: {each.name}" for each in left]
        if not self._canary.is_awake():
            self.found.faults.append("the canary would not have noticed")


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    yield body


def fuzz(seed: int, first: int, count: int, workers: int = 2, keep: Path | None = None) -> Found:
    """Feed the cases; what was found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        kept = tempfile.tempdir, pool_module._Worker
        tempfile.tempdir, pool_module._Worker = str(folder / "tmp"), _Seen
        _Seen.all.clear()
        try:
            return asyncio.run(Run(seed, folder, workers, keep).cases(first, count))
        finally:
            tempfile.tempdir, pool_module._Worker = kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path)
    asked = parser.parse_args()
    begun = time.monotonic()
    found = fuzz(asked.seed, asked.first, asked.count, asked.workers, asked.keep)
    seconds = time.monotonic() - begun
    print(f"{asked.count} bodies in {seconds:.0f} s, {asked.count / seconds:.0f} a second")
    for outcome, number in sorted(found.outcomes.items()):
        print(f"{number:>8}  {outcome}")
    print(f"workers that died, by status: {dict(found.deaths)}")
    print(f"given up: {found.given_up}")
    print(f"most memory of a worker: {found.memory / 1024:.0f} MiB")
    print(f"longest case: {found.slowest[0]:.1f} s, number {found.slowest[1]}")
    for fault in found.faults:
        print(f"FAULT: {fault}")
    print("all promises held" if not found.faults else "NOT all promises held")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
