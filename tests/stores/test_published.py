"""The published ledger in a bucket that keeps versions, where a bundle can lie under a mark of
deletion: it counts as gone, and is put again.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from storage import published, tree
from storage.holdings import Holding
from storage.upkeep import reread
from storage.vault import Vault
from tests.services import open_vault
from tests.storage.test_published import read
from tests.storage.test_tree import everything, write
from tests.stores.servers import Server


@pytest.fixture
async def vault(database_url: str, rgw_server: Server, tmp_path: Path) -> AsyncIterator[Vault]:
    """Over a bucket with versions, and with a ledger of a full bundle and a narrower one."""
    objects = await replace(rgw_server, versioned=True).connect()
    async with open_vault(database_url, objects, tmp_path) as opened:
        await write(opened, *(f"{number}" for number in range(300)))
        await tree.checkpoint(opened)
        yield opened
    await objects.close()


async def hide(vault: Vault, number: int) -> None:
    """Remove a bundle as a plain removal does where versions are kept."""
    [held] = await vault.objects.holdings(f"{published.PREFIX}{number:012}-")
    assert await vault.objects.remove([Holding(held.key, "object")]) == []
    kinds = [each.kind for each in await vault.objects.holdings(held.key)]
    assert sorted(kinds) == ["marker", "version"]


async def test_a_full_bundle_under_a_mark_of_deletion_is_put_again(vault: Vault) -> None:
    await hide(vault, 0)
    assert await read(vault) == []
    assert (await reread.run(vault, 0)).missing == 1
    assert await read(vault) == await everything(vault)
    assert (await reread.run(vault, 0)).missing == 0


async def test_the_newest_bundle_under_a_mark_of_deletion_is_put_with_the_next_checkpoint(
    vault: Vault,
) -> None:
    """And keeps nothing from starting meanwhile."""
    await hide(vault, 1)
    await tree.agree_wholly(vault)
    assert len(await read(vault)) == 256
    await tree.checkpoint(vault)
    assert await read(vault) == await everything(vault)
