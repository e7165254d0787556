"""The ingest door: recordings come in, and nothing ever goes out but a receipt.

Both ways in, `PUT` with the audio as the body and `POST` of a form, end in the same intake.
Whatever can be refused without the body is refused before it is read.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from aiohttp import BodyPartReader, hdrs, web

from archive import vcon
from archive.access import Caller, Level
from archive.errors import (
    DigestMismatchError,
    MalformedError,
    NotAudioError,
    TooLargeError,
    UnavailableError,
)
from archive.recording import Call
from storage import clocks, intake, numbers
from storage.intake import Admitted, Offer, Taken
from storage.spool import Spool
from storage.vault import Vault
from web import asked, cdrs, digests, metadata, openapi, parts, render
from web.doors import RETRIEVAL_URL, OpenRoute, Route, Visit
from web.metadata import Metadata

UPLOADERS = frozenset({Level.UPLOADER})

VCON_BYTES = 32 * 2**20
"""The most that a vCon with its audio may be: it is held in memory as a whole."""

_VCON, _VCONS, _PATIENCE = "vcon ", 2, 60.0
"""How such ones are counted, how many are taken in at once, of one key one, and the seconds that
each has to come in: a place is held meanwhile."""

_PIECE = 2**18

_ADMITTED = web.RequestKey("admitted", Admitted)


def routes() -> list[Route | OpenRoute]:
    """The addresses of this door."""
    return [
        Route("PUT", "/v1/recordings/{call_id:[^/]+}", UPLOADERS, put, first=_before_put),
        Route("POST", "/v1/recordings", UPLOADERS, post, first=_before_post),
        *cdrs.taking(),
        OpenRoute("GET", "/openapi.json", openapi.page("ingest")),
    ]


async def put(request: web.Request, visit: Visit) -> web.Response:
    """`PUT /v1/recordings/{call_id}`: the body is the audio, the metadata is in the query."""
    taken = await intake.take_in(
        visit.vault,
        visit.caller,
        request[_ADMITTED],
        digests.offer_of(request),
        body_of(request),
        visit.now,
    )
    return answer(request, visit, taken)


async def _before_put(request: web.Request, visit: Visit) -> None:
    check_headers(request, visit.vault)
    call = await _call_of_query(request, visit)
    digests.offer_of(request)
    request[_ADMITTED] = await intake.admit(visit.vault, visit.caller, call, visit.now)


async def _call_of_query(request: web.Request, visit: Visit) -> Call:
    fields = numbers.as_meant(asked.given(request))
    fields["call_id"] = request.match_info["call_id"]
    return await clocks.call_of(visit.vault, fields, visit.now)


async def post(request: web.Request, visit: Visit) -> web.Response:
    """`POST /v1/recordings`: a form with a part `metadata` and a part `audio`, or a vCon with the
    audio within.
    """
    if request.content_type in vcon.MEDIA_TYPES:
        return await _post_vcon(request, visit)
    reader = await parts.form(request)
    admitted: Admitted | None = None
    held: tuple[Spool, Offer] | None = None
    told = Metadata({})
    with intake.slot(visit.vault, visit.caller):
        try:
            while (part := await parts.next_part(reader)) is not None:
                if part.name == "metadata" and admitted is None:
                    digests.refuse(part)
                    told = await metadata.read(request, part)
                    call = await clocks.call_of(visit.vault, told.fields, visit.now)
                    admitted = await intake.admit(visit.vault, visit.caller, call, visit.now)
                elif part.name == "audio" and held is None:
                    held = await _receive(visit, admitted, part), digests.offer_of(part)
                else:
                    raise MalformedError("A form has one part `metadata` and one part `audio`.")
            if admitted is None or held is None:
                missing = "metadata" if admitted is None else "audio"
                raise MalformedError(f"The form has no part `{missing}`.")
            spool, offer = held
            spool = await intake.sealed_for(visit.vault, spool, admitted.call, visit.now)
            held = spool, (offer := _with_sha512(offer, told.sha512))
            taken = await intake.keep(visit.vault, visit.caller, admitted, offer, spool, visit.now)
        finally:
            if held:
                held[0].close()
    return answer(request, visit, taken)


def _with_sha512(offer: Offer, told: bytes | None) -> Offer:
    """What is announced of the audio, with what the vCon beside it says."""
    if told and offer.sha512 not in (None, told):
        raise DigestMismatchError("The part `audio` and the vCon announce two SHA-512.")
    return replace(offer, sha512=told or offer.sha512)


async def _post_vcon(request: web.Request, visit: Visit) -> web.Response:
    vault = visit.vault
    late = UnavailableError("The vCon took over a minute; nothing was kept.")
    with _room_for_vcon(vault, visit.caller):
        document = await asked.whole(request, VCON_BYTES, _PATIENCE, _too_large(), late)
        told = await asyncio.to_thread(metadata.of_vcon, document, asked.given(request))
        del document
        call = await clocks.call_of(vault, told.fields, visit.now)
        admitted = await intake.admit(vault, visit.caller, call, visit.now)
        offer, body = Offer(sha512=told.sha512), _one(told.audio or b"")
        taken = await intake.take_in(vault, visit.caller, admitted, offer, body, visit.now)
    return answer(request, visit, taken)


@contextmanager
def _room_for_vcon(vault: Vault, caller: Caller) -> Iterator[None]:
    """A place among the few that are held in memory at once; one key has one."""
    mine = _VCON + caller.id  # no key's own id has a space
    if mine in vault.intakes or sum(name.startswith(_VCON) for name in vault.intakes) >= _VCONS:
        raise UnavailableError("Too many vCons are being taken in at once; try again.", 1)
    vault.intakes[mine] += 1
    try:
        yield
    finally:
        del vault.intakes[mine]


def _too_large() -> TooLargeError:
    said = f"A vCon with its audio may have {VCON_BYTES} bytes; send a larger one as a form."
    return TooLargeError(said, max_bytes=VCON_BYTES)


async def _one(audio: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(audio), _PIECE):
        yield audio[start : start + _PIECE]


async def _before_post(request: web.Request, visit: Visit) -> None:
    check_headers(request, visit.vault)
    digests.refuse(request)
    if request.content_type in vcon.MEDIA_TYPES:
        if (request.content_length or 0) > VCON_BYTES:
            raise _too_large()
    elif request.content_type != parts.KIND:
        raise MalformedError("Send multipart/form-data, or PUT the audio itself.")


async def _receive(visit: Visit, admitted: Admitted | None, part: BodyPartReader) -> Spool:
    check_encoding(part.headers)
    offer = digests.offer_of(part)
    return await intake.receive(visit.vault, admitted, offer, parts.pieces_of(part), visit.now)


async def body_of(request: web.Request) -> AsyncIterator[bytes]:
    """A body as it arrives."""
    while piece := await request.content.readany():
        yield piece


def check_headers(request: web.Request, vault: Vault) -> None:
    """Refuse a body by what its headers say of it."""
    check_encoding(request.headers)
    most = vault.limits.max_bytes
    around = metadata.BYTES if request.content_type.startswith("multipart/") else 0
    if (request.content_length or 0) > most + around:
        raise TooLargeError(f"A recording may have {most} bytes at the most.", max_bytes=most)


def check_encoding(headers: Mapping[str, str]) -> None:
    """Refuse a body, or a part of a form, that would have to be unpacked."""
    if headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() != "identity":
        raise NotAudioError("Send the audio as it is: a Content-Encoding is not taken.")


def answer(request: web.Request, visit: Visit, taken: Taken) -> web.Response:
    """The receipt."""
    recording = taken.recording
    return web.json_response(
        render.receipt(recording, visit.vault.policy),
        status=201 if taken.new else 200,
        headers={
            **render.NO_STORE,
            hdrs.LOCATION: render.address(request.app[RETRIEVAL_URL], recording),
            "Repr-Digest": render.repr_digest(recording),
            "Sunset": render.sunset(recording),
        },
    )
