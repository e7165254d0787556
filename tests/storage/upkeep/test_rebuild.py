"""A database that was lost or put back, made whole: what was acknowledged is there, what was erased
stays erased, and nothing else may be done before.

The backups are real ones, made with `pg_dump` and put back with `psql` into another database.
"""

import argparse
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import pytest

from app import audit
from archive.access import Caller, Level
from archive.errors import UnavailableError
from archive.retention import Expiry
from archive.story import read as read_story
from storage import (
    accounts,
    certificates,
    credentials,
    database,
    fuse,
    ledger,
    published,
    recordings,
    steps,
    tree,
)
from storage.holdings import Holding
from storage.release import release
from storage.schema import migrate
from storage.signer import RewrittenError
from storage.upkeep import rebuild, reconcile
from storage.upkeep.replay import Replayed
from storage.vault import Vault
from tests import years
from tests.app.test_crash import heard
from tests.jobs.test_expiry import a_year_ago, when_over
from tests.postgres import BIN, Postgres
from tests.rewriting import export
from tests.roles import connection, owned
from tests.services import Faulty, Service, open_service, open_vault, set_clock
from tests.sounds import tone
from tests.storage.test_certificates import check
from tests.storage.upkeep.test_reconcile import put, stored
from tests.web.browsing import signed_in
from tests.web.test_exports import made
from tests.web.test_listen import found, upload
from tests.web.test_upload import problem, query

Put = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Backups:
    """Backs the service's database up, and opens an archive on what was put back."""

    postgres: Postgres
    url: str
    folder: Path
    stack: AsyncExitStack

    def dump(self) -> bytes:
        return subprocess.run(
            [str(BIN / "pg_dump"), "--no-owner", self.url], capture_output=True, check=True
        ).stdout

    async def put_back(self, dumped: bytes | None, vault: Vault) -> Vault:
        """An archive on the same bucket and ring, and an old database; or an empty one."""
        url = await self.postgres.fresh_database(migrate)
        if dumped is not None:
            name = urlsplit(url).path.removeprefix("/")
            lent = await asyncpg.connect(self.url)
            await lent.execute(f"DROP DATABASE {name}")
            await lent.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            await lent.close()
            words = ["psql", "--quiet", "--set=ON_ERROR_STOP=1", url]
            subprocess.run(
                [str(BIN / words[0]), *words[1:]], input=dumped, capture_output=True, check=True
            )
        return await self.stack.enter_async_context(open_vault(url, vault.objects, self.folder))

    async def serve(self, vault: Vault, like: Service) -> Service:
        """The doors over an archive that was made whole, for the keys of before."""
        return await self.stack.enter_async_context(_doors(vault, like))


@asynccontextmanager
async def _doors(vault: Vault, like: Service) -> AsyncIterator[Service]:
    async with connection(vault.pool) as lent:
        names = await lent.fetch("UPDATE access_key SET name = 'old-' || name RETURNING name")
    async with open_service(vault) as opened:
        opened.tokens.update(like.tokens if names else {})
        yield opened


@pytest.fixture
async def backups(postgres: Postgres, database_url: str, tmp_path: Path) -> AsyncIterator[Backups]:
    async with AsyncExitStack() as stack:
        yield Backups(postgres, database_url, tmp_path, stack)


async def agrees(service: Service) -> None:
    """Rows, objects and ledger tell the same, and the ledger's story is whole."""
    report = await reconcile.run(service.vault, repair=True)
    assert not report.failed, report
    assert (report.removed, report.objects) == (0, report.recordings)
    await tree.checkpoint(service.vault)
    async with connection(service.vault.pool) as lent:
        entries = await ledger.page(lent, 0, 100_000)
    assert read_story(entry.text for entry in entries).faults == []


