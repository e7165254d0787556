"""The headers of tus 1.0: read once, and refused with what to do; and what is told in them."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from archive.errors import (
    ArchiveError,
    ChecksumError,
    DigestMismatchError,
    MalformedError,
    NotAudioError,
    VersionError,
)
from storage.intake import Offer
from storage.uploads import Upload
from web.digests import offer_of

ADDRESS = "/v1/uploads"
VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination"
ALGORITHMS = ("sha1", "sha256", "md5")
PART = "application/offset+octet-stream"
"""The type of a body that is a part of an upload."""

_DAMAGED = "The part arrived damaged, and was dropped. Send it again."
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(slots=True)
class Checksum:
    """What a part was announced to be, and what it is so far; `wrong`: what is told of another."""

    announced: bytes
    _seen: Any = field(repr=False)
    wrong: ArchiveError

    @classmethod
    def of(cls, request: web.Request) -> "list[Checksum]":
        """Those of a request: its digests of HTTP and tus's own one. Raises MalformedError."""
        headers, offer = request.headers, offer_of(request)
        announced = {"sha256": offer.sha256, "sha512": offer.sha512, "md5": offer.md5}
        found = [
            cls(value, hashlib.new(name, usedforsecurity=False), DigestMismatchError(_DAMAGED))
            for name, value in announced.items()
            if value is not None
        ]
        if (text := headers.get("Upload-Checksum")) is None:
            return found
        algorithm, _, encoded = text.strip().partition(" ")
        if algorithm not in ALGORITHMS:
            raise MalformedError(f"Checksums are of {', '.join(ALGORITHMS)}.")
        seen = hashlib.new(algorithm, usedforsecurity=False)
        value = _decoded(encoded)
        if value is None or len(value) != seen.digest_size:
            raise MalformedError("Upload-Checksum is written like `sha1 BASE64`.")
        return [*found, cls(value, seen, ChecksumError(_DAMAGED))]

    def add(self, piece: bytes) -> None:
        """Count a piece in."""
        self._seen.update(piece)

    def check(self) -> None:
        """Raises ChecksumError, or DigestMismatchError, when the part is another."""
        if not hmac.compare_digest(self.announced, self._seen.digest()):
            raise self.wrong


def dress(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Say the protocol's version in every answer of its addresses, whoever gives it; and to who
    speaks another, which is spoken."""
    resource = isinstance(request, web.Request) and request.match_info.route.resource
    if resource and resource.canonical.startswith(ADDRESS):
        response.headers["Tus-Resumable"] = VERSION
        if response.status == 412:
            response.headers["Tus-Version"] = VERSION


def check_version(headers: Mapping[str, str]) -> None:
    """Raises VersionError for a client that speaks another protocol."""
    if headers.get("Tus-Resumable") != VERSION:
        raise VersionError(f"Send the header `Tus-Resumable: {VERSION}`.")


def check_part(headers: Mapping[str, str]) -> None:
    """Raises NotAudioError for a body of another type."""
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != PART:
        raise NotAudioError(f"A part of an upload is sent as `{PART}`.")


def number(headers: Mapping[str, str], name: str) -> int | None:
    """A whole number of a header; None without it. Raises MalformedError."""
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise MalformedError(f"{name} is a whole number.")
    return int(text)


def length(headers: Mapping[str, str]) -> int | None:
    """How long the upload will be; None if that is left open. Raises MalformedError."""
    deferred, known = headers.get("Upload-Defer-Length"), number(headers, "Upload-Length")
    if deferred not in (None, "1") or (deferred is None) == (known is None):
        raise MalformedError("Send Upload-Length, or `Upload-Defer-Length: 1`.")
    if known == 0:
        raise NotAudioError("The body is empty.")
    return known


def metadata_text(headers: MultiMapping[str]) -> str:
    """Upload-Metadata as it was sent; several lines of a header are one list (RFC 9110, 5.3)."""
    return ",".join(headers.getall("Upload-Metadata", ()))


def metadata(text: str) -> dict[str, str]:
    """What Upload-Metadata says: names, each with a text in base64. Raises MalformedError."""
    found: dict[str, str] = {}
    for pair in text.split(","):
        name, _, encoded = pair.strip().partition(" ")
        if not name and not encoded:
            continue
        value = _decoded(encoded)
        try:
            told = None if value is None else value.decode()
        except UnicodeDecodeError:
            told = None
        if not (name.isascii() and name.isprintable() and name) or told is None or name in found:
            raise MalformedError(
                "Upload-Metadata has names of ASCII, each once, with a text in base64."
            )
        found[name] = told
    return found


def offer(said: Mapping[str, Any]) -> Offer:
    """What is said of the bytes: `filetype`, as clients call it, counts for headerless audio alone;
    `sha256` is of the whole, in hex, and held against what has come. Raises MalformedError.
    """
    kind, digest = said.get("filetype"), said.get("sha256")
    if isinstance(kind, list) or isinstance(digest, list):
        raise MalformedError("`filetype` and `sha256` can be given once.")
    if digest is not None and not _SHA256.fullmatch(digest):
        raise MalformedError("`sha256` of the whole is written in hex.")
    return Offer(kind or None, sha256=bytes.fromhex(digest) if digest else None)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None


def state(upload: Upload) -> dict[str, str]:
    """What every answer about an upload says of it."""
    return {
        "Upload-Offset": str(upload.mark.size),
        "Upload-Expires": format_datetime(upload.expires_at.replace(microsecond=0), usegmt=True),
    }
