"""Doors: which routes a listener has, and who may use each.

A route says which levels may use it, or, in so many words, that anybody may. One that says neither
cannot be built, so that a permission cannot be forgotten. A route exists on one door only.
"""

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import datetime

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.typedefs import Handler

from archive import access
from archive.access import Caller, Level
from archive.errors import ArchiveError, ForbiddenError, MalformedError, UnauthenticatedError
from storage import credentials, quota, sessions
from storage.credentials import Login
from storage.database import Connection, connection
from storage.vault import Vault
from web import browser, connections, face, headers, limits, problems, trace
from web.connections import LOG, Server
from web.keys import Keys
from web.limits import Crowd, Limits, WrongKeys
from web.sign_in_pages import SIGN_IN, SignIn
from web.tls import Shown

log = logging.getLogger("archive.web")

VAULT: web.AppKey[Vault] = web.AppKey("vault", Vault)
SHOWN: web.AppKey[Sequence[Shown]] = web.AppKey("shown", Sequence[Shown])
BEARS: web.AppKey[Limits] = web.AppKey("bears", Limits)
RETRIEVAL_URL: web.AppKey[str] = web.AppKey("retrieval_url", str)

_READ_BUFFER = 2**17
"""Bytes that a connection may hold unread before its sender is told to wait; twice this at most."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that was let in: who asks, and when.

    `now` is the archive's clock; `seen` the moment on the loop's own clock just before it was read,
    in seconds, so that an instant of the archive's clock can be waited for without asking again.
    """

    vault: Vault
    login: Login
    seen: float

    @property
    def caller(self) -> Caller:
        return self.login.caller

    @property
    def now(self) -> datetime:
        return self.login.now


_VISIT = web.RequestKey("visit", Visit)


@dataclass(slots=True)
class _Flight:
    """How many requests a door is answering, and whether its connections end after them.

    `landed` is set while there are none.
    """

    count: int = 0
    last: bool = False
    landed: asyncio.Event = field(default_factory=asyncio.Event)


_FLIGHT = web.AppKey("flight", _Flight)
_KEYS = web.AppKey("keys", Keys)
_CROWD = web.AppKey("crowd", Crowd)
WRONG_KEYS = web.AppKey("wrong_keys", WrongKeys)
WRONG_SESSIONS = web.AppKey("wrong_sessions", WrongKeys)

Act = Callable[[web.Request, Visit], Awaitable[web.StreamResponse]]
Plain = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """An address of a door and who may use it.

    `first` is what has to hold before a body is sent (it is also asked before `100 Continue`).
    """

    method: str
    path: str
    levels: frozenset[Level]
    act: Act
    first: Callable[[web.Request, Visit], Awaitable[None]] | None = None


@dataclass(frozen=True, slots=True)
class OpenRoute:
    """An address that anybody may ask."""

    method: str
    path: str
    act: Plain


def build(
    vault: Vault,
    retrieval_url: str,
    routes: Sequence[Route | OpenRoute],
    shown: Sequence[Shown] = (),
    bears: Limits = Limits(),  # noqa: B008 - it is frozen
) -> web.Application:
    """Make the application of one door. Raises ValueError for a route without a level.

    What answers GET answers HEAD, by the same rules and without the body. `shown`: the certificates
    that are to be told of, of this and other doors.
    """
    app = web.Application(
        middlewares=[_counted, problems.middleware], handler_args={"read_bufsize": _READ_BUFFER}
    )
    app[VAULT] = vault
    app[face.PAGES] = any(route.path == "/" for route in routes)
    app[SHOWN] = shown
    app[_FLIGHT] = _Flight()
    app[_KEYS] = keys = Keys()
    app[_CROWD] = crowd = Crowd(bears)
    app[WRONG_KEYS] = WrongKeys(bears)
    app[WRONG_SESSIONS] = WrongKeys(bears, rate=limits.WRONG_SESSIONS)
    app.cleanup_ctx.append(lambda _: connections.watched(crowd))
    app.on_cleanup.append(lambda _: keys.end())
    app.on_response_prepare.append(headers.on_prepare)
    app[RETRIEVAL_URL] = retrieval_url
    app[SIGN_IN] = SignIn()
    app[BEARS] = bears
    own_heads = {route.path for route in routes if route.method == hdrs.METH_HEAD}
    for route in routes:
        _add(app, route.method, route)
        if route.method == hdrs.METH_GET and route.path not in own_heads:
            _add(app, hdrs.METH_HEAD, route)
    return app


def _add(app: web.Application, method: str, route: Route | OpenRoute) -> None:
    if isinstance(route, OpenRoute):
        app.router.add_route(method, route.path, route.act)
        return
    if not route.levels:
        raise ValueError(f"{route.method} {route.path} says no level: who may use it?")
    handler, expect = _handler(route), _expect_handler(route)
    app.router.add_route(method, route.path, handler, expect_handler=expect)


@web.middleware
async def _counted(request: web.Request, handler: Handler) -> web.StreamResponse:
    flight = request.app[_FLIGHT]
    flight.count += 1
    flight.landed.clear()
    try:
        response = await handler(request)
    finally:
        flight.count -= 1
        if not flight.count:
            flight.landed.set()
    if flight.last:
        response.force_close()
    return response


