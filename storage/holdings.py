"""What an object store keeps under a prefix, and how it is made to keep nothing there.

An object can be there as itself, as older versions, as the mark of a deletion, or as an upload that
was never finished. A server's list or removal is believed only as far as it was checked: every key
has to be named as deleted, a list in a loop is noticed, and a list of versions that shows nothing
is compared with the plain one, since some servers answer such a question without having versions.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from storage.s3 import NAMESPACE, Bucket, StoreError, parse

BATCH = 1000  # the most keys that one DeleteObjects may carry
AT_ONCE = 4  # bulk removals side by side: a server deletes the keys of one in turn
UNWRITABLE = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # in XML

Kind = Literal["object", "version", "marker", "upload"]


@dataclass(frozen=True, slots=True)
class Holding:
    """One thing that a store keeps under a key; `id` is a version's or an unfinished upload's.

    What a list says besides does not make it another thing: `size` in bytes (-1 if it does not
    say), `latest` whether it is what the key stands for now, `at` when it was begun or written, and
    the `etag` without its quotes.
    """

    key: str
    kind: Kind
    id: str | None = None
    size: int = field(default=-1, compare=False)
    latest: bool = field(default=True, compare=False)
    at: datetime | None = field(default=None, compare=False)
    etag: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Span:
    """The keys under `prefix`, from `first` on, up to those that are or start with `last`."""

    prefix: str
    first: str = ""
    last: str = ""

    def __contains__(self, key: str) -> bool:
        return key.startswith(self.prefix) and key >= self.first and not self.before(key)

    def before(self, key: str) -> bool:
        """Whether the span ends before `key`."""
        return bool(self.last) and key > self.last and not key.startswith(self.last)


@dataclass(frozen=True, slots=True)
class _List:
    """One of the three lists of S3: how it is asked, from where on, and where it goes on."""

    query: Mapping[str, str]
    start: str
    more: Mapping[str, str]
    kinds: Mapping[str, Kind]
    id: str


PLAIN = _List(
    {"list-type": "2", "encoding-type": "url"},
    "start-after",
    {"continuation-token": "NextContinuationToken"},
    {"Contents": "object"},
    "",
)
VERSIONS = _List(
    {"versions": "", "encoding-type": "url"},
    "key-marker",
    {"key-marker": "NextKeyMarker", "version-id-marker": "NextVersionIdMarker"},
    {"Version": "version", "DeleteMarker": "marker"},
    "VersionId",
)
# With a delimiter or an encoding some servers show no uploads at all.
UPLOADS = _List(
    {"uploads": ""},
    "",
    {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"},
    {"Upload": "upload"},
    "UploadId",
)


class _EndlessError(StoreError):
    """A list that repeats itself."""


async def keeps_versions(bucket: Bucket) -> bool:
    """Whether the server has version lists; those of an unversioned bucket show its objects."""
    try:
        _, content = await bucket.call("GET", {"versions": "", "max-keys": "1"})
    except StoreError as error:
        if error.status in (400, 405, 501):
            return False
        raise
    return parse(content).tag == "ListVersionsResult"


async def list_all(bucket: Bucket, span: Span, *, versions: bool) -> list[Holding]:
    """List every object, version, delete marker and unfinished upload in the span."""
    found = await _listed(bucket, VERSIONS, span) if versions else []
    found = found or await _listed(bucket, PLAIN, span)
    return found + await _listed(bucket, UPLOADS, span)


async def walk(bucket: Bucket, prefix: str, *, versions: bool) -> AsyncGenerator[Holding, None]:
    """Every object, version and delete marker under a prefix, in the order of their keys.

    One page of a list is held at a time. Raises StoreError when the list is not in order, or does
    not come to its end: what was left out would be taken for lost.
    """
    if versions:
        last = ""
        async for last_held in _in_order(bucket, VERSIONS, prefix):
            last = last_held.key
            yield last_held
        if last:
            return
    async for holding in _in_order(bucket, PLAIN, prefix):
        yield holding


async def unfinished(bucket: Bucket) -> AsyncGenerator[Holding, None]:
    """Every unfinished upload of the bucket, one page of the list at a time."""
    async for page, encoded in _pages(bucket, UPLOADS, Span("")):
        for entry in page:
            if entry.tag in UPLOADS.kinds:
                yield _holding(UPLOADS, entry, encoded)


async def folders(bucket: Bucket, *, versions: bool) -> list[str]:
    """What the bucket's keys begin with, up to the first slash and with it, each once, in order.

    A key without a slash stands there as it is.
    """
    for what in (VERSIONS, PLAIN) if versions else (PLAIN,):
        found = set()
        async for page, encoded in _pages(bucket, what, Span(""), {"delimiter": "/"}):
            folded = page.findall("CommonPrefixes/Prefix")
            found |= {_plain(entry.text, encoded) for entry in folded}
            found |= {_plain(e.findtext("Key"), encoded) for e in page if e.tag in what.kinds}
        if found:
            return sorted(found)
    return []


async def remove_all(bucket: Bucket, doomed: Sequence[Holding]) -> list[Holding]:
    """Remove them, versions by their id; those that the store refused come back."""
    single = [h for h in doomed if h.kind == "upload" or UNWRITABLE.search(h.key)]
    several = [h for h in doomed if h.kind != "upload" and not UNWRITABLE.search(h.key)]
    batches = [several[i : i + BATCH] for i in range(0, len(several), BATCH)]
    gate = asyncio.Semaphore(AT_ONCE)

    async def bulk(batch: Sequence[Holding]) -> list[Holding]:
        async with gate:
            return await _remove_batch(bucket, batch)

    async def alone(holding: Holding) -> list[Holding]:
        async with gate:
            return [] if await _remove_one(bucket, holding) else [holding]

    jobs = [*map(bulk, batches), *map(alone, single)]
    # All are waited for, so that none goes on behind the back of one that failed.
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    refused: list[Holding] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        refused += outcome
    return refused


def absent(*, versions: bool) -> list[str]:
    """What the store was asked for, and did not have."""
    return ["objects", "uploads", *(["versions", "markers"] if versions else [])]


async def _in_order(bucket: Bucket, what: _List, prefix: str) -> AsyncGenerator[Holding, None]:
    last = ""
    async for page, encoded in _pages(bucket, what, Span(prefix)):
        listed = [_holding(what, entry, encoded) for entry in page if entry.tag in what.kinds]
        # Servers tell of a page's versions first, and then of its marks of deletion.
        for holding in sorted(listed, key=lambda each: each.key):
            if holding.key < last:
                raise StoreError("The object store's list is not in the order of its keys.")
            last = holding.key
            yield holding


async def _listed(bucket: Bucket, what: _List, span: Span) -> list[Holding]:
    found: list[Holding] = []
    try:
        async with aclosing(_pages(bucket, what, span)) as pages:
            async for page, encoded in pages:
                listed = [_holding(what, one, encoded) for one in page if one.tag in what.kinds]
                found += [holding for holding in listed if holding.key in span]
                if listed and span.before(listed[-1].key):
                    break
    except _EndlessError:
        if not found:  # what a server in a loop showed can go, and the rest shows then
            raise
    return found


async def _pages(
    bucket: Bucket, what: _List, span: Span, asked: Mapping[str, str] | None = None
) -> AsyncGenerator[tuple[Element, bool], None]:
    """The pages of a list, each with whether its keys are encoded."""
    query = {**what.query, "prefix": span.prefix, **(asked or {})}
    if what.start and len(span.first) > 1:
        query[what.start] = span.first[:-1]  # exclusive, and not far before the first
    while True:
        try:
            _, content = await bucket.call("GET", query)
        except StoreError as error:
            if what is UPLOADS and (error.status == 501 or error.code == "NoSuchUpload"):
                return  # how servers say that they have none, or never any
            raise
        page = parse(content)
        encoded = page.findtext("EncodingType") == "url"
        yield page, encoded
        if page.findtext("IsTruncated") != "true":
            return
        following = _following(what, page, encoded)
        if following == {name: query[name] for name in what.more if name in query}:
            raise _EndlessError("The object store's list does not come to an end.")
        query = {name: query[name] for name in query if name not in what.more} | following


async def _remove_one(bucket: Bucket, holding: Holding) -> bool:
    """Remove what a bulk removal cannot name; whether the store did."""
    name = "uploadId" if holding.kind == "upload" else "versionId"
    try:
        await bucket.call("DELETE", {name: holding.id} if holding.id else {}, key=holding.key)
    except StoreError as error:
        if error.status is None or error.status >= 500:
            raise
        return error.status == 404
    return True


async def _remove_batch(bucket: Bucket, batch: Sequence[Holding]) -> list[Holding]:
    """Remove up to 1000 in one request; those that the answer does not name as gone."""
    named = "".join(map(_named, batch))
    body = f'<Delete xmlns="{NAMESPACE}">{named}</Delete>'.encode()
    _, content = await bucket.call("POST", {"delete": ""}, body=body)
    gone = set()
    for entry in parse(content):
        missing = entry.findtext("Code") in ("NoSuchKey", "NoSuchVersion")
        if entry.tag == "Deleted" or missing:
            gone.add((entry.findtext("Key"), entry.findtext("VersionId") or "null"))
    return [holding for holding in batch if (holding.key, holding.id or "null") not in gone]


def _holding(what: _List, entry: Element, encoded: bool) -> Holding:
    key = _plain(entry.findtext("Key"), encoded)
    kind = what.kinds[entry.tag]
    id_ = entry.findtext(what.id) if what.id else None
    size = entry.findtext("Size") or ""
    return Holding(
        key,
        "object" if kind == "version" and id_ == "null" else kind,
        id_,
        int(size) if size.isdecimal() else -1,
        entry.findtext("IsLatest") != "false",
        _moment(entry.findtext("LastModified") or entry.findtext("Initiated")),
        (entry.findtext("ETag") or "").strip('"'),
    )


def _moment(text: str | None) -> datetime | None:
    """A time as lists tell it; some write nanoseconds, some nothing that can be read."""
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text or ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _following(what: _List, page: Element, encoded: bool) -> dict[str, str]:
    said = {name: page.findtext(tag) for name, tag in what.more.items()}
    following = {
        name: _plain(value, encoded and name == "key-marker")
        for name, value in said.items()
        if value
    }
    if not following:
        raise StoreError("The object store's list breaks off without saying where it goes on.")
    return following


def _plain(text: str | None, encoded: bool) -> str:
    if text is None:
        raise StoreError("The object store's list has an entry without a key.")
    return unquote_plus(text) if encoded else text


def _named(holding: Holding) -> str:
    version = f"<VersionId>{escape(holding.id)}</VersionId>" if holding.id else ""
    return f"<Object><Key>{escape(holding.key)}</Key>{version}</Object>"
