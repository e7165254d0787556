"""The sign-in pages: templates of `web/templates/sign_in`, in the language of who asks."""

from dataclasses import dataclass

from aiohttp import hdrs, web

from storage.provider import Provider
from storage.sessions import USUAL, Limits
from web import browser, face
from web.words import LANGUAGES, Words, chosen, words

HOME = "/"
"""Where to go on to if nothing else was asked for."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """How people sign in at a door: by a provider, with accounts of the archive's own, or both."""

    limits: Limits = USUAL
    local: bool = True
    provider: Provider | None = None


SIGN_IN: web.AppKey[SignIn] = web.AppKey("sign_in", SignIn)

LANGUAGE = "lang"
"""The cookie, and the field of an address, that say which language is read."""


def read_in(request: web.Request) -> Words:
    """The language to answer in: as on all pages, unless the address names another."""
    named = request.query.get(LANGUAGE)
    kept = named if named in LANGUAGES else request.cookies.get(LANGUAGE)
    return words(chosen(kept, request.headers.get(hdrs.ACCEPT_LANGUAGE, "")))


def page(request: web.Request, template: str, status: int = 200, **shown: object) -> web.Response:
    """Show a template. `shown` is what it names besides the language and the words."""
    said = read_in(request)
    text = face.rendered(f"sign_in/{template}.html", said, shown)
    headers = {**browser.POLICY, hdrs.CONTENT_LANGUAGE: said.language}
    response = web.Response(status=status, text=text, content_type="text/html", headers=headers)
    if request.query.get(LANGUAGE) == said.language:
        response.set_cookie(
            LANGUAGE, said.language, max_age=31536000, httponly=True, samesite="Lax", path="/"
        )
    return response
