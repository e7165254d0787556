"""Erasing before the year is over: two people, the same erasing, and what the ledger proves."""

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app import vault as opening
from app.erase_command import _erase
from archive import certificate, story
from archive.certificate import Certificate, CertificateError
from archive.errors import UnavailableError
from jobs import schedule
from storage import early, four_eyes, ledger, removal, signer, tree
from storage.four_eyes import RefusedError
from storage.vault import Vault
from tests.roles import connection, owned
from tests.services import Faulty, Service, stop_clock
from tests.sounds import tone
from tests.storage.test_certificates import stand_alone
from tests.storage.test_fuse import multiply
from tests.web.test_access_matrix import _unfinished
from tests.web.test_listen import found, upload
from tests.web.test_operations import figures
from tests.web.test_upload import problem, query
from web import operations

WHY = "Pyyntö 4711"
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON)"


async def ask(service: Service, identifier: str, who: str) -> early.Asked:
    return await early.ask(
        owned(service.vault), UUID(identifier), WHY, service.tokens.get(who, who)
    )


async def told(service: Service) -> list[Any]:
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        return await lent.fetch(
            "SELECT * FROM ledger WHERE act LIKE 'erasure.%' OR act = 'erased' ORDER BY position"
        )


async def test_two_people_erase_a_recording_before_its_time(service: Service) -> None:
    call = query(agent="Anna")
    assert (await service.put("gone", tone(), call)).status == 201
    kept = await upload(service, "kept")
    gone = next(row["id"] for row in await service.rows() if str(row["id"]) != kept)
    first = await ask(service, str(gone), "privacy")
    assert (first.granted, first.outcome.erased) == (False, [])
    assert (await service.get(f"/v1/recordings/{gone}")).status == 200
    second = await ask(service, str(gone), "admin")
    assert (second.granted, [claim.id for claim in second.outcome.erased]) == (True, [gone])
    for path in ("", "/audio", "/waveform"):
        await problem(await service.get(f"/v1/recordings/{gone}{path}"), 410, "gone")
    assert await found(service) == ["kept"]
    assert [held.key.split("/")[1] for held in await service.holdings()] == [kept]
    # The call is not taken in again, before its day is closed.
    await problem(await service.put("gone", tone(), call), 410, "gone")
    row = next(row for row in await service.rows() if row["id"] == gone)
    assert (row["state"], row["details"], row["call_hash"] is None) == ("erased", None, False)
    asked, granted, erased = await told(service)
    assert [entry["recording"] for entry in (asked, granted, erased)] == [gone] * 3
    keys = [service.tokens[who].split("_")[1] for who in ("privacy", "admin")]
    assert (asked["actor"], granted["actor"], granted["facts"]) == (*keys, {"keys": keys})
    for entry in (asked, granted):
        opened = ledger.unseal(service.vault.ring, entry["ends_on"], entry["details"])
        assert opened == {"reason": WHY}


