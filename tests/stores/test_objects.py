"""The contract that every object store has to pass."""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.objects import Holding, MissingObjectError, ObjectStore, StoreError
from tests.stores.servers import Server, set_versioning

DAY = "2027-11-24"
KEY = f"{DAY}/0b7c/51f0"
AUDIO = os.urandom(3_000_000)


async def store(objects: ObjectStore, key: str, data: bytes = b"sealed") -> None:
    await objects.put(key, [data], len(data), hashlib.md5(data).digest(), 30)


async def fetch(objects: ObjectStore, key: str, start: int, stop: int) -> bytes:
    async with objects.get(key, start, stop) as body:
        return b"".join([piece async for piece in body])


async def begin_upload(objects: ObjectStore, key: str) -> None:
    await objects._bucket.call("POST", {"uploads": ""}, key=key)


def pieces() -> Iterator[bytes]:
    for at in range(0, len(AUDIO), 100_000):
        yield AUDIO[at : at + 100_000]


async def arriving() -> AsyncIterator[bytes]:
    for piece in pieces():
        yield piece


@pytest.mark.parametrize("body", [pieces, arriving])
async def test_what_was_put_comes_back_in_any_range(object_store: ObjectStore, body) -> None:
    await object_store.put(KEY, body(), len(AUDIO), hashlib.md5(AUDIO).digest(), 30)
    size = len(AUDIO)
    for start, stop in [(0, size), (0, 1), (1, 2), (size - 1, size), (70_000, 2_500_000)]:
        assert await fetch(object_store, KEY, start, stop) == AUDIO[start:stop]


async def test_a_body_that_is_not_the_announced_one_is_refused(object_store: ObjectStore) -> None:
    with pytest.raises(StoreError) as caught:
        await object_store.put(KEY, [b"other!"], 6, hashlib.md5(b"sealed").digest(), 30)
    assert (caught.value.status, caught.value.code) == (400, "BadDigest")
    assert await object_store.holdings(DAY) == []


async def test_a_body_shorter_than_announced_never_lands(object_store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="shorter than its length says"):
        await object_store.put(KEY, [b"seal"], 6, hashlib.md5(b"sealed").digest(), 30)
    assert await object_store.holdings(DAY) == []


async def test_a_body_longer_than_announced_is_an_error(object_store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="longer than its length says"):
        await object_store.put(KEY, [b"sealed", b"more"], 6, hashlib.md5(b"sealed").digest(), 30)


async def test_a_body_that_fails_says_so_itself(object_store: ObjectStore) -> None:
    def failing() -> Iterator[bytes]:
        yield AUDIO[:500_000]
        raise KeyError("the spool")

    with pytest.raises(KeyError, match="the spool"):
        await object_store.put(KEY, failing(), len(AUDIO), hashlib.md5(AUDIO).digest(), 30)
    assert await object_store.holdings(DAY) == []


async def test_missing_bytes_are_not_an_outage(object_store: ObjectStore) -> None:
    await store(object_store, KEY)
    for key, start, stop in [(f"{KEY}0", 0, 1), (f"{KEY}0", 5, 9), (KEY, 6, 9), (KEY, 4, 9)]:
        with pytest.raises(MissingObjectError):
            await fetch(object_store, key, start, stop)


async def test_a_listener_may_leave_in_the_middle(object_store: ObjectStore) -> None:
    await object_store.put(KEY, pieces(), len(AUDIO), hashlib.md5(AUDIO).digest(), 30)
    async with object_store.get(KEY, 0, len(AUDIO)):
        pass  # left before the first byte
    with pytest.raises(ConnectionResetError, match="the listener"):  # as it is, not a StoreError
        async with object_store.get(KEY, 0, len(AUDIO)) as body:
            async for _ in body:
                raise ConnectionResetError("the listener")
    assert await fetch(object_store, KEY, 5, 9) == AUDIO[5:9]


async def test_the_store_has_a_clock(object_store: ObjectStore) -> None:
    apart = await object_store.clock() - datetime.now(UTC)
    assert abs(apart) < timedelta(seconds=5)


async def test_a_bucket_is_made_once_and_found_again(object_server: Server) -> None:
    name = f"test-{uuid.uuid4()}"  # its own: kinds of one gateway run at the same time
    first = await object_server.connect(name)
    second = await object_server.connect(name)
    await store(first, KEY)
    assert await fetch(second, KEY, 0, 6) == b"sealed"
    await first.remove(await first.holdings(""))
    await first.close()
    await second.close()


async def test_wrong_credentials_are_named_and_not_repeated(object_server: Server) -> None:
    wrong = replace(object_server, secret_key="not-the-secret-of-this-store")
    with pytest.raises(StoreError, match="403") as caught:
        await wrong.connect("test-wrong-credentials")
    assert caught.value.status == 403
    assert "not-the-secret" not in str(caught.value)
    assert wrong.access_key not in str(caught.value)


async def test_nothing_is_held_where_nothing_was_put(object_store: ObjectStore) -> None:
    assert await object_store.holdings(f"{DAY}/") == []
    assert await object_store.remove([]) == []


