"""The search page: one box, a few choices, and what they find, newest first.

What is typed goes up in the body of a form and comes back sealed, as the `q` of an address that can
be kept and sent: no number and no name stands in one. Without a script the form is sent and the
browser led to that address; with one, the same form is sent while it is typed and only the list
comes back (`X-Part: list`). Each search is in the ledger, whichever way.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from aiohttp import hdrs, web

from archive import asking, export, listening, listing
from archive.access import READERS
from archive.asking import Asked
from archive.errors import OutdatedError
from archive.recording import LONGEST, CallType, Direction, Recording
from archive.retention import Policy
from archive.search import Place, Query
from storage import numbers, search
from web import browser, cursors, face, pages
from web.cursors import Params
from web.doors import OpenRoute, Route, Visit
from web.words import Words, marked

PAGE = 50

TYPES = {
    CallType.CUSTOMER_SERVICE: marked("Customer service"),
    CallType.DIRECT_MARKETING: marked("Direct marketing"),
    CallType.FAULT_REPORT: marked("Fault report"),
    CallType.CONTRACT: marked("Contract"),
    CallType.OTHER: marked("Other"),
}
DIRECTIONS = {
    Direction.INBOUND: marked("Inbound"),
    Direction.OUTBOUND: marked("Outbound"),
    Direction.INTERNAL: marked("Internal"),
}
FIELDS = {
    asking.ANYTHING: marked("Number, name or id"),
    "number": marked("Number"),
    "agent": marked("Agent"),
    "customer": marked("Customer"),
    "contract": marked("Contract no."),
    "queue": marked("Queue"),
    "call_id": marked("Call id"),
}
COLUMNS = {
    "type": marked("Type"),
    "direction": marked("Direction"),
    "caller": marked("Caller"),
    "callee": marked("Called"),
    "agent": marked("Agent"),
    "queue": marked("Queue"),
    "customer": marked("Customer"),
    "contract": marked("Contract no."),
}
PRESETS = {
    "": marked("Any day"),
    "today": marked("Today"),
    "yesterday": marked("Yesterday"),
    "week": marked("Last 7 days"),
    "month": marked("This month"),
    "last-month": marked("Last month"),
    "own": marked("Days of your own"),
}

_EARLIEST, _LATEST = date(1970, 1, 1), date(2200, 1, 1)


def routes() -> list[Route | OpenRoute]:
    """The addresses of the search page."""
    return [Route("GET", "/", READERS, show), Route("POST", "/search", READERS, look)]


@dataclass(frozen=True, slots=True)
class Form:
    """What stands in the form. `when` names a preset; `first` and `last` are days of one's own."""

    text: str = ""
    call_types: frozenset[str] = frozenset()
    direction: str | None = None
    when: str = ""
    first: date | None = None
    last: date | None = None

    @classmethod
    def from_params(cls, params: Params) -> "Form":
        """Read what was sent. What no form of ours sends is left out: a page shows what is used."""
        said = dict(params)
        types = {kind for kind in CallType if f"type.{kind}" in said}
        direction = said.get("direction")
        own = said.get("when") == "own"
        return cls(
            said.get("text", "").strip()[: 2 * LONGEST],
            frozenset(types),
            direction if direction in set(Direction) else None,
            said["when"] if said.get("when") in PRESETS else "",
            _day(said.get("from")) if own else None,
            _day(said.get("to")) if own else None,
        )

    def params(self) -> Params:
        """The same as it can be sealed."""
        days = [("from", self.first), ("to", self.last)]
        return [
            ("text", self.text),
            *((f"type.{each}", "on") for each in sorted(self.call_types)),
            ("direction", self.direction or ""),
            ("when", self.when),
            *((name, day.isoformat()) for name, day in days if day),
        ]

    def query(self, asked: Asked, policy: Policy, today: date) -> Query:
        """What to find: what was typed, narrowed by what was chosen."""
        since, until = asking.preset(self.when, today) or (
            self.first,
            self.last and self.last + timedelta(days=1),
        )
        firsts = [day for day in (asked.since, since) if day]
        ends = [day for day in (asked.until, until) if day]
        return Query(
            call_types=self.call_types or None,
            since=_midnight(max(firsts), policy) if firsts else None,
            until=_midnight(min(ends), policy) if ends else None,
            direction=self.direction,
            sealed=asked.parts,
            limit=PAGE,
        )


