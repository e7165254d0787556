"""Fetching a recording that lies elsewhere, into the same intake as every upload, and deleting it
there once it is in the archive.

Where it lies a stranger may have said. So: only hosts of the configuration, by https; every address
is judged when the connection is made, and is the one that is connected to, so that a name which
leads elsewhere a moment later leads nowhere; a redirect is a new address, judged like the first and
sent no password to another host; a body has its length, in bytes and in time.
"""

import logging
import re
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from urllib.parse import urljoin
from uuid import UUID

import aiohttp
from aiohttp import hdrs
from joserfc import jwt
from joserfc.jwk import RSAKey
from yarl import URL

from archive.access import Caller, Level
from archive.errors import (
    ArchiveError,
    ConflictError,
    DigestMismatchError,
    GoneError,
    InvalidError,
    NotAudioError,
    TooLargeError,
    UnavailableError,
)
from archive.reach import Reach
from archive.webhook import Webhook
from storage import clocks, database, intake, notices, steps
from storage.intake import Offer
from storage.notices import Job
from storage.vault import Vault

log = logging.getLogger("archive.fetching")

TIMEOUT = aiohttp.ClientTimeout(total=3600, sock_connect=15, sock_read=60)
"""Seconds that one fetch may take; to connect; and without a byte."""

REDIRECTS = 3
TRUSTED = 5
"""Failures of which the last two, at the least, were a body that is no audio: it is believed to
stay so.
"""

_PRINTED = re.compile(r"[!-\[\]-~]+")
_MOVED = (301, 302, 303, 307, 308)
_GONE = (404, 410)
_FINAL = (ConflictError, GoneError, InvalidError, TooLargeError)
_LIVES = 300


class FetchError(Exception):
    """It could not be fetched, or not be deleted; the message says why, and nothing of whose."""


def address(reach: Reach, text: str) -> URL:
    """Where something lies, as it was written. Raises FetchError for where nothing is fetched."""
    try:
        url = URL(text, encoded=True) if _PRINTED.fullmatch(text) else URL()
        allowed = reach.covers(url.scheme, url.host or "", url.explicit_port)
    except ValueError:
        allowed = False
    if not allowed or url.user is not None or url.password is not None:
        raise FetchError("its address is not one that is allowed")
    return url


async def work(vault: Vault, webhook: Webhook, job: Job) -> None:
    """Do what a notice asks for, as far as can be done now."""
    try:
        async with notices.held(vault, job):
            if job.state == "waiting":
                recording = await _take(vault, webhook, job)
                if not await notices.took(vault, job, recording):
                    return
            if job.details["delete_url"]:
                await _delete(vault, webhook, job)
                await notices.deleted(vault, job, webhook.actor)
    except (FetchError, ArchiveError, aiohttp.ClientError, OSError) as error:
        why, final = _told(error, job)
        log.warning("%s: notice %s: %s", webhook.actor, job.id, why)
        ours = isinstance(error, UnavailableError)
        await notices.failed(vault, job, why, final=final, ours=ours)


def _told(error: Exception, job: Job) -> tuple[str, bool]:
    """Why it failed, and whether it would fail again."""
    if isinstance(error, FetchError):
        return str(error), False
    if isinstance(error, (NotAudioError, DigestMismatchError)):
        return error.title, job.failures + 1 >= TRUSTED and job.failure == error.title
    if isinstance(error, ArchiveError):
        return error.title, isinstance(error, _FINAL)
    return "its host is away, or broke off", False


