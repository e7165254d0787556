"""The page of a recording: to hear it, and to know what becomes of it.

The page itself tells what is known of the call; the audio, its copies and the picture come from the
addresses that every client uses. Without a script it has a plain player.
"""

import math
import re
from datetime import datetime, timedelta
from typing import Literal

from aiohttp import web
from babel import dates

from archive import listening
from archive.access import READERS
from archive.errors import ReasonNeededError
from archive.recording import Audio, Recording
from archive.retention import Period, Policy
from storage import listens, numbers, reading
from storage.reading import Act
from storage.recordings import Opened
from web import browser, face, pages, render
from web.doors import OpenRoute, Route, Visit
from web.finding import COLUMNS, DIRECTIONS, TYPES
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

_TIME = re.compile(r"(?:(?:(\d{1,2}):)?(\d{1,2}):)?(\d{1,5})")


def routes() -> list[Route | OpenRoute]:
    """The addresses of the recordings' pages."""
    one = "/recordings/{id}"
    return [
        Route("GET", one, READERS, show),
        Route("POST", f"{one}/reasons", READERS, give_reason),
    ]


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /recordings/{id}?t=12:34`: the page of a recording, to be played from there."""
    vault, caller = visit.vault, visit.caller
    identifier = render.identifier(request)
    opened = await reading.get(vault, caller, identifier, visit.now, Act("viewed", {}))
    recording, policy = opened.recording, vault.policy
    said = face.Reader.from_request(request).words
    heard = await listens.of(vault, caller, identifier)
    least, most = _POINTS
    values = {
        "id": identifier,
        "audio": recording.audio,
        "sources": _sources(recording, _seconds(request.query.get("t"))),
        "start": _seconds(request.query.get("t")),
        "points": min(most, max(least, math.ceil(recording.audio.duration * _FINE))),
        "title": said.text(TYPES[recording.call.call_type]),
        "started": _moment(recording.call.started_at, policy, said),
        "facts": _facts(recording, said),
        "flaws": bool(recording.audio.flaws),
        "erasure": _erasure(recording, policy, said, visit.now),
        "asks": await _asks(visit, opened),
        "longest": listening.LONGEST,
        "token": pages.token(request, visit),
        "heard": [(each, _moment(each.last, policy, said)) for each in heard],
    }
    headers = {"Sunset": render.sunset(recording)}
    return face.page(request, "recording.html", values, headers=headers)


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


def _sources(recording: Recording, start: int) -> list[tuple[str, str]]:
    """Where a browser finds the audio, and what it is: the first that it can play is meant."""
    address = f"/v1/recordings/{recording.id}/audio"
    at = f"#t={start}" if start else ""
    native = plays(recording.audio)
    found = [(address + at, native)] if native else []
    return [*found, (f"{address}?format=wav{at}", "audio/wav")]


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
    here = policy.local(moment)
    return f"{said.day(here.date(), 'full')} {said.time(here)}"


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
