"""`archive check` of the ledger: it says what the start would say, and leaves all as it was."""

import json
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from app import check, config, migrate, vault
from storage import database, published, schema, tree
from storage.keyring import KeyRingError
from storage.objects import ObjectStore
from storage.signer import RewrittenError, SignerError
from storage.upkeep import mark
from storage.vault import Vault
from tests.app.child_service import House
from tests.postgres import Postgres
from tests.roles import connection
from tests.storage.test_published import plant
from tests.storage.test_tree import write
from tests.stores.servers import Server


@dataclass(slots=True)
class Site:
    """An archive that has signed its ledger, and what it is configured with."""

    house: House
    vault: Vault
    postgres: Postgres

    @property
    def keys(self) -> Path:
        return self.house.folder / "ring"

    def config(self) -> config.Config:
        return config.load(None, self.house.environment("owner"))


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that syncs, as check asks for."""
    server = Postgres(fsync="on")
    yield server
    server.stop()


@pytest.fixture
async def site(
    database_url: str,
    postgres: Postgres,
    rclone_server: Server,
    rclone_store: ObjectStore,
    vault: Vault,
    tmp_path: Path,
) -> Site:
    bucket = rclone_store._bucket._path.removeprefix("/")
    house = House(database_url, rclone_server, bucket, tmp_path)
    await published.own(vault)
    await write(vault, "one", "two")
    await tree.checkpoint(vault)
    return Site(house, vault, postgres)


async def rows(site: Site, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    status = await check.run(site.config(), as_json=True)
    return status, {row["part"]: row for row in json.loads(capsys.readouterr().out)}


async def kept(site: Site) -> tuple[set[Path], set[str], int]:
    """What a look at the ledger could leave behind: files, objects, and what counts as there."""
    held = await site.vault.objects.holdings(published.PREFIX)
    lent = await asyncpg.connect(site.house.database_url)
    done = await lent.fetchval("SELECT published FROM ledger_head")
    await lent.close()
    return set(site.keys.glob("ledger.*")), {each.key for each in held}, done


async def no_key(site: Site) -> None:
    (site.keys / "ledger.key").unlink()


async def a_key_that_cannot_be_read(site: Site) -> None:
    await no_key(site)
    (site.keys / "ledger.key").mkdir()


async def a_damaged_checkpoint(site: Site) -> None:
    path = site.keys / "ledger.checkpoint"
    path.write_bytes(path.read_bytes().replace(b"\n2\n", b"\n3\n", 1))


async def put_back(site: Site) -> None:
    url = await site.postgres.fresh_database(schema.migrate)
    site.house = replace(site.house, database_url=url)


async def put_back_without_what_was_signed(site: Site) -> None:
    """Nothing but the bucket knows of the entries."""
    await put_back(site)
    for name in ("ledger.key", "ledger.checkpoint"):
        (site.keys / name).unlink()


async def taken_over(site: Site) -> None:
    """A standby went on where the primary ended, or not quite there."""
    await mark.keep(site.vault)
    path = site.keys / mark.FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "timeline": "00000007"}))


async def a_rebuild_that_was_broken_off(site: Site) -> None:
    lent = await asyncpg.connect(site.house.database_url)
    await lent.execute("UPDATE archive SET rebuilding = true")
    await lent.close()


async def anothers_bucket(site: Site) -> None:
    await plant(site.vault, "owner-0123", b"the other's")


FAULTS: list[tuple[Callable[[Site], Awaitable[None]], type[Exception], str]] = [
    (no_key, SignerError, "there is no ledger key at"),
    (a_key_that_cannot_be_read, SignerError, "cannot be used"),
    (a_damaged_checkpoint, SignerError, "is not the checkpoint that was signed last"),
    (put_back, RewrittenError, "put back"),
    (put_back_without_what_was_signed, RewrittenError, "published last"),
    (taken_over, RewrittenError, "a standby has taken over"),
    (a_rebuild_that_was_broken_off, RewrittenError, "run `archive rebuild` to its end"),
    (anothers_bucket, KeyRingError, "owner-0123"),
]


@pytest.mark.parametrize(("fault", "kind", "word"), FAULTS)
async def test_check_says_of_the_ledger_what_keeps_the_service_from_starting(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    fault: Callable[[Site], Awaitable[None]],
    kind: type[Exception],
    word: str,
) -> None:
    await fault(site)
    before = await kept(site)
    status, found = await rows(site, capsys)
    assert status == 1
    assert [name for name, row in found.items() if not row["ok"]] == ["ledger"]
    assert word in found["ledger"]["detail"]
    assert await kept(site) == before
    with pytest.raises(kind) as refused:
        async with vault.opened(site.config()):
            pass
    assert str(refused.value) == found["ledger"]["detail"]


@pytest.mark.parametrize(
    ("setting", "well"),
    [("off", False), ("local", False), ("remote_write", False), ("remote_apply", True)],
)
async def test_check_says_that_commits_do_not_wait_for_the_disk(
    site: Site,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    well: bool,
) -> None:
    """As behind a pooler, which drops what a connection asks for."""
    name = urlsplit(site.house.database_url).path.removeprefix("/")
    lent = await asyncpg.connect(site.house.database_url)
    await lent.execute(f"ALTER DATABASE {name} SET synchronous_commit = {setting}")
    await lent.close()
    _, found = await rows(site, capsys)
    assert found["database"]["ok"], "each connection asks for what it needs"
    monkeypatch.delitem(database.SETTINGS, "synchronous_commit")
    _, found = await rows(site, capsys)
    assert found["database"]["ok"] is well
    assert well or f"synchronous_commit is {setting}" in found["database"]["detail"]


async def test_check_says_that_a_root_cannot_be_written(
    site: Site, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, root = os.access, site.house.folder / "root.key"
    refused: list[tuple[Path, int]] = []

    def access(path: Path, mode: int) -> bool:
        refused.extend([(path, mode)] if path == root else [])
        return path != root and real(path, mode)

    monkeypatch.setattr(os, "access", access)
    status, found = await rows(site, capsys)
    assert (status, found["keys"]["ok"], refused) == (1, False, [(root, os.W_OK)])
    assert "cannot be written" in found["keys"]["detail"]


async def test_check_finds_a_ledger_in_order_and_leaves_it_as_it_is(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await kept(site)
    _, found = await rows(site, capsys)
    assert found["ledger"]["ok"], found
    assert found["ledger"]["detail"] == "goes on from the 2 entries that were signed last"
    assert await kept(site) == before


async def test_check_does_not_mend_what_an_old_bucket_lacks(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    await site.vault.objects.remove(await site.vault.objects.holdings(published.PREFIX))
    before = await kept(site)
    assert before[2] == 2
    _, found = await rows(site, capsys)
    assert found["ledger"]["ok"], found
    assert "published again after the next start" in found["ledger"]["detail"]
    assert "marks the bucket" in found["ledger"]["detail"]
    assert await kept(site) == before
    async with vault.opened(site.config()), connection(site.vault.pool) as lent:
        assert await lent.fetchval("SELECT published FROM ledger_head") == 0


async def test_check_of_a_new_archive_makes_no_signing_key_and_no_mark(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    await put_back(site)
    shutil.rmtree(site.keys)
    (site.house.folder / "root.key").unlink()
    await site.vault.objects.remove(await site.vault.objects.holdings(published.PREFIX))
    before = await kept(site)
    _, found = await rows(site, capsys)
    assert found["ledger"]["ok"], found
    assert found["ledger"]["detail"].startswith("nothing was signed yet")
    assert await kept(site) == before
    async with vault.opened(site.config()):
        pass
    assert (site.keys / "ledger.key").exists()
    assert len(await site.vault.objects.holdings(published.PREFIX)) == 1


async def test_migrating_makes_the_keys_of_a_new_archive_before_its_parts_start(
    site: Site,
) -> None:
    await put_back(site)
    shutil.rmtree(site.keys)
    (site.house.folder / "root.key").unlink()
    await migrate.run(site.config())
    assert {path.name for path in site.keys.iterdir()} >= {"ring", "ledger.key"}
    made = (site.keys / "ledger.key").read_bytes()
    await migrate.run(site.config())
    assert (site.keys / "ledger.key").read_bytes() == made
