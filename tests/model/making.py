"""The model's exports, until they are fetched: `storage/exports.py` and `export_making.py`, beside
a recording that is stored, and of which now the original is heard and now a redacted copy.

Two may make the export, each under a name of its own. The steps of who asks: seen (the recording
may be heard), and then the row is there. Those of a maker: claimed, packed (with what was heard
then), sending (it holds the export), put. How it ends is in `exporting`.
"""

from dataclasses import dataclass
from typing import NamedTuple

from tests.model.acts import Guard
from tests.model.state import BEFORE, EXPIRED, IDLE, OVER, Work, add, put

NONE = -1
ENDS, DUE = EXPIRED, OVER
"""The export is over; the recording is due. Here, too, time is three phases."""

MAKER, ERASER = 0, 10
"""What is added to who claimed last, for the column `epoch`."""


class Maker(NamedTuple):
    """Who makes, and of what: 0 the original, 1 the copy."""

    step: str = ""
    packed: int = NONE


class State(NamedTuple):
    """One moment. `attempt` names the object that stands for the export, `packed` what is in it.

    `turns` counts how often something else came to be heard, `rebuilt` that the database was.
    """

    time: int
    granted: bool
    row: str
    row_held: bool
    row_mark: int
    heard: int
    turns: int
    asker: str
    stage: str
    ended: bool
    held: bool
    mark: int
    attempt: int
    packed: int
    objects: tuple[bool, ...]
    flying: tuple[bool, ...]
    makers: tuple[Maker, ...]
    exporters: tuple[Work, ...]
    erasers: tuple[Work, ...]
    told: tuple[str, ...]
    rebuilt: bool
    harm: str


@dataclass(frozen=True, slots=True)
class World:
    """How many there are of each."""

    name: str
    makers: int = 1
    exporters: int = 1
    erasers: int = 1
    without: frozenset[str] = frozenset()

    def start(self) -> State:
        """A recording is stored."""
        return State(
            time=BEFORE,
            granted=False,
            row="stored",
            row_held=False,
            row_mark=0,
            heard=0,
            turns=0,
            asker="",
            stage="",
            ended=False,
            held=False,
            mark=NONE,
            attempt=NONE,
            packed=NONE,
            objects=(False,) * self.makers,
            flying=(False,) * self.makers,
            makers=(Maker(),) * self.makers,
            exporters=(IDLE,) * self.exporters,
            erasers=(IDLE,) * self.erasers,
            told=(),
            rebuilt=False,
            harm="",
        )


def lives(state: State) -> bool:
    return state.stage in ("asked", "made")


# Who makes.


def maker(state: State, who: int, step: str, packed: int = NONE) -> State:
    return state._replace(makers=put(state.makers, who, Maker(step, packed)))


def maker_is_at(name: str) -> Guard:
    return lambda state, who: state.makers[who].step == name


def can_make(state: State, who: int) -> bool:
    """Number 0 begins first: they are alike."""
    first = not who or bool(state.makers[0].step)
    wanted = state.stage == "asked" and not state.ended and state.time == BEFORE
    return first and not state.makers[who].step and wanted and not state.held


def make(state: State, who: int) -> State:
    return maker(state._replace(held=True, mark=MAKER + who, attempt=who), who, "claimed")


def holds(state: State, who: int) -> bool:
    """The condition of every step of a maker."""
    wanted = lives(state) and not state.ended and state.time == BEFORE
    return wanted and state.mark == MAKER + who


def pack(state: State, who: int) -> State:
    if state.row != "stored":
        if state.mark == MAKER + who and lives(state):
            state = state._replace(ended=True, held=False)
        return maker(state, who, "failed")
    return maker(state, who, "packed", state.heard) if holds(state, who) else fail(state, who)


def fail(state: State, who: int) -> State:
    return maker(state, who, "failed")


def begin_to_send(state: State, who: int) -> State:
    if not holds(state, who):
        return fail(state, who)
    return maker(state._replace(held=True), who, "sending", state.makers[who].packed)


def sent(state: State, who: int) -> State:
    after = state._replace(objects=put(state.objects, who, True))
    return maker(after, who, "put", state.makers[who].packed)


def may_commit(state: State, who: int) -> bool:
    return holds(state, who) and state.stage == "asked" and state.row == "stored"


def commit(state: State, who: int) -> State:
    told = add(state.told, ["made"])
    packed = state.makers[who].packed
    after = state._replace(stage="made", packed=packed, held=False, told=told)
    return maker(after, who, "done")


def try_to_commit(state: State, who: int) -> State:
    return commit(state, who) if may_commit(state, who) else fail(state, who)


def lease_can_end(state: State) -> bool:
    """The lease of who sends outlasts the put."""
    sends = any(each.step == "sending" for each in state.makers)
    return state.held and not (sends or any(state.flying))


# Who fetches.


def may_fetch(state: State) -> bool:
    ready = state.stage == "made" and not state.ended and state.time == BEFORE
    return ready and state.row == "stored"


def hand_out(state: State) -> State:
    if state.packed != state.heard:
        return state._replace(harm="what is not to be heard was handed out")
    if not state.objects[state.attempt]:
        return state._replace(harm="an export is fetched and is not there")
    return state


def fetch(state: State) -> State:
    """Another audio stands for the recording by now: nobody gets this one any more."""
    return hand_out(state) if state.packed == state.heard else state._replace(ended=True)
