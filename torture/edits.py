"""Edits of the ledger, in an export and in the database, against a checkpoint that was kept.

Who edits is as strong as can be: he owns the database and the archive's own memory of what it
signed, and in half of the tries the signing key as well, so that what he hands over is signed and
whole. What he has not is the checkpoint that somebody else kept. Every edit of what it covers has
to be noticed; and what nobody edited has to be accepted, or a refusal would say nothing.
"""

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from app import audit
from app.witness import Witness, WitnessError
from archive import merkle
from archive.ledger import Entry
from archive.note import Checkpoint, Note, Signature
from storage import signer, tree
from storage.database import Connection, connection
from storage.signer import RewrittenError
from tests.jobs.test_expiry import a_year_ago
from tests.rewriting import export, rewrite_tree, unguarded
from tests.services import Service
from tests.web.test_listen import upload
from torture.clocks import Offsets, turn_database, turned
from torture.load import audio
from torture.report import Limit, Row, Tally, total
from torture.room import Room

GOAL = 10_000
_DATABASE = 20
"""One of so many tries is on the database itself."""

Edit = Callable[[list[bytes], int], list[bytes]]


def _flip(lines: list[bytes], at: int) -> list[bytes]:
    line = bytearray(lines[at])
    line[random.randrange(len(line))] ^= 1 << random.randrange(8)
    return [*lines[:at], bytes(line), *lines[at + 1 :]]


def _delete(lines: list[bytes], at: int) -> list[bytes]:
    return lines[:at] + lines[at + 1 :]


def _double(lines: list[bytes], at: int) -> list[bytes]:
    return lines[: at + 1] + lines[at:]


def _insert(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[:at], _forged(lines[at]), *lines[at:]]


def _swap(lines: list[bytes], at: int) -> list[bytes]:
    other = random.choice([place for place in range(len(lines)) if lines[place] != lines[at]])
    changed = list(lines)
    changed[at], changed[other] = changed[other], changed[at]
    return changed


def _truncate(lines: list[bytes], at: int) -> list[bytes]:
    return lines[:at]


def _behead(lines: list[bytes], at: int) -> list[bytes]:
    return lines[at + 1 :]


def _rewrite(lines: list[bytes], at: int) -> list[bytes]:
    return [*lines[:at], _forged(lines[at]), *lines[at + 1 :]]


def _fork(lines: list[bytes], at: int) -> list[bytes]:
    """Another history from here on, longer than the true one."""
    return lines[:at] + [_forged(line) for line in lines[at:]] + [_forged(lines[-1])] * 3


def _forged(line: bytes) -> bytes:
    """An entry as it could have been, by another actor."""
    entry = Entry.parse(0, line)
    actor = f"{entry.actor[:8]}{random.randrange(1 << 30)}"
    return Entry(0, entry.at, actor, entry.act, entry.recording, entry.facts, entry.sealed).text


EDITS: tuple[Edit, ...] = (
    _flip,
    _delete,
    _double,
    _insert,
    _swap,
    _truncate,
    _behead,
    _rewrite,
    _fork,
)

STATEMENTS = (
    "UPDATE ledger SET actor = 'nobody' WHERE position = $1",
    "UPDATE ledger SET at = at + interval '1 second' WHERE position = $1",
    "UPDATE ledger SET facts = '{\"x\": 1}' WHERE position = $1",
    "DELETE FROM ledger WHERE position = $1",
    "DELETE FROM ledger WHERE position >= $1",
    "UPDATE ledger SET act = 'other' WHERE position >= $1",
)

TABLES = ("ledger", "ledger_tile", "ledger_head")


