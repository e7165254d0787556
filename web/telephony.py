"""The ways in of telephony systems that send as they are built to, and cannot be taught another.

FreeSWITCH (`mod_http_cache`, `mod_httapi`), Kazoo and rtpengine-recording. What each says of a call
becomes a `Call` by the mapping of the configuration; then it is an upload like any other, with the
same answers. `docs/telephony/` says what each of them makes of an answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import unquote

from aiohttp import BodyPartReader, MultipartReader, web

from archive import mapping
from archive.errors import InvalidError, MalformedError, NotAudioError
from archive.mapping import Raw, Reading
from storage import intake, ledger, mapped
from storage.database import connection
from storage.intake import Admitted, Offer, Taken
from web import asked, digests, ingest, metadata, parts
from web.doors import Route, Visit
from web.ingest import UPLOADERS

_ADMITTED = web.RequestKey("admitted", Admitted)

_PROBE = ".txt"
_PROBE_BYTES = 4096
"""The most that Kazoo's trial of a new storage may be; it sends a few words."""

_METADATA = tuple(f"x-recording-{of}-metadata" for of in ("tag", "db", "call"))

Said = Callable[[web.Request], Raw]


def routes(mappings: Mapping[str, Reading]) -> list[Route]:
    """The addresses of these ways in."""
    freeswitch, kazoo = mappings["freeswitch"], mappings["kazoo"]
    rtpengine = mappings["rtpengine"]
    by_path = partial(_said_in_address, freeswitch)
    for_kazoo = partial(_said_in_address, kazoo)
    return [
        _route("PUT", "/v1/freeswitch/{path:(?s:.+)}", freeswitch, by_path, _put),
        Route("POST", "/v1/freeswitch/{path:(?s:.+)}", UPLOADERS, partial(_httapi, freeswitch)),
        Route(
            *("PUT", "/v1/kazoo/{path:(?s:.+)}", UPLOADERS, partial(_kazoo, kazoo, for_kazoo)),
            first=partial(_before_kazoo, kazoo, for_kazoo),
        ),
        _route("POST", "/v1/rtpengine", rtpengine, _said_by_rtpengine, _ngfile),
    ]


def _route(
    method: str,
    path: str,
    reading: Reading,
    said: Said,
    act: Callable[[Reading, Said, web.Request, Visit], Awaitable[web.Response]],
) -> Route:
    first = partial(_before, reading, said)
    return Route(method, path, UPLOADERS, partial(act, reading, said), first=first)


async def _before(reading: Reading, said: Said, request: web.Request, visit: Visit) -> None:
    """What has to hold before the body; all of it, where nothing depends on the audio."""
    ingest.check_headers(request, visit.vault)
    digests.offer_of(request)
    caller, now = visit.caller, visit.now
    if admitted := await mapped.admit(visit.vault, caller, reading, said(request), now):
        request[_ADMITTED] = admitted


async def _put(reading: Reading, said: Said, request: web.Request, visit: Visit) -> web.Response:
    """The body is the audio, with a length or chunked."""
    offer, body = digests.offer_of(request), ingest.body_of(request)
    taken = await _taken(reading, lambda: said(request), request, visit, offer, body)
    return ingest.answer(request, visit, taken)


async def _httapi(reading: Reading, request: web.Request, visit: Visit) -> web.Response:
    """A form of `mod_httapi`: the audio is its part `recorded_file`, all others are fields."""
    ingest.check_headers(request, visit.vault)
    digests.refuse(request)
    reader, texts = await parts.form(request), dict[str, str]()
    address = _said_in_address(reading, request)

    def said() -> Raw:
        return {**address, "query": {**texts, **address["query"]}}

    body = _file_of(reader, "recorded_file", texts)
    taken = await _taken(reading, said, request, visit, Offer(), body)
    return ingest.answer(request, visit, taken)


