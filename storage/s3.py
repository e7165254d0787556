"""S3 on the wire: requests that minio signs and aiohttp carries, and answers read with care.

No thread is held for a transfer. Neither URLs nor keys go into an error: a signed URL is a right to
whoever reads it. A store's answer is read up to a limit, and XML with a document type is refused.
"""

import asyncio
import base64
import hashlib
import re
import socket
import ssl
from collections.abc import AsyncIterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit
from weakref import WeakSet
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import aiohttp
from minio.credentials.credentials import Credentials
from minio.signer import presign_v4
from yarl import URL

from archive.errors import ArchiveError, UnavailableError

ANSWER_LIMIT = 16 << 20  # bytes of XML that are read before the store is called broken
BUFFER = 256 << 10  # bytes of a download held before the store has to wait
BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
LOST = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientPayloadError,
)
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
PORTS = {"http": 80, "https": 443}


class StoreError(UnavailableError):
    """The store is away, slow, or answered what cannot be relied on.

    `status` and `code` are the store's own words, if it gave any.
    After a write this says nothing about whether the bytes landed, or land later.
    """

    title = "The object store did not do this"

    def __init__(self, detail: str, status: int | None = None, code: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.code = code


class MissingObjectError(ArchiveError):
    """The store answered, and it does not have these bytes: no object, or a shorter one."""

    title = "The object store does not have these bytes"


class Bucket:
    """One bucket's address, the right to it, and the connections. Ended by `close`."""

    def __init__(
        self,
        endpoint: str,
        name: str,
        access: Credentials,
        *,
        region: str,
        ca: Path | None,
        patience: float,
    ) -> None:
        """Open no connection yet. `ca` is a PEM file of authorities to trust, not the system's.

        `patience`: seconds for which the server may be silent; a small request has twice that.
        """
        self.patience = patience
        self.region = region
        self._endpoint = canonical(endpoint)
        self.host = self._endpoint.hostname or ""
        self._path = f"/{name}"
        self._access = access
        trust = ssl.create_default_context(cafile=ca) if ca else True
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=trust, socket_factory=self._socket),
            auto_decompress=False,
            read_bufsize=BUFFER,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        """End all connections; transfers still running fail."""
        await self._session.close()
        for _ in range(100):
            left = [each for each in self._sockets if each.fileno() != -1]
            for each in left:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            if not left:
                return
            await asyncio.sleep(0.01)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Make a socket that does not wait for ever to be rid of what it was given to send.

        A request that fails closes its connection politely: the kernel goes on offering the rest
        to a server that may never take it.
        """
        made = socket.socket(*address[:3])
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(2000 * self.patience))
        self._sockets.add(made)
        return made

    def signed(self, method: str, key: str, query: Mapping[str, str], expires: int) -> URL:
        """Say this request as a URL that is valid for `expires` seconds (80 microseconds)."""
        path = f"{self._path}/{quote(key, safe='/-._~')}" if key else self._path
        asked = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in query.items())
        url = presign_v4(
            method=method,
            url=self._endpoint._replace(path=path, query=asked),
            region=self.region,
            credentials=self._access,
            date=datetime.now(UTC),
            expires=expires,
        )
        return URL(urlunsplit(url), encoded=True)

    async def send(
        self,
        method: str,
        key: str = "",
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: aiohttp.ClientTimeout,
        expires: int = 900,
    ) -> aiohttp.ClientResponse:
        """Send one request and await the head of its answer, which the caller has to close.

        If the connection is lost, aiohttp sends what is idempotent once more; a PUT only if nothing
        of its body was taken yet.
        The request's URL is valid for `expires` seconds. All that goes wrong is a StoreError.
        """
        url = self.signed(method, key, query or {}, expires)
        try:
            return await self._session.request(
                method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
            )
        except BROKEN as error:
            raise StoreError(_what(error)) from error

    async def call(
        self,
        method: str,
        query: Mapping[str, str] | None = None,
        *,
        key: str = "",
        body: bytes = b"",
    ) -> tuple[Mapping[str, str], bytes]:
        """Ask something small and harmless to ask twice; its answer, if it is a 2xx.

        Servers drop connections that were idle for a minute. Aiohttp tries a lost one once again
        by itself, but not with a POST, which it cannot know to be harmless.
        """
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {"Content-MD5": base64.b64encode(digest).decode()} if body else None
        timeout = aiohttp.ClientTimeout(total=2 * self.patience, sock_connect=self.patience)
        for last in (False, True) if method == "POST" else (True,):
            try:
                answer = await self.send(
                    method, key, query, headers=headers, body=body or None, timeout=timeout
                )
                content = await whole(answer)
                break
            except StoreError as error:
                if last or not was_lost(error):
                    raise
        if not 200 <= answer.status < 300:
            raise refusal(method, answer.status, content)
        return answer.headers, content


def canonical(endpoint: str) -> SplitResult:
    """Split `http(s)://host[:port]`, without the port that goes without saying.

    The signature covers the host as aiohttp will send it.
    """
    url = urlsplit(endpoint)
    if url.scheme not in PORTS or not url.hostname or url.path.strip("/") or url.username:
        raise ValueError("An object store's endpoint looks like http(s)://host[:port].")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    port = f":{url.port}" if url.port and url.port != PORTS[url.scheme] else ""
    return SplitResult(url.scheme, host + port, "", "", "")


def was_lost(error: StoreError) -> bool:
    """Whether the connection ended under the request, rather than never beginning or stalling."""
    cause = error.__cause__
    return isinstance(cause, LOST) and not isinstance(cause, aiohttp.ClientConnectorError)


def _what(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "The object store's certificate is not one that is trusted here."
    if isinstance(error, aiohttp.ClientConnectorError):
        return "The object store cannot be reached."
    if isinstance(error, TimeoutError):
        return "The object store did not answer in time."
    return "The connection to the object store broke."


def refusal(method: str, status: int, content: bytes) -> StoreError:
    """Name what the store refused, with its own word for why; rclone's is not XML by its type."""
    found = re.search(rb"<Code>([A-Za-z0-9.]{1,60})</Code>", content[:4096])
    code = found[1].decode() if found else ""
    said = f"{status} {code}".strip()
    return StoreError(f"The object store answered {said} to a {method}.", status, code)


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """Read an answer to its end, unless it is too long to be one; it is closed then."""
    content = bytearray()
    try:
        async for piece in answer.content.iter_any():
            content += piece
            if len(content) > ANSWER_LIMIT:
                raise StoreError("The object store's answer has no end.")
    except BROKEN as error:
        raise StoreError(_what(error)) from error
    finally:
        answer.close()
    return bytes(content)


def parse(content: bytes) -> Element:
    """Read an XML answer, its namespaces dropped: servers disagree about them."""
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise StoreError("The object store's answer has a document type, as no S3 answer has.")
    try:
        root = ElementTree.fromstring(content)  # noqa: S314 - entities were refused just above
    except ElementTree.ParseError as error:
        raise StoreError("The object store's answer is not XML.") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
