"""A night that two services work through at the same time is told of once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import audit
from storage import days, ledger, nights, tree
from storage.vault import Vault
from tests import years
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.rewriting import export
from tests.roles import connection
from tests.services import Service
from tests.web.test_listen import upload


async def account(vault: Vault) -> nights.Account:
    """Write a night's account down, as the nightly job does."""
    async with connection(vault.pool) as lent, lent.transaction():
        account = await nights.account(lent)
        facts = account.facts(datetime.now(UTC).date())
        await ledger.record(lent, ledger.SYSTEM, "night.done", facts=facts)
    return account


async def test_an_account_goes_on_from_one_that_has_no_place_yet(
    service: Service, tmp_path: Path
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    await service.turn_clock(timedelta(seconds=40))
    await service.erase()
    await tree.sequence(service.vault)
    first, second = await account(service.vault), await account(service.vault)
    assert (first.erased, second.erased) == (1, 0)
    assert second.since == first.upto
    await tree.sequence(service.vault)
    assert (await account(service.vault)).since == second.upto
    exported = await export(service.vault, tmp_path / "ledger.txt")
    found = audit.verify_export(exported, service.vault.signer.verifier, [], years.now())
    assert found["holds"], found["faults"]


async def test_two_nights_at_the_same_microsecond(vault: Vault) -> None:
    at = datetime.now(UTC)
    async with connection(vault.pool) as lent:
        for _ in range(2):
            await nights.record(lent, at, {})
        assert await lent.fetchval("SELECT count(*) FROM night") == 1


async def test_a_day_is_told_of_as_closed_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(service, "gone", started_at=a_year_ago(seconds=20))
    day = (await service.rows())[0]["expires_on"]
    await service.turn_all_clocks(when_over(day), monkeypatch)
    vault = service.vault
    await service.night()
    # The other service had looked just before, and comes a moment later to the same end.
    again = await days._close(vault, day)
    assert again.closed
    assert [act for act, _ in await service.acts()].count("day.closed") == 1