async def test_a_database_of_yesterday_becomes_that_of_today(
    service: Service, backups: Backups
) -> None:
    first, other = tone(1, pitch=300), tone(2, pitch=500)
    kept = await upload(service, "kept", first, agent="Anna Ääkkönen")
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    stolen = await service.key("supervisor", "stolen")
    leaked = await service.key("supervisor", "leaked")
    anna, bo = await signed_in(service), await signed_in(service, "bo")
    dumps: list[bytes] = []
    real = service.vault.objects

    async def put_and_dump(*words: Any) -> None:
        await real.put(*words)
        dumps.append(backups.dump())

    slow: Any = Faulty(real, put=put_and_dump)
    async with open_service_on(service, slow) as slowly:
        middle = await upload(slowly, "middle", other, caller="040 123 4567")
    later = await upload(service, "later", first, queue="faults")
    async with connection(service.vault.pool) as lent:
        await credentials.revoke(lent, "first-stolen")
        await credentials.rotate(lent, service.vault.ring, "first-leaked", timedelta())
        await accounts.lock(lent, "anna")
    await service.turn_clock(timedelta(seconds=51))
    assert (await service.erase()).erased == 1
    await tree.checkpoint(service.vault)
    acts = await service.acts()

    vault = await backups.put_back(dumps[0], service.vault)
    with pytest.raises(RewrittenError, match="archive rebuild"):
        await tree.agree(vault)
    with pytest.raises(RewrittenError, match="archive rebuild"):
        async with connection(vault.pool) as lent:
            await ledger.record(lent, ledger.SYSTEM, "too.early")
        await tree.sequence(vault)
    assert (await reconcile.run(vault, repair=True)).stopped

    report = await rebuild.run(owned(vault))
    done = report.replayed
    assert (done.erased, done.revoked, done.locked, done.unfinished) == (1, 2, 1, 1)
    assert (report.objects, report.rebuilt, report.over, report.strange.count) == (3, 2, 0, 0)
    await tree.agree_wholly(vault)
    again = await backups.serve(vault, service)
    assert [await heard(again, each) for each in (kept, middle, later)] == [first, other, first]
    assert await found(again, number="123 4567") == ["middle"]
    assert await found(again, queue="faults") == ["later"]
    assert await found(again, agent="anna ääkkönen") == ["kept"]
    await problem(await again.get(f"/v1/recordings/{gone}"), 410, "gone")
    assert (await again.get(f"/v1/certificates/{gone}")).status == 200
    for ended in (stolen, leaked):
        assert (await again.get(f"/v1/recordings/{kept}", ended)).status == 401
    async with connection(again.vault.pool) as lent:
        rows = {row.name: row.locked_at is not None for row in await accounts.every(lent)}
    assert rows == {"anna": True, "bo": False}
    for browser in (anna, bo):
        browser.door = again.retrieval
        assert (await browser.get("/v1/recordings")).status == 401, "nobody is signed in"
    receipt = await again.put("later", first, query(queue="faults"))
    assert receipt.status in (200, 409), "the call is known"
    told = await again.acts()
    assert told[: len(acts)] == acts
    assert [act for act, _ in told].count("erased") == 1
    assert {one for act, one in told if act == "rebuilt"} == {middle, later}
    await agrees(again)


@asynccontextmanager
async def open_service_on(service: Service, objects: Any) -> AsyncIterator[Service]:
    """The doors once more, with another way to the store, for the same keys."""
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE access_key SET name = 'first-' || name")
    async with open_service(replace(service.vault, objects=objects)) as opened:
        yield opened


async def test_a_database_that_was_lost_is_made_anew(service: Service, backups: Backups) -> None:
    audio = tone(1)
    kept = await upload(service, "kept", audio, customer="C-9")
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    _, key = await stored(service, gone)
    async with service.vault.objects.get(key, 0, (await service.holdings())[0].size) as pieces:
        copy = b"".join([piece async for piece in pieces])
    await service.turn_clock(timedelta(seconds=51))
    await service.erase()
    await tree.checkpoint(service.vault)
    await put(service, key, copy)  # a late write, whole and well sealed

    vault = await backups.put_back(None, service.vault)
    with pytest.raises(RewrittenError):
        await tree.agree_wholly(vault)
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, report.over, report.strange.count) == (1, 1, 0)
    assert report.replayed.entries == len(await service.acts())
    again = await backups.serve(vault, service)
    assert await heard(again, kept) == audio
    assert await found(again, customer="c-9") == ["kept"]
    await problem(await again.get(f"/v1/recordings/{gone}"), 404, "not-found")
    await certified(again, gone)
    limited = await again.key("supervisor", "limited", ["fault_report"])
    await problem(await again.get(f"/v1/certificates/{gone}", limited), 404, "not-found")
    await problem(await again.get(f"/v1/certificates/{kept}"), 404, "not-found")
    assert (await reconcile.run(vault, repair=True)).removed == 1
    await agrees(again)
    # Done again, nothing is left to do.
    done = await rebuild.run(owned(vault))
    assert (done.rebuilt, done.replayed) == (0, Replayed())
    await agrees(again)