async def finish(runners: Sequence[web.AppRunner], seconds: float) -> None:
    """Let nobody new in, and give the requests in flight so long to come to their end.

    To be done before `cleanup`: aiohttp's own end reads no more of a body, so that an upload which
    is still arriving could only fail.
    """
    flights = [runner.app[_FLIGHT] for runner in runners]
    for runner in runners:
        for site in runner.sites:
            await site.stop()
    for flight in flights:
        flight.last = True
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for flight in flights:
                if flight.count:
                    await flight.landed.wait()


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = Server  # aiohttp asks nobody which connections to make
        server.crowd = self.app[_CROWD]  # type: ignore[attr-defined]
        return server


def runner(app: web.Application, shutdown_timeout: float) -> web.AppRunner:
    """What serves one door: bodies as they were sent, and room for metadata to be judged by us.

    A line of 64 KiB is far more than all metadata may hold: what is too long gets a clear answer,
    not a broken connection. `shutdown_timeout` in seconds is what answers are given at the end;
    what is still to be read needs `finish` before.
    """
    return _Runner(
        app,
        access_log=None,
        auto_decompress=False,
        shutdown_timeout=shutdown_timeout,
        logger=LOG,
        keepalive_timeout=limits.IDLE,
        max_line_size=limits.LINE,
        max_field_size=limits.FIELD,
        max_headers=limits.FIELDS,
    )


def _handler(route: Route) -> Plain:
    async def handle(request: web.Request) -> web.StreamResponse:
        # A client that asked before it sent has been let in already.
        known = request.get(_VISIT)
        with _under_way(route, request):
            return await route.act(request, known or await _let_in(route, request))

    return handle


def _expect_handler(route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse | None]]:
    """Answer `Expect: 100-continue` only once the request would be taken.

    aiohttp calls this outside the middlewares, so it makes its own problem documents.
    """

    async def expect(request: web.Request) -> web.StreamResponse | None:
        if request.version < HttpVersion11:  # it knows no 100: to be ignored (RFC 9110, 10.1.1)
            return None
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return _closing(problems.answer(MalformedError("Only 100-continue can be expected.")))
        try:
            with _under_way(route, request):
                request[_VISIT] = await _let_in(route, request)
        except ArchiveError as error:
            return _closing(problems.answer(error))
        except Exception as error:  # the same boundary, outside the middlewares
            return _closing(problems.unexpected(error))
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # What was written is not part of the answer that follows.
        request.writer.output_size = 0
        return None

    return expect


def _closing(response: web.Response) -> web.Response:
    # The body was not sent: the connection cannot be used for another request.
    response.force_close()
    return response


async def _let_in(route: Route, request: web.Request) -> Visit:
    vault = request.app[VAULT]
    seen = asyncio.get_running_loop().time()
    basic = Level.UPLOADER in route.levels
    secret = None if basic else browser.session_of(request)
    wrong = request.app[WRONG_SESSIONS if secret else WRONG_KEYS]
    wrong.check(request.remote)
    if secret and request.method not in browser.SAFE:
        browser.require_same_site(request)
        await browser.require_token(request, vault.ring, secret)
    try:
        shown = secret or credentials.read(_token(request, basic=basic))
        async with connection(vault.pool) as lent:
            login = await (
                sessions.authenticate(lent, vault.ring, shown)
                if isinstance(shown, str)
                else credentials.authenticate(lent, vault.ring, shown)
            )
            visit = Visit(vault, login, seen)
            await _check_bounds(route, request, visit, lent)
    except (UnauthenticatedError, ForbiddenError) as error:
        trace.note(decision="refused")
        if isinstance(error, ForbiddenError):
            raise
        wrong.count(request.remote)
        error.schemes = ("Bearer", "Basic") if basic else ("Bearer",)
        raise
    trace.note(decision="allowed")
    if route.first is not None:
        await route.first(request, visit)
    return visit


def _under_way(route: Route, request: web.Request) -> AbstractContextManager[None]:
    """Count what one uploader's key has under way, before the database is asked for it. The secret
    counts: who knows no more than a key's id takes nothing from its owner. UnavailableError beyond.
    """
    if Level.UPLOADER not in route.levels:
        return nullcontext()
    try:
        token = credentials.read(_token(request, basic=True))
    except UnauthenticatedError:  # it is refused, and counted, in a moment
        return nullcontext()
    return request.app[_KEYS].under_way(token, request.app[VAULT].limits.max_concurrent)


async def _check_bounds(route: Route, request: web.Request, visit: Visit, lent: Connection) -> None:
    """Hold a request against what its key may: from there, here, so often, and so much."""
    caller, keys = visit.caller, request.app[_KEYS]
    trace.note(actor=caller.id)
    # The peer's own address: what a header says of another, anybody can write.
    if not caller.bounds.covers(request.remote):
        log.warning("key %s was shown from outside its networks", caller.id)
        raise ForbiddenError("This key may not be used from this address.")
    keys.note(visit.vault, visit.login)
    access.require(caller, route.levels)
    keys.count(caller, visit.seen)
    size = request.content_length or 0
    await quota.require(lent, caller, visit.vault.policy, visit.now, size)


def _token(request: web.Request, *, basic: bool) -> str:
    """The bearer token, or the password of HTTP Basic, which the ingest door's senders can do."""
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and basic:
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, no ASCII or no UTF-8
            pass
    raise UnauthenticatedError("Send the header `Authorization: Bearer TOKEN`.")
