"""Mistakes that the protocol could be made with, one by one: each must break a promise.

A mutant is the table of the protocol with a line or two changed. Those of the design that do not
apply, because what they break is not there:

- *delete the own key only, not the prefix*, and *same object key for retries* in its literal form:
  one recording has one attempt; a retry is another recording. (What the second comes to here is "an
  upload that was given up is taken up again".)
- *no quiet time before the claim*: only what is stored is claimed, so its put was answered and none
  is under way. The quiet time stands between the sweep's two looks, and has its mutant there.
- *old wrap left behind*: the wrapped key lies in the row and the object's head, which go as a
  whole, and opens under the day's key alone.
- *a lease shorter than a put may take*: the model lets any lease end at any moment, and no promise
  is broken: a lease saves work. Only the day between the two looks must outlast a put.

`HARMLESS` are mistakes that another rule makes good: the search finds nothing broken, and a test
says so, lest somebody takes them for what holds the promise. They stay in the code as a second
line.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.model import erasing, mistakes
from tests.model.acts import Effect, Guard, Table
from tests.model.protocol import ERASURE, LEFTOVERS, PROTOCOL, RESTORE, TWINS, UPLOADS
from tests.model.state import World
from tests.model.uploading import is_at, step

Change = Callable[[Table], Table]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake by name, the world it shows in, and the table with it."""

    name: str
    world: World
    table: Table


def mutant(name: str, world: World, table: Table, *changes: Change) -> Mutant:
    """A mistake in a protocol."""
    for change in changes:
        table = change(table)
    return Mutant(name, world, table)


def _mutant(name: str, world: World, *changes: Change) -> Mutant:
    return mutant(name, world, PROTOCOL, *changes)


def when(act: str, guard: Guard) -> Change:
    """The same act, at another time."""
    return lambda table: {**table, act: replace(table[act], guard=guard)}


def does(act: str, effect: Effect) -> Change:
    """Another act, at the same time."""
    return lambda table: {**table, act: replace(table[act], effect=effect)}


def never(act: str) -> Change:
    return lambda table: {name: each for name, each in table.items() if name != act}


_ONE_SWEEPER = replace(LEFTOVERS, sweepers=1)
_ONE_CLOSER = replace(ERASURE, closers=1)
_NO_COPY = replace(RESTORE, without=RESTORE.without | {"copy"})
"""Smaller worlds, for what has to be searched to the end."""

_DONE = "sweep: writes it down"
_STRAY = "reconcile: sees a stray"

