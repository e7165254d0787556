"""Opening what entries of the ledger seal: by whom, told where, and until when."""

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app import vault as opening
from app.audit import _open_words
from storage import tree, words
from storage.four_eyes import RefusedError
from storage.vault import Vault
from tests.jobs.test_expiry import when_over
from tests.roles import connection, owned
from tests.services import Service
from tests.web.test_listen import upload

NUMBER = "+358401234567"


async def searched(service: Service) -> int:
    """The position of a search for a number."""
    await upload(service, "call", caller=NUMBER)
    assert (await service.get("/v1/recordings?number=%2B358401234567")).status == 200
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        position: int = await lent.fetchval("SELECT position FROM ledger WHERE act = 'searched'")
    return position


async def read(service: Service, who: str, *positions: int) -> list[words.Words]:
    return await words.read(owned(service.vault), service.tokens.get(who, who), positions)


async def test_the_privacy_officer_reads_what_was_searched_for_and_that_is_told(
    service: Service,
) -> None:
    position = await searched(service)
    first, second = await read(service, "privacy", position, 0)
    assert (first.entry.position, first.said, first.why) == (0, None, "seals nothing")
    assert second.entry.act == "searched"
    assert NUMBER in str(second.said)
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        entry = await lent.fetchrow("SELECT actor, facts FROM ledger WHERE act = 'words.read'")
    assert entry is not None
    assert dict(entry) == {
        "actor": service.tokens["privacy"].split("_")[1],
        "facts": {"entries": [0, position]},
    }


async def test_nobody_else_reads_them_and_nothing_is_read_in_part(service: Service) -> None:
    position = await searched(service)
    limited = await service.key("privacy", "limited", call_types=["other"])
    for who in ("admin", "auditor", "supervisor", "uploader"):
        with pytest.raises(RefusedError, match=f"of level privacy; this one is of level {who}"):
            await read(service, who, position)
    with pytest.raises(RefusedError, match="level privacy that is not limited"):
        await read(service, limited, position)
    for who in ("", "cra_nobody"):
        with pytest.raises(RefusedError, match="ARCHIVE_TOKEN"):
            await read(service, who, position)
    with pytest.raises(RefusedError, match="no entry 99"):
        await read(service, "privacy", position, 99)
    assert "words.read" not in [act for act, _ in await service.acts()]


async def test_more_than_one_entry_can_name_are_not_opened_at_once(service: Service) -> None:
    with pytest.raises(RefusedError, match="at most 1000"):
        await read(service, "privacy", *range(10_000))
    position = await searched(service)
    assert len(await read(service, "privacy", *[position] * 2000)) == 1
    assert await tree.checkpoint(service.vault)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("details = details || 'x'", "CHANGED: not what the ledger has the hash of"),
        ("ends_on = ends_on + 1", "CHANGED: not sealed for this day"),
        ("details = NULL", "lost with an earlier database"),
    ],
)
async def test_words_that_are_not_what_was_sealed_are_told(
    service: Service, change: str, why: str
) -> None:
    position = await searched(service)
    async with connection(service.vault.pool) as lent:
        await lent.execute("ALTER TABLE ledger DISABLE TRIGGER ledger_append_only")
        await lent.execute(f"UPDATE ledger SET {change} WHERE position = {position}")
    [found] = await read(service, "privacy", position)
    assert (found.said, found.why) == (None, why)


async def test_they_end_with_their_day(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    position = await searched(service)
    [before] = await read(service, "privacy", position)
    assert before.ends_on
    await service.turn_all_clocks(when_over(before.ends_on), monkeypatch)
    await service.night()
    [after] = await read(service, "privacy", position)
    assert (after.said, after.why) == (None, f"ended with the key of {before.ends_on}")


async def test_the_command_prints_them(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def opened(config: object, *, join: bool) -> AsyncIterator[Vault]:
        yield owned(service.vault)

    monkeypatch.setattr(opening, "opened", opened)
    position = await searched(service)

    async def command(token: str, *, as_json: bool = False) -> tuple[int, str, str]:
        monkeypatch.setenv("ARCHIVE_TOKEN", token)
        asked = {"positions": [position], "token_file": "", "json": as_json}
        status = await _open_words(argparse.Namespace(config=None, **asked))
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, err = await command(service.tokens["admin"])
    assert (status, out) == (1, "")
    assert "level privacy" in err
    status, out, _ = await command(service.tokens["privacy"])
    assert status == 0
    assert out.startswith(f"{position} ")
    assert NUMBER in out
    status, out, _ = await command(service.tokens["privacy"], as_json=True)
    facts: dict[str, Any] = json.loads(out)
    assert (facts["position"], facts["act"], facts["why"]) == (position, "searched", "")
    assert NUMBER in str(facts["words"])