async def measure(room: Room, limit: Limit, *, entries: int = 30) -> list[Row]:
    """Edit an export, and now and then the database."""
    async with room.service() as service:
        place = room.place()
        await _a_story(service, entries)
        kept = Note.parse(str(await tree.checkpoint(service.vault)))
        whole = (await export(service.vault, place / "ledger.txt")).read_bytes()
        async with connection(service.vault.pool) as lent:
            for table in TABLES:
                await lent.execute(f"CREATE TABLE saved_{table} AS SELECT * FROM {table}")
        exported, stored, untouched = Tally(), Tally(), Tally()
        await _accepted(service, kept, whole, place, untouched)
        while limit.allows(exported.tried + stored.tried):
            if (stored.tried + 1) * _DATABASE <= exported.tried:
                await _edit_database(service, kept, place, stored)
            else:
                _edit_export(service, kept, whole, place / "edited.txt", exported)
        await _accepted(service, kept, whole, place, untouched)
    return [
        Row.of("on the ledger", "edits of an export", exported, GOAL * 9 // 10, "edits"),
        Row.of("", "edits of the database, tree made anew", stored, GOAL // 25, "edits"),
        Row.of("", "both together", total(exported, stored), GOAL, "edits"),
        Row.of("", "accepted before and after: what nobody edited", untouched, 6, "looks"),
    ]


async def _a_story(service: Service, entries: int) -> None:
    """Calls that come in, are listened to, and some that are erased; and a night."""
    for number in range(entries // 3):
        seconds = 5.0 if number % 3 else 10_000.0 + number
        identifier = await upload(
            service, f"{number}", audio(number), started_at=a_year_ago(seconds=seconds)
        )
        await (await service.get(f"/v1/recordings/{identifier}")).read()
    ahead = timedelta(seconds=30)
    await turn_database(service.vault, ahead)
    with turned(service.vault, Offsets.all(ahead)) as vault:
        service.vault = vault
        await service.erase()
        await service.night()


async def _accepted(service: Service, kept: Note, whole: bytes, place: Path, tally: Tally) -> None:
    """What was never edited, or was put back, holds for all who look at edits."""
    path = place / "whole.txt"
    path.write_bytes(whole)
    found = audit.verify_export(path, service.vault.signer.verifier, [kept])
    tally.note(bool(found["holds"]), f"the export, untouched: {found['faults']}")
    tally.note(not await _disagrees(service), "the archive refuses the database, untouched")
    refused = await _witness_refuses(service, kept, place / "witness")
    tally.note(not refused, "a witness refuses the ledger, untouched")


def _edit_export(service: Service, kept: Note, whole: bytes, place: Path, tally: Tally) -> None:
    """One edit. Whoever has the key signs what he made; else the old signature stays under it."""
    verifier = service.vault.signer.verifier
    body, note = whole.split(b"\n\n", 1)
    lines = body.split(b"\n")
    edit = random.choice(EDITS)
    size = signer.check(kept, verifier).size
    edited = edit(lines, random.randrange(min(size, len(lines))))
    if edited[:size] == lines[:size]:
        return
    signed = random.random() < 0.5
    if signed:
        growth = merkle.growth_over(map(merkle.leaf_hash, edited))
        note = str(_signed(service, growth.size, growth.root)).encode()
    place.write_bytes(b"".join(line + b"\n" for line in edited) + b"\n" + note)
    try:
        noticed = not audit.verify_export(place, verifier, [kept])["holds"]
    except ValueError:
        noticed = True
    tally.note(noticed, f"{edit.__name__.strip('_')}, {'' if signed else 'not '}signed anew")


def _signed(service: Service, size: int, root: bytes) -> Note:
    """A checkpoint of anything, by who has the key and asks no memory."""
    signer = service.vault.signer
    text = Checkpoint(signer.origin, size, root).text
    key = load_pem_private_key((signer.directory / "ledger.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    value = key.sign(text.encode())
    return Note(text, (Signature(signer.origin, signer.verifier.id, value),))


async def _edit_database(service: Service, kept: Note, place: Path, tally: Tally) -> None:
    """One edit, with head and tiles made to fit it or left as they were; then all is put back."""
    vault = service.vault
    size = signer.check(kept, vault.signer.verifier).size
    statement, at, fitted = random.choice(STATEMENTS), random.randrange(size), random.random() < 0.7
    memory = vault.signer.directory / "ledger.checkpoint"
    before = memory.read_bytes()
    async with unguarded(vault) as lent:
        await lent.execute(statement, at)
        if fitted:
            await _close_gaps(lent)
            await rewrite_tree(lent)
        inside = await _disagrees(service)
        memory.unlink()  # and now the archive itself has forgotten what it signed
        witness = await _witness_refuses(service, kept, place / "witness")
        exported = await export(vault, place / "after.txt")
        found = audit.verify_export(exported, vault.signer.verifier, [kept])
        # A tree that was left goes on from what was kept: it is the entries that do not fit it.
        noticed = not found["holds"] and (not fitted or (inside and witness))
        tally.note(noticed, f"{statement} at {at}, tree {'fitted' if fitted else 'left'}")
        for table in TABLES:
            await lent.execute(f"DELETE FROM {table}")
            await lent.execute(f"INSERT INTO {table} SELECT * FROM saved_{table}")
    memory.write_bytes(before)


async def _close_gaps(lent: Connection) -> None:
    rows = await lent.fetch("SELECT position FROM ledger ORDER BY position")
    for place, row in enumerate(rows):
        if row["position"] != place:
            await lent.execute(
                "UPDATE ledger SET position = $2 WHERE position = $1", row["position"], place
            )


async def _disagrees(service: Service) -> bool:
    """Whether the archive itself notices, by what it signed last."""
    try:
        await tree.agree(service.vault)
    except RewrittenError:
        return True
    return False


async def _witness_refuses(service: Service, kept: Note, state: Path) -> bool:
    """Whether a witness notices who has seen what was kept."""
    witness = Witness.open(state, service.vault.signer.verifier)
    signed = Note(kept.text, (*kept.signatures, witness._cosignature(kept.text)))
    (state / "checkpoint").write_text(str(signed))
    try:
        await witness.visit(service.operations, service.tokens["auditor"])
    except WitnessError:
        return True
    return False
