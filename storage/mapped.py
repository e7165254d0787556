"""Taking in a recording whose system describes its call in its own words, by a mapping.

Whichever way it comes by, at a door or out of a landing bucket, what was said of it becomes a
`Call` here; then it is an upload like any other. Where the mapping needs what only the audio tells,
the body is held first, sealed for nobody.
"""

from collections.abc import AsyncIterable, Callable
from datetime import datetime, timedelta

from archive.access import Caller
from archive.mapping import Raw, Reading
from archive.recording import Call
from storage import clocks, intake, numbers
from storage.intake import Admitted, Offer, Taken
from storage.vault import Vault


async def admit(
    vault: Vault, caller: Caller, reading: Reading, raw: Raw, now: datetime
) -> Admitted | None:
    """Refuse what can be refused without the audio; None where the call depends on that."""
    if (fields := reading.read(raw)) is None:
        return None
    return await intake.admit(vault, caller, await _call(vault, fields, now), now)


async def take_in(
    vault: Vault,
    caller: Caller,
    reading: Reading,
    said: Callable[[], Raw],
    offer: Offer,
    body: AsyncIterable[bytes],
    arrived: datetime,
    now: datetime,
) -> Taken:
    """Take in a body that has to tell its call itself. `said`: what else was, once the body is
    here; `arrived`: when it was whole, from which a start can be counted back.
    """
    with intake.slot(vault, caller):
        spool = await intake.receive(vault, None, offer, body, now)
        try:
            facts = await intake.look(vault, offer, spool)
            start = arrived - timedelta(seconds=facts.duration)
            raw = {**said(), "tag": dict(facts.tags), "audio": {"start": start.isoformat()}}
            call = await _call_with(vault, caller, reading.read(raw) or {}, start, now)
            admitted = await intake.admit(vault, caller, call, now)
            spool = await intake.sealed_for(vault, spool, call, now)
            return await intake.keep(vault, caller, admitted, offer, spool, now)
        finally:
            spool.close()


async def _call_with(
    vault: Vault, caller: Caller, fields: dict[str, object], start: datetime, now: datetime
) -> Call:
    """The call. One whose start was taken from its arrival has the same when it arrives again."""
    call = await _call(vault, fields, now)
    if fields.get("started_at") != start.isoformat():
        return call
    known = await intake.start_of(vault, caller, call.call_id)
    if known is None:
        return call
    return await _call(vault, {**fields, "started_at": known.isoformat()}, now)


async def _call(vault: Vault, fields: dict[str, object], now: datetime) -> Call:
    return await clocks.call_of(vault, numbers.as_meant(fields), now)
