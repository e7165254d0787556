"""The auditors' search of the ledger: by act, by day, by recording, by position, newest first.

What is looked for stands in the address, which can be kept and sent: an act, days, a random id and
a place in the ledger tell of nobody. What is no such thing is not looked for, and the page says so.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from archive.access import OPERATORS
from archive.ledger import Entry, Wanted
from archive.retention import Policy
from storage import ledger, tree
from storage.database import connection
from web import asked, face, pages
from web.acts import ACTS
from web.doors import OpenRoute, Route, Visit
from web.words import Words, marked

PAGE = 50

FACTS = 400
"""Characters of an entry's facts that are shown; the entry itself has all of them."""

_FIRST, _LAST = date(1970, 1, 1), date(2200, 1, 1)

FIELDS = ("act", "from", "to", "recording", "position")

FAULTS = {
    "act": marked("There is no such act."),
    "from": marked("This is no day."),
    "to": marked("This is no day."),
    "recording": marked("This is not the id of a recording: it has 36 characters."),
    "position": marked("A position is a whole number."),
    "before": marked("A position is a whole number."),
}


def routes() -> list[Route | OpenRoute]:
    """The address of the ledger's page."""
    return [Route("GET", "/ledger", OPERATORS, show)]


@dataclass(frozen=True, slots=True)
class Form:
    """What stands in the form, as far as it can be looked for; and the fields that cannot."""

    act: str | None = None
    first: date | None = None
    last: date | None = None
    recording: UUID | None = None
    position: int | None = None
    before: int | None = None
    faults: tuple[str, ...] = ()

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> "Form":
        """Read an address; a field that is empty asks for nothing."""
        said = {name: text.strip() for name, text in params.items() if text.strip()}
        found: dict[str, object] = {}
        faults = []
        for name, (field, read) in _READERS.items():
            if name not in said:
                continue
            try:
                found[field] = read(said[name])
            except ValueError:
                faults.append(name)
        return cls(**found, faults=tuple(faults))  # type: ignore[arg-type]

    def wanted(self, policy: Policy) -> Wanted:
        """What to look for: days of the archive's own zone, both of them inside."""
        since = policy.midnight(self.first) if self.first else None
        until = policy.midnight(self.last + timedelta(days=1)) if self.last else None
        return Wanted(self.act, since, until, self.recording, self.position, self.before)

    def address(self) -> str:
        """Where this is found."""
        said = {
            "act": self.act,
            "from": self.first,
            "to": self.last,
            "recording": self.recording,
            "position": self.position,
            "before": self.before,
        }
        query = urlencode({name: str(value) for name, value in said.items() if value is not None})
        return f"/ledger?{query}" if query else "/ledger"


def _act(text: str) -> str:
    if text not in ACTS:
        raise ValueError
    return text


def _day(text: str) -> date:
    day = date.fromisoformat(text)
    if not _FIRST <= day <= _LAST:
        raise ValueError
    return day


def _position(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError
    return int(text)


_READERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "act": ("act", _act),
    "from": ("first", _day),
    "to": ("last", _day),
    "recording": ("recording", UUID),
    "position": ("position", _position),
    "before": ("before", _position),
}


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /ledger?act=…&from=…&to=…&recording=…&position=…`: the newest entries of that."""
    asked.refuse_others(request, *FIELDS, "before")
    form, policy = Form.from_params(request.query), visit.vault.policy
    found: list[Entry] = []
    if not form.faults:
        await tree.sequence(visit.vault)
        async with connection(visit.vault.pool) as lent:
            found = await ledger.find(lent, form.wanted(policy), PAGE + 1)
    said = face.Reader.from_request(request).words
    further = replace(form, before=found[PAGE - 1].position) if len(found) > PAGE else None
    values = {
        "form": form,
        "acts": sorted(((said.text(text), act) for act, text in ACTS.items())),
        "faults": {name: said.text(FAULTS[name]) for name in form.faults},
        "rows": [_row(entry, policy, said) for entry in found[:PAGE]],
        "next": further and further.address(),
        "token": pages.token(request, visit),
    }
    return face.page(request, "ledger.html", values, status=400 if form.faults else 200)


def _row(entry: Entry, policy: Policy, said: Words) -> dict[str, object]:
    here = policy.local(entry.at)
    facts = [f"{name}: {_plain(value)}" for name, value in entry.facts.items()]
    told = " · ".join(facts)
    return {
        "position": entry.position,
        "stamp": here.isoformat(),
        "day": said.day(here.date()),
        "time": said.time(here, "medium"),
        "act": entry.act,
        "told": said.text(ACTS[entry.act]) if entry.act in ACTS else entry.act,
        "actor": entry.actor,
        "recording": entry.recording,
        "erased": entry.act == "erased",
        "facts": told[:FACTS],
        "more": len(told) > FACTS,
        "sealed": entry.sealed is not None,
    }


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
