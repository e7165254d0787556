"""The model's redactions: `storage/redactions.py`, beside a recording that is stored (`exporting`
has its exports, the other modules its upload and its day).

Two copies may be on their way. The hold (`redacting_until`) is the recording's, and the lease that
of the copy's row: both end at the same instant. The steps of a maker: read (it knows what stands),
named, put; those of the collector and of an eraser: as elsewhere.

Taken for granted: a put that was begun under a hold has landed, or never will, when that ends.
"""

from dataclasses import dataclass
from typing import NamedTuple

from tests.model.acts import Act, Guard, table
from tests.model.promises import Promise
from tests.model.state import IDLE, Work, add, put

NONE = -1


class Copy(NamedTuple):
    """A redacted copy: its maker's step and what stood when it read; its row, whose lease may run
    (coming, left: to be removed, again: looked for once more); and its object.
    """

    step: str = ""
    former: int = NONE
    row: str = ""
    held: bool = False
    there: bool = False
    flying: bool = False


class State(NamedTuple):
    """One moment. `standing` is the copy that the recording names, `last` that of which the ledger
    told last; `hushed`: it told that something is silent, and not that it was taken back.
    """

    due: bool
    granted: bool
    row: str
    held: bool
    mark: int
    standing: int
    hold: int
    original: bool
    copies: tuple[Copy, ...]
    last: int
    erasers: tuple[Work, ...]
    collectors: tuple[Work, ...]
    told: tuple[str, ...]
    harm: str


@dataclass(frozen=True, slots=True)
class World:
    """How many there are of each."""

    name: str
    copies: int = 2
    erasers: int = 1
    collectors: int = 1
    without: frozenset[str] = frozenset()

    def start(self) -> State:
        """A recording is stored, and nobody has made anything of it silent."""
        return State(
            due=False,
            granted=False,
            row="stored",
            held=False,
            mark=0,
            standing=NONE,
            hold=NONE,
            original=True,
            copies=(Copy(),) * self.copies,
            last=NONE,
            erasers=(IDLE,) * self.erasers,
            collectors=(IDLE,) * self.collectors,
            told=(),
            harm="",
        )


def change(state: State, at: int, **facts: object) -> State:
    """Change a copy."""
    return state._replace(copies=put(state.copies, at, state.copies[at]._replace(**facts)))


def step(state: State, at: int, name: str) -> State:
    return change(state, at, step=name)


def is_at(name: str) -> Guard:
    return lambda state, at: state.copies[at].step == name


# Who redacts.


def can_read(state: State, at: int) -> bool:
    """Number 0 begins first: they are alike."""
    first = not at or bool(state.copies[0].step)
    return first and not state.copies[at].step and state.row == "stored" and not state.due


def may_name(state: State) -> bool:
    ends = state.due or state.granted
    return state.row == "stored" and not ends and state.hold == NONE


def name(state: State, at: int) -> State:
    return change(state, at, step="named", row="coming", held=True)._replace(hold=at)


def may_stand(state: State, at: int) -> bool:
    """The conditions of the two statements: its own row, and the recording as it was."""
    own = state.copies[at].row == "coming" and state.copies[at].held
    same = state.standing == state.copies[at].former
    return own and same and state.row == "stored" and not state.due


def replaced(state: State, at: int) -> State:
    """Leave the object of a copy that stands no more to the collector."""
    return state if at == NONE else change(state, at, row="left", held=False)


def stand(state: State, at: int) -> State:
    after = replaced(change(state, at, step="done", row="", held=False), state.standing)
    return after._replace(standing=at, hold=NONE, last=at)


def try_to_stand(state: State, at: int) -> State:
    return stand(state, at) if may_stand(state, at) else step(state, at, "failed")


def can_withdraw(state: State) -> bool:
    return state.row == "stored" and not state.due and state.standing != NONE


def withdraw(state: State) -> State:
    return replaced(state, state.standing)._replace(standing=NONE, last=NONE)


def lease_can_end(state: State, at: int) -> bool:
    """The hold, and the day between two looks, outlast a put."""
    copy = state.copies[at]
    on_its_way = copy.flying or copy.step == "named"
    return copy.held and not (on_its_way and copy.row in ("coming", "again"))


