"""Redaction on the retrieval door: which parts of a recording are silent, made so, and taken back.

A copy can be heard before it is kept: `?format=wav&silent=1200-3400` of the audio.
"""

from collections.abc import Mapping

from aiohttp import web

from archive import listening, redaction
from archive.access import ORIGINALS, READERS
from archive.errors import MalformedError, NotFoundError
from archive.redaction import Redaction, Span
from storage import reading, redactions
from storage.reading import Act
from storage.recordings import Opened
from web import asked, reasons, render
from web.doors import OpenRoute, Route, Visit

_EXAMPLE = '{"spans": [{"start": 1200, "stop": 3400}], "reason": "..."}'


def routes() -> list[Route | OpenRoute]:
    """The addresses of a recording's redaction."""
    one = "/v1/recordings/{id}/redaction"
    return [
        Route("GET", one, READERS, show),
        Route("PUT", one, READERS, put),
        Route("DELETE", one, ORIGINALS, withdraw),
    ]


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/recordings/{id}/redaction`: what is silent, since when, and why."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    opened = await reading.get(visit.vault, visit.caller, identifier, visit.now, Act("viewed", {}))
    if opened.redaction is None:
        raise NotFoundError("Nothing of this recording is redacted, or the copy is lost.")
    return render.data(_told(request, visit, opened.redaction))


async def put(request: web.Request, visit: Visit) -> web.Response:
    """`PUT /v1/recordings/{id}/redaction`: from now on these parts are silent for everybody."""
    asked.refuse_others(request)
    identifier = render.identifier(request)
    body = await asked.body(request, _EXAMPLE)
    reason = listening.reason(body.get("reason"))
    made = await redactions.make(
        visit.vault, visit.caller, identifier, visit.now, body.get("spans"), reason
    )
    return render.data(_told(request, visit, made), 201)


async def withdraw(request: web.Request, visit: Visit) -> web.Response:
    """`DELETE /v1/recordings/{id}/redaction`: the original is heard again."""
    asked.refuse_others(request)
    reason = reasons.of(request)
    if reason is None:
        raise MalformedError(f"Say why in the header `{reasons.HEADER}`, percent-encoded.")
    identifier = render.identifier(request)
    await redactions.withdraw(visit.vault, visit.caller, identifier, visit.now, reason)
    return web.Response(status=204, headers=render.NO_STORE)


def original(request: web.Request) -> bool:
    """Whether the original is asked for, where everybody else hears a redacted copy."""
    version = request.query.get("version")
    if version not in (None, "original"):
        raise MalformedError("`version` is original; without it comes what everybody hears.")
    return version is not None


def act(
    request: web.Request, name: str, facts: Mapping[str, object], *, hears: bool = False
) -> Act:
    """What is done with a recording; the ledger says so where it is the original."""
    told = {**facts, "version": "original"} if original(request) else facts
    return Act(name, told, hears, reasons.of(request) if hears else None)


def silent(request: web.Request, opened: Opened) -> tuple[Span, ...]:
    """The parts that are to be silent in this answer alone, to be heard before they are kept."""
    text = request.query.get("silent")
    if text is None:
        return ()
    audio = opened.recording.audio
    return redaction.from_text(text, audio.duration, audio.channels)


def _told(request: web.Request, visit: Visit, made: Redaction) -> dict[str, object]:
    return {
        "recording": request.match_info["id"].lower(),
        "made_at": visit.vault.policy.local(made.made_at).isoformat(),
        "spans": [span.as_json() for span in made.spans],
        "reason": made.reason,
    }
