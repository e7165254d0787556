"""The model's erasure: `storage/removal.py` and `storage/days.py`, the clock, and the readers.

The steps of an eraser: claimed, removed, gone (the store shows nothing). Those of a sweeper: taken,
removed, gone. Those of a closer: checked (no row is open), swept, destroyed.
"""

from tests.model.acts import Act, Guard, table
from tests.model.state import (
    BEFORE,
    EXPIRED,
    IDLE,
    OVER,
    Row,
    State,
    Work,
    add,
    put,
    stands,
    the,
    told,
    with_row,
)
from tests.model.uploading import abandoned

# Who erases.


def eraser(state: State, who: int, work: Work) -> State:
    return state._replace(erasers=put(state.erasers, who, work))


def is_due(state: State) -> bool:
    return state.time > BEFORE


def is_free(state: State, at: int) -> bool:
    """It is stored, or left by an eraser whose lease is over."""
    row = state.rows[at]
    return row is not None and (row.state == "stored" or (row.state == "erasing" and not row.held))


def may_claim(state: State, who: int, at: int) -> bool:
    idle = state.mode == "open" and state.erasers[who] == IDLE
    return idle and is_due(state) and is_free(state, at)


def claim(state: State, who: int, at: int) -> State:
    return eraser(with_row(state, at, Row("erasing", True, who)), who, Work("claimed", at))


def eraser_is_at(name: str) -> Guard:
    return lambda state, who: state.erasers[who].step == name


def without_object(state: State, at: int) -> State:
    return state._replace(objects=put(state.objects, at, False))


def erase_object(state: State, who: int) -> State:
    at = state.erasers[who].on
    return eraser(without_object(state, at), who, Work("removed", at))


def refused(state: State, who: int) -> State:
    return eraser(state, who, Work("removed", state.erasers[who].on))


def holds_claim(state: State, who: int) -> bool:
    """The condition of every later write: nobody has claimed it since."""
    row = state.rows[state.erasers[who].on]
    return row is not None and row.state == "erasing" and row.mark == who


def let_go(state: State, who: int) -> State:
    """The store could not be asked: the lease ends, if it is one's own still."""
    at = state.erasers[who].on
    if holds_claim(state, who):
        state = with_row(state, at, Row("erasing", False, who))
    return eraser(state, who, IDLE)


def read_back(state: State, who: int) -> State:
    at = state.erasers[who].on
    return eraser(state, who, IDLE if state.objects[at] else Work("gone", at))


def finish(state: State, who: int) -> State:
    at = state.erasers[who].on
    if holds_claim(state, who):
        state = with_row(state, at, Row("erased", False), f"erased {at}")
    return eraser(state, who, IDLE)


# Who sweeps.


def sweeper(state: State, who: int, work: Work) -> State:
    return state._replace(sweepers=put(state.sweepers, who, work))


def may_fence(state: State, at: int) -> bool:
    row = state.rows[at]
    over = row is not None and row.state == "receiving" and not row.held
    return state.mode == "open" and over


def may_take(state: State, who: int, at: int) -> bool:
    row = state.rows[at]
    over = row is not None and row.state == "abandoned" and not row.held
    return state.mode == "open" and state.sweepers[who] == IDLE and over


def take(state: State, who: int, at: int) -> State:
    looks = the(state.rows[at]).mark
    return sweeper(
        with_row(state, at, Row("abandoned", True, looks)), who, Work("taken", at, looks)
    )


def sweeper_is_at(name: str) -> Guard:
    return lambda state, who: state.sweepers[who].step == name


def sweep_object(state: State, who: int) -> State:
    work = state.sweepers[who]
    return sweeper(without_object(state, work.on), who, work._replace(step="removed"))


def sweep_look(state: State, who: int) -> State:
    work = state.sweepers[who]
    gone = not state.objects[work.on]
    return sweeper(state, who, work._replace(step="gone") if gone else IDLE)


def sweep_done(state: State, who: int) -> State:
    """After the first look it is kept for a second; after that its row goes."""
    work = state.sweepers[who]
    if stands(state, work.on) == "abandoned":
        row = None if work.mark else Row("abandoned", True, 1)
        state = with_row(state, work.on, row)
    return sweeper(state, who, IDLE)


# Who closes the day.


def closer(state: State, who: int, name: str) -> State:
    return state._replace(closers=put(state.closers, who, name))


def closer_is_at(name: str) -> Guard:
    return lambda state, who: state.closers[who] == name


def is_open(row: Row | None) -> bool:
    """Whether a row keeps its day from being closed (`days._open_rows`)."""
    return row is not None and (
        row.state in ("receiving", "stored", "erasing")
        or (row.state == "abandoned" and not row.mark)
    )


