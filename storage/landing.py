"""Landing buckets: where others write recordings, and the archive takes them from.

What lies there is a copy, and somebody else's until the archive has it. So it is read as the store
says it is, at one version, and removed only as that: a version by its id, and where the bucket
keeps none, an object that still has the ETag it was read with. Between that last look and the
removal lies a moment, closed only by a store that keeps versions, or heeds `If-Match` on a DELETE.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

import aiohttp

from archive import filenames, residency, sidecar
from archive.errors import ForbiddenError
from archive.mapping import Reading
from archive.sidecar import Rules, UnclearError
from storage import holdings
from storage import residency as told
from storage.holdings import Holding
from storage.intake import Offer
from storage.s3 import BROKEN, Bucket, StoreError, refusal, whole

_META = "x-amz-meta-"
_LATER = (408, 429)
"""Statuses below 500 by which a store says no more than that it is busy."""


class ChangedError(Exception):
    """The object is gone, or is not any more what was listed: it is looked at again."""


class MisplacedError(ValueError):
    """The store says that it keeps the bucket elsewhere than was declared; the text says where."""


@dataclass(frozen=True, slots=True)
class Landing:
    """One landing bucket, or what lies under a prefix of it.

    `key`: the name of the uploader's key whose source the recordings are of, and whose bounds hold.
    `country` and `replicas`: where the bucket was declared to be.
    """

    name: str
    key: str
    bucket: Bucket
    prefix: str
    reading: Reading
    country: str
    replicas: frozenset[str]

    @property
    def rules(self) -> Rules:
        """What lies beside an audio."""
        return Rules(sidecar=self.reading.sidecar or None)

    def is_sidecar(self, key: str) -> bool:
        """Whether an object of this key lies beside an audio, and is none."""
        form = self.rules.sidecars
        return bool(form and form.fullmatch(key.rpartition("/")[2]))

    def beside(self, key: str) -> str | None:
        """The key of what has to lie beside the audio of this key."""
        folder, slash, name = key.rpartition("/")
        beside = self.rules.sidecar_of(name)
        return beside and folder + slash + beside


@dataclass(frozen=True, slots=True)
class Arrived:
    """An object that is being read: what the store says of it, and its bytes, once."""

    metadata: Mapping[str, str]
    offer: Offer
    at: datetime | None
    pieces: AsyncIterator[bytes]


async def check_residency(landing: Landing) -> str:
    """Hold what the store says of where it is against what is declared; tell what was found.

    Raises MisplacedError where the two contradict, StoreError when the store is away.
    """
    seen = await told.look(landing.bucket)
    if found := residency.contradictions(landing.country, landing.replicas, seen):
        raise MisplacedError("; ".join(found))
    return residency.told(landing.country, landing.replicas, seen)


async def walk(landing: Landing) -> AsyncGenerator[Holding, None]:
    """Every object and version, in order, and then every upload that was not finished; a page of
    a list at a time. The marks of folders are left out.
    """
    versions = await holdings.keeps_versions(landing.bucket)
    async for held in holdings.walk(landing.bucket, landing.prefix, versions=versions):
        if held.kind != "marker" and not (held.key.endswith("/") and held.size == 0):
            yield held
    async for held in holdings.unfinished(landing.bucket):
        if held.key.startswith(landing.prefix):
            yield held


async def find(landing: Landing, key: str, *, versions: bool) -> Holding | None:
    """The object of exactly this key, as it is now."""
    async for held in holdings.walk(landing.bucket, key, versions=versions):
        if held.key == key and held.latest and held.kind != "marker":
            return held
        if held.key != key:
            break
    return None


async def table(landing: Landing, side: Holding) -> Mapping[str, str]:
    """What a file beside an audio says. Raises UnclearError, ChangedError."""
    content = bytearray()
    async with opened(landing, side) as arrived:
        async for piece in arrived.pieces:
            content += piece
            if len(content) > sidecar.MOST:
                raise UnclearError("what lies beside it is too large")
    return sidecar.read(side.key, bytes(content))


@asynccontextmanager
async def opened(landing: Landing, held: Holding) -> AsyncIterator[Arrived]:
    """Open an object as it was listed. Its bytes end in a ChangedError if meanwhile it became
    another one.

    Raises ChangedError, StoreError, and ForbiddenError for what the store will not give out.
    """
    bucket = landing.bucket
    silence = aiohttp.ClientTimeout(
        total=None, sock_connect=bucket.patience, sock_read=bucket.patience
    )
    answer = await bucket.send("GET", held.key, _version(held), timeout=silence)
    try:
        if answer.status != 200:
            raise _judged(refusal("GET", answer.status, await whole(answer)))
        if _etag(answer.headers) != held.etag:
            raise ChangedError
        named = filenames.media_type(held.key)
        kind = answer.headers.get("Content-Type") if named in (None, filenames.OCTETS) else named
        yield Arrived(
            _metadata(answer.headers),
            Offer(kind),
            _moment(answer.headers.get("Last-Modified")),
            _pieces(landing, held, answer),
        )
    finally:
        answer.close()


async def remove(landing: Landing, held: Holding) -> None:
    """Remove exactly what was read. Raises ChangedError when that is not there any more,
    ForbiddenError when the store refuses, StoreError when it is not known what became of it.
    """
    if held.kind != "version" and not await _is_still(landing, held):
        raise ChangedError
    timeout = aiohttp.ClientTimeout(total=2 * landing.bucket.patience)
    query = {"versionId": held.id} if held.id else {}
    condition = {"If-Match": f'"{held.etag}"'} if held.kind != "version" else {}
    answer = await landing.bucket.send(
        "DELETE", held.key, query, headers=condition, timeout=timeout
    )
    content = await whole(answer)
    if not 200 <= answer.status < 300:
        raise _judged(refusal("DELETE", answer.status, content))


async def _pieces(
    landing: Landing, held: Holding, answer: aiohttp.ClientResponse
) -> AsyncIterator[bytes]:
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except BROKEN as error:
        raise StoreError("The object store broke the download off.") from error
    if not await _is_still(landing, held):
        raise ChangedError


async def _is_still(landing: Landing, held: Holding) -> bool:
    """Whether what the key stands for is still what was listed."""
    try:
        headers, _ = await landing.bucket.call("HEAD", key=held.key)
    except StoreError as error:
        if error.status == 404:
            return False
        raise
    same = headers.get("x-amz-version-id", held.id) == held.id if held.kind == "version" else True
    return same and _etag(headers) == held.etag


def _version(held: Holding) -> dict[str, str]:
    return {"versionId": held.id} if held.kind == "version" and held.id else {}


def _judged(error: StoreError) -> Exception:
    """What a refusal of the store says of the object, if it says anything of that."""
    status = error.status or 500
    if status in (404, 412):
        return ChangedError()
    return ForbiddenError(error.detail) if status < 500 and status not in _LATER else error


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("ETag", "").strip('"')


def _moment(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text or "")
    except ValueError:
        return None


def _metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """What was written as the object's metadata; some stores make a `-` of each `_` in a name."""
    found = {}
    for header, text in headers.items():
        if (name := header.lower()).startswith(_META):
            found[name.removeprefix(_META).replace("-", "_")] = text
    return found
