"""The sealed bytes in an object store: put once, read in ranges, removed with proof.

Any server that speaks S3 will do, so this keeps to what all of them do alike: one single-part PUT
at a key never used before, GET of a range, lists, bulk removal. A server's answer is believed only
as far as it was checked: a 200 to a range request must name the range, a bulk removal must name
every key, and a version list that shows nothing is compared with the plain one.

A write is never sent twice. Whether it landed is unknown after any doubt, so the caller gives its
key up and takes a fresh one.
"""

import base64
import math
import re
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from xml.sax.saxutils import escape

import aiohttp
from minio.credentials.credentials import Credentials

from archive.residency import Seen
from storage import holdings as kept
from storage import residency
from storage.holdings import Holding, Span, keeps_versions, list_all, remove_all
from storage.s3 import (
    BROKEN,
    NAMESPACE,
    Bucket,
    MissingObjectError,
    StoreError,
    refusal,
    whole,
)

__all__ = ["Holding", "MissingObjectError", "ObjectStore", "StoreError"]

SKEW = 60  # seconds by which the clocks of archive and store may differ


class ObjectStore:
    """One bucket. Made by `connect`, ended by `close`; for any number of tasks at once."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._versions = False

    @classmethod
    async def connect(
        cls,
        endpoint: str,
        bucket: str,
        access_key: str,
        secret_key: str,
        *,
        region: str = "us-east-1",
        ca: Path | None = None,
        patience: float = 30.0,
    ) -> "ObjectStore":
        """Reach `bucket` at `endpoint` (an http or https URL), and make it if it is not there.

        `ca` is a PEM file of authorities to trust instead of the system's. `patience` is how many
        seconds the store may be silent in a download; every small request has twice that in all.
        Raises StoreError if the store is away or refuses, ValueError for a senseless endpoint.
        """
        access = Credentials(access_key, secret_key)
        store = cls(Bucket(endpoint, bucket, access, region=region, ca=ca, patience=patience))
        try:
            await store._ensure_bucket()
            store._versions = await keeps_versions(store._bucket)
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def versions(self) -> bool:
        """Whether the server has version lists: a delete without an id may then leave versions."""
        return self._versions

    async def close(self) -> None:
        """End all connections; transfers still running fail."""
        await self._bucket.close()

    async def put(
        self,
        key: str,
        body: Iterable[bytes] | AsyncIterable[bytes],
        length: int,
        md5: bytes,
        timeout: float,
    ) -> None:
        """Store `length` bytes at a fresh `key` within `timeout` seconds; sent once, in one part.

        Returns only if the store says that it has exactly the bytes of this MD5. Raises StoreError
        on any doubt, and what `body` itself raised.
        """
        source = _Source(body, length)
        headers = {
            "Content-Length": str(length),
            "Content-MD5": base64.b64encode(md5).decode(),
            "Content-Type": "application/octet-stream",
        }
        try:
            answer = await self._bucket.send(
                "PUT",
                key,
                headers=headers,
                body=source.pieces(),
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=self._bucket.patience),
                expires=math.ceil(timeout) + SKEW,  # after that it cannot even begin to land
            )
            content = await whole(answer)
        except StoreError:
            if source.failure is not None:
                raise source.failure from None
            raise
        if answer.status != 200:
            raise refusal("PUT", answer.status, content)
        if source.sent != length:
            raise StoreError("The object store answered before it had all the bytes.")
        if _md5_of(answer.headers) not in (None, md5.hex()):
            raise StoreError("The object store has other bytes than were sent.")

    @asynccontextmanager
    async def get(self, key: str, start: int, stop: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open bytes `start` to `stop` - 1; the iterator yields exactly those, or raises.

        A stream that breaks is taken up where it broke, as long as it gets on at all. Raises
        MissingObjectError if the store has no such bytes, StoreError if it cannot be asked.
        """
        answer = await self._open(key, start, stop)
        body = self._read(answer, key, start, stop)
        try:
            yield body
        finally:
            await body.aclose()
            answer.close()  # for a body that nobody began to read

    async def clock(self) -> datetime:
        """What time it is for the store (to the second)."""
        headers, _ = await self._bucket.call("HEAD")
        try:
            return parsedate_to_datetime(headers["Date"]).astimezone(UTC)
        except (KeyError, ValueError) as error:
            raise StoreError("The object store does not say what time it is.") from error

    async def seen(self) -> Seen:
        """Where the store says that the bucket is, and where it copies it to."""
        return await residency.look(self._bucket)

    async def holdings(self, prefix: str, first: str = "", last: str = "") -> list[Holding]:
        """List every object, version, delete marker and unfinished upload under `prefix`.

        With `first` and `last`, only keys from `first` on, up to those that are or start with
        `last`. An empty list is the store's word that it keeps nothing there.
        """
        span = Span(prefix, first, last)
        return await list_all(self._bucket, span, versions=self._versions)

    def walk(self, prefix: str) -> AsyncGenerator[Holding, None]:
        """Every object, version and delete marker under `prefix`, in the order of their keys.

        However many there are, one page of the list is held. Raises StoreError when the store
        cannot be asked, or its list cannot be relied on to be whole.
        """
        return kept.walk(self._bucket, prefix, versions=self._versions)

    def unfinished(self) -> AsyncGenerator[Holding, None]:
        """Every unfinished upload of the bucket, with when it was begun if the store says so."""
        return kept.unfinished(self._bucket)

    async def folders(self) -> list[str]:
        """What the keys begin with, up to the first slash and with it: the expiry days, mostly."""
        return await kept.folders(self._bucket, versions=self._versions)

    async def remove(self, doomed: Sequence[Holding]) -> list[Holding]:
        """Remove all of them, versions by their id; those that the store refused come back.

        What was not there any more counts as removed. Raises StoreError if it could not ask; any
        part may be gone then. Only empty `holdings` afterwards say that nothing is left.
        """
        return await remove_all(self._bucket, doomed)

    async def _ensure_bucket(self) -> None:
        """Servers say "it is there already" in many ways, so only looking again counts."""
        region = (
            f'<CreateBucketConfiguration xmlns="{NAMESPACE}"><LocationConstraint>'
            f"{escape(self._bucket.region)}</LocationConstraint></CreateBucketConfiguration>"
        )
        refused: StoreError | None = None
        for body in (b"", region.encode(), b""):  # some want to hear the region, some refuse it
            try:
                await self._bucket.call("HEAD")
                return
            except StoreError as error:
                if error.status != 404:
                    raise
            try:
                await self._bucket.call("PUT", body=body)
            except StoreError as error:
                refused = refused or error
        raise refused or StoreError("The object store makes no bucket.")

    async def _open(self, key: str, start: int, stop: int) -> aiohttp.ClientResponse:
        silence = aiohttp.ClientTimeout(
            total=None, sock_connect=self._bucket.patience, sock_read=self._bucket.patience
        )
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        answer = await self._bucket.send("GET", key, headers=headers, timeout=silence)
        if answer.status in (200, 206):
            _check_range(answer, start, stop)
            return answer
        refused = refusal("GET", answer.status, await whole(answer))
        if refused.status == 416 or refused.code == "NoSuchKey":
            raise MissingObjectError("The object is not there, or it is too short.")
        raise refused

    async def _read(
        self, answer: aiohttp.ClientResponse, key: str, start: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        position, resumed = start, -1
        etag = answer.headers.get("ETag")
        try:
            while position < stop:
                piece = await _piece(answer)
                position += len(piece)
                if position > stop:
                    raise StoreError("The object store sent more than it was asked for.")
                if piece:
                    yield piece
                    continue
                if position == resumed:
                    raise StoreError("The object store broke the download off twice.")
                resumed = position
                answer.close()
                answer = await self._open(key, position, stop)
                if answer.headers.get("ETag") != etag:
                    raise StoreError("The object was another one when the download went on.")
        finally:
            answer.close()


class _Source:
    """The body of a PUT, counted on its way; `failure` is what it raised itself."""

    def __init__(self, body: Iterable[bytes] | AsyncIterable[bytes], length: int) -> None:
        self._body = body
        self._length = length
        self.sent = 0
        self.failure: Exception | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            if isinstance(self._body, AsyncIterable):
                async for piece in self._body:
                    yield self._counted(piece)
            else:
                for piece in self._body:
                    yield self._counted(piece)
        except Exception as error:
            self.failure = error
            raise
        if self.sent < self._length:
            self.failure = ValueError("The body is shorter than its length says.")
            raise self.failure

    def _counted(self, piece: bytes) -> bytes:
        self.sent += len(piece)
        if self.sent > self._length:
            raise ValueError("The body is longer than its length says.")
        return piece


async def _piece(answer: aiohttp.ClientResponse) -> bytes:
    """Await what arrives next; a connection that breaks looks like an end, b""."""
    try:
        return await answer.content.readany()
    except BROKEN:
        return b""


def _check_range(answer: aiohttp.ClientResponse, start: int, stop: int) -> None:
    """Refuse an answer that is not bytes `start` to `stop` - 1: the status alone says nothing.

    Rclone answers a range with 200 and the right bytes; another server might send the whole.
    """
    said = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if said:
        begin, end = int(said[1]), int(said[2]) + 1
    elif answer.status == 200:
        begin, end = 0, answer.content_length if answer.content_length is not None else -1
    else:
        begin, end = -1, -1
    if (begin, end) == (start, stop):
        return
    answer.close()
    if said and begin == start and said[3] == str(end):
        raise MissingObjectError("The object is shorter than it should be.")
    raise StoreError("The object store sent other bytes than it was asked for.")


def _md5_of(headers: Mapping[str, str]) -> str | None:
    """The MD5 that an ETag is, unless the server encrypts: then it may look like one and not be."""
    etag = headers.get("ETag", "").strip('"').lower()
    encrypted = "x-amz-server-side-encryption-customer-algorithm" in headers
    encrypted |= headers.get("x-amz-server-side-encryption", "").startswith("aws:kms")
    return etag if re.fullmatch("[0-9a-f]{32}", etag) and not encrypted else None
