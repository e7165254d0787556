"""The model's upkeep: reconciling, publishing and signing the ledger, and a restore of the
database.

The steps of a reconciler: stray (an object was seen, and evidence against it), row (a stored row
was seen), hole (no object was seen), missing (both were, in any order), absent (no object at the
second look).
"""

from tests.model.acts import Act, Guard, table
from tests.model.erasing import without_object
from tests.model.state import (
    BEFORE,
    IDLE,
    Database,
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

DAY, DEAD = 1, 2
"""The evidence against an object: its day is closed; its recording is erased or was given up."""


def reconciler(state: State, who: int, work: Work) -> State:
    return state._replace(reconcilers=put(state.reconcilers, who, work))


def reconciler_is_at(name: str) -> Guard:
    return lambda state, who: state.reconcilers[who].step == name


def begins(state: State, who: int) -> bool:
    return state.mode == "open" and state.reconcilers[who] == IDLE


def is_dead(state: State, at: int) -> bool:
    """A tombstone; or an upload that was given up, whose time is over and which the ledger does not
    tell to be stored.
    """
    row = state.rows[at]
    if row is None:
        return False
    given_up = row.state == "abandoned" and not row.held and f"stored {at}" not in state.ledger
    return row.state == "erased" or given_up


def evidence(state: State, at: int) -> int:
    if not state.key:
        return DAY
    return DEAD if is_dead(state, at) else 0


def sees_stray(state: State, who: int, at: int) -> bool:
    return begins(state, who) and state.objects[at] and bool(evidence(state, at))


def still_evident(state: State, work: Work) -> bool:
    if work.mark == DAY:
        return stands(state, work.on) not in ("receiving", "stored", "erasing")
    return is_dead(state, work.on)


def remove_stray(state: State, who: int) -> State:
    """Only on evidence that holds now; what was given up is taken out of the sweep's hands."""
    work = state.reconcilers[who]
    row = state.rows[work.on]
    if still_evident(state, work):
        state = without_object(state, work.on)
        if row is not None and row.state == "abandoned" and work.mark == DEAD:
            state = with_row(state, work.on, row._replace(held=True))
    return reconciler(state, who, IDLE)


def sees_row(state: State, who: int, at: int) -> bool:
    return begins(state, who) and stands(state, at) == "stored"


def sees_hole(state: State, who: int, at: int) -> bool:
    return begins(state, who) and not state.objects[at]


def after_row(state: State, who: int) -> State:
    at = state.reconcilers[who].on
    return reconciler(state, who, IDLE if state.objects[at] else Work("missing", at))


def after_hole(state: State, who: int) -> State:
    at = state.reconcilers[who].on
    seen = stands(state, at) == "stored"
    return reconciler(state, who, Work("missing", at) if seen else IDLE)


def ask_again(state: State, who: int) -> State:
    at = state.reconcilers[who].on
    return reconciler(state, who, IDLE if state.objects[at] else Work("absent", at))


def alarm(state: State, who: int) -> State:
    """Tell that it is lost, if its row is stored still and its year is not over."""
    at = state.reconcilers[who].on
    if stands(state, at) == "stored" and state.time == BEFORE:
        return state._replace(harm="what is not lost was told to be")
    return reconciler(state, who, IDLE)


# The ledger outside the database.


def sequence(state: State) -> State:
    return state._replace(waiting=(), ledger=told_sorted(state))


def told_sorted(state: State) -> tuple[str, ...]:
    return add(state.waiting, state.ledger)


# A restore of the database to an older state, with the service stopped.


def can_return(state: State, at: int) -> bool:
    return not state.returned and stands(state, at) == "erased" and not state.objects[at]


def come_back(state: State, at: int) -> State:
    return state._replace(objects=put(state.objects, at, True), returned=True)


def backup(state: State) -> State:
    kept = Database(state.rows, state.closed, state.waiting, state.ledger)
    return state._replace(backup=kept)


def restore(state: State) -> State:
    """Every process is ended; puts that are under way go on."""
    old = the(state.backup)
    return state._replace(
        rows=tuple(row and row._replace(held=False) for row in old.rows),
        closed=old.closed,
        waiting=old.waiting,
        ledger=old.ledger,
        sent=(False,) * len(state.sent),
        uploads=tuple(step if step in ("", "done") else "failed" for step in state.uploads),
        erasers=(IDLE,) * len(state.erasers),
        sweepers=(IDLE,) * len(state.sweepers),
        reconcilers=(IDLE,) * len(state.reconcilers),
        closers=("",) * len(state.closers),
        mode="restored",
        backup=None,
        restored=True,
    )


def without(entries: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(entry for entry in entries if entry not in known)


def replay_ledger(state: State) -> State:
    """The published ledger is the truth, unless the restored one goes further. What waited in the
    restored database and has its place there already is not written down twice.
    """
    behind = set(state.ledger) <= set(state.published)
    ledger = state.published if behind else state.ledger
    return state._replace(ledger=ledger, waiting=without(state.waiting, ledger))


def replay_acts(state: State) -> State:
    erased = [at for at in range(len(state.rows)) if f"erased {at}" in state.ledger]
    rows = state.rows
    for at in erased:
        rows = put(rows, at, Row("erased", False))
    return state._replace(rows=rows, closed=state.closed or "closed" in state.ledger)


def replay(state: State) -> State:
    return replay_acts(replay_ledger(state))._replace(mode="replayed")


def rebuilt(state: State, at: int, known: tuple[str, ...]) -> State:
    """One recording's row, out of the head of its object.

    A row that came back unfinished says nothing: its upload may have been acknowledged since.
    Of two uploads of the call both are kept, unless the ledger tells which was stored. What the
    ledger tells to be stored and has no object any more was erased, and only the telling was lost:
    here the store loses nothing.
    """
    if stands(state, at) not in ("", "receiving", "abandoned"):
        return state
    other = any(f"stored {each}" in known for each in range(len(state.rows)) if each != at)
    wanted = f"stored {at}" in known or not other
    if state.objects[at] and state.key and wanted:
        more = () if f"stored {at}" in known else (f"stored {at}",)
        return with_row(state, at, Row("stored", False), *more)
    if f"stored {at}" in known:
        return with_row(state, at, Row("erased", False), f"erased {at}")
    return with_row(state, at, None)


def rebuild(state: State) -> State:
    known = told(state)
    for at in range(len(state.rows)):
        state = rebuilt(state, at, known)
    return state._replace(mode="open")


MENDING = table(
    Act(
        "reconcile: sees a stray",
        ("reconcilers", "recordings"),
        sees_stray,
        lambda s, who, at: reconciler(s, who, Work("stray", at, evidence(s, at))),
    ),
    Act("reconcile: removes it", ("reconcilers",), reconciler_is_at("stray"), remove_stray),
    Act(
        "compare: sees a stored row",
        ("reconcilers", "recordings"),
        sees_row,
        lambda s, who, at: reconciler(s, who, Work("row", at)),
    ),
    Act(
        "compare: sees no object",
        ("reconcilers", "recordings"),
        sees_hole,
        lambda s, who, at: reconciler(s, who, Work("hole", at)),
    ),
    Act("compare: then looks for its object", ("reconcilers",), reconciler_is_at("row"), after_row),
    Act("compare: then looks for its row", ("reconcilers",), reconciler_is_at("hole"), after_hole),
    Act("compare: looks again", ("reconcilers",), reconciler_is_at("missing"), ask_again),
    Act("compare: tells of a loss", ("reconcilers",), reconciler_is_at("absent"), alarm),
    Act("ledger: gives places", (), lambda s: s.mode == "open" and bool(s.waiting), sequence),
    Act(
        "ledger: publishes",
        (),
        lambda s: s.mode == "open" and s.published != s.ledger,
        lambda s: s._replace(published=s.ledger),
    ),
    Act(
        "ledger: signs",
        (),
        lambda s: s.mode == "open" and s.signed != s.published,
        lambda s: s._replace(signed=s.published),
    ),
    Act(
        "backup: is made",
        (),
        lambda s: s.mode == "open" and not s.restored and s.backup is None,
        backup,
    ),
    Act("backup: is put back", (), lambda s: s.backup is not None, restore),
    Act("copy: an erased object comes back", ("recordings",), can_return, come_back),
    Act("rebuild: replays the ledger", (), lambda s: s.mode == "restored", replay),
    Act(
        "rebuild: dies",
        (),
        lambda s: s.mode == "replayed",
        lambda s: s._replace(mode="restored"),
    ),
    Act("rebuild: reads the objects", (), lambda s: s.mode == "replayed", rebuild),
)
