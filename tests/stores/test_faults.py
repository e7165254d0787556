"""What the object store does when the network or the server fails, step by step."""

import hashlib
import os
import time
from collections.abc import AsyncIterator

import pytest

from storage.objects import Holding, MissingObjectError, ObjectStore, StoreError
from tests.stores.relay import Answer, Cut, Delay, Hang, Hold, Relay
from tests.stores.servers import Server

KEY = "2027-11-24/0b7c/51f0"
AUDIO = os.urandom(2_000_000)
MD5 = hashlib.md5(AUDIO).digest()
OTHER = hashlib.md5(b"other").hexdigest()
PATIENCE = 0.7

pytestmark = pytest.mark.parametrize("object_server", ["rclone", "rgw"], indirect=True)


@pytest.fixture
async def relay(object_server: Server) -> AsyncIterator[Relay]:
    async with Relay.before(object_server.endpoint) as relay:
        yield relay


@pytest.fixture
async def objects(object_server: Server, relay: Relay) -> AsyncIterator[ObjectStore]:
    store = await object_server.connect(endpoint=relay.url, patience=PATIENCE)
    yield store
    await store.close()


async def put(objects: ObjectStore, timeout: float = 20) -> None:
    pieces = [AUDIO[at : at + 100_000] for at in range(0, len(AUDIO), 100_000)]
    await objects.put(KEY, pieces, len(AUDIO), MD5, timeout)


async def fetch(objects: ObjectStore, start: int = 0, stop: int = len(AUDIO)) -> bytes:
    async with objects.get(KEY, start, stop) as body:
        return b"".join([piece async for piece in body])


async def held(objects: ObjectStore) -> list[str]:
    return [holding.key for holding in await objects.holdings("2027-11-24/")]


def listing(entries: str) -> Answer:
    return Answer(body=f"<ListBucketResult>{entries}</ListBucketResult>".encode())


# Uploads: any doubt is an error, and nothing is sent twice


@pytest.mark.parametrize("status", [301, 403, 500, 503])
async def test_a_refused_upload_is_an_error(
    objects: ObjectStore, relay: Relay, status: int
) -> None:
    relay.next(Answer(status, body=b"<Error><Code>SlowDown</Code></Error>"), method="PUT")
    with pytest.raises(StoreError) as caught:
        await put(objects)
    assert (caught.value.status, caught.value.code) == (status, "SlowDown")
    assert KEY not in str(caught.value)
    assert await held(objects) == []


async def test_an_upload_that_hangs_ends_in_time(objects: ObjectStore, relay: Relay) -> None:
    relay.next(Hang(), method="PUT /test")
    began = time.monotonic()
    with pytest.raises(StoreError, match="in time"):
        await put(objects, timeout=0.5)
    assert time.monotonic() - began < 3
    assert await held(objects) == []


async def test_a_cut_upload_is_not_sent_again(objects: ObjectStore, relay: Relay) -> None:
    before = len(relay.seen("PUT"))
    relay.next(Cut(up=700_000), method="PUT")
    with pytest.raises(StoreError, match="broke"):
        await put(objects)
    assert len(relay.seen("PUT")) == before + 1
    assert await held(objects) == []


async def test_an_upload_whose_answer_is_lost_is_in_doubt(
    objects: ObjectStore, relay: Relay
) -> None:
    before = len(relay.seen("PUT"))
    relay.next(Cut(down=0), method="PUT")
    with pytest.raises(StoreError):
        await put(objects)
    assert len(relay.seen("PUT")) == before + 1
    assert await held(objects) == [KEY]


async def test_an_upload_may_land_after_it_failed(objects: ObjectStore, relay: Relay) -> None:
    relay.next(Hold(), method="PUT")
    with pytest.raises(StoreError, match="in time"):
        await put(objects, timeout=1)
    assert await held(objects) == []
    assert await relay.release() == [200]
    assert await held(objects) == [KEY]  # which is why a key is never used again
    assert await objects.remove(await objects.holdings("2027-11-24/")) == []
    assert await held(objects) == []


