"""Objects and rows that somebody changed: each change is found, and nothing wrong is served.

Each try changes one thing, in the way of somebody who can write to the bucket or to the database,
reads the recording through the door, and puts the thing back. What comes out is the recording to
the byte, or nothing, or a part that ends in an error: never another byte. What was done to an
object the archive's own look at it finds (`storage.upkeep.verify`), whether a reader met it or not.
"""

import hashlib
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import aiohttp

from storage import recordings, sealing
from storage.database import connection
from storage.sealing import CHUNK, HEADER, TAG, sealed_length
from storage.upkeep import verify
from storage.upkeep.verify import Found
from tests.services import Service
from tests.web.test_listen import upload
from torture.load import audio
from torture.report import Limit, Row, Tally, total
from torture.room import Room

GOAL = 1000
_SEALED = CHUNK + TAG
_ROWS = 0.25
"""Which part of the tries is on rows."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A recording as it was put: its audio, what the door shows of it, its object and its row."""

    id: str
    audio: bytes
    shown: dict[str, Any]
    key: str
    object: bytes
    row: Any

    @property
    def head(self) -> int:
        """Where the chunks begin in the object."""
        return HEADER + sealing.details_length(self.object[:HEADER])

    @property
    def chunks(self) -> list[bytes]:
        """The sealed chunks."""
        body = self.object[self.head :]
        return [body[at : at + _SEALED] for at in range(0, len(body), _SEALED)]


Change = Callable[[Kept, Kept], bytes]


def _flipped(one: Kept, _: Kept) -> bytes:
    return _flip(one.object)


