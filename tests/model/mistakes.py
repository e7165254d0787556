"""What the mutants do otherwise than the protocol: a guard or an effect each, by the mistake."""

from tests.model import erasing, mending, uploading
from tests.model.state import BEFORE, IDLE, Row, State, Work, add, put, stands, the, told, with_row
from tests.model.uploading import step

# Uploads.


def unnamed(s: State, at: int) -> State:
    return step(s, at, "intended")


def commit_unnamed(s: State, at: int) -> State:
    if s.time != BEFORE or uploading.twin(s, at) is not None:
        return step(s, at, "doubt")
    return step(uploading.stored(s, at), at, "committed")


def commit_unfenced(s: State, at: int) -> State:
    if s.rows[at] is None or s.time != BEFORE:
        return step(s, at, "doubt")
    return step(uploading.stored(s, at), at, "committed")


def commit_late(s: State, at: int) -> State:
    if stands(s, at) != "receiving":
        return step(s, at, "doubt")
    return step(uploading.stored(s, at), at, "committed")


def believe_timeout(s: State, at: int) -> State:
    return step(uploading.fly(s, at), at, "put")


def settle_blindly(s: State, at: int) -> State:
    return step(with_row(s, at, Row("abandoned", True)), at, "failed")


def was_given_up(s: State, at: int) -> bool:
    return s.uploads[at] in ("", "failed") and stands(s, at) == "abandoned" and s.mode == "open"


def take_up_again(s: State, at: int) -> State:
    return step(with_row(s, at, Row("receiving", True)), at, "intended")


def intend_twice(s: State, at: int) -> bool:
    return s.mode == "open" and s.uploads[at] == "prepared" and s.rows[at] is None


# The sweep.


def take_unfenced(s: State, who: int, at: int) -> bool:
    row = s.rows[at]
    over = row is not None and row.state in ("receiving", "abandoned") and not row.held
    return s.mode == "open" and s.sweepers[who] == IDLE and over


def keep_taken(s: State, who: int, at: int) -> State:
    row = the(s.rows[at])
    return erasing.sweeper(
        with_row(s, at, row._replace(held=True)), who, Work("taken", at, row.mark)
    )


def fence_then_note(s: State, who: int) -> State:
    return erasing.sweep_done(uploading.abandoned(s, s.sweepers[who].on), who)


def look_once(s: State, who: int) -> State:
    at = s.sweepers[who].on
    row = None if stands(s, at) == "abandoned" else s.rows[at]
    return erasing.sweeper(with_row(s, at, row), who, IDLE)


def any_lease(s: State, at: int) -> bool:
    row = s.rows[at]
    return row is not None and row.held


# Erasure.


def claim_early(s: State, who: int, at: int) -> bool:
    return s.mode == "open" and s.erasers[who] == IDLE and erasing.is_free(s, at)


def claim_once(s: State, who: int, at: int) -> bool:
    return erasing.may_claim(s, who, at) and stands(s, at) == "stored"


def trust_removal(s: State, who: int) -> State:
    return erasing.eraser(s, who, Work("gone", s.erasers[who].on))


def finish_always(s: State, who: int) -> State:
    at = s.erasers[who].on
    return erasing.eraser(with_row(s, at, Row("erased", False), f"erased {at}"), who, IDLE)


def finish_any_epoch(s: State, who: int) -> State:
    at = s.erasers[who].on
    if stands(s, at) != "erasing":
        return erasing.eraser(s, who, IDLE)
    return finish_always(s, who)


def read_by_state(s: State, at: int) -> bool:
    return s.mode == "open" and stands(s, at) == "stored"


def read_anything(s: State, at: int) -> bool:
    return s.mode == "open" and s.rows[at] is not None and s.time == BEFORE


# The day's end.


def close_any_time(s: State, who: int) -> bool:
    begins = s.mode == "open" and not s.closers[who] and s.key
    return begins and not any(map(erasing.is_open, s.rows))


def close_with_stored(s: State, who: int) -> bool:
    return s.mode == "open" and not s.closers[who] and s.key and erasing.is_over(s)


