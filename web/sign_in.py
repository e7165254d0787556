"""Signing in and out on the doors that people use: pages that need no script.

`GET /sign-in` shows the form, `POST /sign-in` begins a session with a new secret each time, so that
nobody can wait within one that they have planted. Where to go on to is a path of this door or it is
not looked at. At the first sign-in the owner of an account makes a password and sets up a second
factor at `/sign-in/setup`.
"""

from collections.abc import Sequence
from importlib.resources import files
from urllib.parse import urlencode

import segno
from aiohttp import hdrs, web
from markupsafe import Markup

from archive.errors import NotFoundError, TooManyError, UnauthenticatedError
from archive.sign_in import way_on
from storage import second_factor, sessions, signing_in, tries
from storage.database import connection
from storage.sessions import SettingUp
from storage.signing_in import Begun, SetUpRefusedError, Tried
from web import browser
from web import sign_in_pages as pages
from web.doors import BEARS, VAULT, WRONG_SESSIONS, OpenRoute
from web.sign_in_pages import HOME, SIGN_IN
from web.sign_in_provider import come_back, leave_for
from web.words import marked

_FAULTS = {
    "short": marked("The password has less than 12 characters."),
    "long": marked("The password has more than 256 characters."),
    "name": marked("The password has your name in it."),
    "guessed": marked(
        "This password is guessed soon. Take a longer one, or words that nobody expects."
    ),
    "other": marked("Take another password than the one that you were given."),
    "again": marked("The two passwords are not the same."),
    "code": marked("The code is wrong. Is the clock of your telephone right?"),
}


def routes() -> Sequence[OpenRoute]:
    """The addresses of a door that people sign in at."""
    return [
        OpenRoute("GET", "/sign-in", show),
        OpenRoute("POST", "/sign-in", enter),
        OpenRoute("GET", "/sign-in/setup", show_setup),
        OpenRoute("POST", "/sign-in/setup", set_up),
        OpenRoute("GET", "/sign-in/provider", leave_for),
        OpenRoute("GET", "/sign-in/back", come_back),
        OpenRoute("POST", "/sign-out", leave),
        OpenRoute("GET", "/sign-in/style.css", style),
    ]


async def show(request: web.Request) -> web.Response:
    """`GET /sign-in?to=PATH`: the form, or that one is signed in."""
    to = way_on(request.query.get("to", ""), HOME)
    if not (secret := await _session(request)):
        return _form(request, to)
    token = sessions.token(request.app[VAULT].ring, secret)
    return pages.page(request, "signed_in", to=to, token=token)


def _form(
    request: web.Request, to: str, status: int = 200, *, wrong: bool = False, wait: int = 0
) -> web.Response:
    ways = request.app[SIGN_IN]
    return pages.page(
        request,
        "form",
        status,
        to=to,
        wrong=wrong,
        wait=wait,
        local=ways.local,
        provider=ways.provider is not None,
    )


async def _session(request: web.Request) -> str | None:
    """The secret of the session that is shown, if it is one, and too many were not."""
    vault, wrong = request.app[VAULT], request.app[WRONG_SESSIONS]
    secret = browser.session_of(request)
    if not secret or wrong.wait(request.remote):
        return None
    try:
        async with connection(vault.pool) as lent:
            await sessions.authenticate(lent, vault.ring, secret)
    except UnauthenticatedError:
        wrong.count(request.remote)
        return None
    return secret


async def enter(request: web.Request) -> web.Response:
    """`POST /sign-in`: sign in with name, password and code."""
    if not request.app[SIGN_IN].local:
        raise NotFoundError("Nobody signs in with a password here.")
    browser.require_same_site(request)
    fields = await browser.form(request)
    to = way_on(fields.get("to", ""), HOME)
    tried = Tried(
        fields.get("name", ""),
        fields.get("password", ""),
        fields.get("code", ""),
        request.app[BEARS].counted(request.remote),
        request.cookies.get(browser.KNOWN_COOKIE, ""),
    )
    try:
        begun = await signing_in.enter(request.app[VAULT], tried, request.app[SIGN_IN].limits)
    except UnauthenticatedError:
        return _form(request, to, 403, wrong=True)
    except TooManyError as error:
        page = _form(request, to, 429, wait=error.retry_after)
        page.headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        return page
    return await _go_on(request, begun, to)


