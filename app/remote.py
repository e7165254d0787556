"""The archive as its clients know it: an address, a token, and answers over HTTP.

Nothing here knows how the archive works inside: the contract of its doors is enough. A token goes
to the address that it was given for and to no other, so that no redirect is ever followed.
"""

import argparse
import asyncio
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp
import yarl

TRANSIENT = frozenset({408, 425, 429})
"""Refusals that pass by themselves; beside these, every 5xx."""

FAULTS = (aiohttp.ClientError, OSError, TimeoutError)
"""What a connection may end in: all of it passes, or may."""

_MOST_JSON = 2**25
"""Bytes of an answer that are read before it is taken for something else than an archive's."""

_UNIX = "unix:"
_BEHIND = "http://localhost"
"""What a door behind a unix socket is called in a request; it has no name."""

_CONNECT = 10.0
"""Seconds until a connection has to be there."""

_KEPT = 2.0
"""Seconds that a connection waits for the next request: less than any proxy keeps one, so that an
archive that is there does not look like one that is away."""


class UsageError(Exception):
    """The command cannot be carried out as it was written; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the archive refused, in its own words (RFC 9457). `members` is the whole document."""

    status: int
    title: str
    detail: str
    members: Mapping[str, object] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """What a person is told: the reason, every wrong field, and where a certificate is."""
        yield printable(f"{self.title} ({self.status}). {self.detail}")
        errors = self.members.get("errors")
        for name, error in errors.items() if isinstance(errors, dict) else ():
            yield printable(f"  {name}: {error}")
        if certificate := self.members.get("certificate"):
            yield printable(f"  certificate: {certificate}")

    def facts(self) -> dict[str, object]:
        """The same for a program."""
        return {
            **self.members,
            "status": self.status,
            "title": self.title,
            "detail": self.detail,
        }


class RefusedError(Exception):
    """The archive answered, and will not do it, however often it is asked."""

    def __init__(self, problem: Problem) -> None:
        super().__init__("\n".join(problem.lines()))
        self.problem = problem


class AwayError(Exception):
    """No answer, or one that passes; `retry_after` in seconds, when the archive named a time."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(printable(reason))
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Remote:
    """An archive's address, without a slash at its end, and the token for it.

    `unix:/run/archive/ingest.sock` is one, too.
    """

    url: str
    token: str = field(repr=False)

    @classmethod
    def from_options(cls, options: argparse.Namespace, environ: Mapping[str, str]) -> "Remote":
        """Read `--url`, `--token-file` and the environment. Raises UsageError for what is missing.

        There is no option for the token itself: every user of a machine sees every command line.
        """
        return cls(_url(options.url or environ.get("ARCHIVE_URL", "")), _token(options, environ))

    def address(self, path: str, query: Sequence[tuple[str, str]] = ()) -> yarl.URL:
        """An address below this archive's; in values even `+` and `/` are percent-encoded."""
        text = urlencode(query, quote_via=quote, safe="")
        base = _BEHIND if self.socket else self.url
        return yarl.URL(f"{base}{path}{'?' + text if text else ''}", encoded=True)

    @property
    def socket(self) -> str:
        """The path of the unix socket at which the archive is, or nothing."""
        return self.url.removeprefix(_UNIX) if self.url.startswith(_UNIX) else ""

    def session(self) -> aiohttp.ClientSession:
        """A session that sends the token."""
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.token}", "User-Agent": "call-archive-client"},
            connector=(
                aiohttp.UnixConnector(self.socket, keepalive_timeout=_KEPT)
                if self.socket
                else aiohttp.TCPConnector(keepalive_timeout=_KEPT)
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
        )


class Patience:
    """How long to go on asking an archive that is away: `seconds` from the last good sign."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Start anew, after a sign that the archive is there."""
        self._tries = 0
        self._until = asyncio.get_running_loop().time() + self._seconds

    async def wait(self, retry_after: float | None) -> bool:
        """Wait before the next try; False, at once, when the time is up before that."""
        # Many clients that lost the same archive must not all come back in the same instant.
        pause = min(0.25 * 2**self._tries, 15.0) * random.uniform(0.5, 1.0)  # noqa: S311
        pause = max(pause, retry_after or 0.0)
        self._tries += 1
        if asyncio.get_running_loop().time() + pause > self._until:
            return False
        await asyncio.sleep(pause)
        return True


async def check(response: aiohttp.ClientResponse) -> None:
    """Raise RefusedError or AwayError for an answer that is no success."""
    status = response.status
    if 200 <= status < 300:
        return
    problem = await _problem(response)
    if status in TRANSIENT or status >= 500:
        text = f"{problem.title} ({status}). {problem.detail}"
        raise AwayError(text, _retry_after(response.headers.get("Retry-After")))
    raise RefusedError(problem)


async def read_object(response: aiohttp.ClientResponse) -> dict[str, object]:
    """The JSON object of an answer. ValueError if it is none, or endless."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > _MOST_JSON:
            raise ValueError("the answer does not end")
    found = json.loads(body)
    if isinstance(found, dict):
        return found
    raise ValueError("the answer is no JSON object")


def reason_of(fault: BaseException) -> str:
    """A connection's fault in words; a timeout has none of its own."""
    if isinstance(fault, TimeoutError):
        return "The archive did not answer in time."
    if isinstance(fault, aiohttp.ClientResponseError):
        # Its text repeats the request's address, with the numbers and names in it.
        return "What answers there is no archive: is ARCHIVE_URL the right door's address?"
    return f"The archive cannot be reached: {fault or type(fault).__name__}"


def printable(text: str) -> str:
    """Text from elsewhere, without the characters that would steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


async def _problem(response: aiohttp.ClientResponse) -> Problem:
    try:
        members = await read_object(response)
    except ValueError:
        members = {}
    title, detail = members.get("title"), members.get("detail")
    if not isinstance(title, str):
        title = response.reason or "The request was refused"
    if not isinstance(detail, str):
        detail = "This is not how an archive answers: is ARCHIVE_URL the right door's address?"
    return Problem(response.status, title, detail, members)


def _retry_after(text: str | None) -> float | None:
    """Seconds or an HTTP date (RFC 9110, 10.2.3); None for what is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()


def _url(text: str) -> str:
    if not text:
        raise UsageError(
            "Set ARCHIVE_URL (or --url) to the address of a door: the ingest door for `upload`, "
            "the retrieval door for `search` and `fetch`."
        )
    if text.startswith(_UNIX) and Path(text.removeprefix(_UNIX)).is_absolute():
        return text
    try:
        url = yarl.URL(text)
    except ValueError:
        url = yarl.URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string:
        raise UsageError("The archive's address is written like https://archive.example:8081")
    return text.rstrip("/")


def _token(options: argparse.Namespace, environ: Mapping[str, str]) -> str:
    token = environ.get("ARCHIVE_TOKEN", "")
    if file := options.token_file or environ.get("ARCHIVE_TOKEN_FILE"):
        try:
            token = Path(file).read_text()
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"The token file {file} cannot be read.") from None
    token = token.strip()
    if not token:
        raise UsageError("Set ARCHIVE_TOKEN, or name a file that holds the token: --token-file.")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise UsageError("This is no token: it holds characters that a token cannot have.")
    return token
