"""The ledger's tree over a real database: places, proofs, and what an outside memory notices."""

import asyncio
import hashlib
import json
import random
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from archive import merkle, tiles
from archive.ledger import Entry
from archive.merkle import Growth
from archive.note import Checkpoint, Note
from storage import ledger, signer, tree
from storage.signer import RewrittenError, Signer
from storage.vault import Vault
from tests.rewriting import rewrite_tree, unguarded
from tests.roles import connection
from tests.services import Faulty


async def write(vault: Vault, *acts: str) -> None:
    async with connection(vault.pool) as lent:
        for act in acts:
            await ledger.record(lent, ledger.SYSTEM, act, recording=uuid4(), facts={"day": act})


async def everything(vault: Vault) -> list[Entry]:
    async with connection(vault.pool) as lent:
        return await ledger.page(lent, 0, 1_000_000)


async def test_entries_get_their_places_without_a_gap_whoever_writes_and_gives(
    vault: Vault,
) -> None:
    async def writer(number: int) -> None:
        for count in range(30):
            async with connection(vault.pool) as lent, lent.transaction():
                await ledger.record(lent, ledger.SYSTEM, f"{number}.{count}")
                await asyncio.sleep(random.uniform(0, 0.003))  # commits overtake each other

    async def giver() -> None:
        while not done.is_set():
            await tree.sequence(vault)

    done = asyncio.Event()
    givers = [asyncio.ensure_future(giver()) for _ in range(3)]
    await asyncio.gather(*(writer(number) for number in range(16)))
    done.set()
    await asyncio.gather(*givers)
    await tree.sequence(vault)
    entries = await everything(vault)
    assert [entry.position for entry in entries] == list(range(480))
    assert {entry.act for entry in entries} == {f"{n}.{c}" for n in range(16) for c in range(30)}
    growth = Growth()
    for entry in entries:
        growth.add(merkle.leaf_hash(entry.text))
    async with connection(vault.pool) as lent:
        assert await tree.head(lent) == tree.Head(480, growth.root)
        assert await lent.fetchval("SELECT count(*) FROM ledger_waiting") == 0