def close_unfinished(s: State, who: int) -> bool:
    exists = any(row and row.state in ("stored", "erasing") for row in s.rows)
    return close_with_stored(s, who) and not exists


def note_again(s: State, who: int) -> State:
    s = s._replace(closed=True, waiting=add(s.waiting, ["closed"]))
    return erasing.closer(s, who, "")


# Reconciling.


def doom_receiving(s: State, who: int, at: int) -> bool:
    return mending.begins(s, who) and s.objects[at] and stands(s, at) != "stored"


def remove_doomed(s: State, who: int) -> State:
    return mending.reconciler(erasing.without_object(s, s.reconcilers[who].on), who, IDLE)


def stopped_or_not(s: State, who: int) -> bool:
    return s.reconcilers[who] == IDLE


def is_unknown(s: State, who: int, at: int) -> bool:
    return stopped_or_not(s, who) and s.objects[at] and s.rows[at] is None


def doom_unknown(s: State, who: int, at: int) -> bool:
    unknown = mending.begins(s, who) and s.objects[at] and s.rows[at] is None
    return unknown or mending.sees_stray(s, who, at)


def sees_stray_always(s: State, who: int, at: int) -> bool:
    return stopped_or_not(s, who) and s.objects[at] and bool(mending.evidence(s, at))


def alarm_at_once(s: State, who: int) -> State:
    return s._replace(harm="what is not lost was told to be")


# The ledger outside, and the rebuild.


def fence_always(s: State, at: int) -> bool:
    row = s.rows[at]
    return row is not None and row.state == "receiving" and not row.held


def take_always(s: State, who: int, at: int) -> bool:
    row = s.rows[at]
    over = row is not None and row.state == "abandoned" and not row.held
    return s.sweepers[who] == IDLE and over


def sign_unpublished(s: State) -> State:
    return s._replace(signed=s.ledger)


def keep_waiting(s: State) -> State:
    after = mending.replay(s)
    return after._replace(waiting=s.waiting)


def keep_old_ledger(s: State) -> State:
    return mending.replay_acts(s)._replace(mode="replayed")


def forget_acts(s: State) -> State:
    return mending.replay_ledger(s)._replace(mode="replayed")


def rebuild_first(s: State) -> State:
    return mending.replay(mending.rebuild(s))._replace(mode="open")


def reimport(s: State) -> State:
    rows = s.rows
    for at, there in enumerate(s.objects):
        if there and s.key:
            rows = put(rows, at, Row("stored", False))
    return mending.rebuild(s._replace(rows=rows))


def only_missing(s: State) -> State:
    """Rows only for objects that no row names, of whatever state."""
    after, rows = mending.rebuild(s), s.rows
    for at, row in enumerate(s.rows):
        rows = put(rows, at, row or after.rows[at])
    return s._replace(rows=rows, mode="open", waiting=of_stored(after, rows))


def of_stored(s: State, rows: tuple[Row | None, ...]) -> tuple[str, ...]:
    """What waits, without entries of recordings that were not made."""
    made = [f"stored {at}" for at, row in enumerate(rows) if row and row.state == "stored"]
    return tuple(each for each in s.waiting if each in made or not each.startswith("stored"))


def first_twin(s: State) -> State:
    for at in range(len(s.rows)):
        s = mending.rebuilt(s, at, told(s))
    return s._replace(mode="open")


def leave_due_out(s: State) -> State:
    """What is past its instant gets no row any more."""
    after = mending.rebuild(s)
    if s.time == BEFORE:
        return after
    return _without(s, after, "stored")


def not_told(s: State) -> State:
    """What has no object any more is left out, and nobody tells of it."""
    return _without(s, mending.rebuild(s), "erased")


def _without(s: State, after: State, made: str) -> State:
    """A rebuild without the rows of a kind that it made, and without what it told of them."""
    left_out = [
        at
        for at, new in enumerate(after.rows)
        if new and new.state == made and stands(s, at) in ("", "receiving")
    ]
    rows = tuple(None if at in left_out else new for at, new in enumerate(after.rows))
    entries = tuple(f"{made} {at}" for at in left_out if f"{made} {at}" not in told(s))
    return after._replace(rows=rows, waiting=mending.without(after.waiting, entries))
