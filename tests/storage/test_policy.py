"""The periods in force: those of the first start, until two people grant others."""

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from app import vault as opening
from archive.retention import Period, Policy
from storage import policy, tree
from storage.four_eyes import RefusedError
from tests.roles import connection
from tests.services import Service


def longer(wanted: Policy) -> Policy:
    return replace(wanted, periods={**wanted.periods, "contract": Period(years=2)})


async def in_force(service: Service, wanted: Policy) -> policy.Standing:
    async with connection(service.vault.pool) as lent:
        return await policy.standing(lent, wanted)


async def change(service: Service, wanted: Policy, who: str) -> bool:
    async with connection(service.vault.pool) as lent:
        token = service.tokens.get(who, who)
        return await policy.change(lent, service.vault.ring, wanted, token)


async def test_the_first_start_needs_nobody(service: Service) -> None:
    wanted = service.vault.policy
    for _ in range(2):
        found = await in_force(service, wanted)
        assert (found.policy, found.waits) == (wanted, False)
    with pytest.raises(RefusedError, match="is in force"):
        await change(service, wanted, "admin")


async def test_two_people_put_other_periods_into_force(service: Service) -> None:
    earlier = service.vault.policy
    await in_force(service, earlier)
    other = longer(earlier)
    assert await in_force(service, other) == policy.Standing(earlier, True)
    for who in ("admin", "admin"):
        assert not await change(service, other, who)
    # What is granted is what was asked for, and nothing else.
    assert not await change(
        service, replace(other, periods=dict.fromkeys(earlier.periods, Period(9))), "privacy"
    )
    assert await in_force(service, other) == policy.Standing(earlier, True)
    assert await change(service, other, "privacy")
    assert await in_force(service, other) == policy.Standing(other, False)
    assert await in_force(service, earlier) == policy.Standing(other, True)
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT facts FROM ledger WHERE act = 'retention.changed'")
    assert row is not None
    assert row["facts"]["wanted"]["contract"] == "P2Y"
    assert len(set(row["facts"]["keys"])) == 2


@pytest.mark.parametrize("level", ["uploader", "supervisor", "auditor"])
async def test_other_levels_change_nothing(service: Service, level: str) -> None:
    await in_force(service, service.vault.policy)
    with pytest.raises(RefusedError, match="admin or privacy"):
        await change(service, longer(service.vault.policy), level)


async def test_a_service_starts_under_the_earlier_periods(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    earlier = service.vault.policy

    def config(wanted: Policy) -> Any:
        return SimpleNamespace(retention=wanted)

    await in_force(service, earlier)  # as the owner does at the first start
    assert await opening._in_force(config(earlier), service.vault.pool) == earlier
    assert caplog.text == ""
    assert await opening._in_force(config(longer(earlier)), service.vault.pool) == earlier
    assert "until two people have run" in caplog.text
