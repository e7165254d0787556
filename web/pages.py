"""What all pages share: what a browser loads, and how each person wants to see them.

What is chosen (language, colours, shortcuts, columns) is kept in cookies and nowhere else. They
tell nothing of the person, and who reads or writes them learns and changes nothing else. Only pages
of this door write them all the same: no other site chooses what somebody sees here.
"""

import gzip
from functools import cache
from importlib.resources import files

from aiohttp import hdrs, web

from archive.errors import MalformedError, NotFoundError
from storage import sessions
from web import browser
from web.doors import OpenRoute, Visit
from web.face import THEMES
from web.words import LANGUAGES

COLUMNS = ("type", "direction", "caller", "callee", "agent", "queue", "customer", "contract")
"""The columns of the search that can be chosen; start and length are always there."""

SHOWN = ("type", "caller", "callee", "agent")

_YEAR = 365 * 24 * 3600
_KINDS = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


def routes() -> list[OpenRoute]:
    """The addresses that every door with pages has."""
    return [
        OpenRoute("GET", "/static/{name}", static),
        OpenRoute("POST", "/preferences", prefer),
    ]


async def static(request: web.Request) -> web.Response:
    """`GET /static/{name}`: what a page loads; its name changes with it, so it is kept for ever."""
    found = _built().get(request.match_info["name"])
    if found is None:
        raise NotFoundError("A page does not load this.")
    kind, plain, packed = found
    small = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
    headers = {
        hdrs.CACHE_CONTROL: f"public, max-age={_YEAR}, immutable",
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
        "X-Content-Type-Options": "nosniff",
    }
    if small:
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    body = packed if small else plain
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)


@cache
def _built() -> dict[str, tuple[str, bytes, bytes]]:
    """Each file by its name: its type, and its bytes plain and packed."""
    folder = files("web").joinpath("static")
    found: dict[str, tuple[str, bytes, bytes]] = {}
    if not folder.is_dir():
        return found
    for file in folder.iterdir():
        kind = _KINDS.get("." + file.name.rpartition(".")[2])
        if kind:
            plain = file.read_bytes()
            found[file.name] = (kind, plain, gzip.compress(plain, 9, mtime=0))
    return found


async def prefer(request: web.Request) -> web.Response:
    """`POST /preferences`: keep what was chosen, and go back to the page where it was."""
    browser.require_same_site(request)
    fields = await browser.fields(request)
    form = dict(fields)
    allowed: dict[str, tuple[str, ...]] = {
        "lang": tuple(LANGUAGES),
        "theme": THEMES,
        "shortcuts": ("on", "off"),
    }
    chosen = {name: form[name] for name in allowed if name in form}
    wrong = any(value not in allowed[name] for name, value in chosen.items())
    if wrong or not form.keys() & {*allowed, "columns"}:
        raise MalformedError("There is no such choice.")
    if "columns" in form:
        asked = [value for name, value in fields if name == "columns"]
        chosen["columns"] = ".".join(name for name in COLUMNS if name in asked)
    back = form.get("back", "/")
    # Only ever to this door: `//elsewhere` and `/\elsewhere` are other addresses.
    safe = back.startswith("/") and back[1:2] not in ("/", "\\") and back.isprintable()
    answer = web.Response(status=303, headers={hdrs.LOCATION: back if safe else "/"})
    for name, value in chosen.items():
        answer.set_cookie(
            name,
            value,
            max_age=_YEAR,
            httponly=True,
            samesite="Lax",
            secure=request.secure,
        )
    return answer


def token(request: web.Request, visit: Visit) -> str:
    """What a form of a session has to carry; empty for a key, which needs none."""
    secret = browser.session_of(request)
    return sessions.token(visit.vault.ring, secret) if secret else ""


def columns(request: web.Request) -> tuple[str, ...]:
    """The columns that a person wants to see."""
    kept = request.cookies.get("columns")
    if kept is None:
        return SHOWN
    asked = kept.split(".")
    return tuple(name for name in COLUMNS if name in asked)
