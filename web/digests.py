"""What a sender says of the bytes that it sends: their type, and the digests of HTTP (RFC 9530).

Each digest of a kind that is known is checked, whichever line of the header it stands in; one that
could not be is refused, for to pass it over would look as if it had been.
"""

import base64
import binascii
import hashlib
import re

from aiohttp import BodyPartReader, hdrs, web

from archive.errors import DigestMismatchError, MalformedError
from storage.intake import Offer

_LENGTHS = {"sha-256": 32, "sha-512": 64}
"""Bytes of each digest that is looked at where Content-Digest announces it."""

_DIGEST = re.compile(
    r"\s*(sha-256|sha-512)\s*=\s*:([A-Za-z0-9+/=]*):\s*(?:;.*)?", re.IGNORECASE | re.ASCII
)


def refuse(sent: web.Request | BodyPartReader) -> None:
    """Refuse a digest of what none is made of: a body that holds the audio among other things, a
    part of a form that is not checked.
    """
    if hdrs.CONTENT_MD5 in sent.headers or "Content-Digest" in sent.headers:
        raise MalformedError(
            "No digest is checked here: only one of a body that is the audio, of the part `audio`"
            " of a form to /v1/recordings, and in a vCon the `content_hash`."
        )


def check(request: web.Request, body: bytes) -> None:
    """Hold a body that is here against what was announced. DigestMismatchError for another one."""
    offer = offer_of(request)
    for name in ("sha256", "sha512", "md5"):
        said = getattr(offer, name)
        if said is not None and said != hashlib.new(name, body, usedforsecurity=False).digest():
            raise DigestMismatchError("The digest of the body is another; send it again.")


def offer_of(sent: web.Request | BodyPartReader) -> Offer:
    """What the sender says of the body. MalformedError for a digest that cannot be read."""
    headers = sent.headers
    found: dict[str, bytes] = {}
    for each in ",".join(headers.getall("Content-Digest", ())).split(","):
        if match := _DIGEST.fullmatch(each):
            name = match[1].lower()
            _announce(found, name, _decoded(match[2], _LENGTHS[name], "Content-Digest"))
        elif any(name in each.lower() for name in _LENGTHS):
            raise MalformedError("Content-Digest is written like sha-256=:BASE64:.")
    for text in filter(None, headers.getall(hdrs.CONTENT_MD5, ())):
        _announce(found, "md5", _decoded(text, 16, "Content-MD5"))
    return Offer(
        headers.get(hdrs.CONTENT_TYPE),
        sha256=found.get("sha-256"),
        md5=found.get("md5"),
        sha512=found.get("sha-512"),
    )


def _announce(found: dict[str, bytes], name: str, value: bytes) -> None:
    if found.setdefault(name, value) != value:
        raise MalformedError(f"Two digests of one kind, {name}, are announced of one body.")


def _decoded(text: str, length: int, header: str) -> bytes:
    try:
        value = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != length:
        raise MalformedError(f"{header} holds no digest of {length} bytes in base64.")
    return value
