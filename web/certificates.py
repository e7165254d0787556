"""Certificates on both reading doors: as a file to check, and as a page to print.

The page is for the person who asked what became of the recording of their call, or of an export of
some. It says what the certificate shows and what it does not, in Finnish, Swedish or English, and
holds nothing personal.
"""

import base64
import hashlib
from collections.abc import Mapping
from datetime import date, datetime
from html import escape

from aiohttp import hdrs, web

from archive.access import Level
from archive.certificate import Certificate, CertificateError, Erasure, ExportErasure, erasure
from archive.errors import MalformedError, NotFoundError
from archive.export import Why
from archive.note import NoteError
from archive.retention import Policy
from storage import certificates, signer
from web import asked, headers, render
from web.doors import Route, Visit
from web.words import LANGUAGES, Words, marked, words


def routes(levels: frozenset[Level]) -> list[Route]:
    """The addresses of a door whose readers are of these levels."""
    one = "/v1/certificates/{id}"
    return [Route("GET", one, levels, show), Route("GET", f"{one}/page", levels, page)]


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/certificates/{id}`: of a recording's erasure, or an export's, once it is erased."""
    asked.refuse_others(request)
    found = await _found(request, visit)
    return render.data(found.as_json())


async def night(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/certificates/night/{day}`: the account of the night on a day, proven."""
    asked.refuse_others(request)
    try:
        day = date.fromisoformat(request.match_info["day"])
    except ValueError:
        raise NotFoundError("A night is named by its day, like 2026-11-24.") from None
    return render.data((await certificates.of_night(visit.vault, day)).as_json())


async def page(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/certificates/{id}/page?lang=fi`: the same to print, in Finnish if none is named."""
    asked.refuse_others(request, "lang")
    language = request.query.get("lang", "fi")
    if language not in LANGUAGES:
        raise MalformedError(f"`lang` is one of {', '.join(LANGUAGES)}.")
    said, key = words(language), visit.vault.signer.verifier
    found = await _found(request, visit)
    try:
        shown = erasure(found, lambda note: signer.check(note, key))
        text = _html(shown, said, str(key), visit.vault.policy)
    except (CertificateError, NoteError) as error:
        text = _failing(str(error), said, str(key))
    return web.Response(
        text=text,
        content_type="text/html",
        headers={**render.NO_STORE, hdrs.CONTENT_LANGUAGE: language, **_POLICY},
    )


async def _found(request: web.Request, visit: Visit) -> Certificate:
    identifier = render.identifier(request)
    return await certificates.of_erasure(visit.vault, visit.caller, identifier)


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;"
    "color:#1a1a1a}h1{font-size:1.5rem}dt{font-weight:600;margin-top:.8rem}dd{margin:0;"
    "overflow-wrap:anywhere}code{font-size:.85em}footer{margin-top:2rem;border-top:1px solid #bbb;"
    "padding-top:1rem;font-size:.9rem}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = {"Content-Security-Policy": headers.styled(_STYLE_HASH)}

_TITLE = marked("Certificate of the erasure of a call recording")
_SHOWS = marked(
    "The erasure is written in the archive's ledger, which cannot be changed unnoticed. With the"
    " certificate's file anybody can check that the entry is in the ledger at a signed checkpoint."
    " That the recording and its keys are gone is the archive's own observation: the store was"
    " asked after the erasure, and had no copy of the recording."
)
_OPEN = marked(
    "Not yet. The key is destroyed when the day is wholly over; until then it would open a sealed"
    " copy that a backup may hold."
)
_FAILS = marked("The certificate does not show an erasure as it should. What the check says:")
_ENDS: Mapping[str, str] = {
    Why.EXPIRED: marked("its time ended"),
    Why.RECORDING: marked("a recording in it was erased"),
    Why.DAMAGED: marked("a recording in it was not whole"),
    Why.CHANGED: marked("something else is heard of a recording in it now"),
    Why.WITHDRAWN: marked("it was taken back"),
}


def _html(shown: Erasure | ExportErasure, said: Words, key: str, policy: Policy) -> str:
    def local(moment: datetime) -> str:
        here = policy.local(moment)
        form = "%Y-%m-%d %H:%M:%S" if said.language != "fi" else "%-d.%-m.%Y klo %-H.%M.%S"
        return f"{here:{form}} ({here:%Z})"

    _, title = said.text, _TITLE
    erased = (said.pgettext("certificate", "Erased"), local(shown.erased_at))
    if isinstance(shown, ExportErasure):
        title = marked("Certificate of the erasure of an export of call recordings")
        facts = [
            (said.pgettext("certificate", "Export"), shown.export),
            (_("Recordings in it"), str(shown.recordings)),
            (said.pgettext("certificate", "Asked for"), local(shown.asked_at)),
            (_("Was to last until"), local(shown.due)),
            (_("Why it was over"), _(_ENDS[shown.why]) if shown.why in _ENDS else shown.why),
            erased,
        ]
    else:
        early = (_("Erased before its time"), _("Yes: on request, as two people decided"))
        facts = [
            (said.pgettext("certificate", "Recording"), shown.recording),
            (_("Rule of retention"), shown.rule),
            (_("Taken into the archive"), local(shown.stored_at)),
            (_("Its period ended"), local(shown.due)),
            erased,
            *([early] if shown.early else []),
        ]
    closed = local(shown.closed_at) if shown.closed_at else _(_OPEN)
    facts.append((_("The day's key destroyed"), closed))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    return _whole(title, f"<dl>{rows}</dl><p>{escape(_(_SHOWS))}</p>", said, key)


def _failing(why: str, said: Words, key: str) -> str:
    """The page of a certificate that its own check refuses, in that check's words."""
    told = f'<p>{escape(said.text(_FAILS))}</p><p lang="en">{escape(why)}</p>'
    return _whole(_TITLE, told, said, key)


def _whole(title: str, told: str, said: Words, key: str) -> str:
    title, label = escape(said.text(title)), escape(said.text(marked("Key to check it with")))
    return (
        f'<!doctype html><html lang="{said.language}"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main><h1>{title}</h1>"
        f"{told}</main><footer>{label}: <code>{escape(key)}</code></footer></body></html>\n"
    )