async def test_a_store_that_takes_nothing_keeps_no_connection(
    objects: ObjectStore, relay: Relay
) -> None:
    relay.next(Delay(60), method="PUT")
    with pytest.raises(StoreError, match="in time"):
        await objects.put(KEY, [AUDIO] * 10, 10 * len(AUDIO), MD5, 0.5)
    sockets = list(objects._bucket._sockets)
    assert any(each.fileno() != -1 for each in sockets)  # it still has much to send
    await objects.close()
    assert all(each.fileno() == -1 for each in sockets)


async def test_a_slow_store_is_waited_for(objects: ObjectStore, relay: Relay) -> None:
    relay.next(Delay(0.3), Delay(0.3))
    await put(objects)
    assert await fetch(objects) == AUDIO


async def test_another_etag_than_the_md5_is_an_error(objects: ObjectStore, relay: Relay) -> None:
    relay.next(Answer(200, (f'ETag: "{OTHER}"',)), method="PUT")
    with pytest.raises(StoreError):
        await put(objects)


@pytest.mark.parametrize(
    "headers", [(f'ETag: "{OTHER}"', "x-amz-server-side-encryption: aws:kms"), ('ETag: "ab-2"',)]
)
async def test_an_etag_that_is_no_md5_says_nothing(
    objects: ObjectStore, relay: Relay, headers: tuple[str, ...]
) -> None:
    objects_length, digest = 3, hashlib.md5(b"abc").digest()
    relay.next(Answer(200, headers), method="PUT")
    await objects.put(KEY, [b"abc"], objects_length, digest, 5)


# Downloads: taken up where they broke, and never other bytes than asked for


async def test_a_cut_download_goes_on_where_it_broke(objects: ObjectStore, relay: Relay) -> None:
    await put(objects)
    relay.next(Cut(down=600_000), Cut(down=500_000), method="GET")
    assert await fetch(objects, 5, len(AUDIO)) == AUDIO[5:]
    ranges = [
        head.lower().split("range: bytes=")[1].split("-")[0] for head in relay.seen("GET")[-3:]
    ]
    assert ranges[0] == "5"
    assert 5 < int(ranges[1]) < int(ranges[2])


async def test_a_download_that_stalls_goes_on(objects: ObjectStore, relay: Relay) -> None:
    await put(objects)
    half = AUDIO[: len(AUDIO) // 2]
    etag = f'ETag: "{MD5.hex()}"'
    relay.next(Answer(200, (etag, f"Content-Length: {len(AUDIO)}"), half), method="GET")
    assert await fetch(objects) == AUDIO


async def test_a_download_that_does_not_get_on_ends(objects: ObjectStore, relay: Relay) -> None:
    await put(objects)
    head = ("Content-Range: bytes 0-99/100", "Content-Length: 100")
    relay.next(Answer(206, head), Answer(206, head), method="GET")
    with pytest.raises(StoreError, match="twice"):
        await fetch(objects, 0, 100)


async def test_a_download_goes_on_only_in_the_same_object(
    objects: ObjectStore, relay: Relay
) -> None:
    await put(objects)
    head = (f'ETag: "{OTHER}"', "Content-Range: bytes 0-99/100", "Content-Length: 100")
    relay.next(Answer(206, head, AUDIO[:50]), method="GET")
    with pytest.raises(StoreError, match="another one"):
        await fetch(objects, 0, 100)


async def test_a_lost_connection_is_tried_once_more(objects: ObjectStore, relay: Relay) -> None:
    await put(objects)
    relay.next(Cut(down=0), method="GET")
    assert await fetch(objects) == AUDIO
    relay.next(*[Cut(down=0)] * 2, method="GET")
    with pytest.raises(StoreError, match="broke"):
        await fetch(objects)


async def test_a_download_from_a_silent_store_ends(objects: ObjectStore, relay: Relay) -> None:
    await put(objects)
    relay.next(Hang(), method="GET")
    with pytest.raises(StoreError, match="in time"):
        await fetch(objects)


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_a_refused_download_is_not_a_missing_object(
    objects: ObjectStore, relay: Relay, status: int
) -> None:
    relay.next(Answer(status), method="GET")
    with pytest.raises(StoreError) as caught:
        await fetch(objects)
    assert caught.value.status == status


async def test_a_404_that_is_not_the_stores_is_not_a_missing_object(
    objects: ObjectStore, relay: Relay
) -> None:
    relay.next(Answer(404, body=b"<html>no such route</html>"), method="GET")
    with pytest.raises(StoreError, match="404"):
        await fetch(objects)
    relay.next(Answer(404, body=b"<Error><Code>NoSuchKey</Code></Error>"), method="GET")
    with pytest.raises(MissingObjectError):
        await fetch(objects)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, (), AUDIO[:200]),  # the whole object, though a range was asked for
        Answer(206, (), AUDIO[100:200]),  # which bytes is not said
        Answer(206, ("Content-Range: bytes 0-99/200",), AUDIO[:100]),
        Answer(206, ("Content-Range: bytes 100-198/200",), AUDIO[100:199]),
        Answer(206, ("Content-Range: bytes 100-200/300",), AUDIO[100:201]),
        Answer(204),
    ],
)
async def test_other_bytes_than_asked_for_are_refused(
    objects: ObjectStore, relay: Relay, answer: Answer
) -> None:
    relay.next(answer, method="GET")
    with pytest.raises(StoreError):
        await fetch(objects, 100, 200)


