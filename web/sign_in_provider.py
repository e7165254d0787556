"""Signing in by a provider: the browser is sent there, comes back with a code, and has a session.

What the browser holds meanwhile is a cookie that may come with a link from another site, as it has
to, and that opens nothing. The session's own is not sent with a request that another site began, so
the way back ends at a page of ours, which goes on by itself.
"""

from aiohttp import web

from archive.errors import (
    ForbiddenError,
    MalformedError,
    NotFoundError,
    UnauthenticatedError,
)
from archive.sign_in import way_on
from storage import vouching
from storage.database import connection
from storage.provider import Provider
from storage.signing_in import refuse
from storage.vouching import Flow
from web import browser
from web import sign_in_pages as pages
from web.doors import VAULT, WRONG_SESSIONS
from web.sign_in_pages import HOME, SIGN_IN

COOKIE = "__Host-flow"

_HERE = ("127.0.0.1", "localhost", "[::1]")


def _provider(request: web.Request) -> Provider:
    if (provider := request.app[SIGN_IN].provider) is None:
        raise NotFoundError("Nobody signs in by a provider here.")
    return provider


def _back(request: web.Request) -> str:
    """Where the provider sends browsers back to: it takes only what it was told of this archive."""
    name = request.host.rpartition(":")[0] if request.url.explicit_port else request.host
    secure = request.secure or name not in _HERE
    return f"{'https' if secure else 'http'}://{request.host}/sign-in/back"


async def leave_for(request: web.Request) -> web.Response:
    """`GET /sign-in/provider?to=PATH`: go to the provider."""
    to = way_on(request.query.get("to", ""), HOME)
    vault, provider = request.app[VAULT], _provider(request)
    try:
        flow, address = await vouching.begin(vault, provider, to, _back(request))
    except UnauthenticatedError as error:  # the provider is not what it was
        return await _refused(request, error)
    response = browser.to(address)
    response.set_cookie(
        COOKIE, flow.text(), max_age=600, path="/", secure=True, httponly=True, samesite="Lax"
    )
    return response


async def come_back(request: web.Request) -> web.Response:
    """`GET /sign-in/back?code=…&state=…`: come back from the provider."""
    vault, provider = request.app[VAULT], _provider(request)
    # Each is a question to the provider, and an entry in the database when it is refused.
    request.app[WRONG_SESSIONS].check(request.remote)
    code, state = (_one(request, name) for name in ("code", "state"))
    try:
        flow = Flow.from_text(request.cookies.get(COOKIE, ""))
        begun = await vouching.finish(
            vault, provider, flow, code, state, _back(request), request.app[SIGN_IN].limits
        )
    except (UnauthenticatedError, ForbiddenError) as error:
        return await _refused(request, error)
    response = pages.page(request, "back", to=way_on(flow.to, HOME))
    await browser.end(request, vault)
    browser.keep(response, begun.secret)
    browser.drop(response, COOKIE)
    return response


def _one(request: web.Request, name: str) -> str:
    given = request.query.getall(name, [])
    if len(given) > 1 or any(len(each) > 4096 for each in given):
        raise MalformedError(f"`{name}` is given once.")
    return given[0] if given else ""


async def _refused(
    request: web.Request, error: UnauthenticatedError | ForbiddenError
) -> web.Response:
    if isinstance(error, UnauthenticatedError):
        request.app[WRONG_SESSIONS].count(request.remote)
        vault = request.app[VAULT]
        async with connection(vault.sign_in) as lent:
            await refuse(lent, vault.ring, None)
    response = pages.page(request, "refused", 403, nothing_here=isinstance(error, ForbiddenError))
    browser.drop(response, COOKIE)
    return response
