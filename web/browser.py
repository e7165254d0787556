"""What a browser needs that shows a session, and what keeps other sites from using it.

The session's secret is a cookie that no script reads, that no other host is sent and that goes with
no request which another site begins. What changes something has to show besides that it comes from
this very site, and a token of the session that only this site's pages carry. A bearer token needs
none of it: no browser sends one by itself.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

from aiohttp import hdrs, web

from archive.errors import ForbiddenError, MalformedError, OtherSessionError
from storage import sessions
from storage.database import connection
from storage.keyring import Ring
from storage.vault import Vault
from web import asked, parts

COOKIE = "__Host-session"
"""A browser takes a name that begins so from this host alone, whole and over TLS alone; loopback
counts as that to Chromium and Firefox."""

SETUP_COOKIE = "__Host-setup"

KNOWN_COOKIE = "__Host-known"
"""That somebody has signed in here before: it opens nothing."""

FIELD = "csrf"
HEADER = "X-CSRF-Token"
"""Where a request that changes something carries its session's token."""

SAFE = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})

POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self';"
    " base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}
"""The policies of a page that runs no script and has no style of its own within it. With no
referrer at all, a browser would not say either that a form of ours comes from here."""

FORM = "application/x-www-form-urlencoded"

_MOST = 16384
"""The most bytes that a form of these pages may have: as many calls as an export, and a reason."""

_SILENCE = 20.0
"""Seconds that a form may take to arrive."""

_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


def session_of(request: web.Request, name: str = COOKIE) -> str | None:
    """The secret of the session that a request shows, if it shows one and no key."""
    if hdrs.AUTHORIZATION in request.headers:
        return None
    found = request.cookies.get(name, "")
    return found if _SECRET.fullmatch(found) else None


def keep(
    response: web.StreamResponse, secret: str, name: str = COOKIE, age: int | None = None
) -> None:
    """Give the browser the secret of a session, for as long as it runs, or for so many seconds."""
    response.set_cookie(
        name, secret, max_age=age, path="/", secure=True, httponly=True, samesite="Strict"
    )


def drop(response: web.StreamResponse, name: str) -> None:
    """Let the browser forget the secret of a session."""
    response.set_cookie(
        name, "", max_age=0, path="/", secure=True, httponly=True, samesite="Strict"
    )


async def end(request: web.Request, vault: Vault) -> None:
    """End the session that a request shows, if it shows one."""
    if secret := session_of(request):
        async with connection(vault.sign_in) as lent:
            await sessions.end(lent, vault.ring, secret)


def require_same_site(request: web.Request) -> None:
    """Refuse what another site began. Raises ForbiddenError, also where nobody can say."""
    origin = request.headers.get(hdrs.ORIGIN)
    fetched = request.headers.get("Sec-Fetch-Site")
    said = [fetched == "same-origin"] if fetched is not None else []
    if origin is not None:
        said.append(_host(origin) == request.host.casefold())
    if not (said and all(said)):
        raise ForbiddenError("This was not sent by a page of the archive itself.")


def _host(origin: str) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.casefold() if parts.scheme in ("http", "https") else ""


async def require_token(request: web.Request, ring: Ring, secret: str) -> None:
    """Refuse what changes something without the token of its session. Raises OtherSessionError."""
    shown = request.headers.get(HEADER, "")
    if not shown and hdrs.EXPECT not in request.headers:
        if request.content_type == FORM:
            shown = (await form(request)).get(FIELD, "")
        elif request.content_type == parts.KIND:
            shown = await parts.token(request, FIELD)
    if not hmac.compare_digest(
        shown.encode(errors="replace"), sessions.token(ring, secret).encode()
    ):
        raise OtherSessionError("The token of your session is missing: load the page again.")


_FIELDS = web.RequestKey("fields", list)


async def fields(request: web.Request) -> Sequence[tuple[str, str]]:
    """The fields of a form, each as often as it was sent; read once, whoever asks.

    Raises MalformedError. What cannot be read, and NUL, which the database cannot keep, become
    U+FFFD: so nobody's name.
    """
    known: list[tuple[str, str]] | None = request.get(_FIELDS)
    if known is None:
        sent = parse_qsl(await _text(request), keep_blank_values=True)
        known = request[_FIELDS] = [(name, text.replace("\0", "\ufffd")) for name, text in sent]
    return known


async def form(request: web.Request) -> Mapping[str, str]:
    """The same where each field has one value: the last that was sent."""
    return dict(await fields(request))


async def _text(request: web.Request) -> str:
    if request.content_type != FORM:
        raise MalformedError(f"Send the form as {FORM}.")
    large = MalformedError(f"A form may have {_MOST} bytes at the most.")
    late = MalformedError("The form did not arrive whole.")
    body = await asked.whole(request, _MOST, _SILENCE, large, late)
    return body.decode(errors="replace")


def to(path: str) -> web.Response:
    """Send a browser on to a path of this door."""
    return web.Response(status=303, headers={hdrs.LOCATION: path, **POLICY})