async def test_a_200_that_names_the_range_is_taken(objects: ObjectStore, relay: Relay) -> None:
    named = Answer(200, ("Content-Range: bytes 100-199/300",), AUDIO[100:200])
    relay.next(named, method="GET")
    assert await fetch(objects, 100, 200) == AUDIO[100:200]


async def test_more_bytes_than_promised_are_refused(objects: ObjectStore, relay: Relay) -> None:
    head = ("Content-Range: bytes 0-99/100", "Transfer-Encoding: chunked")
    relay.next(Answer(206, head, b"c8\r\n" + AUDIO[:200] + b"\r\n0\r\n\r\n"), method="GET")
    with pytest.raises(StoreError, match="more than"):
        await fetch(objects, 0, 100)


# Lists and removals: what was not shown to be gone counts as there


async def test_a_list_that_cannot_be_had_is_not_empty(objects: ObjectStore, relay: Relay) -> None:
    for fault in (Answer(503), Answer(200, body=b"<not xml"), Hang()):
        relay.next(fault, method="GET")
        with pytest.raises(StoreError):
            await held(objects)


async def test_a_list_with_a_document_type_is_refused(objects: ObjectStore, relay: Relay) -> None:
    bomb = b'<!DOCTYPE l [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>'
    relay.next(Answer(200, body=bomb), method="GET")
    with pytest.raises(StoreError, match="document type"):
        await held(objects)


