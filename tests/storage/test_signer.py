"""The ledger's key, when several want it at once."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest

from storage import durable
from storage.signer import Signer


def test_two_that_start_at_once_have_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the one signs with a key that another overwrote, nobody could ever verify."""
    both, real, written = Barrier(2), durable.write, []

    def write(path: Path, content: bytes) -> None:
        with suppress(BrokenBarrierError):
            both.wait(0.5)
        written.append(path.name)
        real(path, content)

    monkeypatch.setattr(durable, "write", write)

    def start(_: int) -> Signer:
        return Signer.open(tmp_path, "call-archive/one", create=True)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, range(2))
    assert first.verifier == second.verifier
    assert written == ["ledger.key.new"]