async def _go_on(request: web.Request, begun: Begun, to: str) -> web.Response:
    """Give the browser the new session; the one that it showed before is over."""
    if begun.setup:
        response = browser.to("/sign-in/setup?" + urlencode({"to": to}))
        browser.keep(response, begun.secret, browser.SETUP_COOKIE)
        return response
    await browser.end(request, request.app[VAULT])
    response = browser.to(to)
    browser.keep(response, begun.secret)
    browser.keep(response, begun.known, browser.KNOWN_COOKIE, int(tries.KNOWN_FOR.total_seconds()))
    browser.drop(response, browser.SETUP_COOKIE)
    return response


async def show_setup(request: web.Request) -> web.Response:
    """`GET /sign-in/setup`: where a password and a second factor are set up, the first time."""
    return await _setup_page(request, way_on(request.query.get("to", ""), HOME), "", 200)


async def set_up(request: web.Request) -> web.Response:
    """`POST /sign-in/setup`: make them count, and sign in."""
    browser.require_same_site(request)
    vault = request.app[VAULT]
    fields = await browser.form(request)
    to = way_on(fields.get("to", ""), HOME)
    try:
        secret = _setup_secret(request)
        await browser.require_token(request, vault.ring, secret)
        setting = await _setting(request, secret)
        password = fields.get("password", "")
        if password != fields.get("again", ""):
            return await _setup_page(request, to, "again", 422)
        begun = await signing_in.set_up(
            vault, setting, password, fields.get("code", ""), request.app[SIGN_IN].limits
        )
    except UnauthenticatedError:
        return browser.to("/sign-in")
    except SetUpRefusedError as error:
        return await _setup_page(request, to, str(error), 422)
    return await _go_on(request, begun, to)


def _setup_secret(request: web.Request) -> str:
    if secret := browser.session_of(request, browser.SETUP_COOKIE):
        return secret
    raise UnauthenticatedError("Sign in first.")


async def _setting(request: web.Request, shown: str) -> SettingUp:
    """Whose account is set up. Raises UnauthenticatedError, also where too many were nobody's."""
    vault, wrong = request.app[VAULT], request.app[WRONG_SESSIONS]
    if wrong.wait(request.remote):
        raise UnauthenticatedError("Sign in first.")
    try:
        async with connection(vault.pool) as lent:
            return await sessions.setting_up(lent, vault.ring, shown)
    except UnauthenticatedError:
        wrong.count(request.remote)
        raise


async def _setup_page(request: web.Request, to: str, fault: str, status: int) -> web.Response:
    vault = request.app[VAULT]
    try:
        shown = _setup_secret(request)
        setting = await _setting(request, shown)
        account, secret = await signing_in.offered(vault, setting)
    except UnauthenticatedError:
        return browser.to("/sign-in")
    drawn = segno.make(second_factor.address(secret, account.name), error="m")
    return pages.page(
        request,
        "set_up",
        status,
        to=to,
        token=sessions.token(vault.ring, shown),
        wrong=pages.read_in(request).text(_FAULTS[fault]) if fault else "",
        name=account.name,
        # Our own drawing: of what it shows nothing stands in it as text.
        qr=Markup(drawn.svg_inline(scale=4, svgclass="qr", lineclass=None)),  # noqa: S704
        secret=" ".join(secret[at : at + 4] for at in range(0, len(secret), 4)),
    )


async def leave(request: web.Request) -> web.Response:
    """`POST /sign-out`: end the session, here and now."""
    browser.require_same_site(request)
    if secret := browser.session_of(request):
        await browser.require_token(request, request.app[VAULT].ring, secret)
        await browser.end(request, request.app[VAULT])
    response = pages.page(request, "signed_out")
    browser.drop(response, browser.COOKIE)
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


async def style(request: web.Request) -> web.Response:
    """`GET /sign-in/style.css`: how these pages look."""
    return web.Response(text=_STYLE, content_type="text/css", headers=browser.POLICY)


_STYLE = files("web").joinpath("templates/sign_in/style.css").read_text(encoding="utf-8")