@pytest.mark.parametrize("knows", [False, True])
async def test_exports_are_not_rebuilt_and_what_is_left_of_them_goes(
    service: Service, backups: Backups, *, knows: bool
) -> None:
    """At once: nothing would find it before what is in it is erased."""
    kept = await upload(service, "kept")
    identifier = await made(service, [kept])
    dumped = backups.dump()
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(dumped if knows else None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.over, report.strange.count) == (1, 0)
    assert not [held for held in await service.holdings() if identifier in held.key]
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM export") == 0
    again = replace(service, vault=vault)
    await agrees(again)
    assert [act for act, _ in await again.acts()].count("export.erased") == 1
    auditor = Caller("an-auditor", Level.AUDITOR)
    assert await certificates.of_erasure(owned(vault), auditor, UUID(identifier))


async def test_a_day_that_was_closed_since_stays_closed(
    service: Service, backups: Backups, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    day, _ = await stored(service, gone)
    kept = await upload(service, "kept")
    dumped = backups.dump()
    await service.turn_all_clocks(when_over(day), monkeypatch)
    await service.night()
    assert day in service.vault.ring.destroyed()
    vault = await backups.put_back(dumped, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.replayed.erased, report.replayed.closed) == (1, 1)
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT closed_at FROM day WHERE expires_on = $1", day)
        assert await lent.fetchval("SELECT erased FROM day WHERE expires_on = $1", day) == 1
        assert await lent.fetchval("SELECT count(*) FROM filed WHERE expires_on = $1", day) == 0
    again = await backups.serve(vault, service)
    await heard(again, kept)
    await agrees(again)


async def test_what_does_not_open_is_named_left_alone_and_told_as_lost(
    service: Service, backups: Backups, tmp_path: Path
) -> None:
    """It goes with its day, and is no recording then that was hidden from erasing."""
    at = [a_year_ago(minutes=5)] * 4 + [a_year_ago(days=300)]
    ids = [await upload(service, f"c{number}", started_at=at[number]) for number in range(5)]
    objects = service.vault.objects
    bodies, names = {}, []
    for identifier in ids:
        _, key = await stored(service, identifier)
        size = (await objects.holdings(key))[0].size
        async with objects.get(key, 0, size) as pieces:
            bodies[key] = b"".join([piece async for piece in pieces])
        names.append(key)
    await tree.checkpoint(service.vault)
    flipped = bytearray(bodies[names[0]])
    flipped[120] ^= 1
    damaged = [bytes(flipped), bodies[names[1]][:-1], bodies[names[0]], b"short"]
    for key, body in zip(names, damaged, strict=False):
        await objects.remove([Holding(key, "object")])
        await put(service, key, body)
    day = names[0].split("/")[0]
    odd = await put(service, f"{day}/not-one-of-ours")
    vault = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.objects, report.rebuilt) == (6, 1)
    assert sorted(report.strange.named) == sorted([*names[:4], odd])
    assert sorted(report.lost.named) == sorted(ids[:4])
    assert len(await service.holdings()) == 6
    again = await backups.serve(vault, service)
    assert await found(again) == ["c4"]
    # Put back, it is found again.
    await objects.remove([Holding(names[0], "object")])
    await put(service, names[0], bodies[names[0]])
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, sorted(report.lost.named)) == (1, sorted(ids[1:4]))
    assert sorted(map(str, await losses(again))) == sorted(ids[:4])

    span = timedelta(days=2)
    await set_clock(vault, span)
    today = vault.policy.day_of(await database.now(vault.pool))
    assert (await release(owned(vault), today, again.tokens["admin"])).done
    assert (await again.erase()).erased == 1
    path, key = await export(vault, tmp_path / "ledger"), vault.signer.verifier
    checked = audit.verify_export(path, key, [], years.now() + span)
    assert (checked["faults"], checked["lost"], checked["overdue"]) == ([], 3, 0)


def doubting(service: Service) -> Any:
    """The store, whose answer to a write never comes though the write lands."""
    real = service.vault.objects

    async def doubtful(*words: Any) -> None:
        await real.put(*words)
        raise UnavailableError("The object store did not answer in time.")

    return Faulty(real, put=doubtful)


