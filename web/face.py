"""How a page looks to the one who reads it: language, colours, and what a browser may load.

Pages are rendered from `web/templates/` with everything escaped. They load what the door itself
serves and nothing else: no script and no style stands in a page, and the policy that goes with it
forbids the rest. An error becomes a page for whoever asks for one (`Accept: text/html`).
"""

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal
from urllib.parse import quote

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

from archive.errors import (
    ArchiveError,
    GoneError,
    LevelError,
    NoCertificateError,
    OtherSessionError,
)
from web import render
from web.words import LANGUAGES, Words, chosen, length, marked, words

THEMES = ("system", "light", "dark")

PAGES: web.AppKey[bool] = web.AppKey("pages", bool)
"""Whether a door has pages at all."""

_MACHINES = frozenset({"/metrics", "/healthz", "/readyz", "/openapi.json"})
"""Addresses of machines outside `/v1/`."""

_SAFE = {
    **render.NO_STORE,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Cookie, Accept-Language",
}


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks at a page, as far as the page depends on it. `here` is its address."""

    words: Words
    theme: str
    shortcuts: bool
    here: str

    @classmethod
    def from_request(cls, request: web.Request) -> "Reader":
        """Read what was chosen from the cookies, and what was not from the browser."""
        cookies = request.cookies
        theme = cookies.get("theme", "")
        return cls(
            words(chosen(cookies.get("lang"), request.headers.get(hdrs.ACCEPT_LANGUAGE, ""))),
            theme if theme in THEMES else "system",
            cookies.get("shortcuts") != "off",
            request.path_qs if request.method == "GET" else _page_of(request.path),
        )


def _page_of(path: str) -> str:
    """The page that a form stands on, of the address that it is sent to."""
    match = re.match(r"/(?:(?:recordings|exports)/[0-9a-f-]{36}|account|certificate)(?=/|$)", path)
    return match[0] if match else "/"


def page(
    request: web.Request,
    template: str,
    values: Mapping[str, object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Render one page. `nonce` allows the one style that a script has to make for itself."""
    reader = Reader.from_request(request)
    nonce = secrets.token_urlsafe(12)
    said = reader.words
    text = rendered(template, said, {**values, "reader": reader, "nonce": nonce})
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={
            **_SAFE,
            hdrs.CONTENT_LANGUAGE: said.language,
            "Content-Security-Policy": policy(nonce),
            **(headers or {}),
        },
    )


def rendered(template: str, said: Words, values: Mapping[str, object]) -> str:
    """A template in one language. It escapes what it is given, and says its texts through `_`."""
    return (
        _templates()
        .get_template(template)
        .render(words=said, _=said.text, pgettext=said.pgettext, count=said.count, **values)
    )


def policy(nonce: str) -> str:
    """What a page may load: files of this door alone, and the one style that has the nonce."""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self';"
        " media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        asset=asset, languages=LANGUAGES, length=length, themes=THEMES, quoted=quote
    )
    return made


