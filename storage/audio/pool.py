"""The parent's side of the processes that decode: started when needed, kept, replaced when dead.

A worker has one job at a time. Whoever leaves before the answer is there (a listener who hangs up,
an upload that is cancelled) costs the worker its life, for nothing else stops a decoder at once;
the next job starts another, in about 0.3 s. A copy is handed on packet by packet over a socket that
holds a few of them, so that a slow listener slows the encoder and memory stays bounded.

A file on which a worker dies is tried once more in a new one, because the death may have had other
reasons; if that dies as well, or the processor time was used up, the file is refused. Who asks for
too much memory gets none, and dies of that by its own hand. So a SIGKILL that was not sent from
here, by the OOM killer or an operator, is no word about the file, and neither is an answer that did
not come in time while processor time was left: the machine was slow or stood still. The file may
come again then. Messages of decoders are never passed on.
What comes from a worker is not believed either, since foreign code may have got hold of it: an
answer that does not read as one counts as the worker's death.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from archive.errors import NotAudioError, TooLargeError, UnavailableError
from archive.redaction import Cut
from storage.audio.facts import AudioFacts, SealedSource
from storage.audio.formats import Format
from storage.audio.places import Places
from storage.audio.sandbox import Sandbox
from storage.sealing import DamagedError

__all__ = ["AudioFacts", "AudioPool", "SealedSource"]

_UNSAFE = "The audio could not be decoded safely."
_NO_PROCESS = "No process for audio could be started."
_ANSWER = 1 << 18  # bytes of one packet, at most: 64 KiB of a copy, or the peaks of a waveform
_START = 30.0  # s until a worker must be ready
_STALL = 60.0  # s that an encoder may take for its next packet
_LOOKS, _LOOK = (
    100,
    0.02,
)  # how often, and after how many s, it is looked whether a worker has ended
_COMMAND = (sys.executable, "-m", "storage.audio.worker")
_ROOT = Path(__file__).parents[2]


class _DeadError(Exception):
    """No answer will come; `overran`: it took too much time; `outside`: no fault of the file."""

    def __init__(self, *, overran: bool = False, outside: bool = False) -> None:
        self.overran = overran
        self.outside = outside


class _Worker:
    """One process and the socket to it. `idle` while it has no job; `sandbox` once it is ready."""

    def __init__(self) -> None:
        self.idle = False
        self.sandbox = Sandbox()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            try:
                self.process = _start(theirs)
            except OSError:
                self._socket.close()
                raise

    async def receive(self, seconds: float) -> tuple[bytes, bytes]:
        """The next packet as kind and content. TimeoutError after `seconds`; _DeadError."""
        async with asyncio.timeout(seconds):
            try:
                packet = await asyncio.get_running_loop().sock_recv(self._socket, _ANSWER)
            except ConnectionError:
                packet = b""
        if not packet:
            raise await self._death()
        return packet[:1], packet[1:]

    async def _death(self) -> _DeadError:
        """What it died of. To live on behind a closed socket is to die by its own hand."""
        # The kernel closes the socket of a process before it tells how that ended, and Python long
        # before: who killed at once would find its own SIGKILL.
        looks = _LOOKS
        while (status := self.process.poll()) is None and looks:
            looks -= 1
            await asyncio.sleep(_LOOK)
        self.kill()
        return _DeadError(
            overran=self.process.returncode == -signal.SIGXCPU, outside=status == -signal.SIGKILL
        )

    async def ready(self) -> None:
        """Wait until it can take a job."""
        try:
            _, told = await self.receive(_START)
            self.sandbox = Sandbox.from_words(json.loads(told))
        except (_DeadError, TimeoutError) as error:
            raise UnavailableError(_NO_PROCESS) from error
        self.idle = True

    def send(self, job: Mapping[str, object], source: SealedSource) -> None:
        """Hand a job over. It fits into the empty socket, so this never waits."""
        self.idle = False
        try:
            socket.send_fds(self._socket, [json.dumps(job).encode()], [source.fd])
        except ConnectionError:
            self.kill()
            raise _DeadError(outside=True) from None  # it had not seen the file

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.wait()
        self._socket.close()


class AudioPool:
    """Up to `workers` processes that probe, draw and copy; `places`: who of those who hear may."""

    def __init__(self, workers: int) -> None:
        self._slots = asyncio.Semaphore(workers)
        self.places = Places(workers)
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._closed = False

    async def close(self) -> None:
        """End all workers; those who wait for one that is at work get UnavailableError."""
        self._closed = True
        for worker in self._idle:
            self._all.remove(worker)
            worker.kill()
        self._idle.clear()
        for worker in self._all:
            worker.process.kill()  # its socket stays open for whoever waits there to notice

    async def sandbox(self) -> Sandbox:
        """What confines the workers here. Raises UnavailableError when none can be started."""
        async with self._worker() as worker:
            worker.idle = True
            return worker.sandbox

    async def probe(
        self,
        source: SealedSource,
        content_type: str | None,
        allowed: frozenset[str],
        max_duration: float,
    ) -> AudioFacts:
        """Tell what the audio is and measure it; `max_duration` in seconds.

        Raises NotAudioError for what is not audio, not in `allowed`, or could not be decoded
        safely, TooLargeError as soon as it is found to be longer than `max_duration`, and
        UnavailableError when the machine kept it from being found out.
        """
        cpu = _probe_seconds(source.size, max_duration)
        job = {
            "do": "probe",
            "media": content_type,
            "allowed": sorted(allowed),
            "max_duration": max_duration,
        }
        found = await self._ask(job, source, cpu)
        container, codec, channels, rate, duration, flaws, told = found
        tags = tuple((name, text) for name, text in told)
        return AudioFacts(container, codec, channels, rate, duration, tuple(flaws), tags)

    async def waveform(self, source: SealedSource, points: int) -> list[list[int]]:
        """The highest absolute sample in each of `points` parts, per channel: 0 to 127."""
        if not 1 <= points <= 2000:
            raise ValueError("points: 1 to 2000")
        job = {"do": "waveform", "media": source.media, "allowed": None, "points": points}
        result: list[list[int]] = await self._ask(job, source, 900)
        return result

    @asynccontextmanager
    async def transcode(
        self,
        source: SealedSource,
        to: Format,
        samples: int | None = None,
        part: tuple[int, int] | None = None,
        cuts: Sequence[Cut] = (),
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A copy in another format, piece by piece, while it is made; see `render.transcode`.

        A `part` of a WAV of so many samples is its bytes from the first to before the second. A WAV
        is silent where a cut is.

        Leaving the context ends the work at once. Raises NotAudioError if there is nothing to
        decode, UnavailableError if the worker fails on the way.
        """
        start, stop = part or (0, 0)
        job = {
            "do": "wav part" if part else "transcode",
            "media": source.media,
            "allowed": None,
            "to": to,
            "samples": samples,
            "start": start,
            "stop": stop,
            "cuts": list(cuts),
        }
        async with self._worker() as worker:
            yield _pieces(worker, _complete(job, source, 3600), source)

    async def _ask(self, job: Mapping[str, object], source: SealedSource, cpu: float) -> Any:
        outside = False
        for _ in range(2):
            async with self._worker() as worker:
                try:
                    worker.send(_complete(job, source, cpu), source)
                    _, answer = await worker.receive(_wall_seconds(cpu))
                    told = _read(answer)
                    worker.idle = True
                except TimeoutError as error:
                    # Had the file kept the processor busy, the worker would have overrun before.
                    raise UnavailableError("The audio was not read in time; try again.") from error
                except _DeadError as death:
                    if death.overran:
                        raise NotAudioError(_UNSAFE) from None
                    outside = outside or death.outside
                    continue
            return _result(told)
        if outside:
            raise UnavailableError("The process for audio was ended from outside; try again.")
        raise NotAudioError(_UNSAFE)

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        async with self._slots:
            if self._closed:
                raise UnavailableError("The archive is being stopped.")
            worker = self._living()
            self._all.add(worker)
            try:
                if not worker.idle:
                    await worker.ready()
                yield worker
            finally:
                if worker.idle and not self._closed:
                    self._idle.append(worker)
                else:
                    self._all.remove(worker)
                    worker.kill()

    def _living(self) -> _Worker:
        """One that is idle, or a new one. UnavailableError when none can be started."""
        while self._idle:
            worker = self._idle.pop()
            if worker.process.poll() is None:
                return worker
            # All of them may have been ended at once: a job tried twice must not meet only those.
            self._all.remove(worker)
            worker.kill()
        try:
            return _Worker()
        except OSError as error:  # no more processes, descriptors or memory
            raise UnavailableError(_NO_PROCESS) from error


