"""Mistakes that the protocols of redactions and of exports could be made with (`mutants` has those
of the other one): each must break a promise, but for those that another rule makes good.
"""

from dataclasses import replace

from tests.model import exporting as ex
from tests.model import making as mk
from tests.model import redacting as re
from tests.model.exporting import EXPORTING, TWO_MAKERS, TWO_WHO_ERASE
from tests.model.mutants import Change, Mutant, does, mutant, never, when
from tests.model.redacting import NONE, REDACTING, TWO_AT_ONCE, TWO_COPIES
from tests.model.state import BEFORE, IDLE, Work

# Redactions.


def _redacting(name: str, *changes: Change, world: re.World = TWO_COPIES) -> Mutant:
    return mutant(name, world, REDACTING, *changes)


def unnamed(s: re.State, at: int) -> re.State:
    return re.step(s._replace(hold=at), at, "named")


def stand_unnamed(s: re.State, at: int) -> re.State:
    same = s.standing == s.copies[at].former
    return re.stand(s, at) if same and s.row == "stored" else re.step(s, at, "failed")


def stand_late(s: re.State, at: int) -> re.State:
    own = s.copies[at].row and s.standing == s.copies[at].former and s.row == "stored"
    return re.stand(s, at) if own else re.step(s, at, "failed")


def stand_unseen(s: re.State, at: int) -> re.State:
    """It does not look what it takes the place of, and leaves what it read."""
    if not re.may_stand(s._replace(standing=s.copies[at].former), at):
        return re.step(s, at, "failed")
    return re.stand(s._replace(standing=s.copies[at].former), at)


def stand_anyhow(s: re.State, at: int) -> re.State:
    if not re.may_stand(s._replace(row="stored"), at):
        return re.step(s, at, "failed")
    return re.stand(s, at)


def tell_early(s: re.State, at: int) -> re.State:
    return re.change(s, at, step="put", there=True)._replace(last=at)


def forget_it(s: re.State) -> re.State:
    return s._replace(standing=NONE, last=NONE)


def may_take_back_erased(s: re.State) -> bool:
    return s.row in ("stored", "erasing") and s.standing != NONE


def take_unfenced(s: re.State, who: int, at: int) -> re.State:
    row = s.copies[at].row
    work = Work("taken", at, int(row == "again"))
    return re.collector(re.change(s, at, held=True), who, work)


def look_once(s: re.State, who: int) -> re.State:
    on = s.collectors[who].on
    return re.collector(re.change(s, on, row="", held=False), who, IDLE)


def lease_ends_under_a_put(s: re.State, at: int) -> bool:
    return s.copies[at].held


def claim_held(s: re.State, who: int) -> bool:
    return re.may_claim(s._replace(hold=NONE), who)


def remove_original(s: re.State, who: int) -> re.State:
    return re.next_step(s._replace(original=False), who, "removed")


def look_at_original(s: re.State, who: int) -> re.State:
    return re.eraser(s, who, IDLE) if s.original else re.next_step(s, who, "gone")


def collect_what_stands(s: re.State, who: int, at: int) -> bool:
    return s.collectors[who] == IDLE and bool(s.copies[at].row) and not s.copies[at].held


def instant_comes(s: re.State) -> bool:
    return not s.due


# Exports.


def _exporting(name: str, *changes: Change, world: mk.World = TWO_MAKERS) -> Mutant:
    return mutant(name, world, EXPORTING, *changes)


def look_away(s: mk.State, who: int) -> mk.State:
    return ex.eraser(s, who, "free")


def claim_anyhow(s: mk.State, who: int) -> bool:
    return s.exporters[who] == IDLE and ex.is_over(s)


def lease_ends_always(s: mk.State) -> bool:
    return s.held


def commit_of_another(s: mk.State, who: int) -> mk.State:
    other = s._replace(mark=mk.MAKER + who)
    return mk.commit(s, who) if mk.may_commit(other, who) else mk.fail(s, who)


def pack_what_is_gone(s: mk.State, who: int) -> mk.State:
    return mk.maker(s, who, "packed", s.heard) if mk.holds(s, who) else mk.fail(s, who)


def commit_what_is_gone(s: mk.State, who: int) -> mk.State:
    other = s._replace(row="stored")
    return mk.commit(s, who) if mk.may_commit(other, who) else mk.fail(s, who)


def commit_what_is_ended(s: mk.State, who: int) -> mk.State:
    other = s._replace(ended=False)
    return mk.commit(s, who) if mk.may_commit(other, who) else mk.fail(s, who)


def commit_half(s: mk.State, who: int) -> mk.State:
    return mk.maker(mk.commit(s, who), who, "sending", s.makers[who].packed)


def finish_any(s: mk.State, who: int) -> mk.State:
    return ex.exporter(ex.tell(s), who, IDLE)