async def test_holdings_are_those_of_the_prefix_and_the_range(object_store: ObjectStore) -> None:
    keys = [f"{DAY}/{name}/1" for name in ("aa", "ab", "ba", "bb", "ca")]
    for key in [*keys, "2027-11-25/aa/1", "2027-11-2/aa/1"]:
        await store(object_store, key)

    async def held(*asked: str) -> list[str]:
        return [holding.key for holding in await object_store.holdings(*asked)]

    assert await held(f"{DAY}/") == keys
    assert await held(f"{DAY}/ab/") == keys[1:2]
    assert await held(f"{DAY}/", keys[1], keys[3]) == keys[1:4]
    assert await held(f"{DAY}/", f"{DAY}/ab/", f"{DAY}/ba/") == keys[1:3]
    assert await held(f"{DAY}/", f"{DAY}/ac/", f"{DAY}/az/") == []
    assert await held(f"{DAY}/", f"{DAY}/ba/") == keys[2:]
    assert len(await held("")) == 7


async def test_more_than_a_page_is_listed_and_removed(object_store: ObjectStore) -> None:
    keys = [f"{DAY}/{number:04}/1" for number in range(1003)]
    for at in range(0, len(keys), 50):
        await asyncio.gather(*(store(object_store, key, b"1") for key in keys[at : at + 50]))
    held = await object_store.holdings(f"{DAY}/")
    assert [holding.key for holding in held] == keys
    some = await object_store.holdings(f"{DAY}/", keys[998], keys[1001])
    assert [holding.key for holding in some] == keys[998:1002]
    assert await object_store.remove(held) == []
    assert await object_store.holdings("") == []
    assert await object_store.remove(held) == []  # gone already is gone


async def test_names_that_nobody_chose_are_removed_too(object_store: ObjectStore) -> None:
    keys = [f"{DAY}/a+b & <c> 'ä\"%2F/1", f"{DAY}/\U0001f600"]
    for key in keys:
        await store(object_store, key)
    held = await object_store.holdings(f"{DAY}/")
    assert sorted(holding.key for holding in held) == sorted(keys)
    assert await object_store.remove(held) == []
    assert await object_store.holdings("") == []


async def test_an_unfinished_upload_is_held_until_it_is_removed(object_store: ObjectStore) -> None:
    await begin_upload(object_store, KEY)
    await begin_upload(object_store, KEY)
    await begin_upload(object_store, "2027-11-25/other/1")
    held = await object_store.holdings(f"{DAY}/")
    assert [(holding.key, holding.kind) for holding in held] == [(KEY, "upload")] * 2
    assert await object_store.remove(held) == []
    assert await object_store.holdings(f"{DAY}/") == []
    assert await object_store.remove(held) == []
    assert len(await object_store.holdings("")) == 1


async def test_versions_and_marks_of_deletion_are_held_and_removed(rgw_server: Server) -> None:
    objects = await replace(rgw_server, versioned=True).connect()
    await store(objects, KEY, b"first")
    await store(objects, KEY, b"second")
    assert await objects.remove([Holding(KEY, "object")]) == []  # which only hides it
    with pytest.raises(MissingObjectError):
        await fetch(objects, KEY, 0, 1)
    held = await objects.holdings(f"{DAY}/")
    assert sorted(holding.kind for holding in held) == ["marker", "version", "version"]
    assert await objects.remove(held) == []
    assert await objects.holdings("") == []
    await objects.close()


async def test_versions_stay_visible_when_versioning_stops(rgw_store: ObjectStore) -> None:
    await store(rgw_store, KEY, b"before")
    await set_versioning(rgw_store, "Enabled")
    await store(rgw_store, KEY, b"during")
    await set_versioning(rgw_store, "Suspended")
    held = await rgw_store.holdings(f"{DAY}/")
    assert sorted(holding.kind for holding in held) == ["object", "version"]
    assert await rgw_store.remove(held) == []
    assert await rgw_store.holdings("") == []


async def test_a_key_that_xml_cannot_name_is_removed_alone(rgw_store: ObjectStore) -> None:
    await store(rgw_store, f"{DAY}/\x07bell")
    held = await rgw_store.holdings(f"{DAY}/")
    assert [holding.key for holding in held] == [f"{DAY}/\x07bell"]
    assert await rgw_store.remove(held) == []
    assert await rgw_store.holdings("") == []


async def test_a_certificate_that_is_not_trusted_is_said(rgw_server: Server) -> None:
    host, port = rgw_server.endpoint.removeprefix("http://").split(":")
    tls = replace(rgw_server, endpoint=f"https://{host}:{int(port) + 61}")
    with pytest.raises(StoreError, match="certificate"):
        await tls.connect()


async def test_many_downloads_at_once_keep_apart(object_store: ObjectStore) -> None:
    await object_store.put(KEY, pieces(), len(AUDIO), hashlib.md5(AUDIO).digest(), 30)
    async with object_store.get(KEY, 0, len(AUDIO)) as one, object_store.get(KEY, 7, 99) as other:
        async with aclosing(one):
            first = await anext(one)
            assert b"".join([piece async for piece in other]) == AUDIO[7:99]
            rest = b"".join([piece async for piece in one])
    assert first + rest == AUDIO


@pytest.mark.parametrize("endpoint", ["store:9000", "ftp://store", "http://", "http://s/path"])
async def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="looks like"):
        await ObjectStore.connect(endpoint, "bucket", "access", "secret")
