"""The retrieval door: who may find and hear recordings does it here, and each time is in the
ledger.

From the instant of its expiry a recording is gone for every request, and an answer that is still
being sent is cut off; so is one whose key was revoked.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import get_args

from aiohttp import hdrs, web

from archive import media, talk
from archive.access import READERS
from archive.errors import MalformedError, PreconditionError, RangeError
from archive.redaction import Span
from archive.search import Query
from storage import playback, reading, search
from storage.audio.formats import Format
from storage.reading import Act
from storage.recordings import Opened
from web import (
    account,
    asked,
    certificates,
    cursors,
    export_pages,
    exports,
    finding,
    glass,
    hearing,
    listing,
    openapi,
    pages,
    reasons,
    redactions,
    render,
    sending,
    sign_in,
)
from web.allowance import Allowance
from web.doors import RETRIEVAL_URL, OpenRoute, Route, Visit

_POINTS = 800
_MOST_POINTS = 2000

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_TAG = re.compile(r'(W/)?("[^"]*")')


def routes() -> list[Route | OpenRoute]:
    """The addresses of this door."""
    one = "/v1/recordings/{id}"
    return [
        Route("GET", "/v1/recordings", READERS, find),
        Route("GET", one, READERS, show),
        Route("GET", f"{one}/audio", READERS, audio),
        Route("HEAD", f"{one}/audio", READERS, audio_head),
        Route("GET", f"{one}/waveform", READERS, waveform),
        Route("POST", f"{one}/reasons", READERS, reasons.give),
        *redactions.routes(),
        *glass.readers_routes(),
        *certificates.routes(READERS),
        *exports.routes(),
        *listing.routes(),
        *finding.routes(),
        *listing.page_routes(),
        *export_pages.routes(),
        *hearing.routes(),
        *pages.routes(),
        *account.routes(READERS),
        *account.page_routes(READERS),
        *sign_in.routes(),
        OpenRoute("GET", "/openapi.json", openapi.page("retrieval")),
    ]


async def find(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/recordings`: a page of what was asked for, newest first."""
    ring, caller = visit.vault.ring, visit.caller
    if cursor := request.query.get("cursor"):
        if len(request.query) > 1:
            raise MalformedError("A cursor holds the whole search: give no filter beside it.")
        params, query = cursors.unseal(ring, caller, cursor, visit.now)
    else:
        params = asked.filters(request)
        query = Query.from_params(params)
    page = await search.find(visit.vault, caller, query, visit.now)
    items = [render.recording(found, visit.vault.policy) for found in page.items]
    if page.next is None:
        return render.data({"items": items, "next": None})
    sealed = cursors.seal(ring, caller, params, page.next, visit.now)
    base = request.app[RETRIEVAL_URL] or f"{request.scheme}://{request.host}"
    address = f"{base}/v1/recordings?cursor={sealed}"
    return render.data({"items": items, "next": address}, Link=f'<{address}>; rel="next"')


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/recordings/{id}`: all that is known of a recording."""
    recording = (await _open(request, visit, redactions.act(request, "viewed", {}))).recording
    body = render.recording(recording, visit.vault.policy)
    return render.data(body, Sunset=render.sunset(recording))


async def audio(request: web.Request, visit: Visit) -> web.StreamResponse:
    """`GET /v1/recordings/{id}/audio`: the bytes as they were sent, or a copy.

    Where a redacted copy stands, that is what everybody hears.
    """
    wanted = _format(request)
    span = request.headers.get(hdrs.RANGE, "").strip()
    # The ledger keeps for ever what it is given: never a header as it was sent.
    facts = {
        "format": wanted or "original",
        "range": span.lower() if _RANGE.fullmatch(span) else "",
    }
    opened = await _open(request, visit, redactions.act(request, "listened", facts, hears=True))
    if wanted:
        return await _send_copy(request, visit, opened, wanted)
    return await _send_original(request, visit, opened)


async def audio_head(request: web.Request, visit: Visit) -> web.Response:
    """`HEAD` of the same: the headers of the whole, and nothing is heard."""
    opened = await _open(request, visit, None)
    if reasons.of(request) is None:
        await reading.require_reason(visit.vault, visit.caller, opened, visit.now)
    wanted = _format(request)
    size = _copy_size(opened, wanted) if wanted else opened.recording.audio.bytes
    silent = redactions.silent(request, opened)
    headers = _copy_headers(opened, wanted, silent) if wanted else _original_headers(opened)
    _check_match(request, headers)
    if size is not None:
        headers[hdrs.CONTENT_LENGTH] = str(size)
    return web.Response(headers=headers)


async def waveform(request: web.Request, visit: Visit) -> web.Response:
    """`GET /v1/recordings/{id}/waveform`: the peaks of each channel, `points` of them."""
    text = request.query.get("points", str(_POINTS))
    if not (re.fullmatch("[0-9]{1,4}", text) and 1 <= int(text) <= _MOST_POINTS):
        raise MalformedError(f"`points` is a whole number from 1 to {_MOST_POINTS}.")
    opened = await _open(
        request, visit, redactions.act(request, "listened", {"format": "waveform"})
    )
    allowance = Allowance(visit, opened)
    try:
        async with allowance:
            peaks = await playback.waveform(visit.vault, visit.caller, opened, int(text))
    except TimeoutError:
        raise allowance.refusal() from None
    duration = opened.recording.audio.duration
    told = talk.measure(peaks, duration)
    return render.data(
        {
            "duration": duration,
            "channels": peaks,
            "talk": [round(share, 4) for share in told.shares],
            "silence": round(told.silence, 4),
            "silences": [[round(each, 3) for each in span] for span in told.silences],
        },
        Sunset=render.sunset(opened.recording),
    )


async def _open(request: web.Request, visit: Visit, act: Act | None) -> Opened:
    identifier, original = render.identifier(request), redactions.original(request)
    return await reading.get(
        visit.vault, visit.caller, identifier, visit.now, act, original=original
    )


def _format(request: web.Request) -> Format | None:
    wanted = request.query.get("format")
    if "silent" in request.query and wanted != "wav":
        raise MalformedError("Parts that are `silent` in this answer alone come as `format=wav`.")
    for known in get_args(Format):
        if wanted == known:
            return known  # type: ignore[no-any-return]
    if wanted is not None:
        raise MalformedError("`format` is wav, mp3 or ogg; without it the original is sent.")
    return None


async def _send_original(request: web.Request, visit: Visit, opened: Opened) -> web.StreamResponse:
    size = opened.recording.audio.bytes
    headers = _original_headers(opened)
    _check_match(request, headers)
    span = _range(request, headers[hdrs.ETAG], size)
    start, stop = span or (0, size)
    response = _ranged(headers, span, size)
    source = nullcontext(playback.read(visit.vault, opened, start, stop))
    return await sending.stream(request, Allowance(visit, opened), response, source)


def _ranged(headers: dict[str, str], span: tuple[int, int] | None, size: int) -> web.StreamResponse:
    """The head of an answer that is the whole of so many bytes, or one range of them."""
    start, stop = span or (0, size)
    if span:
        headers[hdrs.CONTENT_RANGE] = f"bytes {start}-{stop - 1}/{size}"
    response = web.StreamResponse(status=206 if span else 200, headers=headers)
    response.content_length = stop - start
    return response


async def _send_copy(
    request: web.Request, visit: Visit, opened: Opened, wanted: Format
) -> web.StreamResponse:
    silent = redactions.silent(request, opened)
    headers, size = _copy_headers(opened, wanted, silent), _copy_size(opened, wanted)
    _check_match(request, headers)
    if size is None:
        span, response = None, web.StreamResponse(headers=headers)
    else:
        span = _range(request, headers[hdrs.ETAG], size)
        response = _ranged(headers, span, size)
    copy = playback.copied(visit.vault, visit.caller, opened, wanted, span, silent)
    return await sending.stream(request, Allowance(visit, opened), response, copy)


def _copy_size(opened: Opened, wanted: Format) -> int | None:
    """How long a copy is, where that is known before it is made."""
    return playback.wav_size(opened.recording.audio) if wanted == "wav" else None


def _check_match(request: web.Request, headers: Mapping[str, str]) -> None:
    """Refuse who wants another audio than this is (RFC 9110, 13.1.1): half of one and half of a
    redacted copy are none. If-Unmodified-Since counts only where an answer tells Last-Modified.
    """
    if hdrs.IF_MATCH not in request.headers:
        return
    text = ",".join(request.headers.getall(hdrs.IF_MATCH)).strip()
    strong = {tag for weak, tag in _TAG.findall(text) if not weak}
    if text != "*" and headers.get(hdrs.ETAG) not in strong:
        raise PreconditionError("It is none of those that If-Match names: fetch it from the start.")


def _range(request: web.Request, etag: str, size: int) -> tuple[int, int] | None:
    """The one range that is asked for, as start and stop; None for the whole (RFC 9110, 14.2)."""
    header = request.headers.get(hdrs.RANGE)
    condition = request.headers.get(hdrs.IF_RANGE)
    if header is None or (condition is not None and condition != etag):
        return None
    match = _RANGE.fullmatch(header.strip())
    if not match or not (match[1] or match[2]):
        return None
    if match[1]:
        start = int(match[1])
        stop = min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    else:
        start, stop = max(size - int(match[2]), 0), size
    if start >= stop:
        raise RangeError(f"The recording has {size} bytes.", size=size)
    return start, stop


def _etag(opened: Opened) -> str:
    return f'"{opened.recording.audio.sha256}"'


def _original_headers(opened: Opened) -> dict[str, str]:
    return {
        **_headers(opened, opened.recording.audio.container),
        hdrs.ACCEPT_RANGES: "bytes",
        hdrs.ETAG: _etag(opened),
        "Repr-Digest": render.repr_digest(opened.recording),
    }


def _copy_headers(opened: Opened, wanted: Format, silent: Sequence[Span]) -> dict[str, str]:
    headers = _headers(opened, wanted)
    if _copy_size(opened, wanted) is not None:
        parts = hashlib.sha256(repr(silent).encode()).hexdigest()[:32] if silent else wanted
        headers[hdrs.ACCEPT_RANGES] = "bytes"
        headers[hdrs.ETAG] = f'"{opened.recording.audio.sha256}-{parts}"'
    return headers


def _headers(opened: Opened, container: str) -> dict[str, str]:
    kind, ending = media.named(container)
    return {
        **render.NO_STORE,
        hdrs.CONTENT_TYPE: kind,
        hdrs.CONTENT_DISPOSITION: f'inline; filename="{opened.recording.id}.{ending}"',
        "Sunset": render.sunset(opened.recording),
    }
