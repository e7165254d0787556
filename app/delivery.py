"""Handing recordings over: one PUT each, tried again while the archive is away, spooled at the end.

The archive knows a call by its source and call id, so that a PUT can be repeated without doubt:
what arrived before is answered with the same receipt. A repeated PUT sends the file from its start;
one that broke off after a good piece goes on in parts (`app.resuming`). A receipt counts only if it
names the digest of the bytes that were read here.
"""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import aiohttp

from app import spooler
from app.remote import (
    FAULTS,
    AwayError,
    Patience,
    Problem,
    RefusedError,
    Remote,
    check,
    read_object,
    reason_of,
)
from app.resuming import PART, Parts
from app.spooler import Delivery

EXPECT_FROM = 2**20
"""Bytes of a body from which the archive is asked first whether it would take it."""

OF_THE_RECORDING = frozenset({400, 409, 410, 413, 415, 422})
"""Refusals that say something of the recording. Others are about the key or the address: a spooled
recording waits until those are put right."""

_PIECE = 2**18

_SILENCE = 120.0
"""Seconds without a byte moving after which the archive counts as away."""

_UNEXPECTED = 20.0
"""Seconds for `100 Continue`; a proxy that has never heard of it says nothing at all."""

_MISSES = 3
"""Entries of the spool in a row that found no archive, before the others are not tried."""

Moved = Callable[[int], object]
"""Told the bytes that were sent since it was last called; a negative number starts again."""


class FileError(Exception):
    """The file on this machine cannot be read, or is no longer the one whose digest was taken."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The archive holds the recording; `new` is false when it held it before."""

    receipt: dict[str, object]
    new: bool


@dataclass(slots=True)
class Flushed:
    """What became of the spool. `elsewhere`: entries for another archive, which stay."""

    delivered: int = 0
    refused: list[tuple[Path, Problem]] = field(default_factory=list)
    waiting: int = 0
    elsewhere: int = 0
    damaged: list[Path] = field(default_factory=list)
    busy: bool = False
    reason: str | None = None


def measure(url: str, path: Path, call_id: str, fields: dict[str, str], kind: str) -> Delivery:
    """Read a file once, for its size and digest (blocking). Raises FileError."""
    try:
        if path.exists() and not path.is_file():
            raise FileError("it is not a regular file")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            size = file.tell()
    except OSError as error:
        raise FileError(error.strerror or "it cannot be read") from None
    return Delivery(url, call_id, fields, kind, path, size, digest)


async def hand_over(
    session: aiohttp.ClientSession,
    remote: Remote,
    delivery: Delivery,
    patience: Patience,
    moved: Moved,
) -> Stored:
    """Upload one recording, as often as patience allows.

    Raises RefusedError and FileError at once, AwayError at the end.
    """
    expect = delivery.size > EXPECT_FROM
    parts: Parts | None = None

    def got(more: int) -> None:
        moved(more)
        patience.renew()

    while True:
        attempt = _Attempt(remote, delivery, moved, expect)
        try:
            return await attempt.run(session, parts)
        except AwayError as away:
            if not await patience.wait(away.retry_after):
                raise
        except FAULTS as fault:
            expect = expect and not (isinstance(fault, TimeoutError) and attempt.sent == 0)
            if attempt.sent >= PART:
                parts = Parts(remote, delivery, got)
            if not await patience.wait(None):
                raise AwayError(reason_of(fault)) from None
        moved(-attempt.sent)


async def flush(
    session: aiohttp.ClientSession, remote: Remote, directory: Path, retry_for: float
) -> Flushed:
    """Deliver what waits in a spool, oldest first, unless another process is doing it.

    `retry_for` in seconds, for each entry. One that the archive will never take is set aside; one
    that fails otherwise stays, and after a few of those in a row so do the rest.
    """
    done = Flushed()
    with spooler.lock(directory) as held:
        done.busy = not held
        if held:
            spooler.tidy(directory, datetime.now(UTC))
            await _flush(session, remote, directory, retry_for, done)
    return done


async def _flush(
    session: aiohttp.ClientSession,
    remote: Remote,
    directory: Path,
    retry_for: float,
    done: Flushed,
) -> None:
    entries, done.damaged = spooler.waiting(directory)
    ours = [entry for entry in entries if entry.delivery.url == remote.url]
    done.elsewhere = len(entries) - len(ours)
    done.waiting = len(ours)
    misses = 0
    for entry in ours:
        try:
            patience = Patience(0 if misses else retry_for)
            await hand_over(session, remote, entry.delivery, patience, _nobody)
            spooler.drop(entry)
            done.delivered += 1
        except RefusedError as error:
            if error.problem.status not in OF_THE_RECORDING:
                done.reason = str(error)
                return
            aside = spooler.set_aside(entry, error.problem.facts())
            done.refused.append((aside, error.problem))
        except (AwayError, FileError, OSError) as error:
            done.reason = str(error)
            misses += 1
            if misses == _MISSES:
                return
            continue
        misses = 0
        done.waiting -= 1


class _Attempt:
    """One PUT, or one run of parts. `sent` counts the bytes of a PUT that left the file; nothing
    moving for long ends it.
    """

    def __init__(self, remote: Remote, delivery: Delivery, moved: Moved, expect: bool) -> None:
        self.address = remote.address(
            f"/v1/recordings/{quote(delivery.call_id, safe='')}", list(delivery.fields.items())
        )
        self.delivery = delivery
        self.moved = moved
        self.expect = expect
        self.sent = 0
        self.limit = asyncio.timeout(_UNEXPECTED if expect else _SILENCE)

    async def run(self, session: aiohttp.ClientSession, parts: Parts | None) -> Stored:
        if parts:
            with self._open() as file:
                return Stored(await parts.run(session, file), new=True)
        digest = base64.b64encode(self.delivery.sha256).decode()
        headers = {
            "Content-Type": self.delivery.content_type,
            "Content-Length": str(self.delivery.size),
            "Content-Digest": f"sha-256=:{digest}:",
        }
        with self._open() as file:
            async with (
                self.limit,
                session.put(
                    self.address,
                    data=self._pieces(file),
                    headers=headers,
                    expect100=self.expect,
                    allow_redirects=False,
                ) as response,
            ):
                self._alive()
                return await self._receipt(response)

    def _open(self) -> BinaryIO:
        try:
            file = self.delivery.path.open("rb")
        except OSError as error:
            raise FileError(error.strerror or "it cannot be read") from None
        if os.fstat(file.fileno()).st_size != self.delivery.size:
            file.close()
            raise FileError("it changed while it was read")
        return file

    async def _receipt(self, response: aiohttp.ClientResponse) -> Stored:
        await check(response)
        try:
            receipt = await read_object(response)
        except ValueError:
            receipt = {}
        if response.status not in (200, 201) or receipt.get("sha256") != self.delivery.sha256.hex():
            raise AwayError("The answer is not an archive's receipt for the bytes that were sent.")
        return Stored(receipt, response.status == 201)

    async def _pieces(self, file: BinaryIO) -> AsyncIterator[bytes]:
        self._alive()
        left = self.delivery.size
        while left:
            piece = await asyncio.to_thread(file.read, min(_PIECE, left))
            if not piece:
                raise OSError("the file ended early")
            yield piece
            left -= len(piece)
            self.sent += len(piece)
            self.moved(len(piece))
            self._alive()

    def _alive(self) -> None:
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time() + _SILENCE)


def _nobody(count: int) -> None:
    """Nobody looks at the progress of the spool."""
