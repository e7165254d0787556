"""Which calls have no recording: records taken, matched, added to recordings, and gone in time."""

import asyncio
import io
import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from archive import cdr
from archive.bounds import Bounds
from jobs import schedule
from storage import cdrs, credentials
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.roles import connection
from tests.services import Service
from tests.web.test_listen import found, upload
from tests.web.test_upload import digest, md5, problem, sha512

JSON = {"Content-Type": "application/json"}


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def record(call_id: str, **more: Any) -> dict[str, Any]:
    return {"call_id": call_id, "started_at": ago(hours=3), "duration": 60, **more}


async def told(service: Service, *records: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/cdr", json.dumps(records).encode(), JSON)
    assert answer.status == 200, await answer.text()
    return dict(await answer.json())


async def gaps(service: Service, query: str = "") -> dict[str, Any]:
    answer = await service.operate(f"/v1/gaps{query}")
    assert answer.status == 200, await answer.text()
    return dict(await answer.json())


async def kept(service: Service) -> list[dict[str, Any]]:
    async with connection(service.vault.pool) as lent:
        return [dict(row) for row in await lent.fetch("SELECT * FROM cdr ORDER BY started_at")]


async def test_answered_calls_without_a_recording_are_counted_by_source_and_hour(
    service: Service,
) -> None:
    await upload(service, "recorded", started_at=ago(hours=3))
    await told(service, record("recorded"), record("lost"), record("nobody", answered=False))
    await told(service, record("other hour", started_at=ago(hours=30)))
    await told(service, record("in flight", started_at=ago(minutes=5), duration=240))
    await cdrs.match(service.vault)
    seen = await gaps(service)
    assert (seen["answered"], seen["missing"], seen["awaited"]) == (4, 2, 1)
    assert next(hour["missing"] for hour in seen["hours"]) == 1
    assert {hour["source"] for hour in seen["hours"]} == {"pbx"}
    assert (await gaps(service, "?source=another"))["hours"] == []
    early = await gaps(service, f"?to={ago(hours=20).replace('+', '%2B')}")
    assert (early["answered"], early["missing"]) == (1, 1)
    figures = await (await service.operate("/metrics")).text()
    assert 'archive_calls_missing{source="pbx"} 2\n' in figures


async def test_a_call_in_flight_is_no_gap_until_its_time_is_over(service: Service) -> None:
    await told(service, record("late", started_at=ago(minutes=5), duration=240))
    assert (await gaps(service))["missing"] == 0
    await service.turn_clock(timedelta(minutes=58))
    assert (await gaps(service))["missing"] == 0
    await service.turn_clock(timedelta(minutes=61))
    assert (await gaps(service))["missing"] == 1
    # A recording that comes after all closes it.
    await upload(service, "late", started_at=ago(minutes=5))
    await cdrs.match(service.vault)
    assert (await gaps(service))["missing"] == 0


async def test_a_recording_lacks_nothing_that_its_record_says_whichever_came_first(
    service: Service,
) -> None:
    more = {"caller": "0401234567", "agent": "Anna", "queue": "sales", "direction": "inbound"}
    first = await upload(service, "first", started_at=ago(hours=3), agent="Bo")
    await told(service, record("first", **more), record("second", **more))
    second = await upload(service, "second", started_at=ago(hours=3))
    await schedule.tidy(service.vault)
    one = await (await service.get(f"/v1/recordings/{first}")).json()
    two = await (await service.get(f"/v1/recordings/{second}")).json()
    assert [one[name] for name in more] == ["+358401234567", "Bo", "sales", "inbound"]
    assert [two[name] for name in more] == ["+358401234567", "Anna", "sales", "inbound"]
    assert await found(service, number="040 123 4567") == ["second", "first"]
    assert await found(service, number="4567", direction="inbound") == ["second", "first"]
    assert await found(service, agent="Anna") == ["second"]
    assert await found(service, agent="Bo") == ["first"]
    acts = [act for act in await service.acts() if act[0] == "enriched"]
    assert sorted(acts) == sorted([("enriched", first), ("enriched", second)])
    # The audio and all else is as it was.
    assert (await service.get(f"/v1/recordings/{second}/audio")).status == 200


async def test_a_record_changes_nothing_that_a_recording_says_itself(service: Service) -> None:
    start = ago(hours=3)
    there = await upload(service, "a", started_at=start, caller="+358401111111", queue="faults")
    before = await (await service.get(f"/v1/recordings/{there}")).json()
    await told(service, record("a", started_at=ago(hours=50), caller="+358402222222", queue="x"))
    await cdrs.match(service.vault)
    assert await (await service.get(f"/v1/recordings/{there}")).json() == before
    assert "enriched" not in [act for act, _ in await service.acts()]


async def test_a_second_record_adds_to_what_the_first_added(service: Service) -> None:
    there = await upload(service, "a", started_at=ago(hours=3))
    await told(service, record("a", caller="+358401111111"))
    await cdrs.match(service.vault)
    again = await told(service, record("a", caller="+358409999999", queue="x"))
    assert (again["new"], again["known"]) == (0, 1)
    await cdrs.match(service.vault)
    # What it brought is as short a time here as what the first did.
    assert [row["details"] for row in await kept(service)] == [None]
    shown = await (await service.get(f"/v1/recordings/{there}")).json()
    assert (shown["caller"], shown["queue"]) == ("+358401111111", "x")
    assert await found(service, queue="x") == ["a"]
    assert [act for act, _ in await service.acts()].count("enriched") == 2
    assert ((await gaps(service))["answered"], (await gaps(service))["missing"]) == (1, 0)


async def test_a_record_that_comes_again_is_not_kept_again(service: Service) -> None:
    await upload(service, "a", started_at=ago(hours=3))
    said = record("a", caller="+358401111111", queue="x")
    await told(service, said)
    await cdrs.match(service.vault)
    before = await kept(service)
    await told(service, said)
    await told(service, {**said, "queue": "another"})
    assert await kept(service) == before
    assert before[0]["details"] is None
    assert await cdrs.match(service.vault) == 0


async def test_a_later_record_of_an_old_call_is_looked_for_at_once(service: Service) -> None:
    there = await upload(service, "a", started_at=ago(hours=3))
    await told(service, record("a", caller="+358401111111"))
    await cdrs.match(service.vault)
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE cdr SET received_at = received_at - interval '3 days'")
    await told(service, record("a", agent="Anna"))
    assert await cdrs.match(service.vault) == 1
    shown = await (await service.get(f"/v1/recordings/{there}")).json()
    assert (shown["caller"], shown["agent"]) == ("+358401111111", "Anna")


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("between", [True, False])
async def test_what_is_known_of_a_call_does_not_hang_on_how_its_records_came(
    service: Service, *, apart: bool, between: bool
) -> None:
    there = await upload(service, "a", started_at=ago(hours=3))
    parts = [
        record("a", caller="+358401111111", queue="sales"),
        record("a", caller="+358402222222", agent="Anna"),
        record("a", queue="faults", customer="77"),
    ]
    for body in [[part] for part in parts] if apart else [parts]:
        await told(service, *body)
        if between:
            await cdrs.match(service.vault)
    await cdrs.match(service.vault)
    shown = await (await service.get(f"/v1/recordings/{there}")).json()
    names = ("caller", "queue", "agent", "customer")
    assert [shown[name] for name in names] == ["+358401111111", "sales", "Anna", "77"]


def leg(call: str, own: str, caller: str) -> dict[str, Any]:
    """A record as Asterisk writes it."""
    said = {"disposition": "ANSWERED", "duration": "9", "start": ago(hours=3)}
    return {"linkedid": call, "uniqueid": own, "src": caller, **said}


async def two_recordings(service: Service) -> list[str]:
    """Two recordings of one call, and its record."""
    there = [await upload(service, name, started_at=ago(hours=3)) for name in ("a", "b")]
    await told(service, leg("a", "b", "+358401111111"))
    return there


async def callers(service: Service, recordings: list[str]) -> list[str | None]:
    answers = [await service.get(f"/v1/recordings/{each}") for each in recordings]
    return [(await answer.json())["caller"] for answer in answers]


async def test_every_recording_of_a_call_gets_what_it_lacks_however_many_are_looked_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await two_recordings(service)
    monkeypatch.setattr(cdrs, "BATCH", 1)
    assert await cdrs.match(service.vault) == 1
    assert await callers(service, there) == ["+358401111111"] * 2


async def test_a_record_waits_while_one_of_its_recordings_is_changed(service: Service) -> None:
    there = await two_recordings(service)
    async with connection(service.vault.pool) as lent, lent.transaction():
        await lent.execute("SELECT FROM recording WHERE id = $1 FOR UPDATE", UUID(there[1]))
        assert await cdrs.match(service.vault) == 0
    assert await cdrs.match(service.vault) == 1
    assert await callers(service, there) == ["+358401111111"] * 2


async def test_a_later_part_of_a_call_adds_to_a_recording_under_its_own_id(
    service: Service,
) -> None:
    there = [await upload(service, name, started_at=ago(hours=3)) for name in ("a", "b")]
    await told(service, leg("a", "a", "+358401111111"))
    await cdrs.match(service.vault)
    await told(service, leg("a", "b", "+358402222222"))
    await cdrs.match(service.vault)
    assert await callers(service, there) == ["+358401111111", "+358402222222"]


async def test_two_calls_of_one_recording_both_add_to_it(service: Service) -> None:
    there = await upload(service, "a", started_at=ago(hours=3))
    await told(service, record("a", queue="x"), leg("b", "a", "+358401111111"))
    assert await cdrs.match(service.vault) == 2
    shown = await (await service.get(f"/v1/recordings/{there}")).json()
    assert (shown["caller"], shown["queue"]) == ("+358401111111", "x")


async def test_bodies_of_the_same_calls_do_not_wait_for_each_other_for_ever(
    service: Service,
) -> None:
    names = [str(number) for number in range(2000)]
    for more in ({"caller": "+358401111111"}, {"queue": "x"}):
        calls = [record(name, **more) for name in names]
        await asyncio.gather(told(service, *calls), told(service, *reversed(calls)))
    fields = {b"caller", b"queue"}
    assert [set(row["hashes"]) & fields for row in await kept(service)] == [fields] * len(names)


async def test_records_are_sent_again_without_harm(service: Service) -> None:
    assert (await told(service, record("a"), record("b")))["new"] == 2
    rows = await kept(service)
    assert (await told(service, record("a"), record("b"), record("a")))["known"] == 2
    assert [row["call_hash"] for row in await kept(service)] == [row["call_hash"] for row in rows]
    assert (await gaps(service))["answered"] == 2
    acts = [act for act, _ in await service.acts()]
    assert acts.count("cdrs.taken") == 1


async def test_the_parts_of_a_call_are_one_call_and_any_of_their_recordings_is_its(
    service: Service,
) -> None:
    epoch = int(datetime.now(UTC).timestamp()) - 7200
    heading = "calldate,src,dst,disposition,duration,uniqueid,linkedid,recordingfile\n"
    for second, disposition in ((0, "NO ANSWER"), (20, "ANSWERED"), (40, "ANSWERED")):
        row = f"x,0401234567,600,{disposition},9,{epoch + second}.{second},{epoch}.0,\n"
        answer = await service.post(
            "/v1/cdr", (heading + row).encode(), {"Content-Type": "text/csv"}
        )
        assert answer.status == 200
    assert (await gaps(service))["answered"] == 1
    start = datetime.fromtimestamp(epoch, UTC).isoformat()
    await upload(service, f"{epoch + 40}.40", started_at=start)
    await cdrs.match(service.vault)
    seen = await gaps(service)
    assert (seen["answered"], seen["missing"], seen["awaited"]) == (1, 0, 0)


async def test_another_sources_recording_is_not_this_ones(service: Service) -> None:
    await upload(service, "a", started_at=ago(hours=3))
    async with connection(service.vault.pool) as lent:
        service.tokens["uploader"] = await credentials.add(
            lent, service.vault.ring, "pbx2", credentials.Level("uploader"), "pbx2", bounds=Bounds()
        )
    await told(service, record("a", caller="+358401234567"))
    await cdrs.match(service.vault)
    assert (await gaps(service))["missing"] == 1
    assert await found(service, number="+358401234567") == []


async def test_nothing_of_who_spoke_is_in_clear_and_none_of_it_stays_once_it_is_found(
    service: Service,
) -> None:
    await told(service, record("a-call-id", caller="+358401234567", agent="Anna Needle"))
    [row] = await kept(service)
    for value in row.values():
        for needle in (b"401234567", b"Needle", b"a-call-id"):
            assert needle not in (value if isinstance(value, bytes) else str(value).encode())
    assert row["details"]
    await upload(service, "a-call-id", started_at=ago(hours=3))
    await cdrs.match(service.vault)
    [row] = await kept(service)
    assert row["details"] is None
    [held] = await service.rows()
    assert b"Needle" not in held["added"]
    await service.acts()
    async with connection(service.vault.pool) as lent:
        facts = await lent.fetch("SELECT facts FROM ledger WHERE act IN ('enriched', 'cdrs.taken')")
    assert len(facts) == 2
    assert "Needle" not in str(facts)
    seen = json.dumps(await gaps(service))
    assert "a-call-id" not in seen


async def test_a_record_goes_at_its_calls_instant(service: Service) -> None:
    await told(service, record("soon", started_at=a_year_ago(seconds=100)), record("kept"))
    assert (await gaps(service, "?from=2000-01-01T00:00:00Z"))["answered"] == 2
    await service.turn_clock(timedelta(seconds=101))
    assert (await gaps(service, "?from=2000-01-01T00:00:00Z"))["answered"] == 1
    await cdrs.forget(service.vault)
    assert len(await kept(service)) == 1
    over = await told(service, record("soon", started_at=a_year_ago(seconds=-10)))
    assert (over["over"], len(await kept(service))) == (1, 1)


async def test_a_record_goes_with_its_recording_whenever_that_goes(service: Service) -> None:
    """Its own instant may be a little later: it is told by another clock."""
    await upload(service, "a", started_at=a_year_ago(seconds=40))
    await told(service, record("a", started_at=a_year_ago(seconds=90), caller="+358401234567"))
    await cdrs.match(service.vault)
    await service.turn_clock(timedelta(seconds=45))
    assert (await service.erase()).erased == 1
    assert await kept(service) == []


async def test_a_record_of_a_call_that_was_erased_before_its_year_is_not_kept(
    service: Service,
) -> None:
    await upload(service, "a", started_at=ago(hours=3))
    columns = "attempt, digest, started_at, expires_at, rule, received_at, direction, duration,"
    columns += " bytes, channels, sample_rate, codec, container, flaws, header, details"
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE recording SET state = 'erasing', lease_until = archive_now()")
        await lent.execute(
            "UPDATE recording SET state = 'erased', lease_until = NULL,"
            + ",".join(f" {column} = NULL" for column in columns.split(","))
        )
    assert (await told(service, record("a", caller="+358401234567")))["new"] == 1
    await cdrs.match(service.vault)
    assert await kept(service) == []


async def test_the_close_of_a_day_leaves_no_record_of_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told(service, record("a", started_at=a_year_ago(minutes=1)))
    [row] = await kept(service)
    await service.turn_all_clocks(when_over(row["expires_on"]), monkeypatch)
    night = await service.night()
    assert [closing.closed for closing in night.closings if closing.day == row["expires_on"]] == [
        True
    ]
    assert await kept(service) == []


async def test_old_records_are_looked_for_by_night(service: Service) -> None:
    await told(service, record("a", started_at=ago(days=20)))
    await upload(service, "a", started_at=ago(days=20))
    await service.turn_clock(timedelta(days=3))
    assert await cdrs.match(service.vault) == 0
    assert await cdrs.match(service.vault, every=True) == 1


@pytest.mark.parametrize("source", ["%00", "pbx%00", "", "%20", "x" * 257, "a%0Ab"])
async def test_gaps_of_what_can_be_no_source_are_not_looked_for(
    service: Service, source: str
) -> None:
    await problem(await service.operate(f"/v1/gaps?source={source}"), 400, "malformed")


async def test_what_cannot_be_understood_hinders_nothing_else(service: Service) -> None:
    answer = await told(
        service,
        record("a", started_at="2026-11-24 09:30:00"),
        record("b"),
        record("c", started_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat()),
        {"nothing": "of it"},
        record("d", started_at="9999-12-31T23:59:59+00:00"),
    )
    assert {key: answer[key] for key in ("new", "wrong", "ahead")} == {
        "new": 1,
        "wrong": 3,
        "ahead": 1,
    }
    assert set(answer["errors"]) == {"0", "3", "4"}
    local = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    body = json.dumps(record("z", started_at=local)).encode()
    assert (await service.post("/v1/cdr?zone=UTC", body, JSON)).status == 200


async def test_records_are_held_against_the_digests_that_are_announced(service: Service) -> None:
    body = json.dumps([record("a")]).encode()
    for make in (digest, md5, sha512):
        answer = await service.post("/v1/cdr", body, {**JSON, **make(body + b" ")})
        await problem(answer, 400, "digest-mismatch")
        assert await kept(service) == []
    unread = {**JSON, "Content-Digest": "sha-256=none"}
    await problem(await service.post("/v1/cdr", body, unread), 400, "malformed")
    for make in (digest, md5, sha512):
        assert (await service.post("/v1/cdr", body, {**JSON, **make(body)})).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "query", "status", "name"),
    [
        (b"{", JSON, "", 400, "malformed"),
        (b"[]", JSON, "", 422, "invalid"),
        (b"", JSON, "", 422, "invalid"),
        (b'[{"call_id": "7"}]', JSON, "", 422, "invalid"),
        (b"cdr=x", {"Content-Type": "application/x-www-form-urlencoded"}, "", 400, "malformed"),
        (b"[]", JSON, "?zone=Nowhere", 400, "malformed"),
        (b"[]", {**JSON, "Content-Encoding": "gzip"}, "", 415, "not-audio"),
        (b" " * (8 * 2**20 + 1), JSON, "", 413, "too-large"),
        (b"[" + b"{}," * 10_000 + b"{}]", JSON, "", 413, "too-large"),
        (b"[" + b"{}," * 2_000_000 + b"{}]", JSON, "", 413, "too-large"),
    ],
)
async def test_what_is_no_body_of_records_is_refused(
    service: Service, body: bytes, headers: dict[str, str], query: str, status: int, name: str
) -> None:
    # A large body is not sent in one piece, or aiohttp warns.
    sent: Any = io.BytesIO(body)
    await problem(await service.post("/v1/cdr" + query, sent, headers), status, name)


