"""A witness: keeps the last checkpoint of an archive's ledger, and signs the next one only if its
tree goes on from that one.

It believes nothing that the archive says besides: the proof is made here, out of the tiles that the
archive publishes. Its cosignature is that of C2SP tlog-cosignature: the checkpoint with the time
ahead of it, under the witness's own Ed25519 key. What it keeps is replaced only after a larger
checkpoint was found good: so its time says since when the ledger stands still. For two days is too
long: each night adds to it, and an old one that is shown again and again goes on from itself.
"""

import asyncio
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from archive import merkle, note, tiles
from archive.merkle import ProofError
from archive.note import Checkpoint, Note, NoteError, Signature, Verifier
from archive.tiles import Tile, Tiles
from storage import durable
from storage.signer import check

NAME = "call-archive-witness"

STILL = 48 * 3600
"""Seconds after which a ledger that has not grown is one that is not shown as it is."""

_MOST = 1 << 20  # bytes of an answer


class WitnessError(ValueError):
    """The ledger is not a continuation, or cannot be asked; the message says which."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The checkpoint that was found good, and how many entries the one before had."""

    now: Checkpoint
    before: int


class Witness:
    """One witness of one archive, with its state in a directory; made by `open`."""

    def __init__(self, state: Path, archive: Verifier, key: Ed25519PrivateKey) -> None:
        self._kept = state / "checkpoint"
        self._archive = archive
        self._key = key
        self.verifier = Verifier(NAME, note.COSIGNATURE, key.public_key().public_bytes_raw())

    @classmethod
    def open(cls, state: Path, archive: Verifier) -> "Witness":
        """Read the witness's state, or begin it. Raises OSError or ValueError."""
        durable.make_directory(state)
        path = state / "witness.key"
        if not path.exists():
            if (state / "checkpoint").exists():
                raise WitnessError(f"{path} is missing: restore it, or begin in another directory")
            durable.write(state / "new", Ed25519PrivateKey.generate().private_bytes_raw())
            durable.rename(state / "new", path)
        witness = cls(state, archive, Ed25519PrivateKey.from_private_bytes(path.read_bytes()))
        durable.write(state / "witness.pub.new", f"{witness.verifier}\n".encode())
        durable.rename(state / "witness.pub.new", state / "witness.pub")
        return witness

    def last(self) -> Checkpoint | None:
        """What was found good last. Raises ValueError when it is not what was kept."""
        try:
            return check(self._note(), self._archive)
        except FileNotFoundError:
            return None

    def _note(self) -> Note:
        return Note.parse(self._kept.read_text("utf-8"))

    async def visit(self, url: str, token: str) -> Seen:
        """Look at the archive's ledger, and keep its checkpoint if it goes on from the last.

        `url` is the operations door, `token` an auditor's. Raises ValueError saying what is wrong.
        """
        with self._alone():
            return await self._visit(url, token)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One visit at a time: a slow one would put its older checkpoint in a newer one's place."""
        with self._kept.with_name("lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise WitnessError("Another visit of this witness is under way.") from None
            yield

    async def _visit(self, url: str, token: str) -> Seen:
        last = self.last()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            told = Note.parse((await _get(session, f"{url}/v1/ledger/checkpoint")).decode())
            now = check(told, self._archive)
            if last:
                await self._demand(session, url, last, now)
        if last and now.size == last.size:
            self._demand_young(now)
            return Seen(now, last.size)
        signed = Note(told.text, (told.by(self._archive), self._cosignature(told.text)))
        new = self._kept.with_name("new")
        await asyncio.to_thread(durable.write, new, str(signed).encode())
        await asyncio.to_thread(durable.rename, new, self._kept)
        return Seen(now, last.size if last else 0)

    async def _demand(
        self, session: aiohttp.ClientSession, url: str, last: Checkpoint, now: Checkpoint
    ) -> None:
        """Make the proof of consistency out of the published tiles. Raises WitnessError."""
        if now.size < last.size:
            raise WitnessError(
                f"The ledger has {now.size} entries and had {last.size}: it was cut, or an old"
                " database was put back."
            )
        parts = merkle.consistency_nodes(last.size, now.size)
        found: dict[Tile, bytes] = {}
        for tile in tiles.needed(parts):
            name = tiles.path(*tile, tiles.width(tile, now.size))
            found[tile] = await _get(session, f"{url}/v1/ledger/tile/{name}")
        try:
            proof = merkle.proof(parts, Tiles(found).look)
            merkle.check_consistency(last.size, last.root, now.size, now.root, proof)
        except (ProofError, LookupError) as error:
            raise WitnessError(
                f"The ledger ({now.size} entries) does not go on from what was seen before"
                f" ({last.size} entries): {error}. It was rewritten."
            ) from None

    def _demand_young(self, now: Checkpoint) -> None:
        """Raise WitnessError when the ledger is for too long what it was when it was signed."""
        hours = (time.time() - cosigned(self._note(), self.verifier)) // 3600
        if hours * 3600 >= STILL:
            raise WitnessError(
                f"The ledger has had {now.size} entries for {hours:.0f} hours, and each night adds"
                " one: the archive's nights stay away, or it shows an old ledger."
            )

    def _cosignature(self, text: str) -> Signature:
        """C2SP tlog-cosignature, v1: the time in seconds, and the signature over time and text."""
        now = int(time.time())
        signed = self._key.sign(f"cosignature/v1\ntime {now}\n{text}".encode())
        return Signature(NAME, self.verifier.id, now.to_bytes(8, "big") + signed)


def cosigned(kept: Note, witness: Verifier) -> int:
    """When a witness signed this checkpoint, in seconds. Raises NoteError unless it did."""
    if witness.kind != note.COSIGNATURE:
        raise NoteError(f"{witness.name} is not the key of a witness.")
    value = kept.by(witness).value
    at = int.from_bytes(value[:8], "big")
    try:
        public = Ed25519PublicKey.from_public_bytes(witness.public)
        public.verify(value[8:], f"cosignature/v1\ntime {at}\n{kept.text}".encode())
    except InvalidSignature:
        raise NoteError(f"The signature of {witness.name} is not one of this checkpoint.") from None
    return at


async def _get(session: aiohttp.ClientSession, url: str) -> bytes:
    try:
        async with session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise WitnessError(f"The archive answered {answer.status} to {answer.url.path}.")
            content = bytearray()
            async for piece in answer.content.iter_any():
                content += piece
                if len(content) > _MOST:
                    raise WitnessError("The archive's answer has no end.")
            return bytes(content)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise WitnessError(f"The archive cannot be asked: {type(error).__name__}.") from error
