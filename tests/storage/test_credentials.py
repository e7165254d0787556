"""Access keys against a real database: what is stored, rotation, and what tells of their use."""

import hmac
import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from archive.access import Level
from archive.bounds import Bounds
from archive.errors import UnauthenticatedError
from archive.recording import Call, CallType
from archive.retention import Expiry
from archive.token import Token
from storage import credentials, tree
from storage.credentials import KeyRefusedError, Login
from storage.keyring import Ring
from storage.vault import Vault
from tests.roles import connection
from tests.services import set_clock, stop_clock

BOUNDS = Bounds.from_texts("127.0.0.0/8,2001:db8::/32", "20/s", "50GB")
DAY = timedelta(hours=24)


async def made(vault: Vault, name: str = "pbx", level: Level = Level.UPLOADER) -> str:
    bounds = BOUNDS if level is Level.UPLOADER else Bounds()
    async with connection(vault.pool) as lent:
        return await credentials.add(lent, vault.ring, name, level, bounds=bounds)


async def login(vault: Vault, token: str, ring: Ring | None = None) -> Login:
    async with connection(vault.pool) as lent:
        return await credentials.authenticate(lent, ring or vault.ring, credentials.read(token))


async def refused(vault: Vault, token: str, ring: Ring | None = None) -> bool:
    try:
        await login(vault, token, ring)
    except UnauthenticatedError:
        return True
    return False


async def rotated(vault: Vault, overlap: timedelta = DAY, name: str = "pbx") -> str:
    async with connection(vault.pool) as lent:
        token, level, until = await credentials.rotate(lent, vault.ring, name, overlap)
        assert level is Level.UPLOADER
        assert until - await lent.fetchval("SELECT archive_now()") <= overlap
        return token


async def test_a_key_is_bound_as_it_was_made(vault: Vault) -> None:
    caller = (await login(vault, await made(vault))).caller
    assert (caller.level, caller.source, caller.bounds) == (Level.UPLOADER, "pbx", BOUNDS)
    async with connection(vault.pool) as lent:
        (row,) = await credentials.every(lent)
    assert row.networks == ("127.0.0.0/8", "2001:db8::/32")
    assert (row.rate, row.quota) == ("20/s", 50 * 10**9)
    json.dumps({**asdict(row), "created_at": None})


async def test_only_an_uploader_has_a_quota(vault: Vault) -> None:
    async with connection(vault.pool) as lent:
        with pytest.raises(KeyRefusedError, match="quota"):
            await credentials.add(lent, vault.ring, "x", Level.ADMIN, bounds=BOUNDS)


async def test_a_stolen_database_cannot_be_compared_with(vault: Vault, tmp_path: Path) -> None:
    text = await made(vault)
    token = credentials.read(text)
    async with connection(vault.pool) as lent:
        stored = await lent.fetchval("SELECT secret FROM access_key")
        rows = [*await lent.fetch("SELECT * FROM access_key"), *await lent.fetch("TABLE told")]
    dump = str([dict(row) for row in rows])
    assert text not in dump
    assert token.secret not in dump
    for known in (text, token.secret, f"{token.id}_{token.secret}"):
        assert stored != sha256(known.encode()).digest()
        assert stored != hmac.digest(b"", known.encode(), "sha256")
    folder = tmp_path / "other"
    folder.mkdir()
    other = Ring.open(folder / "ring", folder / "root", create=True, today=vault.ring.today)
    assert await refused(vault, text, other)


async def test_a_key_stays_valid_with_the_same_ring(vault: Vault, tmp_path: Path) -> None:
    text = await made(vault)
    again = Ring.open(
        tmp_path / "ring", tmp_path / "root.key", create=False, today=vault.ring.today
    )
    assert (await login(vault, text, again)).caller.source == "pbx"


async def test_a_hash_is_no_use_in_the_row_of_another_key(vault: Vault) -> None:
    mine = await made(vault, "mine")
    theirs = credentials.read(await made(vault, "theirs", Level.ADMIN))
    async with connection(vault.pool) as lent:
        await lent.execute(
            "UPDATE access_key SET secret = (SELECT secret FROM access_key WHERE name = 'mine')"
        )
    assert not await refused(vault, mine)
    assert await refused(vault, Token(theirs.id, credentials.read(mine).secret).text())


