"""Where a page ended, as an address that tells nothing.

A search may name a telephone number, and addresses end up in logs: the `next` of a page therefore
holds the search and its place sealed, under a key of the ring and for this caller alone.
"""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from archive.access import Caller
from archive.errors import MalformedError
from archive.search import Place, Query
from storage.keyring import Ring

_NONCE = 12

Params = Sequence[tuple[str, str]]


def seal(ring: Ring, caller: Caller, params: Params, place: Place) -> str:
    """Seal a search and the place where its page ended; the text is safe in an address."""
    plain = json.dumps([list(params), place.started_at.isoformat(), place.id.hex]).encode()
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(ring.lookup_key("cursor")).encrypt(nonce, plain, caller.id.encode())
    return base64.urlsafe_b64encode(nonce + sealed).decode().rstrip("=")


def unseal(ring: Ring, caller: Caller, cursor: str) -> tuple[Params, Query]:
    """Open what `seal` sealed. Raises MalformedError for anything else, or another's cursor."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        cipher = AESGCM(ring.lookup_key("cursor"))
        plain = cipher.decrypt(raw[:_NONCE], raw[_NONCE:], caller.id.encode())
    except (ValueError, InvalidTag):
        raise MalformedError("The cursor is not one that you were given: search again.") from None
    pairs, started_at, identifier = json.loads(plain)
    params = [(name, value) for name, value in pairs]
    place = Place(datetime.fromisoformat(started_at), UUID(identifier))
    return params, replace(Query.from_params(params), after=place)