def end_lease(state: State, at: int) -> State:
    hold = NONE if state.hold == at else state.hold
    return change(state, at, held=False)._replace(hold=hold)


# Who collects.


def collector(state: State, who: int, work: Work) -> State:
    return state._replace(collectors=put(state.collectors, who, work))


def collector_is_at(name: str) -> Guard:
    return lambda state, who: state.collectors[who].step == name


def may_take(state: State, who: int, at: int) -> bool:
    over = bool(state.copies[at].row) and not state.copies[at].held
    return state.collectors[who] == IDLE and over and state.standing != at


def take(state: State, who: int, at: int) -> State:
    """Fence it, and remember which look this is."""
    row = "again" if state.copies[at].row == "again" else "left"
    work = Work("taken", at, int(row == "again"))
    return collector(change(state, at, row=row, held=True), who, work)


def look(state: State, who: int) -> State:
    work = state.collectors[who]
    gone = not state.copies[work.on].there
    return collector(state, who, work._replace(step="gone") if gone else IDLE)


def write_down(state: State, who: int) -> State:
    work = state.collectors[who]
    if state.copies[work.on].row:
        row = "" if work.mark else "again"
        state = change(state, work.on, row=row, held=bool(row))
    return collector(state, who, IDLE)


# Who erases.


def eraser(state: State, who: int, work: Work) -> State:
    return state._replace(erasers=put(state.erasers, who, work))


def eraser_is_at(name: str) -> Guard:
    return lambda state, who: state.erasers[who].step == name


def may_claim(state: State, who: int) -> bool:
    free = state.row == "stored" or (state.row == "erasing" and not state.held)
    due = state.due or state.granted
    return state.erasers[who] == IDLE and free and due and state.hold == NONE


def claim(state: State, who: int) -> State:
    """What stands is read with the claim: the entry names its key."""
    after = state._replace(row="erasing", held=True, mark=who)
    return eraser(after, who, Work("claimed", state.standing))


def next_step(state: State, who: int, name: str) -> State:
    return eraser(state, who, state.erasers[who]._replace(step=name))


def remove(state: State, who: int) -> State:
    """All that lies under its name."""
    copies = tuple(each._replace(there=False) for each in state.copies)
    return next_step(state._replace(original=False, copies=copies), who, "removed")


def read_back(state: State, who: int) -> State:
    left = state.original or any(each.there for each in state.copies)
    return eraser(state, who, IDLE) if left else next_step(state, who, "gone")


def tell(state: State, who: int) -> State:
    named = state.erasers[who].on
    harm = "" if named == state.last else "an erasure does not name the copy that stood"
    told = add(state.told, ["erased"])
    return state._replace(row="erased", held=False, standing=NONE, told=told, harm=harm)


def finish(state: State, who: int) -> State:
    if state.row == "erasing" and state.mark == who:
        state = tell(state, who)
    return eraser(state, who, IDLE)