async def _take(vault: Vault, webhook: Webhook, job: Job) -> UUID:
    """Fetch the audio, and take it in; the recording's id."""
    now = await database.now(vault.pool)
    caller = Caller(webhook.actor, Level.UPLOADER, webhook.source)
    fields, sha512 = job.details["fields"], str(job.details["sha512"])
    said = fields if isinstance(fields, dict) else {}
    call = await clocks.call_of(vault, said, now, known=True)
    admitted = await intake.admit(vault, caller, call, now)
    await vault.objects.clock()  # nothing is carried here that could not be put down
    login = _login(webhook, now, deleting=False)
    async with _asked(webhook.reach, "GET", str(job.details["url"]), login) as answer:
        _check(answer)
        kind = answer.headers.get(hdrs.CONTENT_TYPE)
        offer = Offer(kind, sha512=bytes.fromhex(sha512) if sha512 else None)
        taken = await intake.take_in(vault, caller, admitted, offer, _body(answer), now)
    steps.reached("fetched")
    return taken.recording.id


def _check(answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        raise FetchError(f"its host answers {answer.status}")
    if answer.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise FetchError("its host sends it packed")
    if answer.content_length is None and not answer.headers.get(hdrs.TRANSFER_ENCODING):
        raise FetchError("its host does not say where it ends")


async def _body(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        while piece := await answer.content.readany():
            yield piece
    except (aiohttp.ClientError, OSError):
        raise FetchError("its host broke off") from None


async def _delete(vault: Vault, webhook: Webhook, job: Job) -> None:
    """Delete it where it came from; what is not there any more is deleted."""
    login = _login(webhook, await database.now(vault.pool), deleting=True)
    url = str(job.details["delete_url"])
    async with _asked(webhook.reach, "DELETE", url, login) as answer:
        if answer.status not in (200, 202, 204, *_GONE):
            raise FetchError(f"its host answers the deletion with {answer.status}")
    steps.reached("cleared")


@asynccontextmanager
async def _asked(
    reach: Reach, method: str, where: str, login: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer of whoever has it in the end."""
    judge = _Judge(reach)
    connector = aiohttp.TCPConnector(socket_factory=judge, use_dns_cache=False)
    headers = {hdrs.ACCEPT_ENCODING: "identity", hdrs.ACCEPT: "*/*"}
    first = url = address(reach, where)
    async with aiohttp.ClientSession(
        connector=connector, timeout=TIMEOUT, auto_decompress=False, headers=headers
    ) as session:
        for _ in range(REDIRECTS + 1):
            own = {hdrs.AUTHORIZATION: login} if login and url.origin() == first.origin() else {}
            try:
                answer = await session.request(method, url, headers=own, allow_redirects=False)
            except aiohttp.ClientConnectionError:
                judge.tell()
                raise
            async with answer:
                if answer.status not in _MOVED:
                    yield answer
                    return
                there = answer.headers.get(hdrs.LOCATION, "")
            url = address(reach, urljoin(str(url), there))
        raise FetchError("its host sends from one address to the next")


class _Judge:
    """Makes sockets for addresses that may be connected to, and remembers that others were asked
    for.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._refused = False

    def __call__(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, where = info
        if not self._reach.admits(str(where[0])):
            self._refused = True
            raise OSError("an address that is not allowed")
        return socket.socket(family, kind, protocol)

    def tell(self) -> None:
        """Raise FetchError if it was for the address that no connection came about."""
        if self._refused:
            raise FetchError("its host is at an address that is not allowed")


def _login(webhook: Webhook, now: datetime, *, deleting: bool) -> str:
    """The header by which a host knows the archive, as each kind of host wants it."""
    secret = webhook.fetch_secret
    if webhook.kind == "vonage":
        at = int(now.timestamp())
        claims = {"application_id": webhook.account, "iat": at, "exp": at + _LIVES}
        claims["jti"] = secrets.token_hex(16)
        return "Bearer " + jwt.encode({"alg": "RS256"}, claims, RSAKey.import_key(secret))
    if not secret or (webhook.kind == "telnyx" and not deleting):
        return ""  # Telnyx signs the address itself, and the store behind it takes no second login
    if webhook.account:
        return aiohttp.encode_basic_auth(webhook.account, secret)
    return f"Bearer {secret}"
