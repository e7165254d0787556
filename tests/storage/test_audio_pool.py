"""The processes that decode: what they can do, what they cannot, and what their death costs."""

import asyncio
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from archive.errors import NotAudioError, TooLargeError, UnavailableError
from storage.audio import pool as pool_module
from storage.audio.decode import measure, open_track
from storage.audio.formats import NAMES
from storage.audio.pool import AudioFacts, AudioPool, SealedSource
from storage.sealing import CHUNK, DamagedError, Identity, Seal
from tests.storage import soundfiles
from tests.storage.soundfiles import MEDIA, tone, wav

LIMIT = 12 * 3600.0


@pytest.fixture
async def pool() -> AsyncIterator[AudioPool]:
    made = AudioPool(2)
    yield made
    await made.close()


@contextmanager
def sealed(body: bytes, media: str | None = None, before: bytes = b"") -> Iterator[SealedSource]:
    seal = Seal.new(Identity(date(2027, 1, 1), UUID(int=1), UUID(int=2)))
    with tempfile.TemporaryFile() as file:
        file.write(before)
        starts = range(0, len(body), CHUNK)
        for index, start in enumerate(starts):
            piece = body[start : start + CHUNK]
            file.write(seal.seal_chunk(index, index == len(starts) - 1, piece))
        file.flush()
        yield SealedSource(file.fileno(), len(before), len(body), seal.reader_keys(), media)


def processes(pool: AudioPool) -> list[psutil.Process]:
    return [psutil.Process(worker.process.pid) for worker in pool._all]


async def test_a_sealed_file_is_measured(pool: AudioPool) -> None:
    with sealed(wav(tone(20)), before=b"header") as source:
        facts = await pool.probe(source, "text/plain", NAMES, LIMIT)
    assert facts == AudioFacts("wav", "pcm_s16le", 1, 8000, 20.0, ())


async def test_headerless_audio_is_probed_and_read_again(pool: AudioPool) -> None:
    with sealed(soundfiles.noise(8000)) as source:
        facts = await pool.probe(source, "audio/PCMA", NAMES, LIMIT)
    with sealed(soundfiles.noise(8000), facts.container) as source:
        (peaks,) = await pool.waveform(source, 50)
    assert len(peaks) == 50


async def test_refusals_come_back_as_errors_and_the_worker_lives(pool: AudioPool) -> None:
    with sealed(b"#EXTM3U\n") as source, pytest.raises(NotAudioError, match="playlist"):
        await pool.probe(source, None, NAMES, LIMIT)
    before = processes(pool)
    with sealed(wav(tone(4))) as source:
        with pytest.raises(TooLargeError):
            await pool.probe(source, None, NAMES, 3.0)
        with pytest.raises(NotAudioError, match="allowed_formats"):
            await pool.probe(source, None, frozenset({"mp3"}), LIMIT)
        await pool.probe(source, None, NAMES, LIMIT)
    assert processes(pool) == before


@pytest.mark.parametrize("at", [100, 70_000, 139_000])
@pytest.mark.parametrize("make", [lambda: wav(tone(9)), lambda: soundfiles.m4a(30)])
async def test_a_damaged_file_is_said_to_be_damaged(
    pool: AudioPool, make: Callable[[], bytes], at: int
) -> None:
    with sealed(make()) as source:
        os.pwrite(source.fd, b"what was not sealed", at)
        with pytest.raises(DamagedError):
            await pool.waveform(source, 10)


async def test_stereo_gives_two_rows_of_peaks(pool: AudioPool) -> None:
    with sealed(wav(tone(2, channels=2), channels=2)) as source:
        left, right = await pool.waveform(source, 100)
        with pytest.raises(ValueError, match="points"):
            await pool.waveform(source, 0)
    assert len(left) == len(right) == 100
    assert max(left) > max(right)


@pytest.mark.parametrize(("to", "codec"), [("wav", "pcm_s16le"), ("mp3", "mp3"), ("ogg", "opus")])
async def test_a_copy_is_streamed(pool: AudioPool, to: pool_module.Format, codec: str) -> None:
    with sealed(wav(tone(20, channels=2), channels=2)) as source:
        async with pool.transcode(source, to) as pieces:
            copy = b"".join([piece async for piece in pieces])
    with open_track(io.BytesIO(copy), len(copy), None, NAMES) as track:
        facts = measure(track, 100)
    assert (facts.codec, facts.channels) == (codec, 2)
    assert facts.duration == pytest.approx(20, abs=0.2)


async def test_nothing_to_copy_is_an_error_and_the_worker_lives(pool: AudioPool) -> None:
    with sealed(b"no sound at all") as source:
        async with pool.transcode(source, "mp3") as pieces:
            with pytest.raises(NotAudioError):
                [piece async for piece in pieces]
    assert len(pool._idle) == 1