MUTANTS = (
    _mutant("receipt before the commit", UPLOADS, when("upload: receipt", is_at("put"))),
    _mutant(
        "no intent row",
        UPLOADS,
        does("upload: intent", mistakes.unnamed),
        does("upload: commit", mistakes.commit_unnamed),
    ),
    _mutant(
        "an upload that was given up is taken up again, under the same key",
        UPLOADS,
        lambda table: {
            **table,
            "upload: again": replace(
                table["upload: intent"], guard=mistakes.was_given_up, effect=mistakes.take_up_again
            ),
        },
    ),
    _mutant("a call is not unique", UPLOADS, when("upload: intent", mistakes.intend_twice)),
    _mutant(
        "a put that timed out is taken for done",
        UPLOADS,
        does("upload: put times out", mistakes.believe_timeout),
    ),
    _mutant(
        "the commit does not look at the state",
        UPLOADS,
        does("upload: commit", mistakes.commit_unfenced),
    ),
    _mutant(
        "the commit does not look at the year",
        LEFTOVERS,
        does("upload: commit", mistakes.commit_late),
    ),
    _mutant(
        "a commit without a reply is taken for done",
        UPLOADS,
        does("upload: settles", lambda s, at: step(s, at, "committed")),
    ),
    _mutant(
        "abandoning does not look at the state",
        UPLOADS,
        does("upload: settles", mistakes.settle_blindly),
    ),
    _mutant(
        "the sweep removes before it fences",
        UPLOADS,
        when("sweep: takes", mistakes.take_unfenced),
        does("sweep: takes", mistakes.keep_taken),
        does(_DONE, mistakes.fence_then_note),
        never("sweep: fences"),
    ),
    _mutant("the sweep looks only once", UPLOADS, does(_DONE, mistakes.look_once)),
    _mutant(
        "the second look comes before the last put",
        _ONE_SWEEPER,
        when("lease: ends", mistakes.any_lease),
    ),
    _mutant("nobody sweeps", LEFTOVERS, never("sweep: takes")),
    _mutant(
        "erased by a clock that is ahead", ERASURE, when("eraser: claims", mistakes.claim_early)
    ),
    _mutant("a claim is for ever", _ONE_CLOSER, when("eraser: claims", mistakes.claim_once)),
    _mutant(
        "told as erased first, removed later",
        ERASURE,
        when("eraser: finishes", erasing.eraser_is_at("claimed")),
    ),
    _mutant(
        "a refused removal is not read back",
        ERASURE,
        does("eraser: is refused the removal", mistakes.trust_removal),
    ),
    _mutant("a removal that does nothing", _ONE_CLOSER, does("eraser: removes", erasing.refused)),
    _mutant(
        "the finish is not conditional", ERASURE, does("eraser: finishes", mistakes.finish_always)
    ),
    _mutant(
        "reads are let in by the state alone",
        ERASURE,
        when("reader: reads", mistakes.read_by_state),
    ),
    _mutant(
        "what is not stored can be read", ERASURE, when("reader: reads", mistakes.read_anything)
    ),
    _mutant(
        "the day is closed by a clock that is ahead",
        ERASURE,
        when("close: sees no open row", mistakes.close_any_time),
        when("close: the holder destroys the key", erasing.closer_is_at("swept")),
    ),
    _mutant(
        "the day is closed over a stored recording",
        ERASURE,
        when("close: sees no open row", mistakes.close_with_stored),
    ),
    _mutant(
        "the day is told to be closed before its key goes",
        ERASURE,
        when("close: notes it", erasing.closer_is_at("swept")),
    ),
    _mutant(
        "two who close a day both tell of it",
        ERASURE,
        does("close: notes it", mistakes.note_again),
    ),
    _mutant("no key is destroyed", _ONE_CLOSER, never("close: the holder destroys the key")),
    _mutant(
        "the reconciler removes what an upload is putting",
        LEFTOVERS,
        when(_STRAY, mistakes.doom_receiving),
        does("reconcile: removes it", mistakes.remove_doomed),
    ),
    _mutant(
        "the reconciler tells of a loss at the first look",
        LEFTOVERS,
        does("compare: looks again", mistakes.alarm_at_once),
    ),
    _mutant(
        "the reconciler removes what it does not know, also after a restore",
        RESTORE,
        when(_STRAY, mistakes.is_unknown),
        does("reconcile: removes it", mistakes.remove_doomed),
    ),
    _mutant(
        "sweep and reconciler run on a restored database",
        RESTORE,
        when("sweep: fences", mistakes.fence_always),
        when("sweep: takes", mistakes.take_always),
        when(_STRAY, mistakes.sees_stray_always),
    ),
    _mutant(
        "signed before it is published",
        RESTORE,
        does("ledger: signs", mistakes.sign_unpublished),
        when("ledger: signs", lambda s: s.mode == "open" and s.signed != s.ledger),
    ),
    _mutant(
        "the rebuild believes the restored ledger",
        RESTORE,
        does("rebuild: replays the ledger", mistakes.keep_old_ledger),
    ),
    _mutant(
        "the rebuild does not replay what was done",
        RESTORE,
        does("rebuild: replays the ledger", mistakes.forget_acts),
    ),
    _mutant(
        "the rebuild reads the objects before the ledger",
        RESTORE,
        does("rebuild: replays the ledger", mistakes.rebuild_first),
    ),
    _mutant(
        "the rebuild tells again what waited",
        RESTORE,
        does("rebuild: replays the ledger", mistakes.keep_waiting),
    ),
    _mutant(
        "the rebuild takes an erased recording in again",
        RESTORE,
        does("rebuild: reads the objects", mistakes.reimport),
    ),
    _mutant(
        "the rebuild leaves uploads of the backup to the sweep",
        RESTORE,
        does("rebuild: reads the objects", mistakes.only_missing),
    ),
    _mutant(
        "the rebuild forgets what was erased and not told",
        RESTORE,
        does("rebuild: reads the objects", mistakes.not_told),
    ),
    _mutant(
        "the rebuild leaves out what came due meanwhile",
        RESTORE,
        does("rebuild: reads the objects", mistakes.leave_due_out),
    ),
    _mutant(
        "the rebuild keeps the first of two uploads",
        TWINS,
        does("rebuild: reads the objects", mistakes.first_twin),
    ),
)

HARMLESS = (
    _mutant(
        "the finish looks at the state and not at the epoch",
        _ONE_CLOSER,
        does("eraser: finishes", mistakes.finish_any_epoch),
    ),
    _mutant(
        "the day is closed with an unfinished upload",
        _ONE_SWEEPER,
        when("close: sees no open row", mistakes.close_unfinished),
    ),
    _mutant(
        "the reconciler does not look at its evidence again",
        _ONE_SWEEPER,
        does("reconcile: removes it", mistakes.remove_doomed),
    ),
    _mutant(
        "the reconciler removes what it does not know",
        _NO_COPY,
        when(_STRAY, mistakes.doom_unknown),
        does("reconcile: removes it", mistakes.remove_doomed),
    ),
    _mutant(
        "the reconciler runs on a restored database",
        _NO_COPY,
        when(_STRAY, mistakes.sees_stray_always),
    ),
)
