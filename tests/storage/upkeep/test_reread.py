"""The ledger read back: what of it rots or is changed is found in a night, and what is gone from
the bucket is put again.
"""

from datetime import UTC, datetime
from typing import Any

import pytest

from archive.ledger import Entry
from storage import nights, published, tree
from storage.signer import SignerError
from storage.upkeep import reread
from storage.vault import Vault
from tests.rewriting import unguarded
from tests.roles import connection
from tests.services import Service
from tests.storage.test_published import bundles, plant
from tests.storage.test_tree import write


async def fill(vault: Vault, count: int) -> None:
    async with connection(vault.pool) as lent:
        await lent.execute(
            "INSERT INTO ledger_waiting (actor, act, recording) SELECT 'k', 'listened',"
            " gen_random_uuid() FROM generate_series(1, $1)",
            count,
        )


@pytest.fixture
async def signed(vault: Vault) -> Vault:
    """An archive with three bundles that are full and one that is not."""
    await fill(vault, 3 * 256 + 40)
    await tree.checkpoint(vault)
    return vault


async def test_a_ledger_that_is_whole_is_read_to_its_end(signed: Vault) -> None:
    assert await reread.run(signed, 0) == reread.Report(0, 808, then=0)
    # It begins where a bundle does, and never behind the end.
    assert await reread.run(signed, 300) == reread.Report(256, 808, then=0)
    assert await reread.run(signed, 9999) == reread.Report(768, 808, then=0)


async def test_one_night_reads_for_a_time_and_the_next_goes_on(
    signed: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reread, "_BUNDLES", 2)
    monkeypatch.setattr(reread, "SECONDS", 0.0)
    assert await reread.run(signed, 0) == reread.Report(0, 512, then=512)
    assert await reread.run(signed, 512) == reread.Report(512, 808, then=0)


def test_a_row_that_is_deeper_than_anybody_hashes_is_no_entry() -> None:
    deep: list[object] = []
    for _ in range(3000):
        deep = [deep]
    entry = Entry(0, datetime(2026, 11, 26, tzinfo=UTC), "k", "odd", None, {"x": deep})
    assert reread._text(entry) is None


CHANGES = [
    "UPDATE ledger SET actor = 'nobody' WHERE position = 300",
    "UPDATE ledger SET at = at + interval '1 microsecond' WHERE position = 300",
    "UPDATE ledger SET facts = '{\"x\": 1.5}' WHERE position = 300",
    "UPDATE ledger SET facts = '[]' WHERE position = 300",
    "UPDATE ledger SET sealed = 'ab' WHERE position = 300",
    "UPDATE ledger SET at = 'infinity' WHERE position = 300",
    "DELETE FROM ledger WHERE position = 300",
    "DELETE FROM ledger_tile WHERE level = 0 AND number = 1",
    "UPDATE ledger_tile SET hashes = set_byte(hashes, 44 * 32, 255 - get_byte(hashes, 44 * 32))"
    " WHERE level = 0 AND number = 1",
    "UPDATE ledger_tile SET hashes = set_byte(hashes, 32, 255 - get_byte(hashes, 32))"
    " WHERE level = 1",
]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_was_changed_is_found_each_night_until_it_is_mended(
    signed: Vault, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    there = await bundles(signed)
    async with unguarded(signed) as lent:
        await lent.execute(change)
    report = await reread.run(signed, 0)
    assert (report.wrong, report.missing, report.upto) == (1, 0, 808)
    assert report.then in (256, 300)
    assert f"at entry {report.then};" in caplog.text
    again = await reread.run(signed, report.then)
    assert (again.since, again.wrong, again.then) == (256, 1, report.then)
    # Nothing is published over what was.
    assert await bundles(signed) == there


async def test_a_whole_level_of_the_tree_is_held_against_the_one_above(vault: Vault) -> None:
    await fill(vault, 65536)
    await tree.sequence(vault)
    assert (await reread.run(vault, 65000)).wrong == 0
    async with unguarded(vault) as lent:
        await lent.execute(
            "UPDATE ledger_tile SET hashes = set_byte(hashes, 9, 255 - get_byte(hashes, 9))"
            " WHERE level = 2"
        )
    report = await reread.run(vault, 65000)
    assert (report.wrong, report.then) == (1, 65280)


async def test_a_bundle_that_is_gone_from_the_middle_is_put_again(
    signed: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    there = await bundles(signed)
    held = await signed.objects.holdings(published.PREFIX)
    [middle] = [each for each in held if each.key.startswith("ledger/000000000001-")]
    await signed.objects.remove([middle])
    await plant(signed, middle.key.removeprefix(published.PREFIX)[:-1] + "x", b"other")
    report = await reread.run(signed, 0)
    assert (report.wrong, report.missing, report.then) == (0, 1, 0)
    assert "bundle 1 of the published ledger was gone" in caplog.text
    assert (await reread.run(signed, 0)).missing == 0
    assert set(there) <= set(await bundles(signed))
    assert len([entry async for entry in published.entries(signed, 0)]) == 808


async def test_what_is_not_published_yet_is_not_missed(vault: Vault) -> None:
    await fill(vault, 600)
    await tree.sequence(vault)
    assert await reread.run(vault, 0) == reread.Report(0, 600, then=0)
    assert await bundles(vault) == []


async def test_a_row_that_was_changed_before_it_is_signed_is_not_signed(vault: Vault) -> None:
    """The rows are read again and hashed before anything goes out of the house."""
    await write(vault, "one", "two")
    await tree.checkpoint(vault)
    await write(vault, "three")
    await tree.sequence(vault)
    there = await bundles(vault)
    for position in (0, 2):  # one that is published already, and one that is not
        async with unguarded(vault) as lent:
            await lent.execute("UPDATE ledger SET actor = 'x' WHERE position = $1", position)
            with pytest.raises(SignerError, match="not what its tree has hashed"):
                await tree.checkpoint(vault)
            await lent.execute("UPDATE ledger SET actor = 'system' WHERE position = $1", position)
        last = vault.signer.last()
        assert (last and last.size, await bundles(vault)) == (2, there)
    await tree.checkpoint(vault)
    last = vault.signer.last()
    assert last and last.size == 3


async def test_each_night_reads_on_and_tells(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = await service.night()
    async with connection(service.vault.pool) as lent:
        assert await nights.reread_upto(lent) == 0
    assert night.reread.upto > 0
    asked: list[int] = []

    async def run(vault: Vault, since: int) -> reread.Report:
        asked.append(since)
        return reread.Report(since, since, wrong=1, then=512)

    monkeypatch.setattr(reread, "run", run)
    await service.night()
    await service.night()
    assert asked == [0, 512]
    async with connection(service.vault.pool) as lent:
        told: Any = await lent.fetchval(
            "SELECT facts->'reread' FROM told WHERE act = 'night.done'"
            " ORDER BY position DESC LIMIT 1"
        )
    assert (told["wrong"], told["then"]) == (1, 512)
