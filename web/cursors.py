"""A search, or the place where a page of it ended, as an address that tells nothing.

A search may name a telephone number, and addresses end up in logs: what an address holds of one is
therefore sealed, under a key of the ring. The `next` of a page is for its caller alone; the address
of a search on the pages is for whoever may search, so that it can be sent to a colleague. Both are
good for a while only: they stay behind in histories and logs, where nobody erases them.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag

from archive.access import Caller
from archive.errors import MalformedError, OutdatedError
from archive.search import Place, Query
from storage import boxes
from storage.keyring import Ring

AGE = timedelta(days=1)
"""How long an address holds its search: enough to go on after a pause, or for who comes to work the
next morning. Whoever wants to keep a search keeps the words."""

Params = Sequence[tuple[str, str]]


def seal(ring: Ring, caller: Caller, params: Params, place: Place, now: datetime) -> str:
    """Seal a search and the place where its page ended; the text is safe in an address."""
    return _seal(ring, [list(params), *_from_place(place)], caller.id, now)


def unseal(ring: Ring, caller: Caller, cursor: str, now: datetime) -> tuple[Params, Query]:
    """Open what `seal` sealed. Raises MalformedError for anything else, another's cursor, or an
    old one.
    """
    pairs, *place = _unseal(ring, cursor, caller.id, now)
    params = [(name, value) for name, value in pairs]
    return params, replace(Query.from_params(params), after=_to_place(*place))


def seal_params(ring: Ring, params: Params, now: datetime, place: Place | None = None) -> str:
    """Seal what stands in the form of the search page, for whoever may search."""
    return _seal(ring, [list(params), place and _from_place(place)], _FORM, now)


def unseal_params(ring: Ring, sealed: str, now: datetime) -> tuple[Params, Place | None]:
    """Open what `seal_params` sealed. Raises OutdatedError when that was too long ago, and
    MalformedError for anything else.
    """
    pairs, place = _unseal(ring, sealed, _FORM, now)
    return [(name, value) for name, value in pairs], place and _to_place(*place)


_FORM = "search page"  # no key has this id


def _seal(ring: Ring, what: list[Any], whose: str, now: datetime) -> str:
    """Seal something, and when that was, for an address."""
    text = json.dumps([now.timestamp(), *what])
    sealed = boxes.seal(ring.lookup_key("cursor"), text.encode(), whose.encode())
    return base64.urlsafe_b64encode(sealed).decode().rstrip("=")


def _unseal(ring: Ring, sealed: str, whose: str, now: datetime) -> list[Any]:
    """Open it again. Raises MalformedError for anything else or another's, OutdatedError."""
    try:
        raw = base64.urlsafe_b64decode(sealed + "=" * (-len(sealed) % 4))
        text = boxes.unseal(ring.lookup_key("cursor"), raw, whose.encode())
    except (ValueError, InvalidTag):
        raise MalformedError("The cursor is not one that you were given: search again.") from None
    at, *what = list(json.loads(text))
    if now.timestamp() - at > AGE.total_seconds():
        raise OutdatedError("The cursor is over a day old: search again.")
    return what


def _from_place(place: Place) -> list[str]:
    return [place.started_at.isoformat(), place.id.hex]


def _to_place(started_at: str, identifier: str) -> Place:
    return Place(datetime.fromisoformat(started_at), UUID(identifier))
