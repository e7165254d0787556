"""Going on where a line broke off: a recording that is handed over in parts, by the tus door.

A `PUT` that breaks off is sent again from its start, and over a line that breaks more often than a
long recording takes it never arrives. So what broke off after a good piece goes on in parts. Each
has its digest, and after every fault the archive is asked how much it holds for certain.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import BinaryIO

import aiohttp

from app.remote import AwayError, RefusedError, Remote, check
from app.spooler import Delivery

PART = 4 * 2**20
"""Bytes of a part, and of what a `PUT` has to have sent before parts are tried."""

_DOOR = "/v1/uploads"
_SPOKEN = {"Tus-Resumable": "1.0.0"}
_GONE, _DAMAGED = 404, 460
_PATIENCE = aiohttp.ClientTimeout(total=120, sock_connect=10)
"""Of one part: a line that takes longer for it counts as broken."""


class Parts:
    """One recording in parts. `got` is told how many bytes more, or fewer, the archive has."""

    def __init__(self, remote: Remote, delivery: Delivery, got: Callable[[int], object]) -> None:
        self._remote = remote
        self._delivery = delivery
        self._got = got
        self._upload = ""
        self._offset = 0

    async def run(self, session: aiohttp.ClientSession, file: BinaryIO) -> dict[str, object]:
        """Send what is not there yet; the receipt.

        Raises like a `PUT`, and is run again then: RefusedError for what no other try mends.
        """
        try:
            answer = await (self._look(session) if self._upload else self._begin(session))
            while self._offset < self._delivery.size:
                answer = await self._send(session, file)
        except RefusedError as error:
            if error.problem.status == _GONE:
                self._upload = ""
                self._is_at(0)
            elif error.problem.status != _DAMAGED and not _is_of_the_offset(error):
                raise
            raise AwayError(str(error)) from None
        return self._receipt(answer)

    async def _begin(self, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        delivery = self._delivery
        said = {"call_id": delivery.call_id, **delivery.fields, "filetype": delivery.content_type}
        said["sha256"] = delivery.sha256.hex()
        pairs = (f"{name} {_encoded(text.encode())}" for name, text in said.items())
        headers = {"Upload-Length": str(delivery.size), "Upload-Metadata": ",".join(pairs)}
        answer = await self._ask(session, "POST", _DOOR, headers)
        self._upload = answer.headers.get("Location", "")
        if not self._upload.startswith(f"{_DOOR}/"):
            self._upload = ""
            raise AwayError("This is not how an archive begins an upload.")
        return answer

    async def _look(self, session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
        answer = await self._ask(session, "HEAD", self._upload, {})
        self._is_at(_offset(answer))
        return answer

    async def _send(self, session: aiohttp.ClientSession, file: BinaryIO) -> aiohttp.ClientResponse:
        piece = await asyncio.to_thread(self._read, file)
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Upload-Offset": str(self._offset),
            "Upload-Checksum": f"sha256 {_encoded(hashlib.sha256(piece).digest())}",
        }
        answer = await self._ask(session, "PATCH", self._upload, headers, piece)
        self._is_at(_offset(answer))
        return answer

    def _is_at(self, offset: int) -> None:
        if more := offset - self._offset:
            self._offset = offset
            self._got(more)

    def _read(self, file: BinaryIO) -> bytes:
        file.seek(self._offset)
        piece = file.read(min(PART, self._delivery.size - self._offset))
        if not piece:
            raise OSError("the file ended early")
        return piece

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> aiohttp.ClientResponse:
        async with session.request(
            method,
            self._remote.address(path),
            data=body,
            headers={**_SPOKEN, **headers},
            allow_redirects=False,
            timeout=_PATIENCE,
        ) as answer:
            await check(answer)
            return answer

    def _receipt(self, answer: aiohttp.ClientResponse) -> dict[str, object]:
        """What a receipt's headers tell, and what was said of the call."""
        headers, delivery = answer.headers, self._delivery
        if headers.get("Repr-Digest") != f"sha-256=:{_encoded(delivery.sha256)}:":
            raise AwayError("The answer is not an archive's receipt for the bytes that were sent.")
        return {
            "id": headers.get("Location", "").rpartition("/")[2],
            "call_id": delivery.call_id,
            "call_type": delivery.fields.get("call_type"),
            "started_at": delivery.fields.get("started_at"),
            "expires_at": parsedate_to_datetime(headers["Sunset"]).isoformat(),
            "bytes": delivery.size,
            "sha256": delivery.sha256.hex(),
        }


def _is_of_the_offset(error: RefusedError) -> bool:
    return str(error.problem.members.get("type", "")).endswith("offset")


def _offset(answer: aiohttp.ClientResponse) -> int:
    text = answer.headers.get("Upload-Offset", "")
    if not text.isdecimal():
        raise AwayError("This is not how an archive tells how much it has.")
    return int(text)


def _encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()
