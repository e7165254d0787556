"""Webhooks: notices of recordings that lie elsewhere, `POST /v1/hooks/{name}`, and tape messages of
Oreka.

A notice is verified, written down, and answered; the recording is fetched afterwards. What is not
of a recording that is ready is answered as well, and nothing comes of it.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from functools import partial

from aiohttp import web

from archive import webhook as notices
from archive.bounds import within
from archive.errors import (
    InvalidError,
    MalformedError,
    NotFoundError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
)
from archive.recording import IS_AHEAD
from archive.webhook import Webhook
from storage import clocks, database, fetching, numbers
from storage import notices as kept
from storage.fetching import FetchError
from storage.vault import Vault
from web import asked, digests, render, signatures, trace
from web.doors import VAULT, WRONG_KEYS, OpenRoute

log = logging.getLogger("archive.web")

MOST = 2**18
"""Bytes of a notice."""

_PATIENCE = 10.0
_TAPE_LOOKS, _TAPE_REST = 15, 0.2
"""How often an answer to Oreka looks whether the recording is here, and the seconds between: that
answer alone lets it delete the file."""


def routes(webhooks: Mapping[str, Webhook]) -> list[OpenRoute]:
    """The addresses of this way in. Nobody shows a key of the archive's: each notice is signed."""
    return [
        OpenRoute("POST", "/v1/hooks/{name}", partial(post, webhooks)),
        OpenRoute("GET", "/orktrack/command", partial(tape, webhooks)),
    ]


async def post(webhooks: Mapping[str, Webhook], request: web.Request) -> web.Response:
    """`POST /v1/hooks/{name}`: 202 for what is to be fetched, 200 for what is known or is none."""
    webhook = webhooks.get(request.match_info["name"])
    if webhook is None or webhook.kind == "oreka":
        raise NotFoundError("There is no webhook of this name.")
    vault, wrong = request.app[VAULT], request.app[WRONG_KEYS]
    wrong.check(request.remote)
    large = TooLargeError(f"A notice may have {MOST} bytes at the most.")
    late = UnavailableError("The notice took too long; nothing was kept.")
    body = await asked.whole(request, MOST, _PATIENCE, large, late)
    now = await database.now(vault.pool)
    try:
        signatures.check(webhook, request, body, now)
    except UnauthenticatedError as error:
        trace.note(decision="refused")
        log.warning("%s: %s", webhook.actor, error.detail)
        wrong.count(request.remote)
        raise
    trace.note(actor=webhook.actor, decision="allowed")
    digests.check(request, body)
    try:
        told = notices.read(webhook.kind, body, request.content_type)
    except ValueError as error:
        raise MalformedError(f"The notice {_plain(error)}.") from None
    took = await _take_all(vault, webhook, told, asked.given(request), now)
    return render.data(took, 202 if took["new"] else 200)


async def _take_all(
    vault: Vault,
    webhook: Webhook,
    told: list[dict[str, str]],
    query: Mapping[str, str | list[str]],
    now: datetime,
) -> dict[str, int]:
    """Keep every notice that can be read. Raises InvalidError if any cannot."""
    took = {"new": 0, "known": 0, "ignored": 0}
    errors: dict[str, str] = {}
    for number, notice in enumerate(told):
        try:
            took[await _take(vault, webhook, notice, query, now)] += 1
        except InvalidError as error:
            before = f"{number}." if told[1:] else ""
            errors |= {f"{before}{name}": text for name, text in error.errors.items()}
    if errors:
        names = sorted({name.rpartition(".")[2] for name in errors})
        log.warning("%s: a notice was refused for %s", webhook.actor, ", ".join(names))
        raise InvalidError(errors)
    return took


async def _take(
    vault: Vault,
    webhook: Webhook,
    notice: Mapping[str, str],
    query: Mapping[str, str | list[str]],
    now: datetime,
) -> str:
    """Keep one notice; what became of it."""
    if not webhook.concerns(notice):
        return "ignored"
    try:
        found = webhook.find(notice, query)
        for url in filter(None, (found.url, found.delete_url)):
            fetching.address(webhook.reach, url)
    except (ValueError, FetchError) as error:
        raise InvalidError({"notice": str(error)}) from None
    fields = numbers.as_meant(found.fields)
    call = await clocks.call_of(vault, fields, now)
    details = {
        "fields": fields,
        "url": found.url,
        "delete_url": found.delete_url,
        "sha512": found.sha512,
    }
    new = await kept.ask(vault, webhook.name, found.id, call.expiry, details)
    return "new" if new else "known"


async def tape(webhooks: Mapping[str, Webhook], request: web.Request) -> web.Response:
    """`GET /orktrack/command`: a tape message of Oreka, which signs nothing and says where it is.

    It sends a message again until it is answered 200, or 400 for one that it is to forget, and
    keeps all others back meanwhile: only what somebody can mend is refused otherwise.
    """
    webhook = _oreka(webhooks, request)
    query = {name: request.query[name] for name in request.query}
    if query.get("type") != "tape" or not query.get("recid"):
        raise MalformedError("This is no tape message.")
    vault = request.app[VAULT]
    now = await database.now(vault.pool)
    try:
        took = await _take_all(vault, webhook, [notices.tape(query)], {}, now)
    except InvalidError as error:
        if error.errors == {"started_at": IS_AHEAD}:
            # That passes; 400 would lose the call for a clock that somebody can set.
            raise clocks.ahead() from None
        if error.errors.keys() == {"started_at"}:
            raise MalformedError("The call's period is over, or it tells no time.") from None
        raise
    delete = webhook.delete_after and not took["ignored"]
    gone = "true" if delete and await _recorded(vault, webhook, query["recid"]) else "false"
    text = f"type=taperesponse success=true comment= deletetape={gone}"
    return web.Response(text=text, headers=render.NO_STORE)


def _oreka(webhooks: Mapping[str, Webhook], request: web.Request) -> Webhook:
    known = [each for each in webhooks.values() if each.kind == "oreka"]
    if not known:
        raise NotFoundError("No recorder of this kind is configured.")
    for webhook in known:
        if webhook.senders is not None and within(request.remote, webhook.senders):
            trace.note(actor=webhook.actor, decision="allowed")
            return webhook
    trace.note(decision="refused")
    raise UnauthenticatedError("This recorder is not known at its address.")


async def _recorded(vault: Vault, webhook: Webhook, recid: str) -> bool:
    """Whether the recording is here, or comes in time for the answer."""
    for _ in range(_TAPE_LOOKS):
        if await kept.recorded(vault, webhook.name, recid):
            return True
        await asyncio.sleep(_TAPE_REST)
    return False


def _plain(error: ValueError) -> str:
    """Our own words, or a general text: the standard library's repeat what was sent."""
    text = str(error)
    return text if text.startswith(("is ", "has ", "holds ", "must ")) else "cannot be read"
