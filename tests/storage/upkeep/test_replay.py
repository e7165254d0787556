"""What a ledger tells is done again on a backup's rows: rights that were narrowed stay so, and what
two people decided stands.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from app import rebuild as command
from archive.access import Level
from storage import cdrs, credentials, persons, policy, teams, tree
from storage.credentials import Limits
from storage.upkeep import rebuild
from storage.upkeep.rebuild import Report
from storage.upkeep.replay import Replayed
from tests import years
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.postgres import Postgres
from tests.roles import connection, owned
from tests.services import Service
from tests.sounds import tone
from tests.storage.test_early import ask
from tests.storage.test_policy import change, longer
from tests.storage.upkeep.test_rebuild import Backups, backups
from tests.storage.upkeep.test_reconcile import stored
from tests.web.browsing import signed_in
from tests.web.test_cdrs import record, told
from tests.web.test_listen import upload
from tests.web.test_uploads import AUDIO, Client

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


async def test_an_erasing_that_is_done_again_leaves_what_the_first_left(
    service: Service, backups: Backups
) -> None:
    """No call record, no upload; and no call, but of what two people had erased before its time."""
    client = Client(service)
    assert (await client.create(data=AUDIO)).status == 201
    early = (await service.rows())[0]["id"]
    gone = await upload(service, "due", started_at=a_year_ago(seconds=50))
    await told(service, record("call"), record("due", started_at=a_year_ago(seconds=90)))
    await cdrs.match(service.vault)
    dumped = backups.dump()
    async with connection(service.vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM cdr WHERE recording IS NOT NULL") == 2
        assert await lent.fetchval("SELECT recording FROM upload") == early
    for who in ("privacy", "admin"):
        await ask(service, str(early), who)
    await service.turn_clock(timedelta(seconds=51))
    assert (await service.erase()).erased == 1
    await tree.checkpoint(service.vault)
    left = {row["id"]: row["call_hash"] for row in await service.rows()}
    assert (left[early] is None, left[UUID(gone)]) == (False, None)

    vault = await backups.put_back(dumped, service.vault)
    assert (await rebuild.run(owned(vault))).replayed.erased == 2
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT id, call_hash FROM recording")
        assert {row["id"]: row["call_hash"] for row in rows} == left
        assert await lent.fetchval("SELECT count(*) FROM cdr") == 0
        assert await lent.fetchval("SELECT count(*) FROM upload") == 0


@pytest.mark.parametrize("closed", [False, True])
async def test_calls_that_were_taken_in_and_erased_since_are_counted(
    service: Service, backups: Backups, monkeypatch: pytest.MonkeyPatch, *, closed: bool
) -> None:
    """Nothing tells of what call they were, so that nothing keeps them from coming again, but the
    end of their day.
    """
    known = await upload(service, "known")
    dumped = backups.dump()
    soon = await upload(service, "soon", started_at=a_year_ago(seconds=50))
    day, _ = await stored(service, soon)
    for identifier in (known, soon, await upload(service, "since")):
        for who in ("privacy", "admin"):
            await ask(service, identifier, who)
    if closed:
        await service.turn_all_clocks(when_over(day), monkeypatch)
        await service.night()
        assert day in service.vault.ring.destroyed()
    await tree.checkpoint(service.vault)
    for database, count in ((dumped, 2), (None, 3)):
        vault = await backups.put_back(database, service.vault)
        assert (await rebuild.run(owned(vault))).replayed.untombed == count - closed


async def test_a_day_that_is_closed_again_leaves_what_the_first_closing_left(
    service: Service, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of a call, so that another one of its name is taken in."""
    early = await upload(service, "again", started_at=a_year_ago(seconds=50))
    await told(service, record("unmatched", started_at=a_year_ago(seconds=90)))
    day, _ = await stored(service, early)
    dumped = backups.dump()
    for who in ("privacy", "admin"):
        await ask(service, early, who)
    by = when_over(day)
    await service.turn_all_clocks(by, monkeypatch)
    await service.night()
    assert day in service.vault.ring.destroyed()

    vault = await backups.put_back(dumped, service.vault)
    assert (await rebuild.run(owned(vault))).replayed.closed == 1
    async with connection(vault.pool) as lent:
        for table in ("cdr", "filed", "term"):
            assert await lent.fetchval(f"SELECT count(*) FROM {table}") == 0, table
        assert await lent.fetchval("SELECT call_hash FROM recording WHERE state = 'erased'") is None
    again = await backups.serve(vault, service)
    await again.turn_clock(by)
    await upload(again, "again", tone(2), started_at=(years.now() + by).isoformat())


def test_the_command_says_what_has_to_be_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    command._print(Report(Replayed(teams=2, persons=3, periods=1)))
    told = capsys.readouterr().out
    assert "to be said again: who is in 2 teams, whose 3 keys and accounts are" in told
    assert "two people granted" in told
    assert "erased before their time" not in told
    command._print(Report(Replayed(untombed=4)))
    told = capsys.readouterr().out
    assert "two people granted" not in told
    assert "erased before their time: 4 recordings" in told
