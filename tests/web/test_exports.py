"""Exports over HTTP: what is in one, who may have it, when it is over, and what the ledger says."""

import asyncio
import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest

from archive import export, vcon
from archive.certificate import CertificateError
from archive.listening import Rules
from storage import certificates, early, export_erasing, export_making, ledger, tree
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection
from tests.services import Service, open_service
from tests.sounds import tone
from tests.storage.test_certificates import check, stand_alone
from tests.web.test_listen import upload
from tests.web.test_upload import problem

WHY = "Complaint 4711"


async def ask(
    service: Service, ids: list[Any], token: str = "supervisor", reason: Any = WHY
) -> aiohttp.ClientResponse:
    return await service.session.post(
        f"{service.retrieval}/v1/exports",
        json={"recordings": ids, "reason": reason},
        headers=service._login(token),
    )


async def asked(service: Service, ids: list[Any], token: str = "supervisor") -> str:
    answer = await ask(service, ids, token)
    assert answer.status == 201, await answer.text()
    body = await answer.json()
    assert answer.headers["Location"] == f"/v1/exports/{body['id']}"
    return str(body["id"])


async def made(service: Service, ids: list[Any], token: str = "supervisor") -> str:
    identifier = await asked(service, ids, token)
    assert await export_making.run(service.vault)
    return identifier


async def stage(service: Service, identifier: str, token: str = "supervisor") -> str:
    answer = await service.get(f"/v1/exports/{identifier}", token)
    assert answer.status == 200, await answer.text()
    return str((await answer.json())["stage"])


async def fetch(
    service: Service, identifier: str, token: str = "supervisor"
) -> aiohttp.ClientResponse:
    return await service.get(f"/v1/exports/{identifier}/file", token)


async def fetched(service: Service, identifier: str, token: str = "supervisor") -> zipfile.ZipFile:
    answer = await fetch(service, identifier, token)
    assert answer.status == 200, await answer.text()
    return zipfile.ZipFile(io.BytesIO(await answer.read()))


async def agree(service: Service, identifier: str, token: str = "privacy") -> Any:
    url = f"{service.retrieval}/v1/exports/{identifier}/agree"
    return await service.ask("POST", url, token)


async def several(service: Service, count: int, **fields: str) -> list[str]:
    sound = tone(0.3)
    return [await upload(service, f"c{number}", sound, **fields) for number in range(count)]


async def entries(service: Service, act: str) -> list[Any]:
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        return await lent.fetch("SELECT * FROM ledger WHERE act LIKE $1 ORDER BY position", act)


async def test_what_was_chosen_comes_in_one_file_with_all_that_is_known(service: Service) -> None:
    sounds = [tone(1.0, channels=2), tone(40.0, pitch=880)]
    ids = [
        await upload(service, "a", sounds[0], caller="+358401234567", agent="Åke", queue="north",
                     direction="inbound", callee="3201", customer="C-1"),
        await upload(service, "b", sounds[1]),
    ]  # fmt: skip
    await upload(service, "c")
    identifier = await asked(service, ids)
    assert await stage(service, identifier) == "queued"
    refused = await fetch(service, identifier)
    await problem(refused, 503, "unavailable")
    assert refused.headers["Retry-After"]
    assert await export_making.run(service.vault)
    assert await stage(service, identifier) == "ready"
    answer = await fetch(service, identifier)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Cache-Control"] == "private, no-store"
    assert f'filename="export-{identifier}.zip"' in answer.headers["Content-Disposition"]
    body = await answer.read()
    assert len(body) == int(answer.headers["Content-Length"])
    archive = zipfile.ZipFile(io.BytesIO(body))
    assert archive.testzip() is None
    manifest = json.loads(archive.read("manifest.json"))
    assert manifest["reason"] == WHY
    assert manifest["asked_by"] == service.tokens["supervisor"].split("_")[1]
    assert [each["id"] for each in manifest["recordings"]] == ids
    for each, sound in zip(manifest["recordings"], sounds, strict=True):
        for file in (each["audio"], each["vcon"]):
            content = archive.read(file["name"])
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
            assert len(content) == file["bytes"]
        assert archive.read(each["audio"]["name"]) == sound
        conversation = vcon.read(archive.read(each["vcon"]["name"]))
        assert conversation.sha512 == hashlib.sha512(sound).digest()
    assert set(archive.namelist()) == {
        "manifest.json", *(f"{one}.wav" for one in ids), *(f"{one}.vcon.json" for one in ids),
    }  # fmt: skip
    told = vcon.read(archive.read(f"{ids[0]}.vcon.json")).fields
    assert told["caller"], told["callee"] == ("+358401234567", "3201")
    assert (told["agent"], told["queue"], told["call_id"]) == ("Åke", "north", "a")


