"""The model's end of exports: `storage/export_erasing.py`, what erases a recording, and a rebuild;
and the worlds of exports with what is promised in them (`making` has how an export comes to be).

Two may erase the same export. Those who erase the recording first end its exports.

Taken for granted: a put that was begun under a lease has landed, or never will, when that ends; and
the same of the end of all that ran before a rebuild.
"""

from tests.model.acts import Act, Guard, table
from tests.model.making import (
    DUE,
    ENDS,
    ERASER,
    NONE,
    Maker,
    State,
    World,
    begin_to_send,
    can_make,
    fail,
    fetch,
    lease_can_end,
    lives,
    make,
    maker_is_at,
    may_fetch,
    pack,
    sent,
    try_to_commit,
)
from tests.model.promises import Promise
from tests.model.state import BEFORE, IDLE, Work, add, put

# Who erases exports.


def exporter(state: State, who: int, work: Work) -> State:
    return state._replace(exporters=put(state.exporters, who, work))


def exporter_is_at(name: str) -> Guard:
    return lambda state, who: state.exporters[who].step == name


def is_over(state: State) -> bool:
    another = state.stage == "made" and state.packed != state.heard
    ended = state.ended or another or state.time != BEFORE or state.row != "stored"
    return lives(state) and ended


def may_claim(state: State, who: int) -> bool:
    return state.exporters[who] == IDLE and is_over(state) and not state.held


def claim(state: State, who: int) -> State:
    after = state._replace(held=True, mark=ERASER + who, ended=True)
    return exporter(after, who, Work("claimed"))


def without_objects(state: State) -> State:
    return state._replace(objects=(False,) * len(state.objects))


def read_back(state: State, who: int) -> State:
    if not any(state.objects):
        return exporter(state, who, Work("gone"))
    if state.mark == ERASER + who and lives(state):
        state = state._replace(held=False)
    return exporter(state, who, IDLE)


def tell(state: State) -> State:
    return state._replace(stage="erased", held=False, told=add(state.told, ["export erased"]))


def finish(state: State, who: int) -> State:
    if lives(state) and state.mark == ERASER + who:
        state = tell(state)
    return exporter(state, who, IDLE)


# Who erases the recording.


def eraser(state: State, who: int, step: str) -> State:
    return state._replace(erasers=put(state.erasers, who, Work(step) if step else IDLE))


def eraser_is_at(name: str) -> Guard:
    return lambda state, who: state.erasers[who].step == name


def may_erase(state: State, who: int) -> bool:
    free = state.row == "stored" or (state.row == "erasing" and not state.row_held)
    return state.erasers[who] == IDLE and free and (state.time == DUE or state.granted)


def begin(state: State, who: int) -> State:
    return eraser(state._replace(row="erasing", row_held=True, row_mark=who), who, "claimed")


def end_exports(state: State, who: int) -> State:
    return eraser(state._replace(ended=state.ended or lives(state)), who, "ended")


def look(state: State, who: int) -> State:
    """What some export holds all the same is not to be told as erased: it is tried again."""
    if not lives(state):
        return eraser(state, who, "free")
    if state.row == "erasing" and state.row_mark == who:
        state = state._replace(row_held=False)
    return eraser(state, who, "")


def erased(state: State, who: int) -> State:
    """Its own objects, and the tombstone: `erasing` and `redacting` have this in full."""
    if state.row == "erasing" and state.row_mark == who:
        state = state._replace(row="erased", row_held=False, told=add(state.told, ["erased"]))
    return eraser(state, who, "")


# A database that is made whole.


def can_rebuild(state: State) -> bool:
    return not state.rebuilt and bool(state.stage) and not any(state.flying)


def stopped(state: State) -> State:
    """Everybody stops, and no lease runs any more."""
    makers = tuple(each if each.step in ("", "done") else Maker("failed") for each in state.makers)
    idle = {"exporters": (IDLE,) * len(state.exporters), "erasers": (IDLE,) * len(state.erasers)}
    after = state._replace(makers=makers, rebuilt=True, held=False, row_held=False, **idle)
    return after._replace(asker="done")


def forget(state: State) -> State:
    return state._replace(stage="", ended=False, attempt=NONE, packed=NONE, mark=NONE)


