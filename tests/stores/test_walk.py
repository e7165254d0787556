"""Looking through all that a store has: in order, page by page, on every kind of store."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from storage.holdings import Holding
from storage.objects import ObjectStore, StoreError
from tests.stores.servers import Server
from tests.stores.test_objects import DAY, KEY, begin_upload, store


async def walked(objects: ObjectStore, prefix: str) -> list[Holding]:
    return [holding async for holding in objects.walk(prefix)]


async def test_more_than_a_page_is_walked_in_the_order_of_the_keys(
    object_store: ObjectStore,
) -> None:
    keys = [f"{DAY}/{number:04}/{number % 7}" for number in range(1003)]
    late = [*reversed(keys), "2027-11-25/aa/1", "2027-11-23/aa/1"]
    # Of fifty who made the first folder at the same moment rclone once answered 500 to one.
    await store(object_store, late[0], b"12345")
    for at in range(1, len(late), 50):
        await asyncio.gather(*(store(object_store, key, b"12345") for key in late[at : at + 50]))
    held = await walked(object_store, f"{DAY}/")
    assert [holding.key for holding in held] == keys
    assert {(holding.size, holding.latest) for holding in held} == {(5, True)}
    now = datetime.now(UTC)
    assert all(h.at and abs(h.at - now) < timedelta(minutes=2) for h in held)
    assert len(await walked(object_store, "")) == len(late)
    assert await walked(object_store, "2027-11-2/") == []
    assert await walked(object_store, f"{DAY}/0500/") == [held[500]]


async def test_the_folders_of_a_store_are_named_once(object_store: ObjectStore) -> None:
    assert await object_store.folders() == []
    for key in (KEY, f"{DAY}/other/1", "2027-11-25/aa/1", "check/a b&c", "loose"):
        await store(object_store, key)
    assert await object_store.folders() == [f"{DAY}/", "2027-11-25/", "check/", "loose"]


async def test_unfinished_uploads_are_told_with_their_age(object_store: ObjectStore) -> None:
    assert [holding async for holding in object_store.unfinished()] == []
    await store(object_store, KEY)
    await begin_upload(object_store, KEY)
    await begin_upload(object_store, "2027-11-25/other/1")
    held = [holding async for holding in object_store.unfinished()]
    assert sorted(holding.key for holding in held) == [KEY, "2027-11-25/other/1"]
    assert {holding.kind for holding in held} == {"upload"}
    for holding in held:
        assert holding.at is None or abs(holding.at - datetime.now(UTC)) < timedelta(minutes=2)


async def test_which_version_a_key_stands_for_is_told(rgw_server: Server) -> None:
    objects = await replace(rgw_server, versioned=True).connect()
    await store(objects, KEY, b"first")
    await store(objects, KEY, b"second")
    await store(objects, KEY + "1", b"hidden")
    await objects.remove([Holding(KEY + "1", "object")])
    held = await walked(objects, f"{DAY}/")
    told = {(holding.key, holding.kind, holding.size, holding.latest) for holding in held}
    assert told >= {
        (KEY, "version", 6, True),
        (KEY, "version", 5, False),
        (KEY + "1", "version", 6, False),
    }
    assert (KEY + "1", "marker", True) in {(each[0], each[1], each[3]) for each in told}
    assert await objects.folders() == [f"{DAY}/"]
    # What is hidden is there all the same.
    await objects.remove([held[0], held[1]])
    assert await objects.folders() == [f"{DAY}/"]
    await objects.remove(await objects.holdings(""))
    await objects.close()


async def test_a_list_that_is_not_in_order_is_not_believed(
    rclone_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = "<L><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{}</L>"
    answers = [one.format("<Contents><Key>b</Key></Contents>")]
    answers.append("<L><Contents><Key>a</Key></Contents></L>")

    async def call(*_: object, **__: object) -> tuple[dict[str, str], bytes]:
        return {}, answers.pop(0).encode()

    monkeypatch.setattr(rclone_store._bucket, "call", call)
    monkeypatch.setattr(rclone_store, "_versions", False)
    with pytest.raises(StoreError, match="order"):
        await walked(rclone_store, "")


async def test_a_list_without_an_end_is_not_taken_for_the_whole(
    rclone_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = "<L><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    page += "<Contents><Key>b</Key></Contents></L>"

    async def call(*_: object, **__: object) -> tuple[dict[str, str], bytes]:
        return {}, page.encode()

    monkeypatch.setattr(rclone_store._bucket, "call", call)
    monkeypatch.setattr(rclone_store, "_versions", False)
    with pytest.raises(StoreError, match="end"):
        await walked(rclone_store, "")