@pytest.mark.parametrize(
    "kind", ["x-www-form-urlencoded", "x-www-form-plaintext", "x-www-form-base64-encoded", "json"]
)
async def test_freeswitchs_record_is_known_under_whatever_name_it_is_sent(
    service: Service, kind: str
) -> None:
    headers = {"Content-Type": f"application/{kind}"}
    for number, body in enumerate((json.dumps, lambda row: "cdr=" + quote(json.dumps(row)))):
        sent = body(record(str(number))).encode()
        answer = await service.post("/v1/cdr?uuid=1", sent, headers)
        assert (answer.status, (await answer.json())["new"]) == (200, 1)


async def test_many_records_are_read_and_sealed_beside_the_event_loop(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def noting(real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            threads.append(threading.current_thread())
            return real(*given)

        return noted

    monkeypatch.setattr(cdr, "read", noting(cdr.read))
    monkeypatch.setattr(cdrs, "merged", noting(cdr.merged))
    answer = await told(service, *(record(str(number)) for number in range(cdr.MOST)))
    assert answer["new"] == cdr.MOST
    assert len(threads) == 2
    assert threading.main_thread() not in threads


async def test_only_uploaders_tell_and_only_operators_look(service: Service) -> None:
    for level, token in service.tokens.items():
        answer = await service.ask("POST", service.ingest + "/v1/cdr", token)
        assert answer.status == (422 if level == "uploader" else 403)
        answer = await service.operate("/v1/gaps", token)
        assert answer.status == (200 if level in ("auditor", "admin") else 403)
    for query in ("from=yesterday", "since=2026-11-24T00:00:00Z"):
        await problem(await service.operate(f"/v1/gaps?{query}"), 400, "malformed")
