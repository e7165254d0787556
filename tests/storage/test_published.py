"""The ledger outside the database: whole, before it is signed, and read back as it was."""

from dataclasses import replace
from hashlib import md5
from typing import Any

import pytest

from archive.errors import UnavailableError
from archive.ledger import Entry
from storage import published, tree
from storage.database import connection
from storage.objects import ObjectStore
from storage.vault import Vault
from tests.services import Faulty
from tests.storage.test_tree import everything, write


async def read(objects: ObjectStore, first: int = 0) -> list[Entry]:
    return [entry async for entry in published.entries(objects, first)]


async def bundles(vault: Vault) -> list[str]:
    held = await vault.objects.holdings(published.PREFIX)
    return sorted(holding.key.removeprefix(published.PREFIX) for holding in held)


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
    assert await read(vault.objects) == await everything(vault)
    assert [entry.position for entry in await read(vault.objects, 598)] == [598, 599]
    assert await read(vault.objects, 600) == []


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
    assert len(await read(vault.objects)) == 1


async def test_publishing_again_after_a_crash_changes_nothing(vault: Vault) -> None:
    await write(vault, *(f"{number}" for number in range(300)))
    await tree.checkpoint(vault)
    async with connection(vault.pool) as lent:  # the crash came before this was written down
        await lent.execute("UPDATE ledger_head SET published = 0")
    assert await published.publish(vault.pool, vault.objects) == 300
    assert await bundles(vault) == ["000000000000-256", "000000000001-044"]
    assert await read(vault.objects) == await everything(vault)


async def test_what_an_old_bucket_lacks_is_published_again(vault: Vault) -> None:
    await write(vault, *(f"{number}" for number in range(300)))
    await tree.checkpoint(vault)
    held = await vault.objects.holdings(published.PREFIX)
    await vault.objects.remove(held)
    await tree.agree_wholly(vault)
    await tree.checkpoint(vault)
    assert await bundles(vault) == [
        holding.key.removeprefix(published.PREFIX) for holding in sorted(held, key=lambda h: h.key)
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"\xff\xff", "bundle .* is damaged"), (b"\0\2{}", "Entry 0 .* is damaged")],
)
async def test_a_bundle_that_was_damaged_is_told(vault: Vault, content: bytes, what: str) -> None:
    key = f"{published.PREFIX}000000000000-003"
    await vault.objects.put(key, [content], len(content), md5(content).digest(), 10)
    with pytest.raises(UnavailableError, match=what):
        await read(vault.objects)
