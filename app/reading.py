"""Finding and fetching recordings through the retrieval door.

A download grows as FILE.part, readable by its owner alone, and gets its name once it is whole: with
its length right and, for the bytes as they were sent, with the digest that its ETag names. A cut
one goes on where it broke off, on condition that the recording is still the same.
"""

import asyncio
import hashlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import parse_qsl, quote

import aiohttp
import yarl

from app.remote import (
    FAULTS,
    AwayError,
    Patience,
    Remote,
    check,
    read_object,
    reason_of,
)

_SILENCE = 120.0
"""Seconds without a byte after which the archive counts as away."""

_PATH = "/v1/recordings"

_DIGEST = re.compile(r'"([0-9a-f]{64})"')
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")


class BrokenError(Exception):
    """What arrived is not the recording, or cannot be written where it should be."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole download. `size` in bytes; `verified`: its digest is the one that the archive names.

    `sunset` is the HTTP date from which the archive gives it out no more.
    """

    size: int
    sha256: str
    verified: bool
    content_type: str
    sunset: str | None


Progress = Callable[[int, int | None], None]
"""Told how many bytes are there, and how many it will be if that is known."""


async def pages(
    session: aiohttp.ClientSession,
    remote: Remote,
    filters: Sequence[tuple[str, str]],
    patience: Patience,
) -> AsyncIterator[tuple[list[dict[str, object]], str | None]]:
    """A search's pages and the address that each says is next. RefusedError, AwayError."""
    address: yarl.URL | None = remote.address(_PATH, filters)
    while address is not None:
        page = await _page(session, address, patience)
        items, after = page.get("items"), page.get("next")
        if not isinstance(items, list) or not (after is None or isinstance(after, str)):
            raise AwayError("The answer is not a page of recordings: is this the retrieval door?")
        yield items, after
        patience.renew()
        address = _next(remote, after) if after else None


def _next(remote: Remote, text: str) -> yarl.URL:
    """Where the next page is: always on the archive that the token is for.

    The archive names its public address, which need not be the one by which it is reached here.
    """
    url = yarl.URL(text, encoded=True)
    if not url.absolute or url.origin() != remote.address("").origin():
        return remote.address(_PATH, parse_qsl(url.raw_query_string, keep_blank_values=True))
    return url


async def _page(
    session: aiohttp.ClientSession, address: yarl.URL, patience: Patience
) -> dict[str, object]:
    while True:
        away: AwayError | None = None
        try:
            async with (
                asyncio.timeout(_SILENCE),
                session.get(address, allow_redirects=False) as response,
            ):
                await check(response)
                return await read_object(response)
        except AwayError as error:
            away = error
        except FAULTS as fault:  # before ValueError, which a certificate that fails is as well
            away = AwayError(reason_of(fault))
        except ValueError:
            raise AwayError("The answer is no JSON: is ARCHIVE_URL an archive's door?") from None
        if not await patience.wait(away.retry_after):
            raise away


async def fetch(
    session: aiohttp.ClientSession,
    remote: Remote,
    recording: str,
    wanted: str | None,
    target: Path | None,
    patience: Patience,
    progress: Progress,
) -> Fetched:
    """Download a recording, or a copy in another format, to a file or (None) standard output.

    Raises RefusedError, AwayError, and BrokenError for what cannot be written or does not match.
    """
    query = [("format", wanted)] if wanted else []
    address = remote.address(f"{_PATH}/{quote(recording, safe='')}/audio", query)
    try:
        with _Arriving(target) as arriving:
            while True:
                seen, away = arriving.count, AwayError("")
                try:
                    await _receive(session, address, arriving, progress)
                    return arriving.finish()
                except AwayError as error:
                    away = error
                except (aiohttp.ClientError, TimeoutError, ConnectionError) as fault:
                    away = AwayError(reason_of(fault))
                if arriving.count > seen:
                    patience.renew()
                if not await patience.wait(away.retry_after):
                    raise away
    except OSError as error:
        raise BrokenError(f"It cannot be written: {error.strerror or error}") from None


async def _receive(
    session: aiohttp.ClientSession, address: yarl.URL, arriving: "_Arriving", progress: Progress
) -> None:
    async with asyncio.timeout(_SILENCE) as limit:
        async with session.get(
            address, headers=arriving.conditions(), allow_redirects=False
        ) as response:
            await check(response)
            arriving.begin(response)
            length = response.content_length
            total = None if length is None else arriving.count + length
            async for piece in response.content.iter_any():
                limit.reschedule(asyncio.get_running_loop().time() + _SILENCE)
                arriving.add(piece)
                progress(arriving.count, total)


class _Arriving:
    """A download on its way: what is there, its digest, and what the archive calls it."""

    def __init__(self, target: Path | None) -> None:
        self.target = target
        self.part = target and target.with_name(target.name + ".part")
        self.etag: str | None = None
        self.content_type = "application/octet-stream"
        self.sunset: str | None = None
        self.count = 0
        self.digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self.file = _create(self.part) if self.part else sys.stdout.buffer
        return self

    def __exit__(self, *_: object) -> None:
        if self.part:
            self.file.close()
            # Half a call helps nobody and is personal data all the same.
            self.part.unlink(missing_ok=True)

    def conditions(self) -> dict[str, str]:
        """The headers of the next request: the rest, if the recording is still the same."""
        # A compressed body would be counted and digested as something that it is not.
        headers = {"Accept-Encoding": "identity"}
        if self.count and self.etag:
            headers.update({"Range": f"bytes={self.count}-", "If-Range": self.etag})
        return headers

    def begin(self, response: aiohttp.ClientResponse) -> None:
        """Take an answer's headers. Raises BrokenError when what is there cannot be used."""
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        etag = response.headers.get("ETag")
        if response.status == 206:
            if not span or int(span[1]) != self.count or etag not in (None, self.etag):
                raise BrokenError("The archive went on with other bytes than were asked for.")
        elif self.count:
            self._restart()
        self.etag = etag or self.etag
        self.content_type = response.headers.get("Content-Type", self.content_type)
        self.sunset = response.headers.get("Sunset")

    def add(self, piece: bytes) -> None:
        try:
            self.file.write(piece)
        except BrokenPipeError:
            # An error of this side: it must not look like a connection that broke.
            raise BrokenError("Nobody reads the standard output any more.") from None
        self.digest.update(piece)
        self.count += len(piece)

    def finish(self) -> Fetched:
        """Give the file its name. Raises BrokenError when it is not what the archive said."""
        found = self.digest.hexdigest()
        match = _DIGEST.fullmatch(self.etag or "")
        if match and match[1] != found:
            raise BrokenError("What arrived does not match its digest; nothing was kept of it.")
        self.file.flush()
        if self.part and self.target:
            os.fsync(self.file.fileno())
            self.part.replace(self.target)
        return Fetched(self.count, found, match is not None, self.content_type, self.sunset)

    def _restart(self) -> None:
        if not self.part:
            raise BrokenError("The download broke off, and what was written cannot be taken back.")
        self.file.seek(0)
        self.file.truncate()
        self.count = 0
        self.digest = hashlib.sha256()


def _create(part: Path) -> BinaryIO:
    # What an earlier, killed command left may be readable by others, or a link to elsewhere.
    with suppress(FileNotFoundError):
        part.unlink()
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
