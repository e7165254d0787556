"""Sample calls that cannot be handed over: that must not end the service."""

from pathlib import Path

import pytest

from app import samples
from app.cli import SAMPLES
from storage.vault import Vault


async def test_samples_that_cannot_be_sent_wait_for_the_next_start(
    vault: Vault, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await samples.offer(SAMPLES, tmp_path, "http://127.0.0.1:1", vault)
    assert "the next start tries again" in capsys.readouterr().out
    assert not (tmp_path / "sample-keys.json").exists()