async def test_a_slow_listener_holds_the_encoder_up(pool: AudioPool) -> None:
    with sealed(wav(tone(1) * 600)) as source:  # 9.6 MB of copy
        async with pool.transcode(source, "wav") as pieces:
            await anext(pieces)
            (worker,) = processes(pool)
            await asyncio.sleep(0.5)
            spent = worker.cpu_times()
            await asyncio.sleep(0.5)
            assert worker.cpu_times() == spent
            assert worker.memory_info().rss < 150 << 20
            rest = [len(piece) async for piece in pieces]
    assert sum(rest) > 9_000_000
    assert len(pool._idle) == 1


async def test_a_listener_who_leaves_ends_the_work_at_once(pool: AudioPool) -> None:
    with sealed(wav(tone(1) * 600)) as source:
        async with pool.transcode(source, "mp3") as pieces:
            await anext(pieces)
            (worker,) = processes(pool)
        assert not worker.is_running()
        facts = await pool.probe(source, None, NAMES, LIMIT)
    assert facts.duration == 600


async def test_a_cancelled_probe_ends_its_worker(pool: AudioPool) -> None:
    with sealed(soundfiles.opus(2) * 200) as source:
        task = asyncio.create_task(pool.probe(source, None, NAMES, LIMIT))
        while not pool._all or next(iter(pool._all)).idle:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        (worker,) = processes(pool)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert not worker.is_running()


async def test_no_more_workers_than_allowed(pool: AudioPool) -> None:
    with sealed(wav(tone(1))) as source:
        jobs = [pool.probe(source, None, NAMES, LIMIT) for _ in range(20)]
        found = await asyncio.gather(*jobs)
    assert {facts.duration for facts in found} == {1.0}
    assert len(pool._all) == len(pool._idle) == 2


async def test_a_worker_that_died_while_idle_is_replaced(pool: AudioPool) -> None:
    with sealed(wav(tone(1))) as source:
        await pool.probe(source, None, NAMES, LIMIT)
        (worker,) = processes(pool)
        worker.send_signal(signal.SIGKILL)
        psutil.wait_procs([worker], timeout=5)
        assert (await pool.probe(source, None, NAMES, LIMIT)).duration == 1.0


