"""What the client's tests share: an archive that fails on purpose, a real one, and a shell."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.faulty import TOKEN, Faulty, Shell, faulty
from tests.services import Service


@pytest.fixture
async def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Faulty]:
    """An archive, and the environment of somebody who uses it."""
    async with faulty() as running:
        monkeypatch.setenv("ARCHIVE_URL", running.url)
        monkeypatch.setenv("ARCHIVE_TOKEN", TOKEN)
        monkeypatch.delenv("ARCHIVE_TOKEN_FILE", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield running


@pytest.fixture
def to_real(service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Service:
    """The environment of somebody who delivers to the real service."""
    monkeypatch.setenv("ARCHIVE_URL", service.ingest)
    monkeypatch.setenv("ARCHIVE_TOKEN", service.tokens["uploader"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return service


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)
