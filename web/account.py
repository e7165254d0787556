"""One's own account: where one is signed in, ending that from afar, and another password.

The page needs no script. A key has neither sessions nor a password: there its lists are empty. Of a
session only its times are known, since nothing is written down of browsers and addresses.
"""

from datetime import datetime

from aiohttp import web

from archive.access import Level
from archive.errors import TooManyError
from storage import sessions, signing_in
from storage.database import connection
from storage.sessions import Held
from storage.signing_in import SetUpRefusedError
from web import asked, browser, face, pages, render
from web.doors import OpenRoute, Route, Visit
from web.words import Words, marked

_FAULTS = {
    "wrong": marked("The password that you have now is wrong."),
    "again": marked("The two passwords are not the same."),
    "short": marked("The password has less than 12 characters."),
    "long": marked("The password has more than 256 characters."),
    "name": marked("The password has your name in it."),
    "other": marked("This is the password that you have."),
    "guessed": marked(
        "This password is guessed soon. Take a longer one, or words that nobody expects."
    ),
    "often": marked("That was wrong too often. Wait some minutes."),
}


def routes(levels: frozenset[Level]) -> list[Route]:
    """What clients ask of a door whose callers have these levels."""
    return [
        Route("GET", "/v1/sessions", levels, tell),
        Route("DELETE", "/v1/sessions/{session}", levels, end),
    ]


def page_routes(levels: frozenset[Level]) -> list[Route | OpenRoute]:
    """The page, and its forms."""
    return [
        Route("GET", "/account", levels, show),
        Route("POST", "/account", levels, change),
        Route("POST", "/account/sessions", levels, end_on_page),
    ]


async def _held(visit: Visit) -> list[Held]:
    async with connection(visit.vault.pool) as lent:
        return await sessions.held(lent, visit.login)


async def tell(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/sessions`: where the caller is signed in."""
    asked.refuse_others(request)

    def moment(at: datetime) -> str:
        return visit.vault.policy.local(at).isoformat()

    items = [
        {
            "id": each.id,
            "began_at": moment(each.began_at),
            "last_used_at": moment(each.seen_at),
            "ends_at": moment(each.ends_at),
            "this": each.this,
        }
        for each in await _held(visit)
    ]
    return render.data({"items": items})


async def _end(visit: Visit, named: str) -> None:
    async with connection(visit.vault.sign_in) as lent:
        await sessions.end_one(lent, visit.caller.id, named)


async def end(request: web.Request, visit: Visit) -> web.Response:
    """`DELETE /v1/sessions/{session}`: end one of the caller's own."""
    asked.refuse_others(request)
    await _end(visit, request.match_info["session"])
    return web.Response(status=204, headers=render.NO_STORE)


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /account`: the page."""
    asked.refuse_others(request)
    return await _page(request, visit)


async def end_on_page(request: web.Request, visit: Visit) -> web.Response:
    """`POST /account/sessions`: end one, and see what is left."""
    await _end(visit, (await browser.form(request)).get("session", ""))
    return browser.to("/account")


async def change(request: web.Request, visit: Visit) -> web.Response:
    """`POST /account`: change one's own password."""
    fields = await browser.form(request)
    new = fields.get("new", "")
    if new != fields.get("again", ""):
        return await _page(request, visit, 422, "again")
    try:
        await signing_in.change_password(visit.vault, visit.login, fields.get("password", ""), new)
    except SetUpRefusedError as error:
        return await _page(request, visit, 422, str(error))
    except TooManyError:
        return await _page(request, visit, 429, "often")
    return await _page(request, visit, done=True)


async def _page(
    request: web.Request, visit: Visit, status: int = 200, fault: str = "", *, done: bool = False
) -> web.Response:
    said = face.Reader.from_request(request).words
    values = {
        "held": [(each, *_moments(each, visit, said)) for each in await _held(visit)],
        "local": await signing_in.local(visit.vault, visit.login) is not None,
        "fault": said.text(_FAULTS[fault]) if fault else "",
        "done": done,
        "token": pages.token(request, visit),
    }
    return face.page(request, "account.html", values, status=status)


def _moments(held: Held, visit: Visit, said: Words) -> list[str]:
    """When it began and was last used, as the reader's language writes it."""
    here = [visit.vault.policy.local(at) for at in (held.began_at, held.seen_at)]
    return [f"{said.day(at.date())} {said.time(at)}" for at in here]
