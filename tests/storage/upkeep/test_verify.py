"""Reading back: every kind of damage is found and told once, and nothing else is called damage."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import md5
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from archive.errors import UnavailableError
from storage import recordings, tree
from storage.keyring import KeyRingError, NoDayKeyError
from storage.objects import StoreError
from storage.sealing import CHUNK, HEADER, TAG, Identity, Seal, sealed_length
from storage.upkeep import verify
from storage.upkeep.verify import Found, Report
from tests.jobs.test_expiry import a_year_ago
from tests.roles import connection
from tests.services import Faulty, Service
from tests.sounds import tone
from tests.web.test_listen import upload

STEP = CHUNK + TAG

Change = Callable[[bytes], bytes]


async def key_and_length(service: Service, identifier: str) -> tuple[str, int]:
    row = next(row for row in await service.rows() if str(row["id"]) == identifier)
    key = recordings.object_key(row["expires_on"], row["id"], row["attempt"])
    return key, len(row["header"] + row["details"]) + sealed_length(row["bytes"])


async def fetch(service: Service, identifier: str) -> bytes:
    key, length = await key_and_length(service, identifier)
    async with service.vault.objects.get(key, 0, length) as pieces:
        return b"".join([piece async for piece in pieces])


async def put(service: Service, identifier: str, content: bytes) -> None:
    key, _ = await key_and_length(service, identifier)
    digest = md5(content, usedforsecurity=False).digest()
    await service.vault.objects.put(key, [content], len(content), digest, 30)


async def remove(service: Service, identifier: str) -> None:
    key, _ = await key_and_length(service, identifier)
    await service.vault.objects.remove(await service.vault.objects.holdings(key))


async def later(service: Service, **span: float) -> None:
    """Let time pass for what has come in: the archive's clock is not turned, the rows are."""
    async with connection(service.vault.pool) as lent:
        await lent.execute(
            "UPDATE recording SET received_at = received_at - $1::interval,"
            " verified_at = verified_at - $1::interval, damaged_at = damaged_at - $1::interval",
            timedelta(**span),
        )


async def marks(service: Service) -> dict[str, str]:
    """What each row says of its object."""
    return {
        str(row["id"]): "damaged" if row["damaged_at"] else "whole" if row["verified_at"] else "new"
        for row in await service.rows()
    }


async def told(service: Service, identifier: str) -> list[tuple[str, object]]:
    """What the ledger tells of the state of one object."""
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        rows = await lent.fetch(
            "SELECT act, facts FROM ledger WHERE recording = $1 AND act LIKE 'object.%'"
            " ORDER BY position",
            UUID(identifier),
        )
    return [(row["act"], row["facts"]["found"]) for row in rows]


def flipped(at: int) -> Change:
    def change(whole: bytes) -> bytes:
        changed = bytearray(whole)
        changed[at] ^= 1
        return bytes(changed)

    return change


def swapped(whole: bytes) -> bytes:
    """Two chunks in each other's place; the sound has more than three."""
    first = len(whole) - sealed_length(len(tone(20)))
    one, two = whole[first : first + STEP], whole[first + STEP : first + 2 * STEP]
    return whole[:first] + two + one + whole[first + 2 * STEP :]


def cut_at_a_chunk(whole: bytes) -> bytes:
    first = len(whole) - sealed_length(len(tone(20)))
    return whole[: first + 2 * STEP]


DAMAGE = [
    (flipped(0), Found.HEADER),
    (flipped(HEADER - 1), Found.HEADER),
    (flipped(HEADER), Found.DETAILS),
    (flipped(-1), Found.CHUNK),
    (flipped(-3 * STEP), Found.CHUNK),
    (swapped, Found.CHUNK),
    (lambda whole: whole[:-1], Found.MISSING),
    (cut_at_a_chunk, Found.MISSING),
    (lambda whole: whole + b"\0", Found.LONGER),
    (lambda whole: bytes(len(whole)), Found.HEADER),
]