async def test_what_was_granted_is_found_without_a_look_at_each_recording(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without statistics, as after a restore."""
    gone = await upload(service, "gone")
    await multiply(service, gone, 3000, told=True)
    for who in ("privacy", "admin"):
        await ask(service, gone, who)
    await tree.sequence(service.vault)
    plans: list[Any] = []

    @asynccontextmanager
    async def explained(pool: Any) -> AsyncIterator[Any]:
        async def fetch(statement: str, *values: Any) -> Any:
            plans.extend(json.loads(await lent.fetchval(f"{EXPLAIN} {statement}", *values)))
            return []

        async with connection(pool) as lent:
            yield Faulty(lent, fetch=fetch)

    monkeypatch.setattr(early, "connection", explained)
    await early.run(service.vault)
    assert plans[0]["Plan"]["Shared Hit Blocks"] < 250, "all of three thousand lie in 400"


async def test_the_certificate_names_the_rule_of_an_early_erasure(
    service: Service, tmp_path: Path
) -> None:
    gone = await upload(service, "gone")
    await ask(service, gone, "privacy")
    assert (await service.get(f"/v1/certificates/{gone}")).status == 404
    await ask(service, gone, "admin")
    raw = await (await service.get(f"/v1/certificates/{gone}")).json()
    key = service.vault.signer.verifier

    def check(what: Any) -> certificate.Erasure:
        parsed = Certificate.parse(json.dumps(what).encode())
        return certificate.erasure(parsed, lambda note: signer.check(note, key))

    assert check(raw).early
    acts = [each["entry"]["act"] for each in raw["entries"]]
    assert acts == ["stored", "erasure.granted", "erased"]
    said = stand_alone(tmp_path, raw, str(key))
    assert said.returncode == 0, said.stderr
    assert "early, as two keys granted" in said.stdout
    page = await (await service.get(f"/v1/certificates/{gone}/page?lang=en")).text()
    assert "as two people decided" in page
    # Without the granting, the same is a lie.
    without = {**raw, "entries": [raw["entries"][0], raw["entries"][2]]}
    with pytest.raises(CertificateError, match="before it was due"):
        check(without)
    assert stand_alone(tmp_path, without, str(key)).returncode == 1


async def test_the_whole_story_knows_who_granted(service: Service) -> None:
    gone = await upload(service, "gone")
    await ask(service, gone, "privacy")
    await ask(service, gone, "admin")
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        entries = await ledger.page(lent, 0, 1000)
    assert story.read([entry.text for entry in entries]).faults == []
    lines = [entry.text for entry in entries if entry.act != "erasure.granted"]
    assert any("before it is due" in fault for fault in story.read(lines).faults)


async def test_it_takes_two_different_people(service: Service) -> None:
    gone = await upload(service, "gone")
    anna = await service.key("privacy", "anna", person="anna")
    also = await service.key("admin", "anna2", person="Anna")
    other = await service.key("privacy", "bo", person="bo")
    for who in (anna, anna, also, also):
        assert not (await ask(service, gone, who)).granted
    assert (await service.get(f"/v1/recordings/{gone}")).status == 200
    assert (await ask(service, gone, other)).granted


async def test_an_asking_ends_after_a_day_and_with_its_key(service: Service) -> None:
    gone = await upload(service, "gone")
    third = await service.key("admin", "third", person="third")
    await ask(service, gone, "privacy")
    await service.turn_clock(four_eyes.WAIT + timedelta(seconds=5))
    assert not (await ask(service, gone, "admin")).granted
    await service.revoke("admin")
    assert not (await ask(service, gone, third)).granted
    assert (await ask(service, gone, "privacy")).granted


async def test_an_asking_is_for_one_recording(service: Service) -> None:
    one, other = await upload(service, "a"), await upload(service, "b")
    await ask(service, one, "privacy")
    assert not (await ask(service, other, "admin")).granted
    assert (await ask(service, one, "admin")).granted


@pytest.mark.parametrize("level", ["uploader", "supervisor", "auditor"])
async def test_other_levels_neither_ask_nor_grant(service: Service, level: str) -> None:
    gone = await upload(service, "gone")
    for _ in range(2):
        with pytest.raises(RefusedError, match="admin or privacy"):
            await ask(service, gone, level)
        await ask(service, gone, "privacy")
    for token in ("", "cra_nobody"):
        with pytest.raises(RefusedError):
            await ask(service, gone, token)
    assert (await service.get(f"/v1/recordings/{gone}")).status == 200


async def test_what_is_not_there_cannot_be_asked_for(service: Service) -> None:
    gone = await upload(service, "gone")
    limited = await service.key("privacy", "limited", ["other"], person="limited")
    narrow = await service.key("privacy", "narrow", queues=["north"], person="narrow")
    for who in (limited, narrow):
        with pytest.raises(RefusedError, match="limited"):
            await ask(service, gone, who)
    with pytest.raises(RefusedError, match="no recording"):
        await ask(service, str(uuid4()), "admin")
    await ask(service, gone, "privacy")
    await ask(service, gone, "admin")
    with pytest.raises(RefusedError, match="erased already"):
        await ask(service, gone, "privacy")


async def test_what_was_granted_is_erased_by_whoever_comes_next(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await upload(service, "gone")
    await ask(service, gone, "privacy")

    async def away(*_: object) -> None:
        raise UnavailableError("The store is away; try again.")

    with monkeypatch.context() as patch:
        patch.setattr(removal, "emptied", away)
        came = await ask(service, gone, "admin")
        assert (came.granted, came.outcome.erased, came.outcome.failed) == (True, [], 1)
        await problem(await service.get(f"/v1/recordings/{gone}"), 410, "gone")
    # The runs of what is due leave it alone, and the next look of its own finds it.
    assert (await service.erase()).erased == 0
    assert [str(one.id) for one in (await early.run(service.vault)).erased] == [gone]
    assert (await early.run(service.vault)).erased == []


async def test_what_was_granted_and_stays_is_told(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone = await upload(service, "gone")
    await upload(service, "other")
    await ask(service, gone, "privacy")

    async def kept(_: object, prefixes: list[str], *__: object) -> set[str]:
        return set(prefixes)

    with monkeypatch.context() as patch:
        patch.setattr(removal, "emptied", kept)
        patch.setattr(operations, "FRESH", 0.0)
        assert (await ask(service, gone, "admin")).outcome.failed == 1
        for ahead, left in ((50, False), (70, True)):
            await service.turn_all_clocks(timedelta(minutes=ahead), patch)
            await schedule.tidy(service.vault)
            assert "still there 1, could not ask 0" in caplog.text
            caplog.clear()
            assert (await figures(service))["archive_erasures_left", frozenset()] == left
            said = await service.operate("/readyz", token=None)
            assert ((await said.json())["checks"]["erasures"] == "ok") is not left
            await service.end_leases()
    assert [str(one.id) for one in (await early.run(service.vault)).erased] == [gone]
    assert (await figures(service))["archive_erasures_left", frozenset()] == 0


@pytest.mark.parametrize(
    ("held", "last"),
    [
        ("state = 'erasing', lease_until = {}", timedelta()),
        ("redacting_until = {}", timedelta(microseconds=1)),
    ],
)
async def test_what_somebody_works_on_waits_to_the_instant(
    service: Service, held: str, last: timedelta
) -> None:
    """A lease holds at its instant, a redaction up to it."""
    one = await upload(service, "one")
    at = datetime.now(UTC)
    await stop_clock(service.vault, at)
    async with connection(service.vault.pool) as lent:
        facts = {"keys": ["a", "b"]}
        await ledger.record(lent, "a", "erasure.granted", recording=UUID(one), facts=facts)

        async def erased(until: datetime) -> bool:
            moment = held.format(f"'{until.isoformat()}'::timestamptz")
            await lent.execute(f"UPDATE recording SET {moment}")
            return bool((await early.run(service.vault)).erased)

        assert not await erased(at + timedelta(minutes=9))
        assert not await erased(at + last)
        assert await erased(at + last - timedelta(microseconds=1))


@pytest.mark.parametrize("state", ["receiving", "abandoned"])
async def test_what_is_not_stored_is_none_of_it(service: Service, state: str) -> None:
    """Also when whoever took it in holds it no more."""
    like = UUID(await upload(service, "one"))
    identifier = UUID(await _unfinished(service, like, "other", state))
    async with connection(service.vault.pool) as lent:
        facts = {"keys": ["a", "b"]}
        await ledger.record(lent, "a", "erasure.granted", recording=identifier, facts=facts)
        await lent.execute(
            "UPDATE recording SET lease_until = archive_now() - interval '1 hour' WHERE id = $1",
            identifier,
        )
    outcome = await early.run(service.vault)
    assert (outcome.erased, outcome.failed) == ([], 0)
    assert {str(row["state"]) for row in await service.rows()} <= {"stored", "receiving"}


async def test_one_name_twice_grants_nothing(service: Service) -> None:
    """Not even when the database is made to say so."""
    gone = await upload(service, "gone")
    async with connection(service.vault.pool) as lent:
        facts = {"keys": ["a", "a"]}
        await ledger.record(lent, "a", "erasure.granted", recording=UUID(gone), facts=facts)
    assert (await early.run(service.vault)).erased == []


async def test_the_command_asks_and_then_erases(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def opened(config: object, *, join: bool) -> AsyncIterator[Vault]:
        yield owned(service.vault)

    monkeypatch.setattr(opening, "opened", opened)
    gone = await upload(service, "gone")

    async def command(token: str, reason: str = WHY) -> tuple[int, str, str]:
        monkeypatch.setenv("ARCHIVE_TOKEN", token)
        words = {"id": UUID(gone), "reason": reason, "token_file": "", "json": False}
        status = await _erase(argparse.Namespace(config=None, **words))
        said = capsys.readouterr()
        return status, said.out, said.err

    assert "two people decide" in (await command(""))[2]
    assert "A reason is one line" in (await command(service.tokens["admin"], " "))[2]
    status, out, err = await command(service.tokens["admin"])
    assert (status, out) == (1, "")
    assert "a second person has to run the same command" in err
    assert await command(service.tokens["privacy"]) == (0, "erased\n", "")