async def test_of_two_objects_of_one_call_the_one_that_was_acknowledged_becomes_the_row(
    service: Service, backups: Backups
) -> None:
    """A write that timed out lands late, after the sender's second try was stored."""
    async with open_service_on(service, doubting(service)) as slowly:
        assert (await slowly.put("call", tone(), query())).status == 503
    (late,) = await service.holdings()
    identifier = await upload(service, "call")
    unknown = await upload(service, "unknown")
    await tree.checkpoint(service.vault)
    assert str(UUID(late.key.split("/")[1])) < identifier, "the late one is looked at first"
    vault = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.objects, report.rebuilt, report.strange.named) == (3, 2, [late.key])
    again = await backups.serve(vault, service)
    await heard(again, identifier)
    await heard(again, unknown)


async def test_a_recording_that_the_ledger_never_came_to_tell_of_is_rebuilt(
    service: Service, backups: Backups
) -> None:
    """It was acknowledged in the seconds between the last publishing and the end of the disk."""
    await upload(service, "first")
    await tree.checkpoint(service.vault)
    last = await upload(service, "last", tone(1))
    vault = await backups.put_back(None, service.vault)
    assert (await rebuild.run(owned(vault))).rebuilt == 2
    assert await heard(await backups.serve(vault, service), last) == tone(1)


NEVER_WRITTEN = (
    "{}",
    '{"x": 0.5}',
    '{"day": "x", "due": 3, "rule": [], "export": "x", "copy": "x", "replaced": "x"}',
    '{"day": "9999-99-99", "due": "2027-11-26T12:00:00.000000Z", "rule": "P1Y"}',
    '{"day": "2027-11-26", "due": "x", "rule": "P1Y", "export": 3, "copy": 3}',
)


async def test_entries_that_the_archive_never_wrote_stop_no_night_and_no_rebuild(
    service: Service, backups: Backups
) -> None:
    """Whoever holds a login that adds entries can write what he likes. Nor does one that says that
    a recording is an export have it taken away.
    """
    kept = await upload(service, "kept", tone(1))
    day, _ = await stored(service, kept)
    lie = {"export": kept, "day": day.isoformat(), "due": f"{day}T12:00:00.000000Z"}
    told: list[tuple[str, UUID | None, str]] = [("export.asked", None, json.dumps(lie))]
    for act in ("stored", "rebuilt", "export.asked", "redaction.made", "redaction.withdrawn"):
        told += [(act, who, facts) for facts in NEVER_WRITTEN for who in (None, uuid4())]
    for act in ("erased", "day.closed", "retention.changed", "fuse.released", "erasure.granted"):
        told += [(act, uuid4(), facts) for facts in NEVER_WRITTEN[:2]]
    async with connection(service.vault.pool) as lent:
        await lent.executemany(
            "INSERT INTO ledger_waiting (actor, act, recording, facts)"
            " VALUES ('k', $1, $2, $3::text::jsonb)",
            told,
        )
    assert (await service.night()).reconciled.failed is False
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, report.told, report.failed) == (1, 0, False)
    again = await backups.serve(vault, service)
    assert await heard(again, kept) == tone(1)
    assert (await reconcile.run(vault, repair=True)).removed == 0


async def test_without_the_published_ledger_nothing_is_done(
    service: Service, backups: Backups
) -> None:
    await upload(service, "c1")
    await tree.checkpoint(service.vault)
    held = await service.vault.objects.holdings(published.PREFIX)
    await service.vault.objects.remove(held)
    vault = await backups.put_back(None, service.vault)
    with pytest.raises(RewrittenError, match="up to 0 only"):
        await rebuild.run(owned(vault))
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT count(*) FROM ledger") == 0
        assert not await lent.fetchval("SELECT rebuilding FROM archive")


async def test_a_published_ledger_that_is_not_the_signed_one_is_refused(
    service: Service, backups: Backups
) -> None:
    await upload(service, "c1")
    await tree.checkpoint(service.vault)
    held = await service.vault.objects.holdings(published.PREFIX)
    await service.vault.objects.remove(held)
    entries = [entry async for entry in everything(service)]
    texts = [replace(entry, actor="somebody").text for entry in entries]
    await published.put(service.vault, 0, texts)
    vault = await backups.put_back(None, service.vault)
    with pytest.raises(RewrittenError, match="not those that were signed"):
        await rebuild.run(owned(vault))


async def everything(service: Service) -> AsyncIterator[Any]:
    async with connection(service.vault.pool) as lent:
        for entry in await ledger.page(lent, 0, 1000):
            yield entry


