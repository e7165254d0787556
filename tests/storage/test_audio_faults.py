"""Deaths and delays of the processes that decode which are the machine's, and no file's."""

import asyncio
import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from archive.errors import NotAudioError, UnavailableError
from storage.audio import places
from storage.audio import pool as pool_module
from storage.audio.formats import NAMES
from storage.audio.pool import AudioPool
from storage.audio.sandbox import Sandbox
from tests.storage import soundfiles
from tests.storage.soundfiles import tone, wav
from tests.storage.test_audio_pool import LIMIT, pool, processes, sealed
from tests.storage.test_audio_pool import _use as use

__all__ = ["pool"]


async def _end(workers: list[psutil.Process]) -> None:
    """End them as the OOM killer does, and wait until that is so; their parent knows nothing."""
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    while any(worker.status() != psutil.STATUS_ZOMBIE for worker in workers):
        await asyncio.sleep(0.01)


async def test_workers_that_all_died_while_idle_cost_no_recording(pool: AudioPool) -> None:
    with sealed(wav(tone(1))) as source:
        await asyncio.gather(*(pool.probe(source, None, NAMES, LIMIT) for _ in range(2)))
        assert len(pool._idle) == 2
        await _end(processes(pool))
        assert (await pool.probe(source, None, NAMES, LIMIT)).duration == 1.0
        assert pool._all == set(pool._idle)
        assert len(pool._idle) == 1


async def _at_work(pool: AudioPool, known: set[int]) -> psutil.Process:
    """The next worker that begins a job, of those that are not known."""
    while True:
        for worker in pool._all:
            started = worker.sandbox != Sandbox()
            if started and not worker.idle and worker.process.pid not in known:
                known.add(worker.process.pid)
                return psutil.Process(worker.process.pid)
        await asyncio.sleep(0.01)


async def test_a_worker_that_is_ended_from_outside_is_no_fault_of_the_file(
    pool: AudioPool,
) -> None:
    known: set[int] = set()
    with sealed(soundfiles.opus(2) * 200) as source:
        task = asyncio.create_task(pool.probe(source, None, NAMES, LIMIT))
        for _ in range(2):
            worker = await asyncio.wait_for(_at_work(pool, known), 20)
            worker.send_signal(signal.SIGKILL)
        with pytest.raises(UnavailableError, match="outside"):
            await task
    assert not pool._all
    with sealed(wav(tone(1))) as source:
        assert (await pool.probe(source, None, NAMES, LIMIT)).duration == 1.0


async def test_a_file_that_ends_its_worker_after_another_end_is_tried_again_later(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One death is no proof. The next time it has two chances again, and is refused."""
    use(monkeypatch, tmp_path, "    time.sleep(0.5); os.abort()")
    with sealed(wav(tone(1))) as source:
        task = asyncio.create_task(pool.probe(source, None, NAMES, LIMIT))
        worker = await asyncio.wait_for(_at_work(pool, set()), 20)
        worker.send_signal(signal.SIGKILL)
        with pytest.raises(UnavailableError, match="outside"):
            await task
        with pytest.raises(NotAudioError, match="safely"):
            await pool.probe(source, None, NAMES, LIMIT)


async def test_a_worker_that_was_stopped_is_no_fault_of_the_file(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sealed(soundfiles.opus(2) * 200) as source:
        with monkeypatch.context() as hasty:
            hasty.setattr(pool_module, "_wall_seconds", lambda cpu: 0.5)
            task = asyncio.create_task(pool.probe(source, None, NAMES, LIMIT))
            worker = await asyncio.wait_for(_at_work(pool, set()), 20)
            worker.send_signal(signal.SIGSTOP)
            with pytest.raises(UnavailableError, match="in time"):
                await task
        assert not worker.is_running()
        assert (await pool.probe(source, None, NAMES, LIMIT)).duration > 1


async def test_a_place_is_waited_for_and_not_for_ever(
    pool: AudioPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = pool.places.taken
    async with taken("a", redacts=True):
        async with taken("b"):
            waiting = asyncio.create_task(_placed(pool))
            await asyncio.sleep(0.05)
            assert not waiting.done()
        await waiting
        async with taken("b"):
            monkeypatch.setattr(places, "_WAIT", 0.05)
            with pytest.raises(UnavailableError, match="Too many copies"):
                await _placed(pool)
    await _placed(pool)


async def _placed(pool: AudioPool) -> None:
    async with pool.places.taken("c"):
        pass


@contextmanager
def _descriptors(left: int) -> Iterator[None]:
    """So many more descriptors can be had in this process, and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 10 + max(int(each) for each in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for each in taken[:left]:
            os.close(each)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in taken[left:]:
            os.close(each)


@pytest.mark.parametrize("left", [0, 2])
async def test_no_room_for_a_process_is_no_fault_of_the_file(pool: AudioPool, left: int) -> None:
    """Neither for its socket, nor, where two are left, for the process itself."""
    with sealed(wav(tone(1))) as source:
        with _descriptors(left):
            with pytest.raises(UnavailableError, match="No process for audio"):
                await pool.probe(source, None, NAMES, LIMIT)
            with pytest.raises(UnavailableError, match="No process for audio"):
                await pool.sandbox()
            assert not pool._all
        assert (await pool.probe(source, None, NAMES, LIMIT)).duration == 1.0
