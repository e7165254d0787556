"""The life of a recording, as a table of states and events.

    receiving --commit--> stored --claim--> erasing --finish--> erased
        \\--abandon--> abandoned                \\--claim--> erasing

`receiving` is an intent: the object's key is named before its first byte leaves. `commit` is the
one point at which the recording exists; the doors show `stored` alone. `erasing` may be claimed
again when the one who claimed it died. Nothing leads out of `erased` and `abandoned`: an upload
that is tried again is a new recording, with a new key, so that a late write of the old one can
never be taken for it.

The database refuses every step that is not in this table (trigger `recording_step`), and the
diagram in `docs/lifecycle.md` is made from it.
"""

from enum import StrEnum


class State(StrEnum):
    """What a recording can be."""

    RECEIVING = "receiving"
    STORED = "stored"
    ERASING = "erasing"
    ERASED = "erased"
    ABANDONED = "abandoned"


class Event(StrEnum):
    """What can happen to it."""

    COMMIT = "commit"
    ABANDON = "abandon"
    CLAIM = "claim"
    FINISH = "finish"


STEPS: dict[tuple[State, Event], State] = {
    (State.RECEIVING, Event.COMMIT): State.STORED,
    (State.RECEIVING, Event.ABANDON): State.ABANDONED,
    (State.STORED, Event.CLAIM): State.ERASING,
    (State.ERASING, Event.CLAIM): State.ERASING,
    (State.ERASING, Event.FINISH): State.ERASED,
}


def mermaid() -> str:
    """The diagram of the table, in Mermaid's notation for state diagrams."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.RECEIVING}"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in STEPS.items()]
    ends = [state for state in State if not any(before is state for before, _ in STEPS)]
    return "\n".join(lines + [f"    {state} --> [*]" for state in ends]) + "\n"