@pytest.mark.parametrize(("change", "found"), DAMAGE)
async def test_damage_is_found_told_once_and_mended(
    service: Service, caplog: pytest.LogCaptureFixture, change: Change, found: Found
) -> None:
    identifier = await upload(service, "c1", tone(20), caller="0401234567", agent="Anna")
    other = await upload(service, "c2")
    whole = await fetch(service, identifier)
    await later(service, hours=2)
    await put(service, identifier, change(whole))
    report = await verify.run(service.vault)
    assert (report.recordings, report.damaged) == (2, 1)
    assert await marks(service) == {identifier: "damaged", other: "whole"}
    assert f"recording {identifier} is damaged: {found}" in caplog.text
    assert await told(service, identifier) == [("object.damaged", found)]
    # Not again before a day is over, and then the ledger tells of it no second time.
    await later(service, hours=23)
    assert await verify.run(service.vault) == Report()
    await later(service, hours=2)
    assert (await verify.run(service.vault)).damaged == 1
    assert await told(service, identifier) == [("object.damaged", found)]
    await later(service, hours=25)
    await put(service, identifier, whole)
    assert await verify.run(service.vault) == Report(1, len(tone(20)), 0)
    assert await marks(service) == {identifier: "whole", other: "whole"}
    expected = [("object.damaged", found), ("object.mended", Found.WHOLE)]
    assert await told(service, identifier) == expected


async def test_an_object_that_is_gone_is_damage(service: Service) -> None:
    identifier = await upload(service, "c1")
    await later(service, hours=2)
    await remove(service, identifier)
    assert (await verify.run(service.vault)).damaged == 1
    assert await told(service, identifier) == [("object.damaged", Found.MISSING)]


async def test_another_recordings_object_in_its_place_is_damage(service: Service) -> None:
    one, two = await upload(service, "c1"), await upload(service, "c2")
    first, second = await fetch(service, one), await fetch(service, two)
    await later(service, hours=2)
    await put(service, one, second)
    await put(service, two, first)
    assert (await verify.run(service.vault)).damaged == 2
    assert await told(service, one) == await told(service, two)
    assert await told(service, one) == [("object.damaged", Found.HEADER)]


async def test_a_row_that_was_changed_is_damage(service: Service) -> None:
    identifier = await upload(service, "c1")
    await later(service, hours=2)
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE recording SET call_type = 'contract'")
    assert (await verify.run(service.vault)).damaged == 1
    assert await told(service, identifier) == [("object.damaged", Found.ROW)]


async def test_audio_that_is_sealed_well_and_is_not_what_came_in_is_damage(
    service: Service,
) -> None:
    """As if a fault of the archive had sealed other bytes than it measured."""
    audio = tone(20)
    identifier = await upload(service, "c1", audio)
    row = (await service.rows())[0]
    seal = Seal.unwrap(row["header"], service.vault.ring.day_key(row["expires_on"]))
    assert seal.identity == Identity(row["expires_on"], row["id"], row["attempt"])
    other = audio[:-1] + bytes([audio[-1] ^ 1])
    last = (len(other) - 1) // CHUNK
    chunks = [
        seal.seal_chunk(number, number == last, other[number * CHUNK : (number + 1) * CHUNK])
        for number in range(last + 1)
    ]
    await later(service, hours=2)
    await put(service, identifier, row["header"] + row["details"] + b"".join(chunks))
    assert (await verify.run(service.vault)).damaged == 1
    assert await told(service, identifier) == [("object.damaged", Found.DIGEST)]


async def test_a_day_whose_key_is_lost_is_damage_and_a_lost_ring_is_none(
    service: Service,
) -> None:
    identifier = await upload(service, "c1")
    await later(service, hours=2)

    def lost(error: Exception) -> Any:
        def day_key(_: object) -> bytes:
            raise error

        return replace(service.vault, ring=Faulty(service.vault.ring, day_key=day_key))

    with pytest.raises(KeyRingError):
        await verify.run(lost(KeyRingError("there is no key ring")))
    assert await marks(service) == {identifier: "new"}
    assert (await verify.run(lost(NoDayKeyError("2027-11-25")))).damaged == 1
    assert await told(service, identifier) == [("object.damaged", Found.KEY)]


async def test_what_is_due_comes_in_its_turn(service: Service) -> None:
    names = [await upload(service, f"c{number}") for number in range(3)]
    assert await verify.run(service.vault) == Report()
    await later(service, minutes=59)
    assert await verify.run(service.vault) == Report()
    await later(service, minutes=2)
    assert (await verify.run(service.vault)).recordings == 3
    assert set((await marks(service)).values()) == {"whole"}
    await later(service, days=28.9)
    assert await verify.run(service.vault) == Report()
    await later(service, days=0.2)
    fresh = await upload(service, "fresh")
    assert (await verify.run(service.vault)).recordings == 3
    assert await marks(service) == {**dict.fromkeys(names, "whole"), fresh: "new"}
    assert await verify.run(service.vault) == Report()


