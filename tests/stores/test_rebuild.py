"""A rebuild over a bucket that keeps versions, where an object can lie under a mark of deletion."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage import tree
from storage.holdings import Holding
from storage.upkeep import rebuild
from tests.app.test_crash import heard
from tests.postgres import Postgres
from tests.roles import owned
from tests.services import Service, open_service, open_vault
from tests.sounds import tone
from tests.storage.upkeep.test_rebuild import Backups, backups, losses
from tests.stores.servers import Server
from tests.web.test_listen import upload

__all__ = ["Postgres", "backups"]


@pytest.fixture
async def service(database_url: str, rgw_server: Server, tmp_path: Path) -> AsyncIterator[Service]:
    objects = await replace(rgw_server, versioned=True).connect()
    async with open_vault(database_url, objects, tmp_path) as vault, open_service(vault) as opened:
        yield opened
    await objects.close()


async def test_a_recording_under_a_mark_of_deletion_is_told_as_lost_until_the_mark_is_removed(
    service: Service, backups: Backups
) -> None:
    """A plain reading does not find it, and with its day it goes."""
    objects = service.vault.objects
    hidden = await upload(service, "hidden", tone(1))
    (held,) = await service.holdings()
    assert await objects.remove([Holding(held.key, "object")]) == []
    await tree.checkpoint(service.vault)
    vault = await backups.put_back(None, service.vault)
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, report.lost.named, report.failed) == (0, [hidden], True)
    assert await losses(replace(service, vault=vault)) == [hidden]
    marks = [each for each in await objects.holdings(held.key) if each.kind == "marker"]
    assert await objects.remove(marks) == []
    report = await rebuild.run(owned(vault))
    assert (report.rebuilt, report.lost.count, report.failed) == (1, 0, False)
    assert await heard(await backups.serve(vault, service), hidden) == tone(1)
