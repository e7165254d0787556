"""What a ledger tells is done again on a backup's rows: rights that were narrowed stay so, and what
two people decided stands.
"""

from collections.abc import AsyncIterator

import pytest

from app import rebuild as command
from archive.access import Level
from storage import credentials, persons, policy, teams, tree
from storage.credentials import Limits
from storage.upkeep import rebuild
from storage.upkeep.rebuild import Report
from storage.upkeep.replay import Replayed
from tests.postgres import Postgres
from tests.roles import connection, owned
from tests.services import Service
from tests.storage.test_policy import change, longer
from tests.storage.upkeep.test_rebuild import Backups, backups
from tests.web.browsing import signed_in
from tests.web.test_listen import upload

__all__ = ["AsyncIterator", "Postgres", "backups"]


async def test_what_was_narrowed_since_is_not_wide_again(
    service: Service, backups: Backups, caplog: pytest.LogCaptureFixture
) -> None:
    of_north = await upload(service, "north", queue="north")
    of_east = await upload(service, "east", queue="east")
    for name in ("narrowed", "removed", "kept"):
        await service.team(name, queues=["north", "east"])
    async with connection(service.vault.pool) as lent:
        tokens = {
            name: await credentials.add(
                lent, service.vault.ring, name, Level.SUPERVISOR, limits=Limits(teams=[name])
            )
            for name in ("narrowed", "removed", "kept")
        }
    await tree.sequence(service.vault)
    await service.team("kept", agents=["anna"], queues=["north", "east"])  # waits in the backup
    dumped = backups.dump()
    await service.team("narrowed", queues=["north"])
    async with connection(service.vault.pool) as lent:
        await teams.remove(lent, "removed")
    await tree.checkpoint(service.vault)

    vault = await backups.put_back(dumped, service.vault)
    report = await rebuild.run(owned(vault))
    assert report.replayed.teams == 2
    assert "team narrowed was changed" in caplog.text
    again = await backups.serve(vault, service)
    for identifier in (of_north, of_east):
        seen = {
            name: (await again.get(f"/v1/recordings/{identifier}", token)).status
            for name, token in tokens.items()
        }
        assert seen == {"narrowed": 404, "removed": 404, "kept": 200}
    await again.team("narrowed", queues=["north"])
    assert (await again.get(f"/v1/recordings/{of_north}", tokens["narrowed"])).status == 200
    assert (await rebuild.run(owned(vault))).replayed == Replayed(), "and what is said again stays"


async def test_whose_a_key_is_has_to_be_said_again_if_it_was_said_since(
    service: Service, backups: Backups
) -> None:
    """One person's second key is no second person's, whatever a backup knew of it."""
    await service.key("privacy", "annas-other", person="somebody")
    await service.key("privacy", "kept", person="bo")
    await signed_in(service, "anna")
    async with connection(service.vault.pool) as lent:
        await persons.of_account(lent, "anna", "somebody")
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        await persons.of_key(lent, "kept", "bo.koski")  # waits in the backup
    dumped = backups.dump()
    async with connection(service.vault.pool) as lent:
        await persons.of_key(lent, "annas-other", "anna.koski")
        await persons.of_account(lent, "anna", "anna.koski")
    await tree.checkpoint(service.vault)

    vault = await backups.put_back(dumped, service.vault)
    assert (await rebuild.run(owned(vault))).replayed.persons == 2
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT name, person FROM holder")
    known = {row["name"]: row["person"] for row in rows}
    told = {name: known[name] for name in ("annas-other", "anna", "kept", "test-privacy")}
    assert told == {
        "annas-other": None,
        "anna": None,
        "kept": "bo.koski",
        "test-privacy": "who-is-privacy",
    }


@pytest.mark.parametrize("empty", [False, True])
async def test_periods_that_two_people_granted_stay_in_force(
    service: Service, backups: Backups, *, empty: bool
) -> None:
    """Of two changes since the last one, and not what the configuration of an empty database says,
    which is one person's hand.
    """
    earlier = service.vault.policy
    async with connection(service.vault.pool) as lent:
        await policy.standing(lent, earlier)
    await tree.sequence(service.vault)
    dumped = backups.dump()
    for wanted in (longer(earlier), earlier, longer(earlier)):
        assert not await change(service, wanted, "admin")
        assert await change(service, wanted, "privacy")
    await tree.checkpoint(service.vault)

    vault = await backups.put_back(None if empty else dumped, service.vault)
    async with connection(vault.pool) as lent:
        await policy.standing(lent, earlier)
    assert (await rebuild.run(owned(vault))).replayed.periods == 1
    async with connection(vault.pool) as lent:
        assert await policy.standing(lent, earlier) == policy.Standing(longer(earlier), True)
    assert (await rebuild.run(owned(vault))).replayed.periods == 0


def test_the_command_says_what_has_to_be_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    command._print(Report(Replayed(teams=2, persons=3, periods=1)))
    told = capsys.readouterr().out
    assert "to be said again: who is in 2 teams, whose 3 keys and accounts are" in told
    assert "two people granted" in told
    command._print(Report(Replayed()))
    assert "two people granted" not in capsys.readouterr().out
