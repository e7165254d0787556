"""Certificates on both reading doors: as a file to check, and as a page to print.

The page is for the person who asked what became of the recording of their call, or of an export of
some. It says what the certificate shows and what it does not, in Finnish, Swedish or English, and
holds nothing personal.
"""

import base64
import hashlib
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

LANGUAGES = ("fi", "sv", "en")


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
    key = visit.vault.signer.verifier
    found = await _found(request, visit)
    try:
        shown = erasure(found, lambda note: signer.check(note, key))
        text = _html(shown, language, str(key), visit.vault.policy)
    except (CertificateError, NoteError) as error:
        text = _failing(str(error), language, str(key))
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

_WORDS = {
    "fi": {
        "title": "Todistus puhelutallenteen poistamisesta",
        "recording": "Tallenteen tunnus",
        "rule": "Säilytyssääntö",
        "stored": "Otettu arkistoon",
        "due": "Säilytysaika päättyi",
        "erased": "Poistettu",
        "early": "Poistettu ennen määräaikaa",
        "granted": "Kyllä: pyynnöstä, kahden henkilön päätöksellä",
        "closed": "Päivän salausavain tuhottu",
        "open": "Ei vielä. Avain tuhotaan, kun päivä on kokonaan ohi; siihen asti varmuuskopiossa"
        " mahdollisesti oleva salattu kopio avautuisi sillä.",
        "shows": "Tallenteen poistaminen on kirjattu arkiston lokiin, jota ei voi muuttaa"
        " huomaamatta. Todistustiedostosta voi tarkistaa, että kirjaus on lokissa allekirjoitetun"
        " tarkistuspisteen kohdalla. Se, että tallenne ja avaimet ovat poissa, on arkiston oma"
        " havainto: tallennusjärjestelmältä kysyttiin poiston jälkeen, eikä sillä ollut"
        " tallenteesta yhtään kopiota.",
        "key": "Tarkistusavain",
        "fails": "Todistus ei osoita poistoa sellaisena kuin sen pitäisi. Tarkistuksen antama syy"
        " (englanniksi):",
        "export title": "Todistus puhelutallenteiden viennin poistamisesta",
        "export": "Viennin tunnus",
        "recordings": "Tallenteita viennissä",
        "asked": "Pyydetty",
        "over": "Voimassa enintään",
        "why": "Syy poistamiseen",
        "expired": "voimassaolo päättyi",
        "recording erased": "siinä ollut tallenne poistettiin",
        "damaged": "siinä ollut tallenne ei ollut ehjä",
        "changed": "siinä olleesta tallenteesta kuullaan nyt muuta",
        "withdrawn": "pyytäjä peruutti sen",
    },
    "sv": {
        "title": "Intyg om radering av en samtalsinspelning",
        "recording": "Inspelningens id",
        "rule": "Lagringsregel",
        "stored": "Togs in i arkivet",
        "due": "Lagringstiden gick ut",
        "erased": "Raderad",
        "early": "Raderad i förtid",
        "granted": "Ja: på begäran, enligt beslut av två personer",
        "closed": "Dagens krypteringsnyckel förstörd",
        "open": "Inte ännu. Nyckeln förstörs när dagen helt är över; fram till dess skulle den"
        " öppna en krypterad kopia som kan finnas i en säkerhetskopia.",
        "shows": "Raderingen är antecknad i arkivets logg, som inte kan ändras obemärkt. Med"
        " intygets fil kan man kontrollera att anteckningen finns i loggen vid en signerad"
        " kontrollpunkt. Att inspelningen och nycklarna är borta är arkivets egen iakttagelse:"
        " lagringssystemet tillfrågades efter raderingen och hade ingen kopia av inspelningen.",
        "key": "Kontrollnyckel",
        "fails": "Intyget visar inte raderingen så som det ska. Orsaken enligt kontrollen (på"
        " engelska):",
        "export title": "Intyg om radering av en export av samtalsinspelningar",
        "export": "Exportens id",
        "recordings": "Inspelningar i exporten",
        "asked": "Begärdes",
        "over": "Gällde högst till",
        "why": "Orsak",
        "expired": "tiden gick ut",
        "recording erased": "en inspelning i den raderades",
        "damaged": "en inspelning i den var inte hel",
        "changed": "av en inspelning i den hörs nu något annat",
        "withdrawn": "den togs tillbaka",
    },
    "en": {
        "title": "Certificate of the erasure of a call recording",
        "recording": "Recording",
        "rule": "Rule of retention",
        "stored": "Taken into the archive",
        "due": "Its period ended",
        "erased": "Erased",
        "early": "Erased before its time",
        "granted": "Yes: on request, as two people decided",
        "closed": "The day's key destroyed",
        "open": "Not yet. The key is destroyed when the day is wholly over; until then it would"
        " open a sealed copy that a backup may hold.",
        "shows": "The erasure is written in the archive's ledger, which cannot be changed"
        " unnoticed. With the certificate's file anybody can check that the entry is in the ledger"
        " at a signed checkpoint. That the recording and its keys are gone is the archive's own"
        " observation: the store was asked after the erasure, and had no copy of the recording.",
        "key": "Key to check it with",
        "fails": "The certificate does not show an erasure as it should. What the check says:",
        "export title": "Certificate of the erasure of an export of call recordings",
        "export": "Export",
        "recordings": "Recordings in it",
        "asked": "Asked for",
        "over": "Was to last until",
        "why": "Why it was over",
        "expired": "its time ended",
        "recording erased": "a recording in it was erased",
        "damaged": "a recording in it was not whole",
        "changed": "something else is heard of a recording in it now",
        "withdrawn": "it was taken back",
    },
}


def _html(shown: Erasure | ExportErasure, language: str, key: str, policy: Policy) -> str:
    words = _WORDS[language]

    def local(moment: datetime) -> str:
        here = policy.local(moment)
        form = "%Y-%m-%d %H:%M:%S" if language != "fi" else "%-d.%-m.%Y klo %-H.%M.%S"
        return f"{here:{form}} ({here:%Z})"

    if isinstance(shown, ExportErasure):
        why = "recording erased" if shown.why == Why.RECORDING else shown.why
        facts = [
            ("export", shown.export),
            ("recordings", str(shown.recordings)),
            ("asked", local(shown.asked_at)),
            ("over", local(shown.due)),
            ("why", words.get(why, why)),
            ("erased", local(shown.erased_at)),
        ]
    else:
        facts = [
            ("recording", shown.recording),
            ("rule", shown.rule),
            ("stored", local(shown.stored_at)),
            ("due", local(shown.due)),
            ("erased", local(shown.erased_at)),
            *([("early", words["granted"])] if shown.early else []),
        ]
    facts.append(("closed", local(shown.closed_at) if shown.closed_at else words["open"]))
    rows = "".join(f"<dt>{escape(words[name])}</dt><dd>{escape(text)}</dd>" for name, text in facts)
    title = words["export title" if isinstance(shown, ExportErasure) else "title"]
    return _whole(title, f"<dl>{rows}</dl><p>{escape(words['shows'])}</p>", language, key)


def _failing(why: str, language: str, key: str) -> str:
    """The page of a certificate that its own check refuses, in that check's words."""
    words = _WORDS[language]
    said = f'<p>{escape(words["fails"])}</p><p lang="en">{escape(why)}</p>'
    return _whole(words["title"], said, language, key)


def _whole(title: str, said: str, language: str, key: str) -> str:
    title, label = escape(title), escape(_WORDS[language]["key"])
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main><h1>{title}</h1>"
        f"{said}</main><footer>{label}: <code>{escape(key)}</code></footer></body></html>\n"
    )