async def test_what_comes_while_places_are_given_waits_for_the_next_time(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one would write a tile anew for each few of them, for as long as others write."""
    monkeypatch.setattr(tree, "_BATCH", 2)
    await write(vault, *"abcde")
    grow, grown = tree.extend, 0

    async def extend(*args: Any) -> None:
        nonlocal grown
        await grow(*args)
        if (grown := grown + 1) < 9:
            await write(vault, "x")

    monkeypatch.setattr(tree, "extend", extend)
    assert (await tree.sequence(vault), grown) == (2 + 2 + 2 + 2 + 1, 5)
    assert (await tree.sequence(vault), grown) == (1, 6)
    assert "".join(entry.act for entry in await everything(vault)) == "abcdexxxxx"


async def test_what_fails_half_way_leaves_everything_waiting(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(vault, "one")
    await tree.sequence(vault)
    await write(vault, "two")

    async def failing(*_: object) -> None:
        raise OSError("the disk")

    with monkeypatch.context() as patched, pytest.raises(Exception, match="away"):
        patched.setattr(tree, "extend", failing)
        await tree.sequence(vault)
    assert [entry.act for entry in await everything(vault)] == ["one"]
    assert await tree.sequence(vault) == 1
    assert [entry.act for entry in await everything(vault)] == ["one", "two"]


LONG = {"entries": [*range(10**8, 10**8 + 9400)]}
UNTELLABLE = (
    json.dumps(LONG),
    '{"x": 0.5}',
    f'{{"x": {"9" * 5000}}}',
    f'{{"x": {"[" * 5000 + "]" * 5000}}}',
    f'{{"x": {"[" * 900 + "]" * 900}}}',
    f'{{"x": {"[" * 50 + "]" * 50}}}',
    '["x"]',
)
"""What a part of the service could write past `ledger.record`, or the owner."""


async def test_an_entry_that_cannot_be_told_stops_nothing(vault: Vault) -> None:
    """Its facts are told by their hash; those beside it as they are, and all of it is signed."""
    with pytest.raises(ValueError, match="longer than"):
        async with connection(vault.pool) as lent:
            await ledger.record(lent, "k", "words.read", facts=LONG)
    insert = "INSERT INTO ledger_waiting (actor, act, facts) VALUES ('k', 'odd', $1::text::jsonb)"
    for facts in UNTELLABLE:
        await write(vault, "before")
        async with connection(vault.pool) as lent:
            await lent.execute(insert, facts)
            said = await lent.fetchval("SELECT facts::text FROM ledger_waiting WHERE act = 'odd'")
        await write(vault, "after")
        signed = Checkpoint.parse((await tree.checkpoint(vault)).text)
        *_, before, odd, after = await everything(vault)
        assert (signed.size, before.act, after.act) == (after.position + 1, "before", "after")
        assert odd.facts == {"untold": hashlib.sha256(said.encode()).hexdigest()}
        assert (before.facts, after.facts) == ({"day": "before"}, {"day": "after"})


async def test_what_is_as_deep_as_may_be_is_told_and_read_again(vault: Vault) -> None:
    deep = json.loads(f'{{"x": {"[" * 49 + "]" * 49}, "y": "{"[{" * 99}"}}')
    async with connection(vault.pool) as lent:
        await ledger.record(lent, "k", "deep", facts=deep)
    await tree.checkpoint(vault)
    assert [entry.facts for entry in await everything(vault)] == [deep]


async def test_everything_is_proven_out_of_the_database(vault: Vault) -> None:
    heads = []
    for size in (1, 3, 255, 256, 257, 300, 700):
        async with connection(vault.pool) as lent:
            now = await tree.size(lent)
        await write(vault, *(f"{number}" for number in range(now, size)))
        await tree.sequence(vault)
        async with connection(vault.pool) as lent:
            heads.append(await tree.head(lent))
    last = heads[-1]
    async with connection(vault.pool) as lent:
        for old in heads:
            assert await tree.head(lent, old.size) == old
            path = await tree.consistency(lent, old.size, last.size)
            merkle.check_consistency(old.size, old.root, last.size, last.root, path)
            for entry in random.sample(await everything(vault), 20):
                if entry.position < old.size:
                    path = await tree.inclusion(lent, entry.position, old.size)
                    leaf = merkle.leaf_hash(entry.text)
                    merkle.check_inclusion(leaf, entry.position, old.size, path, old.root)
        for tile in ((0, 0), (0, 2), (1, 0)):
            hashes = await tree.tile(lent, *tile)
            assert hashes
            assert len(hashes) == 32 * tiles.width(tile, last.size)
        assert await tree.tile(lent, 0, 3) is None


async def test_a_checkpoint_is_signed_and_goes_on_from_the_last(vault: Vault) -> None:
    assert vault.signer.last() is None
    empty = signer.check(await tree.checkpoint(vault), vault.signer.verifier)
    assert (empty.size, empty.root) == (0, merkle.EMPTY)
    await write(vault, "one", "two")
    first = await tree.checkpoint(vault)
    again = await tree.checkpoint(vault)
    assert str(first) == str(again)
    await write(vault, "three")
    second = signer.check(await tree.checkpoint(vault), vault.signer.verifier)
    assert (signer.check(first, vault.signer.verifier).size, second.size) == (2, 3)
    assert vault.signer.last() == second
    await tree.agree(vault)


async def test_one_bundle_is_put_once_however_many_ask_for_a_checkpoint(vault: Vault) -> None:
    """Of two who put it at once one was seen to get a 500 (rclone)."""
    await write(vault, *"abc")
    put, names = vault.objects.put, []

    async def slow(key: str, *args: Any) -> None:
        names.append(key)
        await asyncio.sleep(0.2)
        await put(key, *args)

    objects: Any = Faulty(vault.objects, put=slow)
    watched = replace(vault, objects=objects)
    notes = await asyncio.gather(*(tree.checkpoint(watched) for _ in range(5)))
    assert {Checkpoint.parse(note.text).size for note in notes} == {3}
    assert len(names) == 1


async def test_many_may_ask_for_a_checkpoint_at_once(vault: Vault) -> None:
    async def one(number: int) -> Note:
        await write(vault, f"{number}")
        return await tree.checkpoint(vault)

    notes = await asyncio.gather(*(one(number) for number in range(12)))
    sizes = {signer.check(note, vault.signer.verifier).size for note in notes}
    assert max(sizes) == 12


REWRITES = (
    "UPDATE ledger SET actor = 'nobody' WHERE position = 3",
    "UPDATE ledger SET at = at + interval '1 second' WHERE position = 3",
    "UPDATE ledger SET facts = '{}' WHERE position = 3",
    "UPDATE ledger SET recording = NULL WHERE position = 3",
    "DELETE FROM ledger WHERE position = 6",
    "DELETE FROM ledger WHERE position > 2",
    "UPDATE ledger SET act = CASE act WHEN 'b' THEN 'c' ELSE 'b' END WHERE position IN (1, 2)",
)


@pytest.mark.parametrize("rewriting", REWRITES)
async def test_whoever_rewrites_the_ledger_gets_no_signature(vault: Vault, rewriting: str) -> None:
    await write(vault, *"abcdefg")
    before = await tree.checkpoint(vault)
    async with unguarded(vault) as lent:
        await lent.execute(rewriting)
        await rewrite_tree(lent)
    with pytest.raises(RewrittenError, match="was rewritten, or"):
        await tree.agree(vault)
    await write(vault, *"later")
    with pytest.raises(RewrittenError, match=r"does not go on|put back"):
        await tree.checkpoint(vault)
    assert str(vault.signer.last_note()) == str(before)


async def test_another_beginning_of_the_same_length_is_noticed(vault: Vault) -> None:
    await write(vault, "one", "two")
    await tree.checkpoint(vault)
    async with unguarded(vault) as lent:
        await lent.execute("UPDATE ledger SET act = CASE position WHEN 0 THEN 'uno' ELSE 'dos' END")
        await rewrite_tree(lent)
    with pytest.raises(RewrittenError):
        await tree.checkpoint(vault)


async def test_a_tile_that_is_missing_is_a_ledger_that_was_not_signed(vault: Vault) -> None:
    await write(vault, *("x" for _ in range(300)))
    await tree.checkpoint(vault)
    async with connection(vault.pool) as lent:
        await lent.execute("DELETE FROM ledger_tile WHERE level = 0 AND number = 1")
    with pytest.raises(RewrittenError, match="was rewritten, or"):
        await tree.agree(vault)


async def test_the_key_is_made_once_and_is_its_owners_alone(vault: Vault) -> None:
    folder = vault.spool.parent / "ring"
    path = folder / "ledger.key"
    assert path.stat().st_mode & 0o777 == 0o600
    again = Signer.open(folder, vault.signer.origin, create=False)
    assert again.verifier == vault.signer.verifier
    await tree.checkpoint(vault)
    path.unlink()
    # What was signed would never be checked again: the key has to be restored, not replaced.
    for create in (False, True):
        with pytest.raises(signer.SignerError, match="restore it"):
            Signer.open(folder, vault.signer.origin, create=create)
    path.write_text("no key")
    with pytest.raises(signer.SignerError, match="cannot be used"):
        Signer.open(folder, vault.signer.origin, create=False)


async def test_a_last_checkpoint_that_was_changed_is_not_believed(vault: Vault) -> None:
    await write(vault, "one")
    note = str(await tree.checkpoint(vault))
    path = vault.spool.parent / "ring" / "ledger.checkpoint"
    other = note[:-4] + ("B" if note[-4] == "A" else "A") + note[-3:]
    for changed in ("", note.replace("\n1\n", "\n0\n"), other, "x" + note):
        path.write_text(changed)
        with pytest.raises(signer.SignerError, match="signed last"):
            await tree.checkpoint(vault)
        with pytest.raises(signer.SignerError):
            await tree.agree(vault)


def test_a_checkpoint_of_another_log_is_not_this_ones(vault: Vault) -> None:
    note = vault.signer.sign(0, merkle.EMPTY, 0, [])
    assert note
    assert signer.check(note, vault.signer.verifier) == Checkpoint.parse(note.text)
    other = Note(note.text.replace("call-archive", "other"), note.signatures)
    with pytest.raises(ValueError, match="does not belong"):
        signer.check(other, vault.signer.verifier)


async def test_facts_without_one_form_are_refused_before_they_stand_in_the_way(
    vault: Vault,
) -> None:
    async with connection(vault.pool) as lent:
        with pytest.raises(TypeError, match="whole numbers"):
            await ledger.record(lent, ledger.SYSTEM, "one", facts={"share": 0.5})
    await write(vault, "two")
    assert await tree.sequence(vault) == 1
