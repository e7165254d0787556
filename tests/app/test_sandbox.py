"""What the service says at its start about the processes that decode."""

import logging
import sys
from collections.abc import AsyncIterator

import pytest

from app import serve
from storage.audio import pool as pool_module
from storage.audio.pool import AudioPool

BARE = """
import sys
from storage.audio import sandbox, worker
def missing(): raise OSError(0, "said to be missing")
sandbox.landlock = missing
worker.main(int(sys.argv[1]), int(sys.argv[2]))
"""


@pytest.fixture
async def workers() -> AsyncIterator[AudioPool]:
    made = AudioPool(1)
    yield made
    await made.close()


async def test_the_log_tells_once_what_confines_the_audio(
    workers: AudioPool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "archive")
    await serve._tell_of_the_sandbox(workers)
    (record,) = caplog.records
    assert record.getMessage().startswith("audio: decoded in ")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (BARE, "Landlock (said to be missing)"),
        ("pass", "Nothing can be taken in"),
    ],
)
async def test_the_log_warns_of_what_is_missing(
    workers: AudioPool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    words: str,
) -> None:
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", program))
    await serve._tell_of_the_sandbox(workers)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert words in record.getMessage()