async def test_the_same_is_computed_whether_a_key_is_known_or_not(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = credentials.read(await made(vault))
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(credentials.hmac, "compare_digest", compare)
    for token, let_in in (
        (known, True),
        (Token.new(known.id), False),
        (Token.new(), False),
    ):
        compared.clear()
        assert await refused(vault, token.text()) is not let_in
        assert compared == [(32, 32), (32, 32)]


async def test_nobody_shows_the_hash_of_nothing(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_peppered", lambda *_: bytes(32))
    assert await refused(vault, Token.new().text())


async def test_a_rotated_key_is_the_same_key(vault: Vault) -> None:
    first = await made(vault)
    second = await rotated(vault)
    old, new = await login(vault, first), await login(vault, second)
    assert old.caller == new.caller
    assert old.shown != new.shown
    async with connection(vault.pool) as lent:
        (row,) = await credentials.every(lent)
    assert row.former_until is not None
    await set_clock(vault, DAY + timedelta(minutes=1))
    assert await refused(vault, first)
    assert (await login(vault, second)).caller == new.caller
    async with connection(vault.pool) as lent:
        (row,) = await credentials.every(lent)
    assert row.former_until is None


async def test_without_an_overlap_the_former_secret_ends_at_once(vault: Vault) -> None:
    first = await made(vault)
    second = await rotated(vault, timedelta())
    assert await refused(vault, first)
    assert not await refused(vault, second)


async def test_no_more_than_two_secrets_hold(vault: Vault) -> None:
    first = await made(vault)
    second, third = await rotated(vault), await rotated(vault)
    assert [await refused(vault, each) for each in (first, second, third)] == [True, False, False]


async def test_a_revoked_key_ends_with_all_its_secrets(vault: Vault) -> None:
    first = await made(vault)
    second = await rotated(vault)
    async with connection(vault.pool) as lent:
        await credentials.revoke(lent, "pbx")
    assert await refused(vault, first)
    assert await refused(vault, second)
    with pytest.raises(KeyRefusedError, match="no living key"):
        await rotated(vault)


async def test_what_is_being_sent_is_known_to_living_keys_alone(vault: Vault) -> None:
    moment = datetime(2026, 2, 28, 9, 30, tzinfo=UTC)
    expiry = Expiry(moment.replace(year=2027), moment.date().replace(year=2027), "rule")
    call = Call("1", CallType.OTHER, moment, expiry)
    known = await login(vault, await made(vault, level=Level.SUPERVISOR))
    async with connection(vault.pool) as lent:
        assert await credentials.holds(lent, vault.ring, known, call) is True
        await credentials.revoke(lent, "pbx")
        assert await credentials.holds(lent, vault.ring, known, call) is False


async def test_a_rotation_is_on_the_ledger(vault: Vault) -> None:
    token = credentials.read(await made(vault))
    again = credentials.read(await rotated(vault))
    await tree.sequence(vault)
    async with connection(vault.pool) as lent:
        rows = await lent.fetch("SELECT act, facts FROM ledger ORDER BY position")
    assert [row["act"] for row in rows] == ["key.added", "key.rotated"]
    assert rows[1]["facts"] == {"key": token.id, "overlap": 86400}
    assert not any(each.secret in str(row) for row in rows for each in (token, again))


@pytest.mark.parametrize("overlap", [timedelta(seconds=-1), timedelta(days=31, seconds=1)])
async def test_an_overlap_has_bounds(vault: Vault, overlap: timedelta) -> None:
    await made(vault)
    with pytest.raises(KeyRefusedError, match="31 days"):
        await rotated(vault, overlap)


async def test_the_use_of_a_key_is_written_once_a_minute(vault: Vault) -> None:
    token = await made(vault)
    key = credentials.read(token).id

    async def used() -> object:
        async with connection(vault.pool) as lent:
            await credentials.used(lent, key)
            (row,) = await credentials.every(lent)
        return row.last_used_at

    assert (await login(vault, token)).stale
    first = await used()
    assert first is not None
    assert not (await login(vault, token)).stale
    assert await used() == first
    await set_clock(vault, timedelta(seconds=61))
    assert (await login(vault, token)).stale
    assert await used() != first


async def test_a_former_secret_ends_at_its_instant(vault: Vault) -> None:
    first = await made(vault)
    at, instant = datetime.now(UTC), timedelta(microseconds=1)
    await stop_clock(vault, at)
    await rotated(vault)
    await stop_clock(vault, at + DAY - instant)
    assert not await refused(vault, first)
    await stop_clock(vault, at + DAY)
    assert await refused(vault, first)


async def test_the_use_of_a_key_is_stale_after_a_minute(vault: Vault) -> None:
    token = await made(vault)
    at = datetime.now(UTC)
    await stop_clock(vault, at)
    async with connection(vault.pool) as lent:
        await credentials.used(lent, credentials.read(token).id)
    await stop_clock(vault, at + timedelta(minutes=1) - timedelta(microseconds=1))
    assert not (await login(vault, token)).stale
    await stop_clock(vault, at + timedelta(minutes=1))
    assert (await login(vault, token)).stale
