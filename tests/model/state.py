"""What the model of the protocol knows: one call, its uploads, one expiry day, and what may fail.

A state is a tuple of small tuples, so that it can be a key of a set. Time is three phases. A lease
is a flag that may drop at any moment, so that no promise rests on how long a lease is. An epoch is
the worker who claimed last: two epochs are the same if nobody claimed in between. Everything under
`rows`, `closed`, `waiting` and `ledger` is the database, which can be put back to an older state;
the rest is the object store, the key ring, the signer, the senders, and the processes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

BEFORE, EXPIRED, OVER = range(3)
"""Before the recording's instant; after it, on its expiry day; the day is over."""

T = TypeVar("T")


class Row(NamedTuple):
    """A recording's row. `held`: its lease runs.

    `mark` is, of one that is being erased, the worker who claimed it last; of one that was
    abandoned, how often the sweep has looked for it (both are the column `epoch`).
    """

    state: str
    held: bool
    mark: int = 0


class Work(NamedTuple):
    """Where a worker is: its step, on which recording, and what it was told when it began."""

    step: str = ""
    on: int = 0
    mark: int = 0


IDLE = Work()


class Database(NamedTuple):
    """What a backup of the database holds."""

    rows: tuple[Row | None, ...]
    closed: bool
    waiting: tuple[str, ...]
    ledger: tuple[str, ...]


class State(NamedTuple):
    """One moment. Upload number `i` is of recording number `i`; all are of the same call.

    `flying` are puts that may land still, `sent` are commits that may land still. `waiting` and
    `ledger` are the database's, `published` and `signed` outside of it. `restored`: the database
    was put back; `returned`: the object of an erased recording came back, as out of a copy of the
    bucket; each happens once at the most. `harm` is set by an act that is itself the breach of a
    promise.
    """

    time: int
    rows: tuple[Row | None, ...]
    closed: bool
    waiting: tuple[str, ...]
    ledger: tuple[str, ...]
    objects: tuple[bool, ...]
    flying: tuple[bool, ...]
    sent: tuple[bool, ...]
    uploads: tuple[str, ...]
    acked: tuple[bool, ...]
    erasers: tuple[Work, ...]
    sweepers: tuple[Work, ...]
    reconcilers: tuple[Work, ...]
    closers: tuple[str, ...]
    key: bool
    published: tuple[str, ...]
    signed: tuple[str, ...]
    mode: str
    backup: Database | None
    restored: bool
    returned: bool
    harm: str


@dataclass(frozen=True, slots=True)
class World:
    """How many there are of each in one search, and which acts (by name, or by the word before the
    colon) are left out of it because another search has them.
    """

    name: str
    recordings: int
    erasers: int = 1
    sweepers: int = 1
    reconcilers: int = 1
    closers: int = 1
    without: frozenset[str] = frozenset()

    def start(self) -> State:
        """Nothing has happened yet."""
        nothing = (False,) * self.recordings
        return State(
            time=BEFORE,
            rows=(None,) * self.recordings,
            closed=False,
            waiting=(),
            ledger=(),
            objects=nothing,
            flying=nothing,
            sent=nothing,
            uploads=("",) * self.recordings,
            acked=nothing,
            erasers=(IDLE,) * self.erasers,
            sweepers=(IDLE,) * self.sweepers,
            reconcilers=(IDLE,) * self.reconcilers,
            closers=("",) * self.closers,
            key=True,
            published=(),
            signed=(),
            mode="open",
            backup=None,
            restored=False,
            returned=False,
            harm="",
        )


def put(many: tuple[T, ...], at: int, one: T) -> tuple[T, ...]:
    """The same with another one at this place."""
    return (*many[:at], one, *many[at + 1 :])


def add(entries: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    """Entries of the ledger, with more of them; their order is not looked at."""
    return tuple(sorted((*entries, *more)))


def the(one: T | None) -> T:
    """What is there, as the guard has seen."""
    assert one is not None
    return one


def stands(state: State, at: int) -> str:
    """The state of a recording's row; empty if there is none."""
    row = state.rows[at]
    return row.state if row else ""


def told(state: State) -> tuple[str, ...]:
    """All that the database has written down, whether it has its place in the ledger or not."""
    return state.waiting + state.ledger


def with_row(state: State, at: int, row: Row | None, *entries: str) -> State:
    """Change a row and write down what was done, in one transaction."""
    rows = put(state.rows, at, row)
    return state._replace(rows=rows, waiting=add(state.waiting, entries))
