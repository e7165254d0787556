"""Redacted copies and what looks after all objects: reading back, comparing, rebuilding."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import rebuild as command
from storage import recordings, redactions, tree
from storage.holdings import Holding
from storage.upkeep import rebuild, reconcile, verify
from storage.upkeep.verify import Found
from tests.postgres import Postgres
from tests.roles import connection, owned
from tests.services import Service
from tests.sounds import tone
from tests.storage.upkeep.test_rebuild import Backups, backups
from tests.storage.upkeep.test_reconcile import put
from tests.storage.upkeep.test_verify import later, marks, told
from tests.web.test_listen import upload
from tests.web.test_redaction import CARD, body, one, redact, redacted, withdraw

__all__ = ["AsyncIterator", "Postgres", "backups"]

SILENT = slice(44 + 1300 * 16, 44 + 2300 * 16)


async def copy_of(service: Service, identifier: str) -> str:
    """The key of the copy that stands."""
    row = next(row for row in await service.rows() if str(row["id"]) == identifier)
    return recordings.object_key(row["expires_on"], row["id"], row["redacted"])


async def lose(service: Service, key: str) -> None:
    await service.vault.objects.remove([Holding(key, "object")])


async def test_a_copy_is_read_back_and_its_loss_is_told(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    await later(service, hours=2)
    await verify.run(service.vault)
    await redacted(service, identifier)
    assert (await verify.run(service.vault)).recordings == 0, "not within the hour"
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE recording SET redacted_at = redacted_at - interval '61 minutes'")
        await lent.execute("UPDATE recording SET verified_at = redacted_at - interval '1 minute'")
    assert (await verify.run(service.vault)).damaged == 0
    assert (await verify.run(service.vault)).recordings == 0, "it was read back"
    key = await copy_of(service, identifier)
    report = await reconcile.run(service.vault, repair=True)
    assert (report.failed, report.objects, report.recordings) == (False, 2, 1)
    await lose(service, key)
    await later(service, days=30)
    assert (await verify.run(service.vault)).damaged == 1
    assert await told(service, identifier) == [("object.damaged", Found.COPY)]
    report = await reconcile.run(service.vault, repair=True)
    assert (report.lost.named, report.unknown.count) == ([identifier], 0)
    answer = await service.get(one(identifier, "/audio"))
    assert answer.status == 500, "and nobody hears the original instead"
    assert await body(service, one(identifier, "/audio?version=original"), "privacy") == tone(4)
    await redacted(service, identifier)
    assert not (await reconcile.run(service.vault, repair=True)).failed
    await later(service, days=2)
    assert (await verify.run(service.vault)).damaged == 0
    assert await marks(service) == {identifier: "whole"}


async def test_an_object_that_is_no_copy_any_more_is_told_of(service: Service) -> None:
    identifier = await upload(service, "c1", tone(4))
    await redacted(service, identifier)
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "UPDATE recording SET redacted = NULL, redacted_at = NULL, redacted_bytes = NULL,"
            " redacted_header = NULL, redacted_details = NULL"
        )
    report = await reconcile.run(service.vault, repair=True)
    assert (report.unknown.count, report.removed, len(await service.holdings())) == (1, 0, 2)


async def test_what_was_silent_is_silent_in_a_database_that_is_made_anew(
    service: Service, backups: Backups
) -> None:
    """One that stands, one that was replaced, one that was withdrawn, one that was both, and one
    that is lost.
    """
    names = ("stands", "replaced", "withdrawn", "both", "lost", "plain")
    ids = {name: await upload(service, name, tone(4)) for name in names}
    for name in names[:5]:
        await redacted(service, ids[name], [{"start": 0, "stop": 10}])
    dumped = backups.dump()
    await redacted(service, ids["replaced"], [{"start": 0, "stop": 10}, *CARD])
    await redacted(service, ids["both"], [{"start": 0, "stop": 10}, *CARD])
    for name in ("withdrawn", "both"):
        await withdraw(service, ids[name])
    await lose(service, await copy_of(service, ids["lost"]))
    await redacted(service, ids["stands"], [{"start": 0, "stop": 10}, *CARD])
    await tree.checkpoint(service.vault)
    for database in (None, dumped):
        vault = await backups.put_back(database, service.vault)
        report = await rebuild.run(owned(vault))
        lost = 0 if database else 1
        assert (report.strange.count, report.copies.count) == (0, lost), report
        assert report.lost.count == 0, "the original is whole"
        again = await backups.serve(vault, service)
        for name in ("stands", "replaced"):
            content = await body(again, one(ids[name], "/audio"))
            assert not any(content[SILENT]), name
        for name in ("withdrawn", "both", "plain"):
            assert await body(again, one(ids[name], "/audio")) == tone(4), name
        assert (await again.get(one(ids["lost"], "/audio"))).status == 500
        assert (await again.get("/v1/recordings")).status == 200
        shown = await (await again.get(f"/recordings/{ids['lost']}", Accept="text/html")).text()
        assert ids["lost"] in shown
        await problem_free(again)
        await redactions.collect(vault, 100)


async def test_a_lost_copy_that_is_put_back_stands_again(
    service: Service, backups: Backups, capsys: pytest.CaptureFixture[str]
) -> None:
    identifier = await upload(service, "c1", tone(4))
    await redacted(service, identifier)
    key = await copy_of(service, identifier)
    objects = service.vault.objects
    async with objects.get(key, 0, (await objects.holdings(key))[0].size) as pieces:
        content = b"".join([piece async for piece in pieces])
    await lose(service, key)
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(None, service.vault)
    for _ in range(2):
        report = await rebuild.run(owned(vault))
        assert (report.copies.named, report.lost.count, report.failed) == ([identifier], 0, True)
    again = await backups.serve(vault, service)
    assert (await again.get(one(identifier, "/audio"))).status == 500
    command._print(report)
    said = capsys.readouterr().out
    assert f"LOST     redacted copy of {identifier}: nobody but `privacy`" in said
    assert "LOST     recording" not in said
    await put(service, key, content)
    report = await rebuild.run(owned(vault))
    assert (report.copies.count, report.strange.count, report.failed) == (0, 0, False)
    heard = await body(again, one(identifier, "/audio"))
    assert heard and not any(heard[SILENT])


async def problem_free(service: Service) -> None:
    """Nothing is unknown to the rows, whatever was replaced or withdrawn."""
    report = await reconcile.run(service.vault, repair=True)
    assert report.unknown.count == 0, report.unknown.named


@pytest.mark.parametrize("told_of", [True, False])
async def test_a_copy_that_the_ledger_does_not_know_stands(
    service: Service, backups: Backups, told_of: bool
) -> None:
    """Its entry was lost with the database: it may have been acknowledged."""
    identifier = await upload(service, "c1", tone(4))
    await tree.checkpoint(service.vault)
    await redacted(service, identifier)
    if told_of:
        await tree.checkpoint(service.vault)
    vault = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.strange.count, report.lost.count) == (0, 0)
    again: Any = await backups.serve(vault, service)
    assert not any((await body(again, one(identifier, "/audio")))[SILENT])
    refused = await redact(again, identifier, [{"start": 0, "stop": 9}])
    assert refused.status == 403
    assert (await (await again.get(one(identifier, "/redaction"))).json())["spans"] == CARD