def _start(theirs: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process with this end of its socket. Raises OSError when there is no room for one."""
    return subprocess.Popen(  # noqa: S603 - our own module
        [*_COMMAND, str(theirs.fileno()), str(os.getpid())],
        cwd=_ROOT,
        env={"PYTHONPATH": str(_ROOT), "LC_ALL": "C.UTF-8", "PATH": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        # A Ctrl-C is for the service, which lets what is in flight finish first.
        start_new_session=True,
    )


async def _pieces(
    worker: _Worker, job: Mapping[str, object], source: SealedSource
) -> AsyncIterator[bytes]:
    try:
        worker.send(job, source)
        while (packet := await worker.receive(_STALL))[0] == b"D":
            yield packet[1]
        told = _read(packet[1])
    except (_DeadError, TimeoutError) as error:
        raise UnavailableError("The copy could not be made.") from error
    worker.idle = True
    _result(told)


def _probe_seconds(size: int, max_duration: float) -> float:
    """Processor time for measuring: twice what the slowest codec (G.729) needs, or so."""
    return min(30 + max_duration / 100, 20 + size / 20_000)


def _wall_seconds(cpu: float) -> float:
    return 30 + 2 * cpu


def _complete(job: Mapping[str, object], source: SealedSource, cpu: float) -> dict[str, object]:
    place = {"offset": source.offset, "size": source.size, "keys": source.keys.hex()}
    return {**job, **place, "cpu": cpu}


def _read(answer: bytes) -> dict[str, Any]:
    """The answer of a worker; _DeadError if it is none."""
    try:
        told = json.loads(answer)
    except (ValueError, RecursionError):
        told = None
    if isinstance(told, dict) and ("result" in told or isinstance(told.get("detail"), str)):
        return told
    raise _DeadError


def _result(told: dict[str, Any]) -> Any:
    """What the worker found, or the error that it met."""
    match told.get("error"):
        case None:
            return told["result"]
        case "not-audio":
            raise NotAudioError(told["detail"])
        case "too-large":
            raise TooLargeError(told["detail"])
        case "damaged":
            raise DamagedError(told["detail"])
        case _:
            raise NotAudioError(_UNSAFE)