async def _ngfile(reading: Reading, said: Said, request: web.Request, visit: Visit) -> web.Response:
    """A form of rtpengine-recording: one part `ngfile`, which has neither file name nor type."""
    digests.refuse(request)
    body = _file_of(await parts.form(request), "ngfile", {})
    taken = await _taken(reading, lambda: said(request), request, visit, Offer(), body)
    return ingest.answer(request, visit, taken)


async def _kazoo(reading: Reading, said: Said, request: web.Request, visit: Visit) -> web.Response:
    if not request.path.endswith(_PROBE):
        return await _put(reading, said, request, visit)
    size = 0
    async for piece in ingest.body_of(request):
        size += len(piece)
        if size > _PROBE_BYTES:
            raise NotAudioError("This is a text, and longer than a trial of the storage.")
    async with connection(visit.vault.pool) as lent:
        await ledger.record(lent, visit.caller.id, "storage.tried", facts={"bytes": size})
    return web.json_response({"tried": True}, status=201)


async def _before_kazoo(reading: Reading, said: Said, request: web.Request, visit: Visit) -> None:
    if not request.path.endswith(_PROBE):
        await _before(reading, said, request, visit)


async def _taken(
    reading: Reading,
    said: Callable[[], Raw],
    request: web.Request,
    visit: Visit,
    offer: Offer,
    body: AsyncIterator[bytes],
) -> Taken:
    """Take the body in: for the call that was admitted, or for the one that the audio tells of."""
    vault, caller, now = visit.vault, visit.caller, visit.now
    if admitted := request.get(_ADMITTED):
        return await intake.take_in(vault, caller, admitted, offer, body, now)
    return await mapped.take_in(vault, caller, reading, said, offer, body, now, now)


def _said_in_address(reading: Reading, request: web.Request) -> Raw:
    """The path behind the way's own name, and the query, of which much may be of no interest."""
    path = request.rel_url.raw_path.split("/", 3)[3]
    query, headers = asked.given(request), _headers(request)
    return {"path": reading.path(path) or {}, "query": query, "header": headers}


def _said_by_rtpengine(request: web.Request) -> Raw:
    headers = _headers(request)
    metadata: dict[str, str | list[str]] = {}
    for name in _METADATA:
        if isinstance(text := headers.get(name), str):
            metadata |= mapping.pairs(text)
    query, stream = asked.given(request), _stream(headers)
    return {"header": headers, "metadata": metadata, "query": query, "stream": stream}


def _stream(headers: Mapping[str, str | list[str]]) -> dict[str, str | list[str]]:
    """The name of the file, where it holds one stream of several and not the whole call."""
    kind, name = headers.get("x-recording-kind", ""), headers.get("x-recording-file-name", "")
    if not (isinstance(kind, str) and isinstance(name, str)) or not kind or kind == "mixed":
        return {}
    return {"name": unquote(name.rpartition(".")[0] or name)}


def _headers(request: web.Request) -> dict[str, str | list[str]]:
    return {name.lower(): asked.one(request.headers.getall(name)) for name in request.headers}


async def _file_of(
    reader: MultipartReader, name: str, texts: dict[str, str]
) -> AsyncIterator[bytes]:
    """The one part of a form that is the file; the others are put into `texts`."""
    found = False
    while (part := await parts.next_part(reader)) is not None:
        digests.refuse(part)
        if part.name != name:
            texts[part.name or ""] = await _text(part, sum(map(len, texts.values())))
        elif found:
            raise MalformedError(f"A form has one part `{name}`.")
        else:
            found = True
            ingest.check_encoding(part.headers)
            async for piece in parts.pieces_of(part):
                yield piece
    if not found:
        raise MalformedError(f"The form has no part `{name}`.")


async def _text(part: BodyPartReader, before: int) -> str:
    text = bytearray()
    async for piece in parts.pieces_of(part):
        text += piece
        if before + len(text) > metadata.BYTES:
            raise InvalidError({"metadata": f"is longer than {metadata.BYTES} bytes"})
    return text.decode("utf-8", "replace")