EXPORTING = table(
    Act("time: the export is over", (), lambda s: s.time == BEFORE,
        lambda s: s._replace(time=ENDS)),
    Act("time: the recording is due", (), lambda s: s.time == ENDS, lambda s: s._replace(time=DUE)),
    Act("people: grant an early erasure", (), lambda s: not s.granted and s.row == "stored",
        lambda s: s._replace(granted=True)),
    Act("redaction: another audio is heard", (),
        lambda s: s.turns < 2 and s.row == "stored" and s.time != DUE,
        lambda s: s._replace(heard=1 - s.heard, turns=s.turns + 1)),
    Act("asks: is let in", (), lambda s: not s.asker and s.row == "stored" and s.time == BEFORE,
        lambda s: s._replace(asker="seen")),
    Act("asks: the row", (), lambda s: s.asker == "seen",
        lambda s: s._replace(asker="done", stage="asked")),
    Act("asks: is refused", (), lambda s: s.asker == "seen", lambda s: s._replace(asker="done")),
    Act("asks: takes it back", (), lambda s: lives(s) and not s.ended,
        lambda s: s._replace(ended=True)),
    Act("maker: claims", ("makers",), can_make, make),
    Act("maker: packs", ("makers",), maker_is_at("claimed"), pack),
    Act("maker: holds on, and sends", ("makers",), maker_is_at("packed"), begin_to_send),
    Act("maker: put", ("makers",), maker_is_at("sending"), sent),
    Act("maker: put fails", ("makers",), maker_is_at("sending"), fail),
    Act("maker: put times out", ("makers",), maker_is_at("sending"),
        lambda s, who: fail(s._replace(flying=put(s.flying, who, True)), who)),
    Act("store: the late put lands", ("makers",), lambda s, who: s.flying[who],
        lambda s, who: s._replace(
            flying=put(s.flying, who, False), objects=put(s.objects, who, True)
        )),
    Act("store: the late put never lands", ("makers",), lambda s, who: s.flying[who],
        lambda s, who: s._replace(flying=put(s.flying, who, False))),
    Act("maker: commit", ("makers",), maker_is_at("put"), try_to_commit),
    Act("maker: dies", ("makers",), lambda s, who: s.makers[who].step not in ("", "done", "failed"),
        fail),
    Act("fetch", (), may_fetch, fetch),
    Act("lease: of the export ends", (), lease_can_end, lambda s: s._replace(held=False)),
    Act("lease: of the recording ends", (), lambda s: s.row_held,
        lambda s: s._replace(row_held=False)),
    Act("exports: claims", ("exporters",), may_claim, claim),
    Act("exports: removes", ("exporters",), exporter_is_at("claimed"),
        lambda s, who: exporter(without_objects(s), who, Work("removed"))),
    Act("exports: is refused the removal", ("exporters",), exporter_is_at("claimed"),
        lambda s, who: exporter(s, who, Work("removed"))),
    Act("exports: reads back", ("exporters",), exporter_is_at("removed"), read_back),
    Act("exports: finishes", ("exporters",), exporter_is_at("gone"), finish),
    Act("exports: dies", ("exporters",), lambda s, who: s.exporters[who] != IDLE,
        lambda s, who: exporter(s, who, IDLE)),
    Act("eraser: claims", ("erasers",), may_erase, begin),
    Act("eraser: ends exports", ("erasers",), eraser_is_at("claimed"), end_exports),
    Act("eraser: looks for exports", ("erasers",), eraser_is_at("ended"), look),
    Act("eraser: erases", ("erasers",), eraser_is_at("free"), erased),
    Act("eraser: dies", ("erasers",), lambda s, who: s.erasers[who] != IDLE,
        lambda s, who: eraser(s, who, "")),
    Act("rebuild", (), can_rebuild, lambda s: without_objects(forget(stopped(s)))),
)  # fmt: skip


# What is promised.


def _has_object(state: State) -> bool:
    ready = state.stage == "made" and not state.ended and state.time == BEFORE
    return not ready or state.objects[state.attempt]


def is_quiet(state: State) -> bool:
    """Nobody is at work, and nothing is on its way."""
    made = all(each.step in ("", "done", "failed") for each in state.makers)
    idle = all(each == IDLE for each in (*state.exporters, *state.erasers))
    return made and idle and not any(state.flying) and state.asker in ("", "done")


PROMISES = (
    Promise(
        "when a recording is told to be erased, no export has it",
        lambda s: "erased" not in s.told or not any(s.objects),
    ),
    Promise(
        "what is told to be erased has no copy in the store",
        lambda s: "export erased" not in s.told or not any(s.objects),
    ),
    Promise("every act is told once", lambda s: len({*s.told}) == len(s.told)),
    Promise("an export that can be fetched is there, and whole", _has_object),
    Promise(
        "at rest there is no object of an export of which no row is",
        lambda s: not is_quiet(s) or lives(s) or not any(s.objects),
    ),
)


def broken(state: State) -> str:
    """The promise that a state breaks; empty if it keeps them all."""
    return state.harm or next((each.text for each in PROMISES if not each.is_kept(state)), "")


def is_clean(world: World, state: State) -> bool:
    """Rest: the recording is gone, and every export of it."""
    return state.row == "erased" and is_quiet(state) and not lives(state)


TWO_MAKERS = World(
    "an export, two makers, one who erases it, an eraser, a rebuild",
    makers=2,
    without=frozenset({"time: the recording is due", "exports: dies", "eraser: dies"}),
)
TWO_WHO_ERASE = World(
    "an export, a maker, two who erase it, two erasers",
    exporters=2,
    erasers=2,
    without=frozenset({"people", "redaction", "fetch", "rebuild", "asks: takes it back"}),
)
WORLDS = (TWO_MAKERS, TWO_WHO_ERASE)
