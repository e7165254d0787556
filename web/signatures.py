"""Whether a notice comes from whom it says: each system signs in its own way.

Twilio signs the address as it is known outside, and the fields (HMAC-SHA1); Telnyx the time and
the body (Ed25519); Vonage shows a token (JWT, HS256) that has the digest of the body. Any other
shows the secret itself, or the HMAC-SHA256 of the body. Whatever is compared takes the same time
wherever it differs, and what was signed too long ago is not believed.
"""

import base64
import binascii
import hashlib
import hmac
from datetime import datetime
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from archive import webhook as notices
from archive.bounds import within
from archive.errors import UnauthenticatedError
from archive.webhook import Webhook

TOLERANCE = 300
"""Seconds that the time of a signature may be off."""


def check(webhook: Webhook, request: web.Request, body: bytes, now: datetime) -> None:
    """Raises UnauthenticatedError for a notice that is not signed as it has to be."""
    if webhook.senders is not None and not within(request.remote, webhook.senders):
        raise _refused("it comes from")
    match webhook.kind:
        case "twilio":
            _check_twilio(webhook, request, body)
        case "telnyx":
            _check_telnyx(webhook, request, body, now)
        case "vonage":
            _check_vonage(webhook, request, body, now)
        case "json" | "vcon" if webhook.signature_header:
            _check_hmac(webhook, request.headers.get(webhook.signature_header, ""), body)
        case "json" | "vcon":
            if not _same(_shown(request), webhook.secret):
                raise _refused("its key")


def _check_twilio(webhook: Webhook, request: web.Request, body: bytes) -> None:
    try:
        pairs = sorted(set(notices.form(body)))
    except ValueError:
        raise _refused("its form") from None
    said = "".join(name + value for name, value in pairs)
    shown = request.headers.get("X-Twilio-Signature", "")
    # All are compared, so that the time does not tell which.
    found = [
        _same(shown, _sha1(webhook.secret, f"{origin}{request.raw_path}{said}"))
        for origin in _origins(webhook.public_url)
    ]
    if not any(found):
        raise _refused("its signature")


def _origins(public_url: str) -> list[str]:
    """The address outside with its port and without: Twilio signs either."""
    url = urlsplit(public_url)
    host = url.hostname or ""
    port = url.port or (443 if url.scheme == "https" else 80)
    return [f"{url.scheme}://{each}{url.path}" for each in (host, f"{host}:{port}")]


def _sha1(secret: str, text: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()


def _check_telnyx(webhook: Webhook, request: web.Request, body: bytes, now: datetime) -> None:
    stamp = request.headers.get("telnyx-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 12) or not _fresh(int(stamp), now):
        raise _refused("its time")
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(webhook.secret))
        shown = base64.b64decode(request.headers.get("telnyx-signature-ed25519", ""), validate=True)
        key.verify(shown, stamp.encode() + b"|" + body)
    except (InvalidSignature, binascii.Error, ValueError):
        raise _refused("its signature") from None


def _check_vonage(webhook: Webhook, request: web.Request, body: bytes, now: datetime) -> None:
    token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")[2].strip()
    try:
        key = OctKey.import_key(webhook.secret)
        claims = jwt.decode(token, key, algorithms=["HS256"]).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError):
        raise _refused("its signature") from None
    if not _fresh(claims.get("iat"), now):
        raise _refused("its time")
    digest = claims.get("payload_hash")
    if not isinstance(digest, str) or not _same(digest, hashlib.sha256(body).hexdigest()):
        raise _refused("its digest")


def _check_hmac(webhook: Webhook, shown: str, body: bytes) -> None:
    digest = hmac.digest(webhook.secret.encode(), body, "sha256")
    text = shown.strip().removeprefix("sha256=")
    fits = _same(text.lower(), digest.hex()) | _same(text, base64.b64encode(digest).decode())
    if not fits:
        raise _refused("its signature")


def _shown(request: web.Request) -> str:
    """The key of a sender that shows it, as a bearer or as the password of HTTP Basic."""
    scheme, _, value = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() != "basic":
        return value.strip() if scheme.lower() == "bearer" else ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def _fresh(stamp: object, now: datetime) -> bool:
    return isinstance(stamp, (int, float)) and abs(stamp - now.timestamp()) <= TOLERANCE


def _same(shown: str, right: str) -> bool:
    return hmac.compare_digest(shown.encode(errors="replace"), right.encode())


def _refused(what: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"This notice is not believed, for {what}.")
