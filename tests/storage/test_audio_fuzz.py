"""A short run of the fuzzer, and that it would notice what it looks for."""

import random
import sys
from pathlib import Path

import av
import pytest

from storage.audio import pool as pool_module
from tools.fuzz_audio import fuzz
from tools.fuzz_disguises import Playlists, case, refers, samples

LEAKY = """
import os, re, socket, sys
from storage.audio import sandbox, worker

def missing():
    raise OSError(0, "said to be missing")

sandbox.namespaces = sandbox.landlock = sandbox.system_calls = missing
real, limit = worker.open_track, worker.resource.setrlimit

def setrlimit(which, limits):
    if which != worker.resource.RLIMIT_NOFILE:
        limit(which, limits)

worker.resource.setrlimit = setrlimit

def open_track(reader, size, media, allowed):
    if worker.WARM:
        {deed}
    return real(reader, size, media, allowed)

worker.WARM = False
receive = worker._receive
def _receive(control):
    worker.WARM = True
    return receive(control)
worker._receive = _receive
worker.open_track = open_track
worker.main(int(sys.argv[1]), int(sys.argv[2]))
"""


def test_mutated_sounds_and_disguised_playlists_cost_at_most_a_worker() -> None:
    found = fuzz(seed=3, first=0, count=400)
    assert found.faults == []
    assert sum(found.outcomes.values()) == 400
    assert found.outcomes["taken"] > 50
    assert found.outcomes["refused"] > 50
    assert found.outcomes["taken, drawn and copied"] > 5
    assert found.memory < 640 << 10


@pytest.mark.parametrize(
    ("deed", "fault"),
    [
        ("open(re.search(rb'/[-\\w/.]+canary.wav', body)[0])", "the file"),
        (
            "socket.create_connection(('127.0.0.1',"
            " int(re.search(rb'127.0.0.1:(\\d+)', body)[1])))",
            "a connection",
        ),
        ("os._exit(1)", ""),
    ],
)
def test_the_fuzzer_notices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, deed: str, fault: str
) -> None:
    script = tmp_path / "worker.py"
    body = f"body = reader.read()\n        try: {deed}\n        except Exception: pass"
    script.write_text(LEAKY.replace("{deed}", body))
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, str(script)))
    found = fuzz(seed=1, first=0, count=150 if fault else 1)
    if fault:
        assert f"the canary sang: {fault}" in found.faults
    else:
        assert found.outcomes["given up in measuring"] == 1
        assert found.deaths[1] >= 2
        assert "afterwards a plain WAV was not taken" in found.faults


def test_a_case_is_made_again_from_its_number(tmp_path: Path) -> None:
    lists = Playlists(tmp_path / "canary.wav", 12345)
    whole = samples()
    for number in range(200):
        made = [case(random.Random(f"1/{number}"), whole, lists) for _ in range(2)]
        assert made[0] == made[1]


def test_the_disguise_of_a_reference_is_one_that_ffmpeg_would_follow(tmp_path: Path) -> None:
    asked: list[str] = []

    def note(url: str, flags: int, options: object) -> None:
        asked.append(url)
        raise PermissionError

    body = tmp_path / "reference.m4a"
    body.write_bytes(refers(b"/canary.wav"))
    with body.open("rb") as file, pytest.raises(PermissionError):
        av.open(file, format="mov", options={"enable_drefs": "1"}, io_open=note)
    assert asked[0].endswith("/canary.wav")