async def test_it_lies_sealed_in_the_store_under_its_day(service: Service) -> None:
    ids = await several(service, 1)
    identifier = await made(service, ids)
    [key] = [one.key for one in await service.holdings() if identifier in one.key]
    day, _, _ = key.split("/")
    body = await (await service.get(f"/v1/exports/{identifier}")).json()
    assert datetime.fromisoformat(body["expires_at"]).date().isoformat() == day
    size = next(one.size for one in await service.holdings() if one.key == key)
    async with service.vault.objects.get(key, 0, size) as pieces:
        stored = b"".join([piece async for piece in pieces])
    for clear in (b"PK\x03\x04", b"RIFF", ids[0].encode(), WHY.encode()):
        assert clear not in stored[176:]
    async with connection(service.vault.pool) as lent:
        row = await lent.fetchrow("SELECT * FROM export")
    assert WHY not in str(dict(row or {}))


async def test_each_recording_counts_as_heard_when_it_is_fetched_and_is_told_of(
    service: Service,
) -> None:
    ids = await several(service, 2)
    identifier = await made(service, ids)
    head = await service.ask("HEAD", f"{service.retrieval}/v1/exports/{identifier}/file",
                             "supervisor")  # fmt: skip
    assert head.status == 200
    assert await entries(service, "exported") == []
    await fetched(service, identifier)
    key = service.tokens["supervisor"].split("_")[1]
    rows = await entries(service, "exported")
    assert [(row["actor"], str(row["recording"])) for row in rows] == [(key, one) for one in ids]
    assert {row["facts"]["export"] for row in rows} == {identifier}
    rows = await entries(service, "export.%")
    assert [(row["act"], row["actor"]) for row in rows] == [
        ("export.asked", key), ("export.made", "system"), ("export.downloaded", key),
    ]  # fmt: skip
    opened = ledger.unseal(service.vault.ring, rows[0]["ends_on"], rows[0]["details"])
    assert opened == {"reason": WHY}
    assert "4711" not in str([row["facts"] for row in rows])
    async with connection(service.vault.pool) as lent:
        heard = await lent.fetchval("SELECT recordings FROM listener")
    assert {str(one) for one in heard} == set(ids)


@pytest.mark.parametrize(
    ("ids", "reason"),
    [
        ([], WHY), (["x"], WHY), ([7], WHY), ([None], WHY), ("x", WHY), (None, WHY),
        ([str(uuid4()) for _ in range(export.MOST + 1)], WHY),
        ([str(uuid4())], ""), ([str(uuid4())], None), ([str(uuid4())], "a\nb"),
    ],
)  # fmt: skip
async def test_what_cannot_be_read_is_refused(service: Service, ids: Any, reason: Any) -> None:
    await problem(await ask(service, ids, reason=reason), 400, "malformed")


async def test_nobody_exports_what_they_may_not_hear(service: Service) -> None:
    [known] = await several(service, 1, queue="north")
    hidden = await upload(service, "hidden", queue="south")
    limited = await service.key("supervisor", "limited", queues=["north"])
    for ids in ([known, hidden], [known, str(uuid4())]):
        await problem(await ask(service, ids, limited), 404, "not-found")
    for level in ("uploader", "auditor", "admin"):
        await problem(await ask(service, [known], level), 403, "forbidden")
    assert (await ask(service, [known], limited)).status == 201
    assert len(await entries(service, "export.asked")) == 1


async def test_it_is_only_for_who_asked(service: Service) -> None:
    identifier = await made(service, await several(service, 1))
    other = await service.key("supervisor", "other")
    for token in (other, "privacy"):
        await problem(await service.get(f"/v1/exports/{identifier}", token), 404, "not-found")
        await problem(await fetch(service, identifier, token), 404, "not-found")
        url = f"{service.retrieval}/v1/exports/{identifier}"
        await problem(await service.ask("DELETE", url, token), 404, "not-found")
        assert (await service.ask("HEAD", f"{url}/file", token)).status == 404
        assert (await (await service.get("/v1/exports", token)).json())["items"] == []
    [mine] = (await (await service.get("/v1/exports")).json())["items"]
    assert mine["id"] == identifier


