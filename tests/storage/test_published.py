"""The ledger outside the database: whole, before it is signed, and read back as it was."""

from dataclasses import replace
from datetime import date
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from archive import tiles
from archive.errors import UnavailableError
from archive.ledger import Entry
from storage import published, tree
from storage.holdings import Holding
from storage.keyring import KeyRingError, Ring
from storage.vault import Vault
from tests.roles import connection
from tests.services import Faulty
from tests.storage.test_tree import everything, write


async def read(vault: Vault, first: int = 0) -> list[Entry]:
    return [entry async for entry in published.entries(vault, first)]


async def bundles(vault: Vault) -> list[str]:
    held = await vault.objects.holdings(published.PREFIX)
    return sorted(holding.key.removeprefix(published.PREFIX)[:16] for holding in held)


async def test_what_is_signed_is_published_and_read_back_as_it_was(vault: Vault) -> None:
    await tree.checkpoint(vault)
    assert await bundles(vault) == []
    await write(vault, *(f"{number}" for number in range(3)))
    await tree.checkpoint(vault)
    assert await bundles(vault) == ["000000000000-003"]
    await write(vault, *(f"{number}" for number in range(3, 600)))
    await tree.checkpoint(vault)
    # The narrow bundle went when the wider one was there.
    assert await bundles(vault) == ["000000000000-256", "000000000001-256", "000000000002-088"]
    assert await read(vault) == await everything(vault)
    assert [entry.position for entry in await read(vault, 598)] == [598, 599]
    assert await read(vault, 600) == []


async def test_nothing_is_signed_that_is_not_published(vault: Vault) -> None:
    await write(vault, "one")

    async def away(*_: object) -> None:
        raise UnavailableError("The object store is away.")

    broken: Any = Faulty(vault.objects, put=away)
    with pytest.raises(UnavailableError):
        await tree.checkpoint(replace(vault, objects=broken))
    assert vault.signer.last() is None
    assert await bundles(vault) == []
    await tree.checkpoint(vault)
    assert len(await read(vault)) == 1


async def test_publishing_again_after_a_crash_changes_nothing(vault: Vault) -> None:
    await write(vault, *(f"{number}" for number in range(300)))
    await tree.checkpoint(vault)
    async with connection(vault.pool) as lent:  # the crash came before this was written down
        await lent.execute("UPDATE ledger_head SET published = 0")
    assert await published.publish(vault) == 300
    assert await bundles(vault) == ["000000000000-256", "000000000001-044"]
    assert await read(vault) == await everything(vault)


async def test_what_an_old_bucket_lacks_is_published_again(vault: Vault) -> None:
    await write(vault, *(f"{number}" for number in range(300)))
    await tree.checkpoint(vault)
    held = await vault.objects.holdings(published.PREFIX)
    await vault.objects.remove(held)
    await tree.agree_wholly(vault)
    await tree.checkpoint(vault)
    assert await bundles(vault) == [
        holding.key.removeprefix(published.PREFIX)[:16]
        for holding in sorted(held, key=lambda h: h.key)
    ]


async def plant(vault: Vault, name: str, content: bytes) -> None:
    digest = md5(content).digest()
    await vault.objects.put(published.PREFIX + name, [content], len(content), digest, 10)


async def test_nobody_but_the_archive_can_add_to_what_is_published(vault: Vault) -> None:
    """Who can write to the bucket makes no entry, and does not keep the service from starting."""
    await write(vault, "one")
    await tree.checkpoint(vault)
    true = await everything(vault)
    forged = tiles.bundle([*(entry.text for entry in true), replace(true[0], actor="x").text])
    named = (await vault.objects.holdings(published.PREFIX))[0].key
    mark = named.rsplit("-", 1)[1]
    for name in ("000000000000-002", "000000000000-002-", f"000000000000-002-{mark}"):
        await plant(vault, name, forged)
    await plant(vault, f"000000000001-002-{mark}", forged)
    assert await read(vault) == true
    await tree.agree_wholly(vault)
    # Nor does it put one in the place of another.
    await plant(vault, f"000000000001-001-{mark}", tiles.bundle([true[0].text]))
    assert await read(vault, 256) == []


async def test_a_bundle_that_goes_while_it_is_read_is_not_the_one(vault: Vault) -> None:
    """A service puts a wider one meanwhile: the start of another goes on without it."""
    await write(vault, "one")
    await tree.checkpoint(vault)

    async def listed(*words: str) -> list[Holding]:
        held = await vault.objects.holdings(*words)
        await vault.objects.remove(held)
        return held

    slow: Any = Faulty(vault.objects, holdings=listed)
    await tree.agree_wholly(replace(vault, objects=slow))
    assert await read(vault) == []
    await tree.checkpoint(vault)
    assert len(await read(vault)) == 1


async def test_an_archive_marks_its_bucket_and_knows_it_again(vault: Vault) -> None:
    for _ in range(2):
        await published.own(vault)
        [name] = await bundles(vault)
        assert name.startswith("owner-")
    # A ledger that was there before the mark is known by its own.
    await write(vault, "one")
    await tree.checkpoint(vault)
    held = await vault.objects.holdings(published.PREFIX)
    await vault.objects.remove([each for each in held if "owner" in each.key])
    await published.own(vault)
    assert len(await bundles(vault)) == 2


@pytest.mark.parametrize("marked", [True, False])
async def test_a_bucket_of_another_archive_is_refused(
    vault: Vault, tmp_path: Path, marked: bool
) -> None:
    await write(vault, "one")
    await tree.checkpoint(vault)
    if marked:
        await published.own(vault)
    there = await bundles(vault)
    (tmp_path / "other").mkdir()
    ring = Ring.open(
        tmp_path / "other" / "ring",
        tmp_path / "other" / "root.key",
        create=True,
        today=lambda: date(2026, 11, 25),
    )
    with pytest.raises(KeyRingError, match="belongs to another archive"):
        await published.own(replace(vault, ring=ring))
    assert await bundles(vault) == there
    await published.own(vault)


async def test_of_two_archives_that_come_at_one_moment_neither_takes_the_bucket(
    vault: Vault,
) -> None:
    async def put(*known: Any) -> None:
        await vault.objects.put(*known)
        await plant(vault, "owner-0123", b"the other's")

    both: Any = Faulty(vault.objects, put=put)
    with pytest.raises(KeyRingError, match="owner-0123"):
        await published.own(replace(vault, objects=both))
    with pytest.raises(KeyRingError, match="owner-0123"):
        await published.own(vault)