async def test_a_run_begins_no_object_after_its_share_and_the_next_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await upload(service, f"c{number}")
    await later(service, hours=2)
    seconds = itertools.count(step=10)
    monkeypatch.setattr(verify, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    counts = [(await verify.run(service.vault, share)).recordings for share in (5, 15, 25, 25)]
    assert counts == [0, 1, 2, 0]


async def test_a_store_that_lost_everything_is_not_told_of_without_end(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "MANY", 2)
    for number in range(3):
        await remove(service, await upload(service, f"c{number}"))
    await later(service, hours=2)
    assert (await verify.run(service.vault)).damaged == 2
    assert (await verify.run(service.vault)).damaged == 1
    assert await verify.run(service.vault) == Report()


def turned(service: Service, before: Callable[[], Any]) -> Any:
    """A vault whose store does something before it gives an object."""
    real = service.vault.objects

    @asynccontextmanager
    async def get(key: str, start: int, stop: int) -> Any:
        await before()
        async with real.get(key, start, stop) as pieces:
            yield pieces

    return replace(service.vault, objects=Faulty(real, get=get))  # type: ignore[arg-type]


async def test_a_store_that_is_away_damages_nothing(service: Service) -> None:
    identifier = await upload(service, "c1")
    await later(service, hours=2)

    async def away() -> None:
        raise StoreError("The object store cannot be reached.")

    with pytest.raises(UnavailableError):
        await verify.run(turned(service, away))
    assert await marks(service) == {identifier: "new"}
    assert await told(service, identifier) == []
    assert (await verify.run(service.vault)).recordings == 1


@pytest.mark.parametrize("erased", [True, False])
async def test_what_ends_while_it_is_read_is_no_damage(service: Service, erased: bool) -> None:
    identifier = await upload(service, "c1", started_at=a_year_ago(seconds=40))
    await later(service, hours=2)

    async def end() -> None:
        await service.turn_clock(timedelta(seconds=45))
        if erased:
            await service.erase()
        else:
            await remove(service, identifier)

    assert await verify.run(turned(service, end)) == Report()
    assert await told(service, identifier) == []
    row = (await service.rows())[0]
    assert row["state"] == ("erased" if erased else "stored")
    assert row["damaged_at"] is row["verified_at"] is None


async def test_a_tombstone_keeps_nothing_of_a_look(service: Service) -> None:
    for name in ("whole", "damaged"):
        await upload(service, name, started_at=a_year_ago(seconds=40))
    await remove(service, str((await service.rows())[0]["id"]))
    await later(service, hours=2)
    assert (await verify.run(service.vault)).damaged == 1
    await service.turn_clock(timedelta(seconds=45))
    assert (await service.erase()).erased == 2
    assert set((await marks(service)).values()) == {"new"}


async def test_two_services_read_all_and_tell_of_damage_once(service: Service) -> None:
    names = [await upload(service, f"c{number}") for number in range(8)]
    await remove(service, names[3])
    await later(service, hours=2)
    await asyncio.gather(*(verify.run(service.vault) for _ in range(3)))
    expected = {**dict.fromkeys(names, "whole"), names[3]: "damaged"}
    assert await marks(service) == expected
    assert await told(service, names[3]) == [("object.damaged", Found.MISSING)]


@pytest.mark.parametrize("damaged_last", [True, False])
async def test_of_two_looks_that_overlap_the_one_that_found_damage_counts(
    service: Service, damaged_last: bool
) -> None:
    identifier = await upload(service, "c1")
    whole = await fetch(service, identifier)
    await later(service, hours=2)
    others = [bytes(len(whole)), whole]
    first, last = reversed(others) if damaged_last else others
    inside = False

    async def other_look() -> None:
        """The other service reads and notes while this one has begun."""
        nonlocal inside
        if inside:
            return
        inside = True
        await put(service, identifier, first)
        await verify.run(service.vault)
        await put(service, identifier, last)

    await verify.run(turned(service, other_look))
    assert await marks(service) == {identifier: "damaged"}
    assert await told(service, identifier) == [("object.damaged", Found.HEADER)]


async def test_the_night_tells_how_much_was_read(service: Service) -> None:
    for number in range(3):
        await upload(service, f"c{number}", tone(2))
    await remove(service, str((await service.rows())[0]["id"]))
    await later(service, hours=2)
    await verify.run(service.vault)
    expected = Report(2, 2 * len(tone(2)), 1)
    assert (await service.night()).verified == expected
    # What was read before the last night is not told again; what is damaged is, until it is mended.
    await later(service, hours=1)
    assert (await service.night()).verified == Report(0, 0, 1)
    await tree.sequence(service.vault)
    async with connection(service.vault.pool) as lent:
        facts = await lent.fetch(
            "SELECT facts->'verified' AS verified FROM ledger WHERE act = 'night.done'"
            " ORDER BY position"
        )
    assert [row["verified"] for row in facts] == [expected.facts, Report(0, 0, 1).facts]