async def test_a_database_that_was_rewritten_is_not_made_whole(service: Service) -> None:
    await upload(service, "c1")
    await tree.checkpoint(service.vault)
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE ledger_tile SET hashes = overlay(hashes PLACING '\\x00' FROM 1)")
        await lent.execute("UPDATE ledger_tile SET hashes = overlay(hashes PLACING '\\x01' FROM 2)")
    with pytest.raises(RewrittenError, match="not those that were signed"):
        await rebuild.run(owned(service.vault))


async def test_what_was_published_and_not_signed_shows_that_a_database_was_put_back(
    service: Service, backups: Backups
) -> None:
    await upload(service, "c1")
    await tree.checkpoint(service.vault)
    dumped = backups.dump()
    last = await upload(service, "c2")
    await tree.sequence(service.vault)
    await published.publish(service.vault)
    vault = await backups.put_back(dumped, service.vault)
    await tree.agree(vault)
    with pytest.raises(RewrittenError, match="published last"):
        await tree.agree_wholly(vault)
    report = await rebuild.run(owned(vault))
    assert (report.replayed.entries > 0, report.rebuilt) == (True, 1)
    await heard(await backups.serve(vault, service), last)


@pytest.mark.parametrize("step", steps.REBUILD)
async def test_a_rebuilding_that_was_broken_off_is_gone_on_with(
    service: Service, backups: Backups, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    identifier = await upload(service, "c1")
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(None, service.vault)

    def reached(name: str) -> None:
        if name == step:
            raise ConnectionError("the power")

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(steps, "reached", reached)
        await rebuild.run(owned(vault))
    with pytest.raises(RewrittenError, match="run `archive rebuild` to its end"):
        await tree.agree(vault)
    report = await rebuild.run(owned(vault))
    assert report.rebuilt == (1 if step == "replayed" else 0)
    await tree.agree_wholly(vault)
    await heard(await backups.serve(vault, service), identifier)


async def test_what_came_due_is_barred_erased_and_told_of_like_any_other(
    service: Service, backups: Backups
) -> None:
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(None, service.vault)
    await set_clock(vault, timedelta(seconds=51))
    assert (await rebuild.run(owned(vault))).rebuilt == 1
    again = await backups.serve(vault, service)
    await problem(await again.get(f"/v1/recordings/{gone}"), 410, "gone")
    # Its bytes wait until a person has looked at what was rebuilt.
    held = await again.erase()
    assert (held.erased, "nobody has looked" in held.stopped) == (0, True)
    today = vault.policy.day_of(await database.now(vault.pool))
    assert (await release(owned(vault), today, again.tokens["admin"])).done
    assert (await again.erase()).erased == 1
    assert ("erased", gone) in await again.acts()
    assert await again.holdings() == []
    await agrees(again)
    assert (await fuse.look(vault)).whole


async def test_an_erasing_that_was_never_told_is_told(service: Service, backups: Backups) -> None:
    """It was erased in the seconds between the last publishing and the end of the disk."""
    gone = await upload(service, "gone", started_at=a_year_ago(seconds=50))
    await tree.checkpoint(service.vault)
    await service.turn_clock(timedelta(seconds=51))
    assert (await service.erase()).erased == 1
    vault = await backups.put_back(None, service.vault)
    await set_clock(vault, timedelta(seconds=51))
    report = await rebuild.run(owned(vault))
    assert (report.told, report.lost.count, report.failed) == (1, 0, False)
    again = await backups.serve(vault, service)
    assert ("erased", gone) in await again.acts()
    await agrees(again)
    await certified(again, gone)


@pytest.mark.parametrize("knows", [False, True])
async def test_what_is_told_as_erased_before_its_time_is_not_destroyed(
    service: Service, backups: Backups, *, knows: bool
) -> None:
    """Whoever can write an entry could say so, and only people may have it erased early."""
    dumped = None
    kept = await upload(service, "kept")
    also = await upload(service, "also", started_at=a_year_ago(minutes=5))
    if knows:
        dumped = backups.dump()
    async with connection(service.vault.pool) as lent:
        for one in (kept, also):
            facts = await lent.fetchval(
                "SELECT facts FROM told WHERE act = 'stored' AND recording = $1", UUID(one)
            )
            past = {**facts, "due": "2020-01-01T00:00:00.000000Z"}
            for said in (facts, past):
                await ledger.record(lent, "system", "erased", recording=UUID(one), facts=said)
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(dumped, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.replayed.erased, report.over, report.lost.count) == (0, 0, 0)
    again = await backups.serve(vault, service)
    for one in (kept, also):
        await heard(again, one)
    assert (await reconcile.run(vault, repair=True)).removed == 0
    # What was granted is another matter, also when its erasing is told.
    async with connection(vault.pool) as lent:
        two = {"keys": ["a", "b"]}
        await ledger.record(lent, "b", "erasure.granted", recording=UUID(kept), facts=two)
        await ledger.record(lent, "system", "erased", recording=UUID(kept), facts=facts)
    await tree.checkpoint(vault)
    assert (await rebuild.run(owned(vault))).replayed.erased == 1


async def certified(service: Service, identifier: str) -> None:
    """There is a certificate of the erasing, and it holds."""
    answer = await service.get(f"/v1/certificates/{identifier}", "privacy")
    assert answer.status == 200
    check(service, await answer.json())


async def losses(service: Service) -> list[str | None]:
    return [identifier for act, identifier in await service.acts() if act == "recording.lost"]


async def bytes_of(service: Service, holding: Holding) -> bytes:
    async with service.vault.objects.get(holding.key, 0, holding.size) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_an_acknowledged_recording_of_which_nothing_is_left_is_named_and_told_once(
    service: Service,
    backups: Backups,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """And when its time has come nobody takes it for one that was hidden from erasing."""
    lost = await upload(service, "c1", started_at=a_year_ago(minutes=5))
    told = (await service.rows())[0]
    await tree.checkpoint(service.vault)
    await service.vault.objects.remove(await service.holdings())
    vault = await backups.put_back(None, service.vault)
    for _ in range(2):
        report = await rebuild.run(owned(vault))
        assert (report.lost.named, report.told, report.failed) == ([lost], 0, True)
        assert lost in caplog.text
        caplog.clear()
    again = replace(service, vault=vault)
    assert await losses(again) == [lost]
    async with connection(vault.pool) as lent:
        facts = await lent.fetchval("SELECT facts FROM ledger WHERE act = 'recording.lost'")
    expiry = Expiry(told["expires_at"], told["expires_on"], told["rule"])
    assert facts == ledger.due(expiry)

    span = timedelta(days=2)
    await set_clock(vault, span)
    report = await rebuild.run(owned(vault))
    assert (report.lost.named, report.told, report.failed) == ([], 0, False)
    assert (await losses(again), ("erased", lost) in await again.acts()) == ([lost], False)
    path, key = await export(vault, tmp_path / "ledger"), vault.signer.verifier
    found = audit.verify_export(path, key, [], years.now() + span)
    assert (found["faults"], found["lost"], found["overdue"]) == ([], 1, 0)
    asked = argparse.Namespace(
        file=path, key=str(key), checkpoint=[], witness=None, json=False
    )  # fmt: skip
    assert await audit._verify_ledger(asked) == 0
    said = capsys.readouterr().out
    assert f"LOST   {lost} is due at {facts['due']}" in said
    assert "1 lost," in said


@pytest.mark.parametrize("due", [False, True])
async def test_what_was_told_before_a_rebuild_was_broken_off_is_not_told_again(
    service: Service, backups: Backups, monkeypatch: pytest.MonkeyPatch, *, due: bool
) -> None:
    gone = await upload(service, "c1", started_at=a_year_ago(seconds=50))
    await tree.checkpoint(service.vault)
    await service.vault.objects.remove(await service.holdings())
    vault = await backups.put_back(None, service.vault)
    if due:
        await set_clock(vault, timedelta(seconds=51))

    def reached(name: str) -> None:
        if name == "rebuilt":
            raise ConnectionError("the power")

    with monkeypatch.context() as patched, pytest.raises(ConnectionError):
        patched.setattr(steps, "reached", reached)
        await rebuild.run(owned(vault))
    report = await rebuild.run(owned(vault))
    assert (report.told, report.lost.count) == ((0, 0) if due else (0, 1))
    acts = await replace(service, vault=vault).acts()
    assert acts.count(("erased" if due else "recording.lost", gone)) == 1


@pytest.mark.parametrize("broken", [False, True])
async def test_what_is_due_and_does_not_open_is_told_as_erased_when_its_day_is_closed(
    service: Service,
    backups: Backups,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    *,
    broken: bool,
) -> None:
    """Then its last bytes go; also if the service dies once the day's key is destroyed."""
    gone = await upload(service, "c1", started_at=a_year_ago(seconds=50))
    day, key = await stored(service, gone)
    await tree.checkpoint(service.vault)
    await service.vault.objects.remove(await service.holdings())
    await put(service, key, b"damaged")
    vault, span = await backups.put_back(None, service.vault), when_over(day)
    await set_clock(vault, span)
    report = await rebuild.run(owned(vault))
    assert (report.told, report.lost.count, report.strange.count) == (0, 0, 1)
    again = await backups.serve(vault, service)
    await again.turn_all_clocks(span, monkeypatch)
    today = vault.policy.day_of(await database.now(vault.pool))
    assert (await release(owned(again.vault), today, again.tokens["admin"])).done

    def reached(name: str) -> None:
        if name == "destroyed":
            raise ConnectionError("the power")

    if broken:
        with monkeypatch.context() as patched, pytest.raises(ConnectionError):
            patched.setattr(steps, "reached", reached)
            await again.night()
    for _ in range(2):
        assert not (await again.night()).reconciled.failed
    told = [act for act, one in await again.acts() if one == gone or act == "day.closed"]
    assert told == ["stored", "erased", "day.closed"]
    assert await again.holdings() == []
    await certified(again, gone)
    path = await export(again.vault, tmp_path / "ledger")
    found = audit.verify_export(path, vault.signer.verifier, [], years.now() + span)
    assert (found["faults"], found["erased"], found["overdue"]) == ([], 1, 0)
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT erased FROM day WHERE expires_on = $1", day) == 1


async def test_a_lost_recording_that_is_found_after_all_is_rebuilt_and_erased_in_time(
    service: Service, backups: Backups
) -> None:
    """And may be lost again, which is told again."""
    lost = await upload(service, "c1", tone(1), started_at=a_year_ago(minutes=5))
    await tree.checkpoint(service.vault)
    held = await service.holdings()
    copy = await bytes_of(service, held[0])
    await service.vault.objects.remove(held)
    vault = await backups.put_back(None, service.vault)
    assert (await rebuild.run(owned(vault))).lost.named == [lost]
    await put(service, held[0].key, copy)
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, report.lost.count) == (1, 0)
    again = await backups.serve(vault, service)
    assert await heard(again, lost) == tone(1)
    await agrees(again)

    await tree.checkpoint(vault)
    await service.vault.objects.remove(held)
    empty = await backups.put_back(None, service.vault)
    assert (await rebuild.run(owned(empty))).lost.named == [lost]
    assert await losses(replace(service, vault=empty)) == [lost, lost]
    await put(service, held[0].key, copy)
    assert (await rebuild.run(owned(empty))).rebuilt == 1
    again = await backups.serve(empty, service)
    await set_clock(empty, timedelta(minutes=6))
    today = empty.policy.day_of(await database.now(empty.pool))
    assert (await release(owned(empty), today, again.tokens["admin"])).done
    assert (await again.erase()).erased == 1
    await agrees(again)


async def test_of_two_objects_of_a_call_of_which_the_ledger_knows_neither_none_is_lost(
    service: Service, backups: Backups
) -> None:
    """The disk ends before the second try, which was acknowledged, is published."""
    await tree.checkpoint(service.vault)
    async with open_service_on(service, doubting(service)) as slowly:
        assert (await slowly.put("call", tone(2), query())).status == 503
    acknowledged = await upload(service, "call", tone(1))
    vault = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, report.strange.count) == (2, 0)
    again = await backups.serve(vault, service)
    assert await heard(again, acknowledged) == tone(1)
    assert await found(again, call_id="call") == ["call", "call"]
    await agrees(again)
    # And none is in the next loss of the database, when the ledger knows both.
    await tree.checkpoint(vault)
    empty = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(empty))
    assert (report.rebuilt, report.strange.count, report.lost.count) == (2, 0, 0)


def test_an_attempt_is_never_mistaken() -> None:
    """The names that rebuilding reads are those that intake gives."""
    from datetime import date

    from storage.upkeep.strays import parse

    parts = date(2027, 2, 28), uuid4(), uuid4()
    assert parse(recordings.object_key(*parts)) == parts
    for wrong in ("x", "2027-02-28/a/b", f"2027-2-28/{parts[1]}/{parts[2]}", "a/b/c/d"):
        assert parse(wrong) is None
