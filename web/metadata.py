"""The part `metadata` of a form: JSON, what a SIPREC recorder writes, or a vCon; and a vCon that
comes with its audio within.

The last two know nothing of call types, and nothing of what a sender would rather have: what the
query says counts before what they say.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import BodyPartReader, hdrs, web

from archive import siprec, vcon
from archive.errors import InvalidError
from storage import numbers
from web import asked, parts

BYTES = 65536
"""The most that a form's metadata may be; far more than all fields together."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The raw fields of a call, the SHA-512 that its audio has to have, if that is told, and the
    audio itself, if it is within.
    """

    fields: Mapping[str, object]
    sha512: bytes | None = None
    audio: bytes | None = field(default=None, repr=False)


async def read(request: web.Request, part: BodyPartReader) -> Metadata:
    """Read the part. Raises InvalidError, or MalformedError for a form that breaks off in it."""
    text = bytearray()
    async for piece in parts.pieces_of(part):
        text += piece
        if len(text) > BYTES:
            raise InvalidError({"metadata": f"is longer than {BYTES} bytes"})
    kind = part.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    try:
        return _read(kind, bytes(text), asked.given(request))
    except ValueError as error:
        raise InvalidError({"metadata": str(error)}) from None


def _read(kind: str, document: bytes, query: Mapping[str, object]) -> Metadata:
    if kind == siprec.MEDIA_TYPE:
        return Metadata(_with(query, siprec.fields(document)))
    if kind in vcon.MEDIA_TYPES:
        found = vcon.read(document)
        if found.body is not None:
            raise ValueError("holds the audio itself, which belongs into the part `audio`")
        return Metadata(_with(query, found.fields), found.sha512)
    try:
        fields = json.loads(document)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - a wrong value of the sender's
    return Metadata(fields)


def of_vcon(document: bytes, query: Mapping[str, object]) -> Metadata:
    """Read a vCon that has its audio within. Raises InvalidError."""
    try:
        found = vcon.read(document)
    except ValueError as error:
        raise InvalidError({"vcon": str(error)}) from None
    if not found.body:
        raise InvalidError({"vcon": "holds no audio: send it beside, or tell a webhook of it"})
    return Metadata(_with(query, found.fields), found.sha512, found.body)


def _with(query: Mapping[str, object], fields: Mapping[str, str]) -> dict[str, object]:
    """What a document says, but for what the query does; an empty value there says nothing."""
    return {**fields, **{name: said for name, said in numbers.as_meant(query).items() if said}}
