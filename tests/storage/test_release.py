"""The release of a blown fuse: whose decision it is, and what the ledger tells of it."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from app import expire
from app.config import Config
from storage import clocks, persons, tree
from storage.four_eyes import RefusedError
from storage.release import admins, release
from storage.vault import Vault
from tests import years
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection, owned
from tests.services import Service
from tests.storage.test_fuse import multiply
from tests.web.test_listen import upload


def today(service: Service) -> date:
    return service.vault.policy.day_of(years.now())


async def blow(service: Service) -> None:
    async with connection(service.vault.pool) as lent:
        await clocks.hold(lent, "a test holds it")


async def entries(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT act, actor, facts FROM ledger WHERE act LIKE 'fuse.release%' ORDER BY position"
        )
    return [(row["act"], row["actor"], row["facts"]) for row in rows]


def of(token: str) -> str:
    """The id of the key that a token belongs to."""
    return token.split("_")[1]


async def two(service: Service) -> tuple[str, str]:
    return service.tokens["admin"], await service.key("admin", "second", person="second")


async def test_one_person_releases_at_once_where_there_is_one_key(service: Service) -> None:
    await blow(service)
    came = await release(owned(service.vault), today(service), service.tokens["admin"])
    assert (came.done, came.people) == (True, 1)
    await blow(service)
    assert (await release(owned(service.vault), today(service))).people == 1
    key = of(service.tokens["admin"])
    day = today(service).isoformat()
    assert await entries(service) == [
        ("fuse.released", who, {"through": day, "people": 1, "keys": [who], "let_go": 0})
        for who in (key, "system")
    ]
    assert (await service.erase()).stopped == ""


async def test_where_there_are_two_keys_it_takes_two_people(service: Service) -> None:
    first, second = await two(service)
    await blow(service)
    assert not (await release(owned(service.vault), today(service), first)).done
    assert not (await release(owned(service.vault), today(service), first)).done
    assert (await service.erase()).stopped == "a test holds it"
    came = await release(owned(service.vault), today(service), second)
    assert (came.done, came.people) == (True, 2)
    assert (await service.erase()).stopped == ""
    told = await entries(service)
    assert [(act, actor) for act, actor, _ in told] == [
        ("fuse.release_asked", of(first)),
        ("fuse.release_asked", of(first)),
        ("fuse.released", of(second)),
    ]
    assert told[-1][2]["keys"] == [of(first), of(second)]
    assert told[-1][2]["people"] == 2
    # What was asked for once is released once.
    await blow(service)
    assert not (await release(owned(service.vault), today(service), second)).done
    assert (await service.erase()).stopped == "a test holds it"


async def test_a_key_that_may_be_anybodys_neither_releases_nor_lets_one_person_do_it(
    service: Service,
) -> None:
    nobodys = await service.key("admin", "nobodys")
    day = today(service)
    assert not (await release(owned(service.vault), day, service.tokens["admin"])).done
    with pytest.raises(RefusedError, match="archive key person"):
        await release(owned(service.vault), day, nobodys)
    async with connection(service.vault.pool) as lent:
        assert await admins(lent) == (2, 1)
        await persons.of_key(lent, "nobodys", "Who-Is-Admin")
    async with connection(service.vault.pool) as lent:
        assert await admins(lent) == (1, 1), "both are one person's"
        await persons.of_key(lent, "nobodys", "bo")
    assert (await release(owned(service.vault), day, nobodys)).people == 2


async def test_a_request_ends_after_a_day(service: Service) -> None:
    first, second = await two(service)
    day = today(service)
    await release(owned(service.vault), day, first)
    await service.turn_clock(timedelta(hours=24, seconds=1))
    assert not (await release(owned(service.vault), day, second)).done
    assert (await release(owned(service.vault), day, first)).done


async def test_another_day_is_another_decision(service: Service) -> None:
    first, second = await two(service)
    day = today(service)
    await release(owned(service.vault), day - timedelta(days=1), first)
    assert not (await release(owned(service.vault), day, second)).done
    assert (await release(owned(service.vault), day - timedelta(days=1), second)).done


async def test_a_request_of_a_key_that_was_revoked_does_not_count(service: Service) -> None:
    first, second = await two(service)
    third = await service.key("admin", "third", person="third")
    await release(owned(service.vault), today(service), first)
    await service.revoke("admin")
    assert not (await release(owned(service.vault), today(service), second)).done
    assert (await release(owned(service.vault), today(service), third)).done


async def test_who_released_saw_what_the_first_one_saw(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(service)
    due = await upload(service, "due", started_at=a_year_ago(seconds=20))
    await multiply(service, due, 2, told=False)
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    day = service.vault.policy.day_of(years.now() + timedelta(seconds=30))
    await service.erase()
    assert (await release(owned(service.vault), day, first)).let_go == 2
    await multiply(service, due, 1, told=False)
    came = await release(owned(service.vault), day, second)
    assert (came.done, came.let_go) == (False, 3)
    came = await release(owned(service.vault), day, first)
    assert (came.done, came.let_go) == (True, 3)
    assert (await service.erase()).erased == 4


@pytest.mark.parametrize("level", ["uploader", "supervisor", "privacy", "auditor"])
async def test_only_an_admin_releases(service: Service, level: str) -> None:
    for several in (False, True):
        if several:
            await two(service)
        with pytest.raises(RefusedError, match=f"this one is of level {level}"):
            await release(owned(service.vault), today(service), service.tokens[level])
    assert await entries(service) == []


async def test_a_token_that_is_none_and_none_at_all_are_refused(service: Service) -> None:
    with pytest.raises(RefusedError, match="not known"):
        await release(owned(service.vault), today(service), "cra_nobody")
    first, _ = await two(service)
    with pytest.raises(RefusedError, match="ARCHIVE_TOKEN"):
        await release(owned(service.vault), today(service))
    await service.revoke("admin")
    with pytest.raises(RefusedError, match="revoked"):
        await release(owned(service.vault), today(service), first)
    assert await entries(service) == []


async def test_the_command_asks_and_then_releases(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    @asynccontextmanager
    async def opened(config: Config, *, join: bool, patience: float) -> AsyncIterator[Vault]:
        yield owned(service.vault)

    monkeypatch.setattr(expire, "opened", opened)
    config = cast("Config", argparse.Namespace())
    first, second = await two(service)
    file = tmp_path / "second"
    file.write_text(second + "\n")
    await upload(service, "due", started_at=a_year_ago(seconds=20))
    await service.turn_all_clocks(timedelta(seconds=30), monkeypatch)
    await blow(service)
    day = service.vault.policy.day_of(years.now() + timedelta(seconds=30))

    async def command(token: str = "", token_file: str = "") -> tuple[int, str, str]:
        monkeypatch.setenv("ARCHIVE_TOKEN", token)
        status = await expire.act(config, day, token_file, as_json=False)
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, err = await command()
    assert (status, out) == (1, "")
    assert "each with a key of level admin" in err
    status, out, err = await command(token=service.tokens["auditor"])
    assert (status, out) == (1, "")
    assert "this takes a key of level admin" in err
    for _ in range(2):
        status, out, err = await command(token=first)
        assert (status, out) == (1, "")
        assert "a second person has to run the same command within 24 hours" in err
    assert len(await service.holdings()) == 1
    status, out, err = await command(token=first, token_file=str(file))
    assert (status, out) == (0, "erased 1, still there 0, could not ask 0\n")
    assert err == f"released through {day}\n"
    assert await service.holdings() == []