async def test_an_answer_without_end_is_given_up(
    objects: ObjectStore, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.s3.ANSWER_LIMIT", 100_000)
    relay.next(listing("<Contents/>" * 20_000), method="GET")
    with pytest.raises(StoreError, match="no end"):
        await held(objects)


async def test_a_list_in_a_loop_is_never_taken_for_empty(
    objects: ObjectStore, relay: Relay
) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    more += "<NextKeyMarker>k</NextKeyMarker>"
    relay.next(listing(more), listing(more), method="GET")
    with pytest.raises(StoreError, match="to an end"):
        await held(objects)
    relay.next(listing("<IsTruncated>true</IsTruncated>"), method="GET")
    with pytest.raises(StoreError, match="breaks off"):
        await held(objects)


async def test_what_a_store_in_a_loop_did_show_can_be_removed(
    objects: ObjectStore, relay: Relay
) -> None:
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
    more += "<NextKeyMarker>k</NextKeyMarker>"
    entry = f"<Contents><Key>{KEY}</Key></Contents><Version><Key>{KEY}</Key></Version>"
    relay.next(listing(entry + more), listing(more), method="GET")
    assert await held(objects) == [KEY]


async def test_an_empty_version_list_is_compared_with_the_plain_one(
    objects: ObjectStore, relay: Relay, object_server: Server
) -> None:
    await put(objects)
    if object_server.kind == "rgw":
        relay.next(Answer(body=b"<ListVersionsResult/>"), method="GET")
    assert await objects.holdings("2027-11-24/") == [Holding(KEY, "object")]


async def test_a_removal_whose_answer_is_lost_is_asked_again(
    objects: ObjectStore, relay: Relay
) -> None:
    await put(objects)
    doomed = await objects.holdings("2027-11-24/")
    relay.next(Cut(down=0), method="POST")
    assert await objects.remove(doomed) == []
    assert await held(objects) == []


async def test_what_the_store_does_not_name_as_gone_is_refused(
    objects: ObjectStore, relay: Relay
) -> None:
    doomed = [Holding(f"2027-11-24/{name}", "object") for name in ("kept", "gone", "silent", "no")]
    said = (
        b"<DeleteResult><Deleted><Key>2027-11-24/gone</Key></Deleted>"
        b"<Error><Key>2027-11-24/kept</Key><Code>AccessDenied</Code></Error>"
        b"<Error><Key>2027-11-24/no</Key><Code>NoSuchKey</Code></Error></DeleteResult>"
    )
    relay.next(Answer(200, body=said), method="POST")
    assert await objects.remove(doomed) == [doomed[0], doomed[2]]


async def test_a_removal_that_fails_is_an_error(objects: ObjectStore, relay: Relay) -> None:
    await put(objects)
    doomed = await objects.holdings("2027-11-24/")
    relay.next(Answer(503), method="POST")
    with pytest.raises(StoreError, match="503"):
        await objects.remove(doomed)
    assert await held(objects) == [KEY]


async def test_an_upload_that_cannot_be_ended_is_refused(
    objects: ObjectStore, relay: Relay
) -> None:
    upload = Holding(KEY, "upload", "an-id")
    relay.next(Answer(403), method="DELETE")
    assert await objects.remove([upload]) == [upload]
    relay.next(Answer(500), method="DELETE")
    with pytest.raises(StoreError, match="500"):
        await objects.remove([upload])


async def test_a_store_without_uploads_has_none(objects: ObjectStore, relay: Relay) -> None:
    lists = 2 if objects._versions else 1
    relay.next(*[listing("")] * lists, Answer(501), method="GET")
    assert await held(objects) == []


# The beginning


async def test_a_store_that_is_away_is_said_at_once(object_server: Server, relay: Relay) -> None:
    await relay.__aexit__(None, None, None)
    with pytest.raises(StoreError, match="cannot be reached"):
        await object_server.connect(endpoint=relay.url, patience=PATIENCE)
    await relay.__aenter__()


async def test_a_clock_that_is_not_said_is_an_error(objects: ObjectStore, relay: Relay) -> None:
    relay.next(Answer(200), Answer(200, ("Date: yesterday",)), method="HEAD")
    for _ in range(2):
        with pytest.raises(StoreError, match="what time"):
            await objects.clock()


async def test_a_bucket_that_cannot_be_made_is_an_error(
    object_server: Server, relay: Relay
) -> None:
    refused = Answer(400, body=b"<Error><Code>IllegalLocationConstraintException</Code></Error>")
    relay.next(*[refused] * 3, method="PUT")
    with pytest.raises(StoreError, match="IllegalLocation"):
        await object_server.connect(endpoint=relay.url, patience=PATIENCE)


async def test_a_store_that_wants_to_hear_its_region_hears_it(
    object_server: Server, relay: Relay
) -> None:
    relay.next(Answer(400, body=b"<Error><Code>IllegalLocation</Code></Error>"), method="PUT")
    relay.next(Hold(), method="PUT")
    with pytest.raises(StoreError):
        await object_server.connect(endpoint=relay.url, patience=0.2)
    assert b"<LocationConstraint>us-east-1<" in relay._held[0]