def is_over(state: State) -> bool:
    return state.time == OVER


def may_close(state: State, who: int) -> bool:
    begins = state.mode == "open" and not state.closers[who] and state.key
    return begins and is_over(state) and not any(map(is_open, state.rows))


def sweep_day(state: State, who: int) -> State:
    nothing = (False,) * len(state.objects)
    return closer(state._replace(objects=nothing), who, "swept")


def may_destroy(state: State, who: int) -> bool:
    """The holder looks at a clock of its own."""
    return state.closers[who] == "swept" and is_over(state)


def destroy(state: State, who: int) -> State:
    return closer(state._replace(key=False), who, "destroyed")


def may_note(state: State, who: int) -> bool:
    """After one's own destruction; or later, of a key that went just before a crash."""
    late = not state.closers[who] and state.mode == "open" and not state.key and not state.closed
    return state.closers[who] == "destroyed" or late


def note(state: State, who: int) -> State:
    if not state.closed:
        state = state._replace(closed=True, waiting=add(state.waiting, ["closed"]))
    return closer(state, who, "")


# The clock, the leases and the readers.


def instant_can_come(state: State) -> bool:
    """A year is longer than the ledger takes to be published; it matters only to a restore."""
    if state.backup is None and not state.restored:
        return state.time == BEFORE
    published = all(entry in state.published for entry in told(state))
    return state.time == BEFORE and published


def lease_can_end(state: State, at: int) -> bool:
    """Any lease may end at any moment, but for the day that lies between the sweep's two looks: it
    is longer than a put can take.
    """
    row = state.rows[at]
    if row is None or not row.held:
        return False
    still = state.flying[at] or state.uploads[at] == "intended"
    return not (row.state == "abandoned" and row.mark and still)


def may_read(state: State, at: int) -> bool:
    return state.mode == "open" and stands(state, at) == "stored" and state.time == BEFORE


def read(state: State, at: int) -> State:
    if stands(state, at) != "stored":
        return state._replace(harm="what is not stored was read")
    if state.time != BEFORE:
        return state._replace(harm="it was read after its instant")
    return state


ERASING = table(
    Act(
        "time: the instant comes",
        (),
        instant_can_come,
        lambda s: s._replace(time=EXPIRED),
    ),
    Act(
        "time: the day is over",
        (),
        lambda s: s.time == EXPIRED,
        lambda s: s._replace(time=OVER),
    ),
    Act(
        "lease: ends",
        ("recordings",),
        lease_can_end,
        lambda s, at: with_row(s, at, the(s.rows[at])._replace(held=False)),
    ),
    Act("reader: reads", ("recordings",), may_read, read),
    Act("eraser: claims", ("erasers", "recordings"), may_claim, claim),
    Act("eraser: removes", ("erasers",), eraser_is_at("claimed"), erase_object),
    Act("eraser: is refused the removal", ("erasers",), eraser_is_at("claimed"), refused),
    Act("eraser: cannot ask", ("erasers",), eraser_is_at("claimed"), let_go),
    Act("eraser: reads back", ("erasers",), eraser_is_at("removed"), read_back),
    Act("eraser: finishes", ("erasers",), eraser_is_at("gone"), finish),
    Act(
        "eraser: dies",
        ("erasers",),
        lambda s, who: s.erasers[who] != IDLE,
        lambda s, who: eraser(s, who, IDLE),
    ),
    Act("sweep: fences", ("recordings",), may_fence, abandoned),
    Act("sweep: takes", ("sweepers", "recordings"), may_take, take),
    Act("sweep: removes", ("sweepers",), sweeper_is_at("taken"), sweep_object),
    Act("sweep: looks", ("sweepers",), sweeper_is_at("removed"), sweep_look),
    Act("sweep: writes it down", ("sweepers",), sweeper_is_at("gone"), sweep_done),
    Act(
        "sweep: dies",
        ("sweepers",),
        lambda s, who: s.sweepers[who] != IDLE,
        lambda s, who: sweeper(s, who, IDLE),
    ),
    Act(
        "close: sees no open row", ("closers",), may_close, lambda s, who: closer(s, who, "checked")
    ),
    Act("close: sweeps the day", ("closers",), closer_is_at("checked"), sweep_day),
    Act("close: the holder destroys the key", ("closers",), may_destroy, destroy),
    Act("close: notes it", ("closers",), may_note, note),
    Act(
        "close: dies",
        ("closers",),
        lambda s, who: bool(s.closers[who]),
        lambda s, who: closer(s, who, ""),
    ),
)
