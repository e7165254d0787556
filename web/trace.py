"""The request that is being answered, as log lines and the access line tell of it: ids and our own
words alone, never an address, a query or a header as they were sent.
"""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each command of the program loads this, and few speak HTTP
    from aiohttp import web

log = logging.getLogger("archive.web")

HEADER = "X-Request-Id"


@dataclass(slots=True)
class Trace:
    """What is known of a request by now. `decision`: whether who asked may ask it; "" where anybody
    may. `problem`: the last part of the type of the problem that was told.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    actor: str = ""
    decision: str = ""
    problem: str = ""


CURRENT: ContextVar[Trace | None] = ContextVar("request", default=None)


@contextmanager
def tracing() -> Iterator[Trace]:
    """A request begins; what is logged within it has its id."""
    trace = Trace()
    token = CURRENT.set(trace)
    try:
        yield trace
    finally:
        CURRENT.reset(token)


def note(*, actor: str = "", decision: str = "", problem: str = "") -> None:
    """Add what has become known of the request that is being answered, if any is."""
    if (trace := CURRENT.get()) is not None:
        trace.actor = actor or trace.actor
        trace.decision = decision or trace.decision
        trace.problem = problem or trace.problem


def tell(trace: Trace, request: "web.BaseRequest", status: int | None, seconds: float) -> None:
    """The line of one request; without a status its sender had gone."""
    route = template(request)
    facts = {
        "event": "request",
        "method": request.method,
        "route": route,
        "status": status,
        "ms": round(seconds * 1000, 1),
        "decision": trace.decision,
        "problem": trace.problem,
    }
    text = "%s %s %s %s"
    log.info(text, request.method, route or "-", status or "-", trace.problem, extra=facts)


def template(request: "web.BaseRequest") -> str:
    """The address as the door has it, with names for what was sent; "" where it has none."""
    found = getattr(request, "_match_info", None)
    return "" if found is None else getattr(found.route.resource, "canonical", "")
