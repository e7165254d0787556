"""The page of a recording: to hear it, and to know what becomes of it.

The page itself tells what is known of the call; the audio, its copies and the picture come from the
addresses that every client uses. Without a script it has a plain player.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from aiohttp import web
from babel import dates

from archive import listening, redaction
from archive.access import ORIGINALS, READERS, Caller
from archive.errors import (
    ArchiveError,
    ChangedError,
    ForbiddenError,
    InvalidError,
    MalformedError,
    ReasonNeededError,
    TooLargeError,
    UnavailableError,
)
from archive.recording import Audio, Recording
from archive.redaction import Span
from archive.retention import Period, Policy
from storage import listens, numbers, reading, redactions
from storage.reading import Act
from storage.recordings import Opened
from web import browser, face, marking, pages, render
from web import redactions as redactions_of
from web.doors import OpenRoute, Route, Visit
from web.finding import COLUMNS, DIRECTIONS, TYPES
from web.marking import SPARE, Part
from web.words import Words, length, marked

_WAV = ("pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_alaw", "pcm_mulaw")

_PLAYS = {
    **{("wav", codec): "audio/wav" for codec in _WAV},
    ("mp3", "mp3"): "audio/mpeg",
    ("ogg", "opus"): 'audio/ogg; codecs="opus"',
    ("ogg", "vorbis"): 'audio/ogg; codecs="vorbis"',
    ("webm", "opus"): 'audio/webm; codecs="opus"',
    ("flac", "flac"): "audio/flac",
    ("m4a", "aac"): 'audio/mp4; codecs="mp4a.40.2"',
}
"""What browsers play as it was sent, and how it is called; all else they get as a WAV."""

_FINE = 10  # points of the picture a second, as long as they are not too many
_POINTS = (400, 2000)

_COPY = "copy"
"""The hidden field of both forms that says which copy the page showed."""

_TIME = re.compile(r"(?:(?:(\d{1,2}):)?(\d{1,2}):)?(\d{1,5})")


@dataclass(frozen=True, slots=True)
class Form:
    """What stands in the form of the redaction: None is what is silent now; and what is told.

    `copy` is the redacted copy that stood when the form was loaded, empty for none: it goes on with
    the form until the page is loaded anew. None is the one that stands now.
    """

    parts: Sequence[Part] | None = None
    reason: str = ""
    copy: str | None = None
    told: str = ""
    tried: Sequence[Span] = ()


def routes() -> list[Route | OpenRoute]:
    """The addresses of the recordings' pages."""
    one = "/recordings/{id}"
    return [
        Route("GET", one, READERS, show),
        Route("POST", f"{one}/reasons", READERS, give_reason),
        Route("POST", f"{one}/redaction", READERS, redact),
        Route("POST", f"{one}/redaction/withdrawal", ORIGINALS, withdraw),
    ]


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /recordings/{id}?t=12:34`: the page of a recording, to be played from there."""
    return await _page(request, visit, Form())


async def _page(request: web.Request, visit: Visit, form: Form, status: int = 200) -> web.Response:
    vault, caller = visit.vault, visit.caller
    identifier, original = render.identifier(request), redactions_of.original(request)
    facts = {"version": "original"} if original else {}
    opened = await reading.get(
        vault, caller, identifier, visit.now, Act("viewed", facts), original=original
    )
    heard_by_all = await reading.get(vault, caller, identifier, visit.now)
    recording, policy = opened.recording, vault.policy
    said = face.Reader.from_request(request).words
    heard = await listens.of(vault, caller, identifier)
    least, most = _POINTS
    values = {
        "id": identifier,
        "audio": recording.audio,
        "sources": _sources(recording, _seconds(request.query.get("t")), original=original),
        "start": _seconds(request.query.get("t")),
        "points": min(most, max(least, math.ceil(recording.audio.duration * _FINE))),
        "title": said.text(TYPES[recording.call.call_type]),
        "started": _moment(recording.call.started_at, policy, said),
        "facts": _facts(recording, said),
        "flaws": bool(recording.audio.flaws),
        "erasure": _erasure(recording, policy, said, visit.now),
        # What was typed and refused is shown again: an hour that is over meanwhile drops no marks,
        # and the audio asks for a reason itself.
        "asks": form == Form() and await _asks(visit, opened),
        "longest": listening.LONGEST,
        "token": pages.token(request, visit),
        "idle": visit.login.idle and int(visit.login.idle.total_seconds()),
        "heard": [(each, _moment(each.last, policy, said)) for each in heard],
        "original": original,
        **_redaction(heard_by_all, caller, form, policy, said),
    }
    headers = {"Sunset": render.sunset(recording)}
    return face.page(request, "recording.html", values, status=status, headers=headers)


def _redaction(
    opened: Opened, caller: Caller, form: Form, policy: Policy, said: Words
) -> dict[str, object]:
    """What is silent, and the form in which it is marked."""
    stands = opened.redaction
    spans = stands.spans if stands else ()
    redacted, may_original = opened.recording.redacted, caller.level in ORIGINALS
    copy = str(opened.seal.identity.attempt) if redacted else ""
    parts = marking.parts_of(spans) if form.parts is None else form.parts
    return {
        "redacted": redacted,
        # The copy that is kept is made of the original, and so is what is heard before.
        "of_original": redacted and may_original,
        "copy": copy if form.copy is None else form.copy,
        "outdated": form.copy not in (None, copy),
        "redaction": stands,
        "redacted_at": stands and _moment(stands.made_at, policy, said),
        "may_original": may_original,
        "silent": [(marking.clock(each.start), marking.clock(each.stop)) for each in spans],
        "parts": [*parts, *[Part()] * SPARE],
        "part": Part(),
        "form": form,
        "tried": marking.query(form.tried),
        "most": redaction.MOST,
    }


async def redact(request: web.Request, visit: Visit) -> web.Response:
    """`POST /recordings/{id}/redaction`: make the marked parts silent, or hear them before."""
    identifier, form = render.identifier(request), await browser.form(request)
    found, reason = marking.parts(form), form.get("reason", "")
    here = Form(found, reason[: listening.LONGEST], form.get(_COPY, ""))
    raw = marking.raw(found)
    try:
        if form.get("do") == "hear":
            audio = (await reading.get(visit.vault, visit.caller, identifier, visit.now)).recording
            spans = redaction.from_json(raw, audio.audio.duration, audio.audio.channels)
            return await _page(request, visit, replace(here, tried=spans))
        said = listening.reason(reason)
        await redactions.make(
            visit.vault, visit.caller, identifier, visit.now, raw, said, here.copy
        )
    except tuple(_REFUSED) as error:
        return await _refused(request, visit, here, error)
    return browser.to(f"/recordings/{identifier}")


async def _refused(
    request: web.Request, visit: Visit, here: Form, error: ArchiveError
) -> web.Response:
    status, told = next(word for kind, word in _REFUSED.items() if isinstance(error, kind))
    return await _page(request, visit, replace(here, told=told), status)


_REFUSED: dict[type[ArchiveError], tuple[int, str]] = {
    InvalidError: (
        422,
        marked("Each part begins within the recording and ends later, like 1:15.5 and 1:20."),
    ),
    MalformedError: (400, marked("Say in a line why.")),
    ForbiddenError: (
        403,
        marked("What is silent stays so: leave those parts in the list."),
    ),
    ChangedError: (
        409,
        marked("Somebody else has just changed it, or its period ends within minutes."),
    ),
    TooLargeError: (413, marked("It is too long for a copy.")),
    UnavailableError: (503, marked("Not possible just now: try again in a minute.")),
}


async def withdraw(request: web.Request, visit: Visit) -> web.Response:
    """`POST /recordings/{id}/redaction/withdrawal`: let the original be heard by everybody."""
    identifier, form = render.identifier(request), await browser.form(request)
    here = Form(copy=form.get(_COPY, ""))
    try:
        said = listening.reason(form.get("reason"))
        await redactions.withdraw(visit.vault, visit.caller, identifier, visit.now, said, here.copy)
    except tuple(_REFUSED) as error:
        return await _refused(request, visit, here, error)
    return browser.to(f"/recordings/{identifier}")


async def _asks(visit: Visit, opened: Opened) -> bool:
    """Whether hearing it asks for a reason that was not given within the hour."""
    try:
        await reading.require_reason(visit.vault, visit.caller, opened, visit.now)
    except ReasonNeededError:
        return True
    return False


async def give_reason(request: web.Request, visit: Visit) -> web.Response:
    """`POST /recordings/{id}/reasons`: say why one listens, and go back to hear it."""
    identifier = render.identifier(request)
    said = listening.reason((await browser.form(request)).get("reason"))
    await reading.give_reason(visit.vault, visit.caller, identifier, visit.now, said)
    return browser.to(f"/recordings/{identifier}")


def _seconds(text: str | None) -> int:
    """Where to begin, of `754`, `12:34` or `1:02:03`; 0 for anything else."""
    match = _TIME.fullmatch(text or "")
    if not match:
        return 0
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _sources(recording: Recording, start: int, *, original: bool) -> list[tuple[str, str]]:
    """Where a browser finds the audio, and what it is: the first that it can play is meant."""
    address = f"/v1/recordings/{recording.id}/audio"
    at = f"#t={start}" if start else ""
    version = "version=original" if original else ""
    native = plays(recording.audio)
    found = [(address + ("?" + version if version else "") + at, native)] if native else []
    copy = "&".join(filter(None, ("format=wav", version)))
    return [*found, (f"{address}?{copy}{at}", "audio/wav")]


def plays(audio: Audio) -> str | None:
    """How browsers call it if they can play it as it was sent; a cut or lying file they may not."""
    return None if audio.flaws else _PLAYS.get((audio.container, audio.codec))


def _left(time: timedelta, said: Words) -> str:
    """How long it is until then: days as long as there are some, a script counts the last one."""
    grain: Literal["day", "hour", "minute"] = "minute"
    if time > timedelta(hours=1):
        grain = "day" if time >= timedelta(days=2) else "hour"
    return dates.format_timedelta(
        time, grain, threshold=10**6, add_direction=True, locale=said.locale
    )


def _moment(moment: datetime, policy: Policy, said: Words) -> str:
    return said.moment(policy.local(moment))


def _facts(recording: Recording, said: Words) -> list[tuple[str, str]]:
    """What is known of the call, in the order in which one asks for it."""
    call, audio = recording.call, recording.audio
    known = {
        **{name: getattr(call, name) for name in COLUMNS if name != "type"},
        "direction": call.direction and said.text(DIRECTIONS[call.direction]),
        "caller": call.caller and numbers.shown(call.caller),
        "callee": call.callee and numbers.shown(call.callee),
    }
    rate = said.number(audio.sample_rate / 1000)
    named = [
        (marked("Length"), length(audio.duration)),
        *((COLUMNS[name], value) for name, value in known.items() if value),
        (marked("Call id"), call.call_id),
        (marked("Delivered by"), recording.source),
        (marked("Audio"), f"{audio.codec} · {rate} kHz · {audio.channels} ch"),
    ]
    return [(said.text(name), value) for name, value in named]


def _erasure(recording: Recording, policy: Policy, said: Words, now: datetime) -> dict[str, object]:
    """When it will be erased and why, as a person is told it."""
    expiry = recording.call.expiry
    period = Period.parse(expiry.rule.split(" ", 1)[0])
    parts = [
        (said.count("%(n)s year", "%(n)s years", period.years), period.years),
        (said.count("%(n)s month", "%(n)s months", period.months), period.months),
        (said.count("%(n)s day", "%(n)s days", period.days), period.days),
    ]
    return {
        "at": _moment(expiry.at, policy, said),
        "left": _left(expiry.at - now, said),
        "expires": int(expiry.at.timestamp() * 1000),
        "now": int(now.timestamp() * 1000),
        "period": " ".join(text for text, number in parts if number),
        "rule": expiry.rule,
    }