async def test_a_right_that_was_lost_meanwhile_keeps_it_shut(service: Service) -> None:
    ids = [await upload(service, "a", queue="north"), await upload(service, "b", queue="south")]
    token = await service.key("supervisor", "moving")
    identifier = await made(service, ids, token)
    async with connection(service.vault.pool) as lent:
        change = "UPDATE access_key SET queues = $1 WHERE name = 'moving'"
        await lent.execute(change, ["north"])
        await problem(await fetch(service, identifier, token), 403, "forbidden")
        assert await entries(service, "exported") == []
        await lent.execute(change, None)
    await fetched(service, identifier, token)


async def test_a_right_that_is_lost_while_it_is_sent_stops_it(service: Service) -> None:
    sound = tone(600.0, channels=2)
    ids = [await upload(service, "a", sound), await upload(service, "b", queue="south")]
    token = await service.key("supervisor", "moving")
    identifier = await made(service, ids, token)
    answer = await fetch(service, identifier, token)
    await answer.content.readexactly(1000)
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE access_key SET queues = ARRAY['south'] WHERE name = 'moving'")
    await asyncio.sleep(1.5)
    with pytest.raises((aiohttp.ClientError, asyncio.IncompleteReadError)):
        await answer.content.readexactly(int(answer.headers["Content-Length"]) - 1000)
    answer.close()


@pytest.fixture
async def scarce(vault: Any) -> AsyncIterator[Service]:
    """Three recordings an hour are all that one may hear."""
    async with open_service(replace(vault, listening=Rules(recordings_per_hour=3))) as opened:
        yield opened