def believe_removal(s: mk.State, who: int) -> mk.State:
    return ex.exporter(s, who, Work("gone"))


def end_nothing(s: mk.State, who: int) -> mk.State:
    return ex.eraser(s, who, "ended")


def rebuild_leaves_objects(s: mk.State) -> mk.State:
    return ex.forget(ex.stopped(s))


def rebuild_leaves_rows(s: mk.State) -> mk.State:
    """A row of a backup, from when the export was made."""
    back = ex.stopped(s)._replace(ended=False)
    return ex.without_objects(back._replace(stage="made") if "made" in s.told else ex.forget(back))


_ONE_MAKER = replace(TWO_MAKERS, makers=1)
"""A smaller world, for what has to be searched to the end."""

MUTANTS = (
    _redacting(
        "no row names the copy", does("redact: names it", unnamed),
        does("redact: lets it stand", stand_unnamed), world=TWO_AT_ONCE,
    ),
    _redacting(
        "an early erasure does not wait for a copy that is being stored",
        when("eraser: claims", claim_held),
    ),
    _redacting(
        "a copy is held for a shorter time than its put may take",
        when("lease: of a copy ends", lease_ends_under_a_put),
    ),
    _redacting("a copy stands that was given up", does("redact: lets it stand", stand_late)),
    _redacting(
        "a copy does not look what it takes the place of",
        does("redact: lets it stand", stand_unseen),
    ),
    _redacting("told as silent before it stands", does("redact: put", tell_early)),
    _redacting("a copy that is withdrawn is left to nobody", does("withdraw", forget_it)),
    _redacting(
        "a copy is taken back while it is erased", when("withdraw", may_take_back_erased)
    ),
    _redacting("a copy that is collected is not fenced", does("collect: takes", take_unfenced)),
    _redacting(
        "erasing looks at the original alone", does("eraser: removes", remove_original),
        does("eraser: reads back", look_at_original),
    ),
    _redacting("nobody collects copies", never("collect: takes"), never("eraser: claims")),
    _exporting(
        "a fetch does not look what is heard now", does("fetch", mk.hand_out)
    ),
    _exporting(
        "an erasure does not wait for an export", does("eraser: looks for exports", look_away)
    ),
    _exporting("an export is erased under its maker", when("exports: claims", claim_anyhow)),
    _exporting(
        "an export is held for a shorter time than its put may take",
        when("lease: of the export ends", lease_ends_always),
    ),
    _exporting("a maker commits what another one makes", does("maker: commit", commit_of_another)),
    _exporting("a recording that is gone is packed", does("maker: packs", pack_what_is_gone),
               does("maker: commit", commit_what_is_gone),
               does("eraser: looks for exports", look_away)),
    _exporting(
        "an export can be fetched before it is put", does("maker: holds on, and sends", commit_half)
    ),
    _exporting(
        "the end of an export is told by whoever is there", does("exports: finishes", finish_any),
        world=TWO_WHO_ERASE,
    ),
    _exporting(
        "an export that is removed is not looked for",
        does("exports: is refused the removal", believe_removal), world=TWO_WHO_ERASE,
    ),
    _exporting(
        "an export is claimed for ever", never("lease: of the export ends"), world=TWO_WHO_ERASE
    ),
    _exporting("nobody erases exports", never("exports: claims"), world=TWO_WHO_ERASE),
    _exporting("a rebuild leaves the objects of exports", does("rebuild", rebuild_leaves_objects)),
    _exporting("a rebuild leaves the rows of exports", does("rebuild", rebuild_leaves_rows)),
)  # fmt: skip

HARMLESS = (
    _redacting(
        "a copy does not look whether the recording is being erased",
        does("redact: lets it stand", stand_anyhow), world=TWO_AT_ONCE,
    ),
    _redacting("a copy is looked for only once", does("collect: writes it down", look_once)),
    _redacting(
        "a copy is named so late that the instant may come first",
        when("time: the instant comes", instant_comes), world=TWO_AT_ONCE,
    ),
    _redacting(
        "the collector does not look whether a copy stands",
        when("collect: takes", collect_what_stands), world=TWO_AT_ONCE,
    ),
    _exporting(
        "an export of a recording that is being erased is committed",
        does("maker: commit", commit_what_is_gone), world=_ONE_MAKER,
    ),
    _exporting(
        "an export that is over is committed", does("maker: commit", commit_what_is_ended),
        world=_ONE_MAKER,
    ),
    _exporting(
        "an erasure does not end exports", does("eraser: ends exports", end_nothing),
        world=_ONE_MAKER,
    ),
    _exporting("an export lives as long as what is in it",
               when("time: the export is over", lambda s: s.time == BEFORE and s.row != "stored"),
               world=_ONE_MAKER),
)  # fmt: skip