@cache
def _names() -> Mapping[str, str]:
    try:
        text = files("web").joinpath("static/names.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RuntimeError("what a browser needs is not built: `make setup` does it") from None
    return dict(json.loads(text))


def asset(name: str) -> str:
    """Where a door serves what was built from a source of `frontend/`."""
    return f"/static/{_names()[name]}"


Kind = Literal[
    "sign-in", "other-session", "forbidden", "refused", "missing", "no-certificate", "gone", "over",
    "old", "large", "away", "many", "wrong",
]  # fmt: skip

_KINDS: dict[int, Kind] = {
    401: "sign-in",
    403: "refused",
    404: "missing",
    410: "over",
    413: "large",
    429: "many",
    503: "away",
}

_TOLD: dict[Kind, tuple[str, str]] = {
    "sign-in": (
        marked("You are not signed in"),
        marked("Your session has ended, or there was none. Sign in and come back to this page."),
    ),
    "other-session": (
        marked("This page is older than your session"),
        marked("You signed in again since it was loaded. Go back, load it anew, and do it again."),
    ),
    "forbidden": (
        marked("This is not for you"),
        marked("Your level may not see this page. Whoever runs the archive can say who may."),
    ),
    "refused": (
        marked("This is refused"),
        marked(
            "It waits for another person, holds a call that you may not hear any more, or did not"
            " come from where it may. Whoever runs the archive can say why."
        ),
    ),
    "missing": (
        marked("There is nothing here"),
        marked("It never was, or it is not yours to know of."),
    ),
    "no-certificate": (
        marked("There is no certificate of this"),
        marked(
            "It never was, you may not know of it, or it is not over: what is being erased has its"
            " certificate once its bytes are gone. Look again in a minute."
        ),
    ),
    "gone": (
        marked("This recording is erased"),
        marked("Its period is over: audio and details are gone and cannot be brought back."),
    ),
    "over": (
        marked("This is over"),
        marked(
            "An export came to its end and its file is erased, or a call in it ends within minutes"
            " and is exported no more. Ask for another one."
        ),
    ),
    "old": (
        marked("This search is too old"),
        marked("The address of a search is good for a day. Search again, by the same words."),
    ),
    "large": (
        marked("That is too much for one export"),
        marked("Choose fewer calls, and make several exports of them."),
    ),
    "many": (
        marked("That was too much at once"),
        marked("Wait a moment, then try again."),
    ),
    "away": (
        marked("Not possible just now"),
        marked(
            "A store of the archive is away, or what you want is just being made. Nothing is lost:"
            " try again in a moment."
        ),
    ),
    "wrong": (
        marked("This did not work"),
        marked("The address or the form is not as it should be. Start again from the search."),
    ),
}


def problem(
    request: web.Request, told: web.Response, error: ArchiveError | None = None
) -> web.Response:
    """The page for an error that is a problem document already; `error`, where it is ours."""
    reader = Reader.from_request(request)
    if told.status == 401 and _may_sign_in(request):
        return web.Response(
            status=303, headers={hdrs.LOCATION: f"/sign-in?to={quote(reader.here, safe='')}"}
        )
    known = json.loads(told.text or "{}")
    kept = {
        name: value
        for name, value in told.headers.items()
        if name not in (hdrs.CONTENT_TYPE, hdrs.CONTENT_LENGTH)
    }
    return notice(request, _kind(told.status, error), told.status, kept, known.get("certificate"))


def _kind(status: int, error: ArchiveError | None) -> Kind:
    """Which page: a status alone says several things, and not all of them are so."""
    if isinstance(error, LevelError):
        return "forbidden"
    if isinstance(error, OtherSessionError):
        return "other-session"
    if isinstance(error, NoCertificateError):
        return "no-certificate"
    if isinstance(error, GoneError) and "recording" in error.extra:
        return "gone"
    return _KINDS.get(status, "away" if status >= 500 else "wrong")


def notice(
    request: web.Request,
    kind: Kind,
    status: int,
    headers: Mapping[str, str] | None = None,
    certificate: str | None = None,
) -> web.Response:
    """A page that says why there is nothing else to see."""
    title, text = _TOLD[kind]
    values = {"kind": kind, "title": title, "text": text, "certificate": certificate}
    return page(request, "problem.html", values, status=status, headers=headers)


def _may_sign_in(request: web.Request) -> bool:
    """Whether a browser went here by itself: then it is led on to where one signs in."""
    led = request.method == "GET" and "X-Part" not in request.headers
    return led and hdrs.AUTHORIZATION not in request.headers


def wanted(request: web.Request) -> bool:
    """Whether who asks is a person with a browser, who should see a page.

    Not where machines ask: some of them accept HTML by default, and read problem documents.
    """
    path = request.path
    machine = path in _MACHINES or (path.startswith("/v1/") and not path.endswith("/page"))
    accepts = "text/html" in request.headers.get(hdrs.ACCEPT, "")
    return accepts and not machine and request.app[PAGES]
