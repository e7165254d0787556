"""tus 1.0 on the ingest door: a recording that comes in parts, and survives a cut line.

An upload that comes whole with its creation is taken in as it arrives, like a `PUT`. Any other is
kept on the disk, sealed, until it is whole; then it is taken in from there. Its last answer has the
receipt's headers. Until the recording exists no offset is told that is the whole length, not even
to `HEAD`, which finishes what could not be finished before: a client that hears it goes away.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from aiohttp import ClientPayloadError, hdrs, web

from archive.errors import (
    ArchiveError,
    MalformedError,
    NotFoundError,
    OffsetError,
    TooLargeError,
    TooManyError,
    UnavailableError,
)
from archive.recording import Recording
from storage import clocks, intake, numbers, uploads
from storage.growing import GrowingFile
from storage.intake import Admitted
from storage.sealing import DamagedError
from storage.uploads import Upload
from web import asked, ingest, render, tus
from web.doors import RETRIEVAL_URL, VAULT, OpenRoute, Route, Visit
from web.ingest import UPLOADERS
from web.tus import Checksum

KEPT = 8_000_000
"""Bytes of one request after which what has come is kept for certain: what a kill may lose."""

_CREATED = web.RequestKey("created", Admitted)
_ONE = f"{tus.ADDRESS}/{{id}}"
_BROKEN = (ConnectionError, ClientPayloadError, UnavailableError)

Act = Callable[[web.Request, Visit], Awaitable[web.Response]]


def routes() -> list[Route | OpenRoute]:
    """The addresses of uploads that come in parts."""
    return [
        OpenRoute("OPTIONS", tus.ADDRESS, options),
        Route("POST", tus.ADDRESS, UPLOADERS, _spoken(create), first=_before_create),
        Route("HEAD", _ONE, UPLOADERS, _spoken(head)),
        Route("PATCH", _ONE, UPLOADERS, _spoken(patch), first=_before_patch),
        Route("DELETE", _ONE, UPLOADERS, _spoken(delete)),
        Route("POST", _ONE, UPLOADERS, _spoken(overridden)),
    ]


def _spoken(act: Act) -> Act:
    """Refuse who speaks another version."""

    async def answer(request: web.Request, visit: Visit) -> web.Response:
        tus.check_version(request.headers)
        return await act(request, visit)

    return answer


async def options(request: web.Request) -> web.Response:
    """What is spoken here."""
    return web.Response(
        status=204,
        headers={
            "Tus-Version": tus.VERSION,
            "Tus-Max-Size": str(request.app[VAULT].limits.max_bytes),
            "Tus-Extension": tus.EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        },
    )


async def _before_create(request: web.Request, visit: Visit) -> None:
    """All that can be told without the bytes, also that the call may come in."""
    tus.check_version(request.headers)
    ingest.check_headers(request, visit.vault)
    length = tus.length(request.headers)
    _check_size(visit, length or 0)
    if request.body_exists:
        tus.check_part(request.headers)
        _check_room(request, 0, length)
    Checksum.of(request)
    said = _said(request)
    tus.offer(said)
    call = await clocks.call_of(visit.vault, said, visit.now)
    request[_CREATED] = await intake.admit(visit.vault, visit.caller, call, visit.now)


def _said(request: web.Request) -> dict[str, Any]:
    """What is said of the call: in Upload-Metadata, and for what is always the same in the query.

    The header itself is kept as well, to be told to who asks. What the query says twice is a list.
    """
    text = tus.metadata_text(request.headers)
    said = numbers.as_meant({**asked.given(request), **tus.metadata(text)})
    return {**said, "Upload-Metadata": text}


async def create(request: web.Request, visit: Visit) -> web.Response:
    """`POST`: begin an upload; with its first bytes, or all of them, if they come along."""
    admitted, length = request[_CREATED], tus.length(request.headers)
    if length is not None and request.content_length == length:
        return await _create_whole(request, visit, admitted)
    said = _said(request)
    upload = await uploads.begin(visit.vault, visit.caller, admitted.call, said, length, visit.now)
    recording = None
    if request.body_exists:
        try:
            upload, recording = await _take_part(request, visit, upload)
        except BaseException:
            # Nobody knows its address.
            await uploads.end(visit.vault, upload.id)
            raise
    return _created(request, visit, upload, recording)


async def _create_whole(request: web.Request, visit: Visit, admitted: Admitted) -> web.Response:
    """Everything came with the creation: taken in as it arrives, like a `PUT`."""
    vault, caller, now = visit.vault, visit.caller, visit.now
    offer = tus.offer(_said(request))
    body = _checked(request, Checksum.of(request))
    taken = await intake.take_in(vault, caller, admitted, offer, body, now)
    upload = await uploads.finished_at_once(vault, caller, taken.recording, now)
    return _created(request, visit, upload, taken.recording)


async def _checked(request: web.Request, checksums: Sequence[Checksum]) -> AsyncIterator[bytes]:
    async for piece in ingest.body_of(request):
        for each in checksums:
            each.add(piece)
        yield piece
    for each in checksums:
        each.check()


async def head(request: web.Request, visit: Visit) -> web.Response:
    """`HEAD`: how far the upload is."""
    upload = await _find(request, visit)
    recording = None
    if upload.recording is None:
        async with visit.vault.shelf.in_hand(upload.id):
            upload = await uploads.find(visit.vault, visit.caller, upload.id)
            if upload.recording is None and upload.whole:
                upload, recording = await _finish(visit, upload)
    if upload.recording is not None and recording is None:
        recording = await uploads.receipt(visit.vault, visit.caller, upload)
    known = {"Upload-Defer-Length": "1"} if upload.length is None else {}
    if upload.length is not None:
        known = {"Upload-Length": str(upload.length)}
    if said := upload.said.get("Upload-Metadata"):
        known["Upload-Metadata"] = said
    headers = {**tus.state(upload), **known, **_receipt(request, recording)}
    return web.Response(status=200, headers={**headers, **render.NO_STORE})


async def _before_patch(request: web.Request, visit: Visit) -> None:
    tus.check_version(request.headers)
    tus.check_part(request.headers)
    ingest.check_headers(request, visit.vault)
    Checksum.of(request)
    if tus.number(request.headers, "Upload-Offset") is None:
        raise MalformedError("Upload-Offset is needed, a whole number.")
    await _find(request, visit)


async def patch(request: web.Request, visit: Visit) -> web.Response:
    """`PATCH`: add to the end. The answer to the last one is that of a `PUT`."""
    upload, recording = await _take_part(request, visit, await _find(request, visit))
    headers = {**tus.state(upload), **_receipt(request, recording)}
    return web.Response(status=204, headers=headers)


async def delete(request: web.Request, visit: Visit) -> web.Response:
    """`DELETE`: end an upload. A recording that it has become stays."""
    upload = await _find(request, visit)
    async with visit.vault.shelf.in_hand(upload.id):
        await uploads.end(visit.vault, upload.id)
    return web.Response(status=204)


async def overridden(request: web.Request, visit: Visit) -> web.Response:
    """`POST` with `X-HTTP-Method-Override`, of clients that have no other method."""
    match request.headers.get("X-HTTP-Method-Override", "").upper():
        case "PATCH":
            await _before_patch(request, visit)
            return await patch(request, visit)
        case "DELETE":
            return await delete(request, visit)
    raise MalformedError("X-HTTP-Method-Override is PATCH or DELETE here.")


async def _find(request: web.Request, visit: Visit) -> Upload:
    try:
        identifier = UUID(request.match_info["id"])
    except ValueError:
        raise NotFoundError("There is no such upload.") from None
    return await uploads.find(visit.vault, visit.caller, identifier)


async def _take_part(
    request: web.Request, visit: Visit, upload: Upload
) -> tuple[Upload, Recording | None]:
    """Add what arrives to an upload, and take it in if that is its end."""
    offset = tus.number(request.headers, "Upload-Offset") or 0
    async with visit.vault.shelf.in_hand(upload.id) as hold:
        upload = await uploads.find(visit.vault, visit.caller, upload.id)
        if offset != upload.mark.size:
            raise OffsetError("Ask with HEAD, and go on from there.", offset=upload.mark.size)
        if upload.recording is None:
            upload = await _with_length(request, visit, upload)
        _check_room(request, offset, upload.length)
        if upload.recording is not None:
            return upload, await uploads.receipt(visit.vault, visit.caller, upload)
        file = await uploads.opened(visit.vault, upload)
        try:
            hold.break_off = lambda: _abort(request)
            await _receive(request, visit, upload, file)
        finally:
            hold.break_off = None
            file.close()
        upload = replace(upload, mark=file.mark)
        return await _finish(visit, upload) if upload.whole else (upload, None)


def _abort(request: web.Request) -> None:
    if request.transport:
        request.transport.abort()


async def _with_length(request: web.Request, visit: Visit, upload: Upload) -> Upload:
    length = tus.number(request.headers, "Upload-Length")
    if length is None or length == upload.length:
        return upload
    if upload.length is not None or length < max(upload.mark.size, 1):
        raise MalformedError("Upload-Length is said once, and is not less than what is here.")
    _check_size(visit, length)
    await uploads.say_length(visit.vault, visit.caller, upload, length, visit.now)
    return replace(upload, length=length)


async def _receive(request: web.Request, visit: Visit, upload: Upload, file: GrowingFile) -> None:
    """Write down what arrives. Of a line that breaks, what came is kept; of a part with a checksum,
    all of it or nothing.
    """
    checksums = Checksum.of(request)
    try:
        async for piece in _checked(request, checksums):
            file.add(piece)
            _check_end(visit, upload, file.coming)
            if not checksums and file.coming - file.mark.size >= KEPT:
                await uploads.keep(visit.vault, upload.id, file)
    except _BROKEN:
        if not checksums:
            with suppress(UnavailableError):
                await uploads.keep(visit.vault, upload.id, file)
        raise
    await uploads.keep(visit.vault, upload.id, file)


def _check_end(visit: Visit, upload: Upload, size: int) -> None:
    _check_size(visit, size)
    if upload.length is not None and size > upload.length:
        raise MalformedError("There is more of it than Upload-Length says.")


def _check_room(request: web.Request, offset: int, length: int | None) -> None:
    if length is not None and offset + (request.content_length or 0) > length:
        raise MalformedError("There is more of it than Upload-Length says.")


def _check_size(visit: Visit, size: int) -> None:
    most = visit.vault.limits.max_bytes
    if size > most:
        raise TooLargeError(f"A recording may have {most} bytes at the most.", max_bytes=most)


async def _finish(visit: Visit, upload: Upload) -> tuple[Upload, Recording]:
    """Take in an upload that is whole. What can never be taken in is ended, and said why."""
    try:
        recording = await _taken(visit, upload)
    except (UnavailableError, TooManyError):
        raise
    except ArchiveError:
        await uploads.end(visit.vault, upload.id)
        raise
    except DamagedError:
        await uploads.end(visit.vault, upload.id)
        raise NotFoundError("The upload was damaged on the archive's disk; begin anew.") from None
    await uploads.become(visit.vault, upload.id, recording)
    return replace(upload, recording=recording.id), recording


async def _taken(visit: Visit, upload: Upload) -> Recording:
    vault, caller, now = visit.vault, visit.caller, visit.now
    call = await clocks.call_of(vault, upload.said, now, known=True)
    admitted = await intake.admit(vault, caller, call, now)
    file = await uploads.opened(vault, upload)
    try:
        offer = tus.offer(upload.said)
        taken = await intake.take_in(vault, caller, admitted, offer, file.pieces(), now)
    finally:
        file.close()
    return taken.recording


def _created(
    request: web.Request, visit: Visit, upload: Upload, recording: Recording | None
) -> web.Response:
    """The answer to a creation: Location is the upload's own address, as the protocol wants it."""
    headers = {**tus.state(upload), **_receipt(request, recording)}
    headers[hdrs.LOCATION] = f"{tus.ADDRESS}/{upload.id}"
    told: dict[str, object] = {"upload": str(upload.id)}
    if recording is not None:
        told = render.receipt(recording, visit.vault.policy)
    return web.json_response(told, status=201, headers={**headers, **render.NO_STORE})


def _receipt(request: web.Request, recording: Recording | None) -> dict[str, str]:
    if recording is None:
        return {}
    return {
        hdrs.LOCATION: render.address(request.app[RETRIEVAL_URL], recording),
        "Repr-Digest": render.repr_digest(recording),
        "Sunset": render.sunset(recording),
    }
