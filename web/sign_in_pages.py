"""The sign-in pages as text: templates of `web/templates/sign_in`, in the language of who asks.

A template escapes what it is given, and says its words through `_`, in English;
`web/sign_in_words.py` has them in the other languages.
"""

from dataclasses import dataclass

from aiohttp import hdrs, web
from jinja2 import Environment, PackageLoader, StrictUndefined

from storage.provider import Provider
from storage.sessions import USUAL, Limits
from web import browser
from web import sign_in_words as words

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

_PAGES = Environment(
    loader=PackageLoader("web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def language(request: web.Request) -> str:
    """The language to answer in: the one that was chosen, else the one that the browser asks for
    first of those that there are.
    """
    for chosen in (request.query.get(LANGUAGE), request.cookies.get(LANGUAGE)):
        if chosen in words.LANGUAGES:
            return chosen
    asked = []
    for place, part in enumerate(request.headers.get(hdrs.ACCEPT_LANGUAGE, "").split(",")[:20]):
        name, _, weight = part.partition(";q=")
        try:
            asked.append((-float(weight or 1), place, name.strip().lower()[:2]))
        except ValueError:
            continue
    known = [name for _, _, name in sorted(asked) if name in words.LANGUAGES]
    return known[0] if known else words.LANGUAGES[0]


def page(request: web.Request, template: str, status: int = 200, **shown: object) -> web.Response:
    """Show a template. `shown` is what it names besides the language and the words."""
    chosen = language(request)
    text = _PAGES.get_template(f"sign_in/{template}.html").render(
        _=words.of(chosen), lang=chosen, languages=words.NAMES, **shown
    )
    headers = {**browser.POLICY, hdrs.CONTENT_LANGUAGE: chosen}
    response = web.Response(status=status, text=text, content_type="text/html", headers=headers)
    if request.query.get(LANGUAGE) == chosen:
        response.set_cookie(
            LANGUAGE, chosen, max_age=31536000, httponly=True, samesite="Lax", path="/"
        )
    return response