def _use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> Path:
    """Workers whose way of measuring is `body`, in everything else the real ones."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, resource, socket, sys, time\n"
        "from pathlib import Path\n"
        "from storage.audio import worker\n"
        f"def measure(track, limit):\n"
        f"    if limit == 1: return\n"  # the warm-up
        f"{body}\n"
        "worker.measure = measure\n"
        "worker.main(int(sys.argv[1]), int(sys.argv[2]))\n"
    )
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, str(script)))
    return script


@pytest.mark.parametrize(
    "deed",
    [
        "    os.abort()",
        "    os._exit(0)",
        "    hold = [bytearray(1 << 20) for _ in range(4000)]",
        "    os.close(3); time.sleep(1000)",  # ended from here, which is not from outside
    ],
)
async def test_a_file_on_which_workers_die_is_refused_and_others_go_on(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deed: str
) -> None:
    _use(monkeypatch, tmp_path, deed)
    with sealed(wav(tone(1))) as source:
        bad = asyncio.create_task(pool.probe(source, None, NAMES, LIMIT))
        good = asyncio.create_task(pool.waveform(source, 5))
        with pytest.raises(NotAudioError, match="safely"):
            await bad
        assert len((await good)[0]) == 5
        assert len((await pool.waveform(source, 6))[0]) == 6


async def test_endless_decoding_is_ended_by_the_kernel(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _use(monkeypatch, tmp_path, "    while True: pass")
    monkeypatch.setattr(pool_module, "_probe_seconds", lambda size, limit: 1.0)
    begun = time.monotonic()
    with sealed(wav(tone(1))) as source, pytest.raises(NotAudioError, match="safely"):
        await pool.probe(source, None, NAMES, LIMIT)
    assert time.monotonic() - begun < 20
    assert not pool._all


async def test_a_worker_that_is_stuck_is_killed(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _use(monkeypatch, tmp_path, "    time.sleep(1000)")
    monkeypatch.setattr(pool_module, "_wall_seconds", lambda cpu: 0.5)
    with sealed(wav(tone(1))) as source, pytest.raises(UnavailableError, match="in time"):
        await pool.probe(source, None, NAMES, LIMIT)
    assert not pool._all


async def test_a_worker_that_dies_in_the_middle_of_a_copy(pool: AudioPool) -> None:
    with sealed(wav(tone(1) * 600)) as source:
        async with pool.transcode(source, "wav") as pieces:
            await anext(pieces)
            processes(pool)[0].kill()
            with pytest.raises(UnavailableError):
                [piece async for piece in pieces]


async def test_a_worker_that_cannot_start_is_no_fault_of_the_file(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", "pass"))
    with sealed(wav(tone(1))) as source, pytest.raises(UnavailableError):
        await pool.probe(source, None, NAMES, LIMIT)
    assert not pool._all


_BARE = """
import subprocess, tempfile
from storage.audio import sandbox
def missing(): raise OSError(0, "said to be missing")
sandbox.namespaces = sandbox.landlock = sandbox.system_calls = missing
"""


@pytest.mark.parametrize(
    "deed",
    [
        "open('/etc/hostname')",
        "open('/dev/null', 'w')",
        "socket.socket()",
        "socket.socketpair()",
        "os.pipe()",
        "__import__('subprocess').run(['true'])",
        "__import__('tempfile').TemporaryFile()",
        "os.memfd_create('x')",
    ],
)
async def test_a_worker_without_a_sandbox_can_open_nothing_while_it_decodes(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deed: str
) -> None:
    body = (
        f"    try: {deed}\n"
        "    except OSError as error: raise worker.TooLargeError(str(error.errno))\n"
        "    raise worker.NotAudioError('it could')"
    )
    _use(monkeypatch, tmp_path, body)
    script = tmp_path / "worker.py"
    script.write_text(_BARE + script.read_text())
    with sealed(wav(tone(1))) as source, pytest.raises(TooLargeError) as refused:
        await pool.probe(source, None, NAMES, LIMIT)
    assert refused.value.detail in {"24", "2"}  # EMFILE; tempfile finds no usable directory


async def test_limits_and_environment_of_a_worker(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHIVE_OBJECTS_SECRET_KEY", "hidden")
    with sealed(wav(tone(1))) as source:
        await pool.probe(source, None, NAMES, LIMIT)
    (worker,) = processes(pool)
    for limit in (psutil.RLIMIT_CORE, psutil.RLIMIT_FSIZE):
        assert worker.rlimit(limit) == (0, 0)
    assert worker.rlimit(psutil.RLIMIT_AS)[0] < 1 << 30
    assert worker.rlimit(psutil.RLIMIT_NOFILE) == (5, 5)
    assert worker.rlimit(psutil.RLIMIT_CPU)[0] < 100
    assert "ARCHIVE_OBJECTS_SECRET_KEY" not in worker.environ()
    assert b"hidden" not in Path(f"/proc/{worker.pid}/environ").read_bytes()


async def test_workers_die_with_their_parent() -> None:
    code = (
        "import asyncio, os\n"
        "from storage.audio.pool import _Worker\n"
        "async def main():\n"
        "    worker = _Worker(); await worker.ready()\n"
        "    print(worker.process.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(await parent.stdout.readline()))
    parent.kill()
    await parent.wait()
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


async def test_the_keys_are_not_shown() -> None:
    with sealed(wav(tone(1))) as source:
        assert source.keys.hex() not in repr(source)
        assert repr(source.keys) not in repr(source)


async def test_an_hour_of_flac_in_bounded_memory(pool: AudioPool) -> None:
    hour = soundfiles.encoded("flac", "flac", bytes(3600 * 16000))
    with sealed(hour) as source:
        facts = await pool.probe(source, None, NAMES, LIMIT)
        assert facts.duration == 3600
        (worker,) = processes(pool)
        assert worker.memory_info().rss < 120 << 20


async def test_closing_ends_what_is_at_work_and_takes_no_more() -> None:
    pool = AudioPool(2)
    with sealed(soundfiles.opus(2) * 200) as source, sealed(wav(tone(1))) as small:
        await asyncio.gather(*(pool.probe(small, None, NAMES, LIMIT) for _ in range(2)))
        task = asyncio.create_task(pool.probe(source, None, NAMES, LIMIT))
        await asyncio.sleep(0.1)
        workers = processes(pool)
        assert len(workers) == 2
        await pool.close()
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(task, 5)
        with pytest.raises(UnavailableError):
            await pool.probe(small, None, NAMES, LIMIT)
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize(
    "make",
    [
        *(soundfiles.mp3, soundfiles.opus, soundfiles.flac, soundfiles.m4a, soundfiles.webm),
        *(soundfiles.amr, lambda: wav(tone(1)), lambda: (MEDIA / "gsm.wav").read_bytes()),
    ],
)
async def test_bytes_changed_at_random_give_facts_or_a_refusal(
    pool: AudioPool, make: Callable[[], bytes]
) -> None:
    fate = random.Random(7)
    told = 0
    for _ in range(60):
        body = bytearray(make())
        for _ in range(fate.choice((1, 4, 30))):
            body[fate.randrange(len(body) if fate.random() < 0.5 else 200)] = fate.randrange(256)
        with sealed(bytes(body)) as source:
            try:
                facts = await pool.probe(source, None, NAMES, 100)
                assert 0 < facts.duration <= 100
                told += 1
            except NotAudioError as error:
                assert "safely" not in error.detail
            except TooLargeError:
                pass
    assert told