def _day(text: str | None) -> date | None:
    try:
        day = date.fromisoformat(text or "")
    except ValueError:
        return None
    return min(max(day, _EARLIEST), _LATEST)


def _midnight(day: date, policy: Policy) -> datetime:
    return policy.midnight(min(max(day, _EARLIEST), _LATEST))


async def show(request: web.Request, visit: Visit) -> web.Response:
    """`GET /?q=…`: the search that an address holds; without one, the newest calls."""
    params: Params = []
    place = None
    if sealed := request.query.get("q"):
        try:
            params, place = cursors.unseal_params(visit.vault.ring, sealed, visit.now)
        except OutdatedError:
            return face.notice(request, "old", 410)
    return await _answer(request, visit, Form.from_params(params), place)


async def look(request: web.Request, visit: Visit) -> web.Response:
    """`POST /search`: what was typed and chosen, and the address that holds it."""
    form = Form.from_params(list((await browser.form(request)).items()))
    address = _address(visit, form)
    if _only_list(request):
        answer = await _answer(request, visit, form, None)
        answer.headers["X-Address"] = address
        return answer
    return web.Response(status=303, headers={hdrs.LOCATION: address})


def _only_list(request: web.Request) -> bool:
    return request.headers.get("X-Part") == "list"


def _address(visit: Visit, form: Form, place: Place | None = None) -> str:
    if form == Form() and place is None:
        return "/"
    return f"/?q={cursors.seal_params(visit.vault.ring, form.params(), visit.now, place)}"


async def _answer(
    request: web.Request, visit: Visit, form: Form, place: Place | None
) -> web.Response:
    vault, policy = visit.vault, visit.vault.policy
    today = policy.day_of(visit.now)
    asked = asking.understand(form.text, today)
    query = replace(form.query(asked, policy, today), after=place)
    found = await search.find(vault, visit.caller, query, visit.now)
    said = face.Reader.from_request(request).words
    values = {
        "rows": [_row(each, policy, said) for each in found.items],
        "next": found.next and _address(visit, form, found.next),
        "further": place is not None,
        "understood": _understood(asked, said),
        "columns": [(name, COLUMNS[name]) for name in pages.columns(request)],
        "plain": form == Form(),
        "sealed": cursors.seal_params(vault.ring, form.params(), visit.now),
        "longest": listening.LONGEST,
        "most": export.MOST,
        "rows_at_most": listing.MOST,
        "token": pages.token(request, visit),
    }
    if _only_list(request):
        return face.page(request, "list.html", values)
    kinds = visit.caller.scope.call_types
    choices = {
        "form": form,
        "types": [(kind, text) for kind, text in TYPES.items() if kinds is None or kind in kinds],
        "directions": DIRECTIONS,
        "presets": PRESETS,
        "all_columns": COLUMNS,
    }
    return face.page(request, "search.html", {**values, **choices})


def _understood(asked: Asked, said: Words) -> list[tuple[str, str]]:
    """What was made of the line that was typed, for whoever typed it."""
    told = [(said.text(FIELDS[field]), value) for field, value in asked.parts]
    if days := _days(asked, said):
        told.append((said.text(marked("Days")), days))
    if asked.more:
        told.append(
            (said.text(marked("Not looked for")), said.text(marked("the rest of the line")))
        )
    return told


def _days(asked: Asked, said: Words) -> str:
    first, last = asked.since, asked.until and asked.until - timedelta(days=1)
    if first == last:
        return said.day(first) if first else ""
    ends = (said.day(day) if day else "" for day in (first, last))
    return " \u2013 ".join(ends).strip()


def _row(recording: Recording, policy: Policy, said: Words) -> dict[str, object]:
    call = recording.call
    started = policy.local(call.started_at)
    return {
        "id": recording.id,
        "day": said.day(started.date()),
        "time": said.time(started),
        "stamp": started.isoformat(),
        "seconds": recording.audio.duration,
        "type": said.text(TYPES[call.call_type]),
        "direction": said.text(DIRECTIONS[call.direction]) if call.direction else "",
        "caller": call.caller and numbers.shown(call.caller),
        "callee": call.callee and numbers.shown(call.callee),
        **{name: getattr(call, name) for name in ("agent", "queue", "customer", "contract")},
    }