async def test_the_budget_holds_for_what_is_exported(scarce: Service) -> None:
    ids = await several(scarce, 5)
    await problem(await ask(scarce, ids[:4]), 413, "too-large")
    identifier = await made(scarce, ids[:2])
    for one in ids[2:4]:
        assert (await scarce.get(f"/v1/recordings/{one}/audio")).status == 200
    await problem(await fetch(scarce, identifier), 429, "too-many")
    assert await entries(scarce, "exported") == [], "all of it, or nothing"
    await problem(await ask(scarce, ids[:2]), 429, "too-many")
    assert (await ask(scarce, [ids[0]])).status == 201
    await scarce.turn_clock(timedelta(minutes=61))
    await fetched(scarce, identifier)
    assert (await scarce.get(f"/v1/recordings/{ids[2]}/audio")).status == 200
    assert (await scarce.get(f"/v1/recordings/{ids[3]}/audio")).status == 429


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three recordings a day are all that one may have alone."""
    monkeypatch.setattr(export, "ALONE", 3)


@pytest.mark.usefixtures("few")
async def test_more_than_a_few_take_a_second_person(service: Service) -> None:
    ids = await several(service, 4)
    identifier = await asked(service, ids)
    assert await stage(service, identifier) == "waiting"
    assert not await export_making.run(service.vault)
    await problem(await fetch(service, identifier), 403, "forbidden")
    await problem(await agree(service, identifier, "supervisor"), 403, "forbidden")
    [waits] = (await (await service.get("/v1/exports", "privacy")).json())["items"]
    assert (waits["id"], waits["reason"], waits["mass"]) == (identifier, WHY, True)
    assert (await agree(service, identifier)).status == 200
    await problem(await agree(service, identifier), 404, "not-found")
    assert await export_making.run(service.vault)
    manifest = json.loads((await fetched(service, identifier)).read("manifest.json"))
    second = service.tokens["privacy"].split("_")[1]
    assert manifest["agreed_by"] == second
    [entry] = await entries(service, "export.agreed")
    asker = service.tokens["supervisor"].split("_")[1]
    assert entry["facts"] == {"export": identifier, "keys": [asker, second]}
    # Who agreed does not get it.
    await problem(await fetch(service, identifier, "privacy"), 404, "not-found")


@pytest.mark.usefixtures("few")
async def test_several_small_exports_of_one_day_are_a_mass_too(service: Service) -> None:
    ids = await several(service, 4)
    anna = await service.key("supervisor", "anna", person="anna")
    again = await service.key("supervisor", "anna-again", person="anna")
    answers = await asyncio.gather(*(ask(service, [one], anna) for one in ids[:3]))
    assert [(await each.json())["mass"] for each in answers] == [False] * 3
    for token in (anna, again):
        assert (await (await ask(service, [ids[3]], token)).json())["mass"], "one person's keys"
    assert not (await (await ask(service, [ids[3]])).json())["mass"], "another's"
    await service.turn_clock(timedelta(hours=24, seconds=30))
    assert not (await (await ask(service, [ids[3]], anna)).json())["mass"]


@pytest.mark.usefixtures("few")
async def test_of_many_requests_at_once_each_sees_the_others(service: Service) -> None:
    ids = await several(service, 8)
    answers = await asyncio.gather(*(ask(service, [one]) for one in ids))
    assert sorted([(await each.json())["mass"] for each in answers]) == [False] * 3 + [True] * 5


@pytest.mark.usefixtures("few")
async def test_nobody_is_their_own_second_person(service: Service) -> None:
    ids = await several(service, 4)
    anna = await service.key("privacy", "anna", person="anna")
    again = await service.key("privacy", "anna-again", person="anna")
    limited = await service.key("privacy", "limited", ["contract"], person="bo")
    bo = await service.key("privacy", "bo", person="bo")
    identifier = await asked(service, ids, anna)
    for token in (anna, again):
        await problem(await agree(service, identifier, token), 403, "forbidden")
    await problem(await agree(service, identifier, limited), 404, "not-found")
    # Nor does somebody learn why others want what does not exist for them.
    await problem(await service.get(f"/v1/exports/{identifier}", limited), 404, "not-found")
    assert (await (await service.get("/v1/exports", limited)).json())["items"] == []
    assert await stage(service, identifier, anna) == "waiting"
    assert await entries(service, "export.agreed") == []
    assert len(await entries(service, "export.asked")) == 1
    assert (await agree(service, identifier, bo)).status == 200


@pytest.mark.usefixtures("few")
async def test_nobody_agrees_a_day_later_or_for_who_has_no_key_any_more(service: Service) -> None:
    ids = await several(service, 4)
    token = await service.key("supervisor", "leaving")
    first, second = [await asked(service, ids, each) for each in (token, "supervisor")]
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "UPDATE access_key SET revoked_at = archive_now() WHERE name = 'leaving'"
        )
    await problem(await agree(service, first), 403, "forbidden")
    await service.turn_clock(timedelta(hours=24, seconds=30))
    await problem(await agree(service, second), 404, "not-found")
    await problem(await service.get(f"/v1/exports/{second}", "privacy"), 404, "not-found")


async def test_it_is_over_after_three_days_and_erased_with_an_entry(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    identifier = await made(service, await several(service, 1))
    await service.turn_clock(export.LIFE - timedelta(minutes=5))
    assert await export_erasing.run(service.vault) == 0
    assert (await fetch(service, identifier)).status == 200
    await service.turn_clock(export.LIFE + timedelta(minutes=5))
    await problem(await fetch(service, identifier), 410, "gone")
    assert await stage(service, identifier) == "over"
    assert await export_erasing.run(service.vault) == 1
    assert await stage(service, identifier) == "erased"
    assert not [one for one in await service.holdings() if identifier in one.key]
    [entry] = await entries(service, "export.erased")
    assert entry["facts"]["why"] == "expired"
    assert entry["facts"]["absent"][:2] == ["objects", "uploads"]
    async with connection(service.vault.pool) as lent:
        [row] = await lent.fetch("SELECT * FROM export")
    assert [row[name] for name in ("recordings", "reason", "attempt", "header")] == [None] * 4
    await problem(await fetch(service, identifier), 410, "gone")
    await service.turn_clock(export.LIFE + timedelta(days=8))
    await export_erasing.run(service.vault)
    await problem(await service.get(f"/v1/exports/{identifier}"), 404, "not-found")


async def test_it_does_not_outlive_the_first_recording_in_it(service: Service) -> None:
    ids = [
        await upload(service, "a", started_at=a_year_ago(hours=2)),
        await upload(service, "b"),
    ]
    identifier = await made(service, ids)
    body = await (await service.get(f"/v1/exports/{identifier}")).json()
    one = await (await service.get(f"/v1/recordings/{ids[0]}")).json()
    ends = datetime.fromisoformat(one["expires_at"])
    assert datetime.fromisoformat(body["expires_at"]) == ends - export.AHEAD
    await service.turn_clock(timedelta(hours=1, minutes=46))
    await problem(await fetch(service, identifier), 410, "gone")
    await problem(await ask(service, ids), 410, "gone")
    assert (await ask(service, ids[1:])).status == 201
    assert await export_erasing.run(service.vault) == 1


async def test_it_goes_with_a_recording_that_is_erased_before(service: Service) -> None:
    ids = await several(service, 2)
    identifier, other = await made(service, ids), await made(service, ids[1:])
    waiting = await asked(service, ids)
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "INSERT INTO ledger_waiting (actor, act, recording, facts) VALUES ('a',"
            ' \'erasure.granted\', $1, \'{"keys": ["a", "b"]}\')',
            ids[0],
        )
    outcome = await early.run(service.vault)
    assert len(outcome.erased) == 1
    await problem(await fetch(service, identifier), 410, "gone")
    assert await stage(service, identifier) == "erased"
    assert await stage(service, waiting) == "erased"
    assert not [one for one in await service.holdings() if identifier in one.key]
    acts = [act for act, _ in await service.acts()]
    assert acts.index("export.erased") < acts.index("erased"), "first the copies"
    assert {row["facts"]["why"] for row in await entries(service, "export.erased")} == {"recording"}
    await fetched(service, other)


async def test_it_is_over_once_other_audio_stands_for_a_recording_in_it(service: Service) -> None:
    identifier = await made(service, await several(service, 1))
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE export SET packed = ARRAY[gen_random_uuid()]")
    await problem(await fetch(service, identifier), 410, "gone")
    assert await stage(service, identifier) == "over"
    assert await entries(service, "exported") == []


async def test_who_asked_ends_it(service: Service) -> None:
    identifier = await made(service, await several(service, 1))
    url = f"{service.retrieval}/v1/exports/{identifier}"
    assert (await service.ask("DELETE", url, "supervisor")).status == 204
    await problem(await fetch(service, identifier), 410, "gone")
    assert await export_erasing.run(service.vault) == 1
    [entry] = await entries(service, "export.erased")
    assert entry["facts"]["why"] == "withdrawn"
    await problem(await service.ask("DELETE", url, "supervisor"), 404, "not-found")


async def test_an_export_that_was_erased_has_a_certificate(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = await service.key("supervisor", "asker")
    identifier = await made(service, await several(service, 2), token)
    path = f"/v1/certificates/{identifier}"
    await problem(await service.get(path, token), 404, "not-found")
    await service.turn_clock(timedelta(days=3, seconds=30))
    await export_erasing.run(service.vault)
    open_day = await (await service.get(path, token)).json()
    acts = [each["entry"]["act"] for each in open_day["entries"]]
    assert acts == ["export.asked", "export.erased"]
    facts = open_day["entries"][-1]["entry"]["facts"]
    assert facts["why"] == "expired" and UUID(facts["attempt"]) and facts["absent"]
    await service.turn_all_clocks(timedelta(days=6), monkeypatch)
    await service.night()
    closed = await (await service.get(path, token)).json()
    assert [each["entry"]["act"] for each in closed["entries"]][2:] == ["day.closed"]
    for raw in (open_day, closed):
        shown = check(service, raw)
        assert (shown.export, shown.recordings, shown.why) == (identifier, 2, "expired")
        assert (shown.closed_at is None) is (raw is open_day)
        told = stand_alone(tmp_path, raw, str(service.vault.signer.verifier))
        assert (told.returncode, told.stdout[:6]) == (0, "holds:"), told.stderr
        assert identifier in told.stdout
    page = await (await service.get(f"{path}/page?lang=sv", token)).text()
    assert identifier in page and "tiden gick ut" in page
    assert (await service.get(path, "privacy")).status == 200
    assert (await service.operate(path, "auditor")).status == 200
    await problem(await service.get(path, "supervisor"), 404, "not-found")


@pytest.mark.parametrize("name", ["export", "day", "due", "recordings", "that of its due time"])
async def test_a_certificate_of_an_export_that_does_not_fit_does_not_hold(
    service: Service, name: str
) -> None:
    """As an archive that lies would write it: signed, and in the tree."""
    good = {
        "export": str(uuid4()),
        "recordings": 2,
        "day": "2026-11-29",
        "due": "2026-11-29T12:00:00.000000Z",
    }
    other = {
        "export": str(uuid4()),
        "recordings": "2",
        "day": "2026-11-30",
        "due": "2026-11-29T13:00:00.000000Z",
    }
    begun = {**good, name: other[name]} if name in other else good | {"day": "2036-11-29"}
    if name not in other:
        good = begun
    async with connection(service.vault.pool) as lent:
        await ledger.record(lent, "k", "export.asked", facts=begun)
        await ledger.record(lent, "k", "export.erased", facts={**good, "why": "expired"})
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch(
            f"SELECT {ledger.COLUMNS} FROM ledger WHERE act ^@ 'export.' ORDER BY position"
        )
    raw = (await certificates._proven(service.vault, rows)).as_json()
    with pytest.raises(CertificateError, match=name):
        check(service, raw)