def _flip(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _cut(one: Kept, _: Kept) -> bytes:
    return one.object[: random.randrange(1, len(one.object))]


def _cut_at_a_chunk(one: Kept, _: Kept) -> bytes:
    return one.object[: one.head + _SEALED * random.randrange(len(one.chunks))]


def _extended(one: Kept, _: Kept) -> bytes:
    return one.object + random.randbytes(random.randrange(1, 200))


def _reordered(one: Kept, _: Kept) -> bytes:
    chunks = one.chunks
    first, second = random.sample(range(len(chunks)), 2)
    chunks[first], chunks[second] = chunks[second], chunks[first]
    return one.object[: one.head] + b"".join(chunks)


def _doubled(one: Kept, _: Kept) -> bytes:
    chunks = one.chunks
    place = random.randrange(len(chunks))
    return one.object[: one.head] + b"".join([*chunks[: place + 1], *chunks[place:]])


def _dropped(one: Kept, _: Kept) -> bytes:
    chunks = one.chunks
    del chunks[random.randrange(len(chunks))]
    return one.object[: one.head] + b"".join(chunks)


def _of_another(_: Kept, other: Kept) -> bytes:
    return other.object


def _header_of_another(one: Kept, other: Kept) -> bytes:
    return other.object[:HEADER] + one.object[HEADER:]


def _chunk_of_another(one: Kept, other: Kept) -> bytes:
    chunks = one.chunks
    chunks[random.randrange(len(chunks))] = random.choice(other.chunks)
    return one.object[: one.head] + b"".join(chunks)


OBJECTS: tuple[Change, ...] = (
    _flipped,
    _cut,
    _cut_at_a_chunk,
    _extended,
    _reordered,
    _doubled,
    _dropped,
    _of_another,
    _header_of_another,
    _chunk_of_another,
)

RowChange = Callable[[Kept, Kept], dict[str, Any]]

ROWS: dict[str, RowChange] = {
    "header of another": lambda _, other: {"header": other.row["header"]},
    "details of another": lambda _, other: {"details": other.row["details"]},
    "both of another": lambda _, other: {n: other.row[n] for n in ("header", "details")},
    "all that is sealed of another": lambda _, other: {
        name: other.row[name] for name in ("header", "details", "attempt", "expires_on")
    },
    "attempt of another": lambda _, other: {"attempt": other.row["attempt"]},
    "a flipped header": lambda one, _: {
        "header": _flip(one.row["header"][:-4]) + one.row["header"][-4:]
    },
    "flipped details": lambda one, _: {"details": _flip(one.row["details"])},
    "a later expiry": lambda one, _: {"expires_at": one.row["expires_at"] + _later()},
    "an earlier expiry": lambda one, _: {"expires_at": one.row["expires_at"] - _later()},
    "another day": lambda one, other: {"expires_on": other.row["expires_on"]},
    "another type": lambda _, __: {"call_type": "direct_marketing"},
    "another source": lambda _, __: {"source": "other-pbx"},
}


def _later() -> timedelta:
    return timedelta(seconds=random.randrange(1, 86400))


async def measure(
    room: Room, limit: Limit, *, gateway: bool = True, lengths: tuple[int, ...] = (0, 0, 3, 5)
) -> list[Row]:
    """Change objects and rows over rclone, and objects over versions of Ceph's gateway."""
    objects, rows = Tally(), Tally()
    servers = [room.rclone, *([room.versioned()] if gateway else [])]
    for count, server in enumerate(servers, 1):
        async with room.service(server) as service:
            kept = [await _keep(service, number, length) for number, length in enumerate(lengths)]
            upto = limit.of(limit.tries * count // len(servers))
            while upto.allows(objects.tried + rows.tried):
                one, other = random.sample(kept, 2)
                if random.random() < _ROWS:
                    await _try_row(service, one, other, random.choice([*ROWS]), rows)
                else:
                    await _try_object(service, one, other, random.choice(OBJECTS), objects)
    least = GOAL * 7 // 10
    return [
        Row.of("intact", "objects flipped, cut, reordered, swapped", objects, least, "changes"),
        Row.of("", "rows flipped and swapped", rows, GOAL // 5, "changes"),
        Row.of("", "both together", total(objects, rows), GOAL, "changes"),
    ]


async def _keep(service: Service, number: int, chunks: int) -> Kept:
    """Put a recording of so many full chunks and one more."""
    sound = audio(number, chunks * CHUNK // 2 + 200)
    identifier = await upload(service, f"call-{number}", sound, agent=f"agent {number}")
    row = next(row for row in await service.rows() if str(row["id"]) == identifier)
    key = recordings.object_key(row["expires_on"], row["id"], row["attempt"])
    length = len(row["header"]) + len(row["details"]) + sealed_length(row["bytes"])
    async with service.vault.objects.get(key, 0, length) as pieces:
        content = b"".join([piece async for piece in pieces])
    shown = await (await service.get(f"/v1/recordings/{identifier}")).json()
    return Kept(identifier, sound, shown, key, content, row)


async def _put(service: Service, key: str, content: bytes) -> None:
    digest = hashlib.md5(content).digest()
    await service.vault.objects.put(key, [content], len(content), digest, 30)


async def _try_object(
    service: Service, one: Kept, other: Kept, change: Change, tally: Tally
) -> None:
    if change is _reordered and len(one.chunks) < 2:
        change = _flipped
    content = change(one, other)
    if content == one.object:
        return
    await _put(service, one.key, content)
    wrong, _ = await _heard(service, one)
    found = await verify.look(service.vault, one.row) is not Found.WHOLE
    await _put(service, one.key, one.object)
    what = change.__name__.strip("_").replace("_", " ")
    tally.note(found and not wrong, f"{what}: {wrong or 'nobody found it'}")


async def _heard(service: Service, one: Kept) -> tuple[str, bool]:
    """Read it whole and in part: what was wrong with it, and whether it all came."""
    size = len(one.audio)
    start = random.randrange(size)
    stop = random.randrange(start, size) + 1
    every = True
    for first, last in ((0, size), (start, stop)):
        span = f"bytes={first}-{last - 1}"
        answer = await service.get(f"/v1/recordings/{one.id}/audio", Range=span)
        served = b""
        with suppress(aiohttp.ClientError):
            async with answer:
                async for piece in answer.content.iter_any():
                    served += piece
        if answer.status != 206:
            every = False
            continue
        if not one.audio[first:last].startswith(served):
            return "other bytes were served", every
        every = every and len(served) == last - first
    return "", every


async def _try_row(service: Service, one: Kept, other: Kept, name: str, tally: Tally) -> None:
    changed = {
        column: value
        for column, value in ROWS[name](one, other).items()
        if value != one.row[column]
    }
    if not changed:
        return
    await _write(service, one.id, changed)
    async with await service.get(f"/v1/recordings/{one.id}") as shown:
        body = await shown.json(content_type=None)
    wrong, whole = await _heard(service, one)
    await _write(service, one.id, {column: one.row[column] for column in changed})
    if shown.status == 200 and body != one.shown:
        wrong = "something else was shown"
    tally.note(not wrong and not whole, f"{name}: {wrong or 'nobody found it'}")


async def _write(service: Service, identifier: str, columns: dict[str, Any]) -> None:
    """Write to a row as who owns the database can."""
    names = ", ".join(f"{name} = ${place}" for place, name in enumerate(columns, 2))
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            f"UPDATE recording SET {names} WHERE id = $1", UUID(identifier), *columns.values()
        )
