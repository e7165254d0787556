"""A database that lost its last seconds while the service went on: a standby that lagged took over,
or it was recovered without the end of its log. Nothing is swept on its word.
"""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from archive.errors import UnavailableError
from jobs import nightly, schedule
from storage import redactions, sweep
from storage.sealing import Identity
from storage.signer import RewrittenError
from storage.upkeep import mark, rebuild
from storage.vault import Vault
from tests.app.child_service import House
from tests.app.test_crash import heard
from tests.postgres import Postgres
from tests.roles import connection, owned
from tests.services import Faulty, Service, open_service, open_vault, set_clock
from tests.sounds import tone
from tests.storage.upkeep.test_copies import copy_of
from tests.storage.upkeep.test_rebuild import open_service_on
from tests.storage.upkeep.test_reconcile import abandon
from tests.stores.servers import Server
from tests.web.test_listen import upload
from tests.web.test_redaction import redacted


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of which a copy is small."""
    server = Postgres()
    yield server
    server.stop()


async def test_what_was_acknowledged_outlives_a_database_that_lost_it(
    service: Service, postgres: Postgres, database_url: str, tmp_path: Path
) -> None:
    """The copy knows of the upload that it was begun; its receipt is the sender's."""
    await schedule.tidy(service.vault)
    objects, copy = service.vault.objects, tmp_path / "copy"

    async def put_and_copy(*words: Any) -> None:
        await objects.put(*words)
        await asyncio.to_thread(postgres.backup, copy)

    slow: Any = Faulty(objects, put=put_and_copy)
    async with open_service_on(service, slow) as slowly:
        identifier = await upload(slowly, "call", tone(1))
    recovered = await asyncio.to_thread(Postgres, copy)
    try:
        await (await recovered._connect("postgres")).close()
        url = recovered.url(urlsplit(database_url).path.removeprefix("/"))
        async with open_vault(url, objects, tmp_path, as_roles=True) as vault:
            await past_the_lease(vault)
            for act in (schedule.tidy, nightly.run):
                with pytest.raises(RewrittenError, match="timeline 2 after 1"):
                    await act(vault)
            assert len(await service.holdings()) == 1
            assert (await rebuild.run(owned(vault))).rebuilt == 1
            await schedule.tidy(vault)
            async with connection(vault.pool) as lent:
                await lent.execute("UPDATE access_key SET name = 'old-' || name")
            async with open_service(vault) as again:
                assert await heard(again, identifier) == tone(1)
    finally:
        recovered.stop()


async def test_a_takeover_while_uploads_are_swept_costs_no_copy(service: Service) -> None:
    """Of a copy that was acknowledged the standby may know that it was begun, and no more."""
    identifier = await upload(service, "call", tone(4))
    await redacted(service, identifier)
    copy, vault = await copy_of(service, identifier), service.vault
    await mark.keep(vault)
    async with connection(vault.pool) as lent:
        row = await lent.fetchrow("SELECT id, expires_on, redacted FROM recording")
        assert row
        await redactions.leave(lent, Identity(row["expires_on"], row["id"], row["redacted"]))
        await lent.execute(
            "UPDATE recording SET redacted = NULL, redacted_at = NULL, redacted_bytes = NULL,"
            " redacted_header = NULL, redacted_details = NULL"
        )
    given_up, path = await abandon(service, row["expires_on"], -5), vault.signer.directory
    real = vault.objects

    async def meanwhile(*words: Any) -> Any:
        known = json.loads((path / mark.FILE).read_text())
        (path / mark.FILE).write_text(json.dumps({**known, "timeline": "00000009"}))
        return await real.holdings(*words)

    slow: Any = Faulty(real, holdings=meanwhile)
    with pytest.raises(RewrittenError, match="taken over"):
        await sweep.run(replace(vault, objects=slow))
    left = {holding.key for holding in await service.holdings()}
    assert copy in left
    assert given_up not in left


async def past_the_lease(vault: Vault) -> None:
    async with connection(vault.pool) as lent:
        assert await lent.fetchval("SELECT state FROM recording") == "receiving"
    await set_clock(vault, timedelta(minutes=10))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["restart", "recovery"])
async def test_a_restart_is_no_takeover(
    vault: Vault, postgres: Postgres, how: signal.Signals
) -> None:
    for _ in range(3):
        await schedule.tidy(vault)
        postgres.restart(how)  # not by a thread: it would end with that
        async with asyncio.timeout(60):
            while not await answers(vault):
                await asyncio.sleep(0.1)
    assert not await mark.gone_back(vault)


async def test_a_standby_is_away_and_says_so_in_a_line(
    vault: Vault,
    postgres: Postgres,
    database_url: str,
    rclone_server: Server,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = vault.objects._bucket._path.removeprefix("/")
    house = House(database_url, rclone_server, bucket, tmp_path)
    assert (await command(house.environment("owner"), "migrate"))[0] == 0
    await schedule.tidy(vault)
    await asyncio.to_thread(postgres.backup, tmp_path / "copy")
    standby = await asyncio.to_thread(Postgres, tmp_path / "copy", standby=True)
    try:
        await (await standby._connect("postgres")).close()
        url = standby.url(urlsplit(database_url).path.removeprefix("/"))
        async with open_vault(url, vault.objects, tmp_path, as_roles=True) as reads:
            for act in (mark.gone_back, mark.keep, sweep.run):
                with pytest.raises(UnavailableError, match="only reads"):
                    await act(reads)
            monkeypatch.setattr(schedule, "WATCH", 0.01)
            rewritten = asyncio.Event()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await schedule.watch(reads, rewritten)
        assert not rewritten.is_set()
        said = {(record.levelname, record.getMessage()) for record in caplog.records}
        assert said == {("WARNING", "ledger: The database is away; it only reads.")}
        door = replace(house, database_url=url).environment("door")
        status, line = await command(
            {**door, "ARCHIVE_DATABASE_URL": ""}, "serve", "--only", "retrieval"
        )
        assert (status, line) == (1, "archive: The database is away; it only reads.\n")
    finally:
        standby.stop()


async def command(environment: dict[str, str], *words: str) -> tuple[int, str]:
    """Run `archive` with these words; its status, and what it says of what went wrong."""
    line = [sys.executable, "-m", "app", *words]
    done = await asyncio.to_thread(
        subprocess.run, line, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stderr


async def answers(vault: Vault) -> bool:
    try:
        await schedule.tidy(vault)
    except UnavailableError:
        return False
    return True
