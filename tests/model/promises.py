"""The promises that the model is held to: what must be so in every state, and what rest is.

*Acknowledged* is a receipt that somebody has; *told* is an entry of the ledger, in its place or
waiting for it. What can be read is an object while the key of its day lives.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.model.state import BEFORE, IDLE, OVER, Row, State, World, stands, told

EXISTS = ("stored", "erasing", "erased")


@dataclass(frozen=True, slots=True)
class Promise:
    """What is promised, and whether one state keeps it."""

    text: str
    is_kept: Callable[[State], bool]


def _each(state: State) -> range:
    return range(len(state.rows))


def _acked_is_there(state: State) -> bool:
    kept = all(stands(state, at) in EXISTS for at, acked in enumerate(state.acked) if acked)
    return kept or state.mode != "open"


def _is_promised(state: State, at: int) -> bool:
    """Somebody relies on it: a sender, a reader, or who reads the ledger."""
    by_row = state.mode == "open" and stands(state, at) == "stored"
    entry = f"stored {at}"
    return state.acked[at] or by_row or entry in told(state) or entry in state.published


def _never_lost(state: State) -> bool:
    if state.time != BEFORE:
        return True
    return all(state.key and state.objects[at] for at in _each(state) if _is_promised(state, at))


def _stored_is_whole(state: State) -> bool:
    """Also after its instant, until somebody claims it; an old database may say so wrongly."""
    if state.restored:
        return True
    return all(
        state.key and state.objects[at] for at in _each(state) if stands(state, at) == "stored"
    )


def _told_once(state: State) -> bool:
    entries = told(state)
    return len(set(entries)) == len(entries)


def _told_as_done(state: State) -> bool:
    if state.mode != "open":
        return True
    entries = told(state)
    return all(
        (stands(state, at) == "erased") == (f"erased {at}" in entries) for at in _each(state)
    )


def _erased_is_gone(state: State) -> bool:
    entries = told(state) + state.published
    left = [at for at in _each(state) if f"erased {at}" in entries and state.objects[at]]
    return state.returned or not left


def _closed_is_noise(state: State) -> bool:
    return not state.key or not (state.closed or "closed" in told(state) + state.published)


def _one_a_call(state: State) -> bool:
    """A rebuild that cannot know which of two was acknowledged keeps both."""
    return state.restored or sum(stands(state, at) == "stored" for at in _each(state)) <= 1


def _signed_is_published(state: State) -> bool:
    known = set(state.published)
    return set(state.signed) <= known and (state.mode != "open" or known <= set(state.ledger))


def is_quiet(state: State, *, unswept: bool = False) -> bool:
    """Nobody is at work, and nothing is on its way (`unswept`: nor is there one who sweeps)."""
    ends = ("stored", "erased", "abandoned") if unswept else ("stored", "erased")
    return (
        state.mode == "open"
        and all(step in ("", "done", "failed") for step in state.uploads)
        and not any((*state.flying, *state.sent, *state.closers))
        and all(each == IDLE for each in (*state.erasers, *state.sweepers, *state.reconcilers))
        and all(row is None or row.state in ends for row in state.rows)
    )


def _is_explained(state: State, at: int) -> bool:
    """Whether an object may be there: it is stored; or, once more, noise of a closed day, a copy
    that came back, or an upload that nobody has a receipt of and that landed after a rebuild: these
    wait for the reconciler.
    """
    unknown = state.restored and state.rows[at] is None and not state.acked[at]
    returned = state.returned and stands(state, at) == "erased"
    return stands(state, at) == "stored" or not state.key or unknown or returned


def _rest_is_even(state: State) -> bool:
    left = [at for at in _each(state) if state.objects[at] and not _is_explained(state, at)]
    return not left or not is_quiet(state)


PROMISES = (
    Promise("what was acknowledged exists, until it is erased", _acked_is_there),
    Promise(
        "what was acknowledged or told of has its object and its key for its year", _never_lost
    ),
    Promise("what is stored has its object and its key", _stored_is_whole),
    Promise("a day's key lives until the day is over", lambda s: s.key or s.time == OVER),
    Promise("every act is told once", _told_once),
    Promise("a recording is told to be erased when it is, and only then", _told_as_done),
    Promise("what is told to be erased has no copy in the store", _erased_is_gone),
    Promise("nothing of a day that is told to be closed can be read", _closed_is_noise),
    Promise("a call is stored once", _one_a_call),
    Promise(
        "what is signed is published, and what is published is the ledger's", _signed_is_published
    ),
    Promise("at rest there is an object for each stored row, and no other", _rest_is_even),
)


def broken(state: State) -> str:
    """The promise that a state breaks; empty if it keeps them all."""
    if state.harm:
        return state.harm
    return next((each.text for each in PROMISES if not each.is_kept(state)), "")


def is_clean(world: World, state: State) -> bool:
    """Rest: what is unfinished is collected; where days are closed, nothing is left of this one."""
    if not is_quiet(state, unswept=not world.sweepers):
        return False
    if "ledger" not in world.without and state.signed != tuple(sorted(told(state))):
        return False
    return not world.closers or (
        state.closed and not any(state.objects) and not any(map(_is_kept, state.rows))
    )


def _is_kept(row: Row | None) -> bool:
    return row is not None and row.state != "erased"