REDACTING = table(
    Act("time: the instant comes", (), lambda s: not s.due and s.hold == NONE,
        lambda s: s._replace(due=True)),
    Act("people: grant an early erasure", (), lambda s: not s.granted and not s.due,
        lambda s: s._replace(granted=True)),
    Act("redact: reads what stands", ("copies",), can_read,
        lambda s, at: change(s, at, step="read", former=s.standing)),
    Act("redact: names it", ("copies",), lambda s, at: is_at("read")(s, at) and may_name(s),
        name),
    Act("redact: is refused", ("copies",), lambda s, at: is_at("read")(s, at) and not may_name(s),
        lambda s, at: step(s, at, "failed")),
    Act("redact: put", ("copies",), is_at("named"),
        lambda s, at: change(s, at, step="put", there=True)),
    Act("redact: put fails", ("copies",), is_at("named"), lambda s, at: step(s, at, "failed")),
    Act("redact: put times out", ("copies",), is_at("named"),
        lambda s, at: change(s, at, step="failed", flying=True)),
    Act("store: the late put lands", ("copies",), lambda s, at: s.copies[at].flying,
        lambda s, at: change(s, at, flying=False, there=True)),
    Act("store: the late put never lands", ("copies",), lambda s, at: s.copies[at].flying,
        lambda s, at: change(s, at, flying=False)),
    Act("redact: lets it stand", ("copies",), is_at("put"), try_to_stand),
    Act("redact: dies", ("copies",), lambda s, at: s.copies[at].step in ("read", "named", "put"),
        lambda s, at: step(s, at, "failed")),
    Act("withdraw", (), can_withdraw, withdraw),
    Act("lease: of a copy ends", ("copies",), lease_can_end, end_lease),
    Act("lease: of an eraser ends", (), lambda s: s.held, lambda s: s._replace(held=False)),
    Act("collect: takes", ("collectors", "copies"), may_take, take),
    Act("collect: removes", ("collectors",), collector_is_at("taken"),
        lambda s, who: collector(
            change(s, s.collectors[who].on, there=False),
            who,
            s.collectors[who]._replace(step="removed"),
        )),
    Act("collect: looks", ("collectors",), collector_is_at("removed"), look),
    Act("collect: writes it down", ("collectors",), collector_is_at("gone"), write_down),
    Act("collect: dies", ("collectors",), lambda s, who: s.collectors[who] != IDLE,
        lambda s, who: collector(s, who, IDLE)),
    Act("eraser: claims", ("erasers",), may_claim, claim),
    Act("eraser: removes", ("erasers",), eraser_is_at("claimed"), remove),
    Act("eraser: is refused the removal", ("erasers",), eraser_is_at("claimed"),
        lambda s, who: next_step(s, who, "removed")),
    Act("eraser: reads back", ("erasers",), eraser_is_at("removed"), read_back),
    Act("eraser: finishes", ("erasers",), eraser_is_at("gone"), finish),
    Act("eraser: dies", ("erasers",), lambda s, who: s.erasers[who] != IDLE,
        lambda s, who: eraser(s, who, IDLE)),
)  # fmt: skip


def _is_quiet(state: State) -> bool:
    ended = all(each.step in ("", "done", "failed") for each in state.copies)
    idle = all(each == IDLE for each in (*state.erasers, *state.collectors))
    on_its_way = any(each.flying or each.row for each in state.copies)
    return ended and idle and not on_its_way and state.row != "erasing"


def _rest_is_even(state: State) -> bool:
    there = [at for at, each in enumerate(state.copies) if each.there]
    stands = [state.standing] if state.standing != NONE else []
    return not _is_quiet(state) or there == stands


def _is_gone(state: State) -> bool:
    left = state.original or any(each.there for each in state.copies)
    return "erased" not in state.told or not left


def _stands_whole(state: State) -> bool:
    copy = state.standing == NONE or state.copies[state.standing].there
    return state.row != "stored" or (state.original and copy)


PROMISES = (
    Promise(
        "what is told to be silent is heard by nobody, until that is taken back",
        lambda s: s.row != "stored" or s.standing == s.last,
    ),
    Promise("what stands has its object, and so has the original", _stands_whole),
    Promise("what is told to be erased has no copy in the store", _is_gone),
    Promise("every act is told once", lambda s: len({*s.told}) == len(s.told)),
    Promise("nothing is erased early", lambda s: s.row == "stored" or s.due or s.granted),
    Promise("at rest there is an object for the copy that stands, and no other", _rest_is_even),
)


def broken(state: State) -> str:
    """The promise that a state breaks; empty if it keeps them all."""
    return state.harm or next((each.text for each in PROMISES if not each.is_kept(state)), "")


def is_clean(world: World, state: State) -> bool:
    """Rest: the recording is gone, and its copies with it."""
    return state.row == "erased" and _is_quiet(state) and _is_gone(state)


TWO_COPIES = World(
    "a recording, two redactions, a collector, an eraser",
    without=frozenset({"time", "collect: dies", "eraser: dies"}),
)
TWO_AT_ONCE = World(
    "a recording, a redaction, two who collect, an eraser",
    copies=1,
    collectors=2,
)
WORLDS = (TWO_COPIES, TWO_AT_ONCE)
