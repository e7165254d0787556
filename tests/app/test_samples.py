"""Sample calls that cannot be handed over: that must not end the service."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import samples
from app.cli import SAMPLES
from archive.access import Level
from archive.token import Token


async def test_samples_that_cannot_be_sent_wait_for_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def made(config: Any) -> dict[str, str]:
        return {level: Token.new().text() for level in Level}

    monkeypatch.setattr(samples, "_make_keys", made)
    config: Any = SimpleNamespace(server=SimpleNamespace(data_dir=tmp_path))
    await samples.offer(SAMPLES, config, "http://127.0.0.1:1")
    assert "the next start tries again" in capsys.readouterr().out
    assert not (tmp_path / "sample-keys.json").exists()
