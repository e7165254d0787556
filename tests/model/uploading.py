"""The model's uploads: `storage/intake.py` and `storage/attempts.py`, and what the store does late.

The steps of an upload: "" (not begun, or told to try again), prepared (the body is here and
sealed), intended, put, committed; doubt (it is to be given up); unsure (the reply to the commit was
lost); done and failed.
"""

from tests.model.acts import Act, Guard, table
from tests.model.state import BEFORE, Row, State, put, stands, the, with_row

ENDED = ("done", "failed")
HOLDING = ("receiving", "stored")
"""The states in which a row holds the hash of its call, which is unique."""


def step(state: State, at: int, name: str) -> State:
    return state._replace(uploads=put(state.uploads, at, name))


def is_at(*names: str) -> Guard:
    return lambda state, at: state.uploads[at] in names


def abandoned(state: State, at: int) -> State:
    """Fence an attempt, unless it is stored (`attempts.abandon`)."""
    row = state.rows[at]
    if row is None or row.state != "receiving":
        return state
    return with_row(state, at, Row("abandoned", row.held))


def may_commit(state: State, at: int) -> bool:
    """The condition of the commit: a fenced row is not revived, nor one past its year."""
    return stands(state, at) == "receiving" and state.time == BEFORE


def stored(state: State, at: int) -> State:
    return with_row(state, at, Row("stored", False), f"stored {at}")


def acked(state: State, at: int, of: int) -> State:
    return step(state, at, "done")._replace(acked=put(state.acked, of, True))


def twin(state: State, at: int) -> int | None:
    """The other upload of the call, if its row stands in the way (`ON CONFLICT`)."""
    rows = range(len(state.rows))
    return next((each for each in rows if each != at and stands(state, each) in HOLDING), None)


def can_begin(state: State, at: int) -> bool:
    """It is let in before its year is over. Number 0 begins first: they are alike."""
    if at and not any(state.uploads):
        return False
    return state.mode == "open" and not state.uploads[at] and state.time == BEFORE and state.key


def can_intend(state: State, at: int) -> bool:
    return (
        state.mode == "open"
        and state.uploads[at] == "prepared"
        and state.rows[at] is None
        and twin(state, at) is None
    )


def intend(state: State, at: int) -> State:
    return step(with_row(state, at, Row("receiving", True)), at, "intended")


def is_same(state: State, at: int) -> bool:
    """The call is here: the answer is that of the first upload, if its year is not over."""
    other = twin(state, at)
    return (
        state.uploads[at] == "prepared"
        and other is not None
        and stands(state, other) == "stored"
        and state.time == BEFORE
    )


def is_stale(state: State, at: int) -> bool:
    """The call is being taken in, by one whose lease is over."""
    other = twin(state, at)
    row = None if other is None else state.rows[other]
    waits = row is not None and row.state == "receiving" and not row.held
    return state.uploads[at] == "prepared" and waits


def send_commit(state: State, at: int) -> State:
    """The commit and its reply."""
    if may_commit(state, at):
        return step(stored(state, at), at, "committed")
    return step(state, at, "doubt")


def lose_commit(state: State, at: int) -> State:
    return step(state, at, "unsure")._replace(sent=put(state.sent, at, True))


def land_commit(state: State, at: int) -> State:
    landed = stored(state, at) if may_commit(state, at) else state
    return landed._replace(sent=put(state.sent, at, False))


def settle(state: State, at: int) -> State:
    """Abandon it; if that finds nothing to abandon, see what it is (`attempts._settle`)."""
    if stands(state, at) == "receiving":
        return step(abandoned(state, at), at, "failed")
    return step(state, at, "committed" if stands(state, at) == "stored" else "failed")


def fly(state: State, at: int) -> State:
    return step(state, at, "doubt")._replace(flying=put(state.flying, at, True))


def land(state: State, at: int) -> State:
    flying, objects = put(state.flying, at, False), put(state.objects, at, True)
    return state._replace(flying=flying, objects=objects)


def alive(state: State, at: int) -> bool:
    return bool(state.uploads[at]) and state.uploads[at] not in ENDED


UPLOADING = table(
    Act("upload: begins", ("recordings",), can_begin, lambda s, at: step(s, at, "prepared")),
    Act("upload: intent", ("recordings",), can_intend, intend),
    Act(
        "upload: finds the call stored",
        ("recordings",),
        is_same,
        lambda s, at: acked(s, at, the(twin(s, at))),
    ),
    Act(
        "upload: finds the call left behind, and fences it",
        ("recordings",),
        is_stale,
        lambda s, at: step(abandoned(s, the(twin(s, at))), at, ""),
    ),
    Act(
        "upload: put",
        ("recordings",),
        is_at("intended"),
        lambda s, at: step(s._replace(objects=put(s.objects, at, True)), at, "put"),
    ),
    Act(
        "upload: put fails", ("recordings",), is_at("intended"), lambda s, at: step(s, at, "doubt")
    ),
    Act("upload: put times out", ("recordings",), is_at("intended"), fly),
    Act("store: the late put lands", ("recordings",), lambda s, at: s.flying[at], land),
    Act(
        "store: the late put never lands",
        ("recordings",),
        lambda s, at: s.flying[at],
        lambda s, at: s._replace(flying=put(s.flying, at, False)),
    ),
    Act("upload: commit", ("recordings",), is_at("put"), send_commit),
    Act("upload: commit, its reply lost", ("recordings",), is_at("put"), lose_commit),
    Act("database: the commit lands", ("recordings",), lambda s, at: s.sent[at], land_commit),
    Act(
        "database: the commit never lands",
        ("recordings",),
        lambda s, at: s.sent[at],
        lambda s, at: s._replace(sent=put(s.sent, at, False)),
    ),
    Act("upload: settles", ("recordings",), is_at("unsure"), settle),
    Act("upload: receipt", ("recordings",), is_at("committed"), lambda s, at: acked(s, at, at)),
    Act(
        "upload: gives up",
        ("recordings",),
        is_at("doubt"),
        lambda s, at: step(abandoned(s, at), at, "failed"),
    ),
    Act("upload: dies", ("recordings",), alive, lambda s, at: step(s, at, "failed")),
)
