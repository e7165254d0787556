"""Budgets: so many recordings an hour for each listener, over all services, and an alarm beyond."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from archive.listening import Rules
from storage import overview, tree
from tests.roles import acting, connection
from tests.services import Service, _door, open_service
from tests.web.test_listen import upload
from tests.web.test_upload import problem
from web import gauges, retrieval

MOST = 3


@pytest.fixture
async def scarce(vault: Any) -> Any:
    """The doors of an archive where three recordings an hour are all that one may hear."""
    async with open_service(replace(vault, listening=Rules(recordings_per_hour=MOST))) as opened:
        yield opened


async def status(service: Service, identifier: str, token: str = "supervisor") -> int:
    answer = await service.get(f"/v1/recordings/{identifier}/audio", token)
    await answer.read()
    return answer.status


async def several(service: Service, count: int) -> list[str]:
    return [await upload(service, f"c{number}") for number in range(count)]


async def acts(service: Service, act: str) -> list[tuple[str, Any]]:
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch("SELECT * FROM ledger WHERE act = $1 ORDER BY position", act)
    return [(row["actor"], row["facts"]) for row in rows]


async def test_beyond_the_budget_nothing_more_is_heard(
    scarce: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ids = await several(scarce, MOST + 1)
    for identifier in (*ids[:MOST], ids[0], ids[0]):
        assert await status(scarce, identifier) == 200, "what was heard stays open"
    path = f"/v1/recordings/{ids[MOST]}/audio"
    for _ in range(2):
        answer = await scarce.get(path)
        await problem(answer, 429, "too-many")
        assert 3500 < int(answer.headers["Retry-After"]) <= 3600
    await problem(await scarce.get(f"{path}?format=mp3"), 429, "too-many")
    # Nothing else is counted, and another listener has a budget of their own.
    assert (await scarce.get(f"/v1/recordings/{ids[MOST]}")).status == 200
    assert (await scarce.get(f"/v1/recordings/{ids[MOST]}/waveform")).status == 200
    assert (await scarce.ask("HEAD", scarce.retrieval + path, "supervisor")).status == 200
    assert await status(scarce, ids[0]) == 200
    assert await status(scarce, ids[MOST], "privacy") == 200
    key = scarce.tokens["supervisor"].split("_")[1]
    assert await acts(scarce, "listening.stopped") == [(key, {"most": MOST})]
    assert len([actor for actor, _ in await acts(scarce, "listened") if actor == key]) == 7
    assert f"{key} has heard as many recordings as one may" in caplog.text


async def test_no_hour_has_more_than_the_budget_wherever_it_begins(scarce: Service) -> None:
    ids = await several(scarce, 2 * MOST)
    assert await status(scarce, ids[0]) == 200
    await scarce.turn_clock(timedelta(minutes=50))
    for identifier in ids[1:MOST]:
        assert await status(scarce, identifier) == 200
    await scarce.turn_clock(timedelta(minutes=61))
    # The first is over an hour old, the others are not.
    assert await status(scarce, ids[MOST]) == 200
    path = f"/v1/recordings/{ids[MOST + 1]}/audio"
    answer = await scarce.get(path)
    await problem(answer, 429, "too-many")
    assert 48 * 60 < int(answer.headers["Retry-After"]) <= 49 * 60
    # What is heard again counts from then on.
    assert await status(scarce, ids[1]) == 200
    await scarce.turn_clock(timedelta(minutes=111))
    assert await status(scarce, ids[MOST + 1]) == 200
    assert await status(scarce, ids[MOST + 2]) == 429


async def test_a_person_has_one_budget_with_all_keys_and_accounts(scarce: Service) -> None:
    ids = await several(scarce, 2 * MOST)
    keys = [
        await scarce.key(level, name, person="anna")
        for level, name in (("supervisor", "one"), ("privacy", "two"))
    ]
    assert await status(scarce, ids[0], keys[0]) == 200
    for identifier in ids[1:MOST]:
        assert await status(scarce, identifier, keys[1]) == 200
    for key in keys:
        assert await status(scarce, ids[MOST], key) == 429
        assert await status(scarce, ids[0], key) == 200
    assert await status(scarce, ids[MOST], await scarce.key("privacy", "other")) == 200
    assert len(await acts(scarce, "listening.stopped")) == 1


async def test_an_hour_after_the_first_the_budget_is_whole_again(scarce: Service) -> None:
    ids = await several(scarce, MOST + 2)
    for identifier in ids[:MOST]:
        assert await status(scarce, identifier) == 200
    await scarce.turn_clock(timedelta(minutes=59))
    assert await status(scarce, ids[MOST]) == 429
    await scarce.turn_clock(timedelta(minutes=61))
    for identifier in ids[2 : MOST + 2]:
        assert await status(scarce, identifier) == 200
    assert await status(scarce, ids[0]) == 429
    assert len(await acts(scarce, "listening.stopped")) == 1, "once an hour"
    await scarce.turn_clock(timedelta(minutes=120))
    assert await status(scarce, ids[0]) == 429
    assert len(await acts(scarce, "listening.stopped")) == 2


async def test_two_services_share_a_budget_even_at_once(scarce: Service) -> None:
    ids = await several(scarce, 12)
    async with second(scarce) as other:
        answers = await asyncio.gather(
            *(status(scarce, one) for one in ids[::2]), *(status(other, one) for one in ids[1::2])
        )
    assert sorted(answers) == [200] * MOST + [429] * (12 - MOST)


@asynccontextmanager
async def second(service: Service) -> AsyncIterator[Service]:
    """A second service over the same archive, for the same keys."""
    async with AsyncExitStack() as stack:
        url = await _door(stack, acting(service.vault, "retrieval"), "", retrieval.routes())
        yield replace(service, retrieval=url)


async def test_an_alarm_is_made_of_it_and_the_archive_is_well_all_the_same(scarce: Service) -> None:
    async def seen() -> Any:
        async with connection(scarce.vault.pool) as lent:
            return await overview.standing(lent, None, None)

    ids = await several(scarce, MOST + 1)
    for identifier in ids[:MOST]:
        assert await status(scarce, identifier) == 200
    assert (await seen()).stopped == 0
    assert await status(scarce, ids[MOST]) == 429
    assert (await seen()).stopped == 1
    assert set(gauges.judged(replace(await seen(), unsigned=0)).values()) == {"ok"}
    await scarce.turn_clock(timedelta(hours=1, seconds=10))
    assert (await seen()).stopped == 0


async def test_what_is_refused_for_another_reason_costs_nothing(scarce: Service) -> None:
    ids = await several(scarce, MOST)
    hidden = await upload(scarce, "x", call_type="contract")
    limited = await scarce.key("supervisor", "limited", ["fault_report"])
    for _ in range(MOST):
        assert await status(scarce, hidden, limited) == 404
    for identifier in ids:
        assert await status(scarce, identifier, limited) == 200
    assert await status(scarce, hidden, limited) == 404
