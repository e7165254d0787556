"""The story of a ledger: whole, or told what is wrong with it."""

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from archive import merkle, story
from archive.ledger import Entry, canonical, instant
from archive.nights import root_over

BEGIN = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
DUE = BEGIN + timedelta(days=1)
ONE, TWO = UUID(int=1), UUID(int=2)


def entry(
    act: str, hours: float, recording: UUID | None = None, **facts: object
) -> Callable[[], bytes]:
    at = BEGIN + timedelta(hours=hours)
    return lambda: Entry(0, at, "k", act, recording, facts).text


def facts(due: datetime = DUE) -> dict[str, object]:
    return {"day": due.date().isoformat(), "due": instant(due), "rule": "P1D"}


def gone(due: datetime = DUE) -> dict[str, object]:
    return {**facts(due), "attempt": str(uuid4()), "absent": ["objects"]}


def night(since: int, upto: int, *erased: UUID, **other: object) -> dict[str, object]:
    account = {
        "night": "2026-11-02", "since": since, "upto": upto, "due": len(erased),
        "erased": len(erased), "failed": 0, "failed_ids": [],
        "root": root_over(erased, []).hex(),
    }  # fmt: skip
    return {**account, **other}


def told(*entries: Callable[[], bytes]) -> story.Story:
    return story.read([make() for make in entries])


WHOLE = (
    entry("key.added", 0, key="k"),
    entry("stored", 0, ONE, **facts()),
    entry("rebuilt", 1, TWO, **facts()),
    entry("listened", 2, ONE, format="wav"),
    entry("searched", 3),
    entry("erased", 24, ONE, **gone()),
    entry("erased", 24.1, TWO, **gone()),
    entry("night.done", 36, **night(0, 7, ONE, TWO)),
    entry("day.closed", 36, day="2026-11-02"),
)


def test_a_whole_story() -> None:
    found = told(*WHOLE)
    assert found.faults == []
    assert (found.stored, found.erased, found.overdue) == (2, 2, 0)
    assert (found.nights, found.days_closed) == (1, 1)
    leaves = [merkle.leaf_hash(make()) for make in WHOLE[:5]]
    assert merkle.growth_over(leaves).size == 5
    assert told().faults == []


LOST = entry("recording.lost", 23.9, TWO, **facts())
EARLY = entry("erased", 12, ONE, **gone())


def failing(*failed: str, count: int) -> dict[str, object]:
    """A night on which all that is due failed, and its root."""
    known = [UUID(each) for each in failed]
    root = {"root": root_over([], known).hex()}
    return night(0, 5, due=count, failed=count, failed_ids=list(failed), **root)


def due_by(rule: str, due: datetime, act: str = "stored") -> Callable[[], bytes]:
    return entry(act, 0, ONE, day="2026-11-02", due=instant(due), rule=rule)


def granted(hours: float = 11, **keys: object) -> Callable[[], bytes]:
    return entry("erasure.granted", hours, ONE, **keys)


def dated(at: object, act: str = "key.added") -> Callable[[], bytes]:
    known = {"act": act, "actor": "k", "at": at, "facts": {}}
    return lambda: canonical(known)


WRONG = [
    ("before it is due", [*WHOLE[:5], entry("erased", 23.9, ONE, **gone()), WHOLE[6]]),
    ("a second time", [*WHOLE, entry("erased", 37, ONE, **gone())]),
    ("never stored", [*WHOLE, entry("erased", 37, UUID(int=9), **gone())]),
    ("comes back", [*WHOLE, entry("rebuilt", 37, ONE, **facts())]),
    ("another due time", [*WHOLE[:5], entry("erased", 24, ONE, **gone(DUE - timedelta(hours=3)))]),
    ("by another day", [*WHOLE[:5], entry("erased", 24, ONE, **gone() | {"day": "2026-11-03"})]),
    ("by another rule", [*WHOLE[:5], entry("erased", 24, ONE, **gone() | {"rule": "P1Y"})]),
    ("by another rule", [*WHOLE[:5], entry("erased", 24, ONE, **facts() | {"rule": "P1Y"})]),
    (
        "given another day",
        [*WHOLE[:3], entry("rebuilt", 1, ONE, **facts() | {"day": "2026-11-01"})],
    ),
    ("filed under another day", [entry("stored", 0, ONE, **facts() | {"day": "2036-11-02"})]),
    ("filed under another day", [entry("stored", 0, ONE, **facts() | {"day": "2026-11-04"})]),
    ("filed under another day", [entry("rebuilt", 0, ONE, **facts() | {"day": "2026-10-31"})]),
    ("cannot be read", [entry("stored", 0, ONE, **facts() | {"day": "2026-99-99"})]),
    ("cannot be read", [entry("stored", 0, ONE, **facts() | {"day": "for ever"})]),
    ("given another", [*WHOLE[:3], entry("stored", 1, ONE, **facts(DUE + timedelta(days=9)))]),
    ("is not erased", [*WHOLE[:5], entry("searched", 49)]),
    ("root is not", [*WHOLE[:7], entry("night.done", 30, **night(0, 7, ONE, UUID(int=3)))]),
    ("counts are not", [*WHOLE[:7], entry("night.done", 30, **night(0, 7, ONE))]),
    ("counts are not", [*WHOLE[:7], entry("night.done", 30, **night(0, 7, ONE, TWO, due=3))]),
    ("does not go on", [*WHOLE, entry("night.done", 60, **night(8, 9))]),
    ("does not go on", [*WHOLE[:7], entry("night.done", 30, **night(0, 9, ONE, TWO))]),
    ("cannot be read", [*WHOLE, entry("erased", 37, ONE, due=3)]),
    ("is lost and was never", [*WHOLE, entry("recording.lost", 3, UUID(int=9), **facts())]),
    ("is lost after", [*WHOLE, entry("recording.lost", 37, ONE, **facts())]),
    ("is lost by another", [*WHOLE[:5], entry("recording.lost", 3, ONE, **facts(BEGIN))]),
    ("cannot be read", [*WHOLE[:5], entry("recording.lost", 3, ONE)]),
    ("cannot be read", [*WHOLE, lambda: b"no entry"]),
    ("cannot be read", [*WHOLE, lambda: b"[" * 100_000]),
    ("cannot be read", [*WHOLE, entry("night.done", 37)]),
    ("cannot be read", [*WHOLE, dated("0001-01-01T00:00:00+14:00")]),
    ("cannot be read", [*WHOLE, dated(3)]),
    ("which is no time", [*WHOLE, dated("2026-99-99T00:00:00.000000Z", "listened")]),
    ("later than its rule", [due_by("P1Y Europe/Helsinki v1", BEGIN.replace(year=9999))]),
    ("later than its rule", [due_by("P1Y", BEGIN + timedelta(days=368), "rebuilt")]),
    ("cannot be read", [entry("stored", 0, ONE, **{**facts(), "due": "zzz"})]),
    ("cannot be read", [entry("stored", 0, ONE, **{**facts(), "due": "z" * 27})]),
    ("a rule that cannot", [due_by("for ever", DUE)]),
    ("a rule that cannot", [due_by("P99Y99999D", DUE), due_by("P0D", DUE)]),
    ("before it is due", [*WHOLE[:5], granted(), EARLY]),
    ("before it is due", [*WHOLE[:5], granted(keys=[]), EARLY]),
    ("before it is due", [*WHOLE[:5], granted(keys=["a"]), EARLY]),
    ("before it is due", [*WHOLE[:5], granted(keys=["a", "a"]), EARLY]),
    ("before it is due", [*WHOLE[:5], granted(keys="ab"), EARLY]),
    ("before it is due", [*WHOLE[:5], EARLY, granted(12.1, keys=["a", "b"])]),
    ("does not name what", [*WHOLE[:5], entry("night.done", 30, **failing(count=3))]),
    ("does not name what", [*WHOLE[:5], entry("night.done", 30, **failing(count=-1))]),
    ("does not name what", [*WHOLE[:5], entry("night.done", 30, **failing(str(ONE), count=0))]),
    ("cannot be read", [*WHOLE[:7], entry("night.done", 30, **night(0, 7, failed_ids=[1]))]),
    ("before it is over", [*WHOLE, entry("day.closed", 40, day="2026-11-04")]),
    ("a second time", [*WHOLE, entry("day.closed", 40, day="2026-11-02")]),
    ("cannot be read", [*WHOLE, entry("day.closed", 40)]),
]


@pytest.mark.parametrize(("why", "entries"), WRONG)
def test_what_is_wrong_is_told(why: str, entries: list[Callable[[], bytes]]) -> None:
    assert any(why in fault for fault in told(*entries).faults), told(*entries).faults


def test_what_failed_on_a_night_is_named() -> None:
    for count in (0, 1, 1000):
        ids = [str(uuid4()) for _ in range(count)]
        assert told(*WHOLE[:5], entry("night.done", 23, **failing(*ids, count=count))).faults == []
    more = {**failing(*ids, count=1000), "due": 1001, "failed": 1001, "root": "00"}
    assert told(*WHOLE[:5], entry("night.done", 23, **more)).faults == []


def test_a_day_is_closed_where_it_is_over_first() -> None:
    closing = entry("day.closed", 36, day="2026-11-02"), entry("day.closed", 47.9, day="2026-11-03")
    assert told(*WHOLE[:7], *closing).faults == []


def test_an_erasure_that_two_people_granted_is_told_as_early() -> None:
    found = told(*WHOLE[:5], granted(keys=["a", "b"]), EARLY, WHOLE[6])
    assert (found.faults, found.early, found.erased) == ([], 1, 2)
    assert [str(ONE) in each and instant(DUE) in each for each in found.grants] == [True]


def test_a_day_is_that_of_the_due_time_in_some_zone() -> None:
    for day in ("2026-11-01", "2026-11-02", "2026-11-03"):
        known = facts() | {"day": day}
        found = told(entry("stored", 0, ONE, **known), entry("erased", 24, ONE, **known))
        assert (found.faults, found.erased) == ([], 1)


def test_what_is_there_again_is_counted_once() -> None:
    """A rebuild tells of each that it found, also of those that the ledger knows."""
    again = [entry("rebuilt", 3, one, **facts()) for one in (ONE, TWO, ONE)]
    found = told(*WHOLE[:5], *again, *WHOLE[5:7])
    assert (found.faults, found.stored, found.erased) == ([], 2, 2)
    assert found.rules == {"P1D": 2}


def test_the_rules_that_recordings_came_in_by_are_counted() -> None:
    year = facts(BEGIN + timedelta(days=365)) | {"rule": "P1Y Europe/Helsinki v1"}
    found = told(*WHOLE[:5], *(entry("stored", 3, uuid4(), **year) for _ in range(5)))
    assert (found.faults, found.rules) == ([], {"P1Y Europe/Helsinki v1": 5, "P1D": 2})


def test_a_time_is_heard_whatever_the_act_and_wherever_it_stands() -> None:
    """What is heard or searched counts for how far the story goes, also when it is not the last."""
    for act in ("listened", "searched", "viewed"):
        found = told(*WHOLE[:5], entry(act, 60), entry("key.added", 1))
        assert found.told_until == instant(BEGIN + timedelta(hours=60)), act
        assert len(found.faults) == 2, act


def test_a_late_erasure_is_told_and_no_fault_of_the_proof() -> None:
    found = told(
        *WHOLE[:5], entry("erased", 48, ONE, **gone()), entry("erased", 48.1, TWO, **gone())
    )
    assert (found.faults, found.late) == ([], 1)
    assert [str(TWO) in each for each in found.lately] == [True]
    many = [uuid4() for _ in range(300)]
    found = told(
        *(entry("stored", 0, one, **facts()) for one in many),
        *(entry("erased", 99, one, **gone()) for one in many),
    )
    assert (found.faults, found.late, len(found.lately)) == ([], 300, 100)


def test_what_was_lost_before_it_was_due_is_told_and_no_fault_of_the_proof() -> None:
    found = told(*WHOLE[:5], LOST, LOST, WHOLE[5], entry("searched", 9000))
    assert (found.faults, found.lost, found.overdue) == ([], 1, 0)
    assert [str(TWO) in each and instant(DUE) in each for each in found.losses] == [True]
    assert told(*WHOLE[:5], LOST).lost == 1, "before it would be due, too"
    many = [uuid4() for _ in range(300)]
    found = told(
        *(entry("stored", 0, one, **facts()) for one in many),
        *(entry("recording.lost", 1, one, **facts()) for one in many),
        entry("searched", 9000),
    )
    assert (found.faults, found.lost, len(found.losses)) == ([], 300, 100)


@pytest.mark.parametrize("hours", [24, 25, 60, 9000])
def test_a_loss_that_is_told_when_it_was_due_excuses_no_erasing(hours: float) -> None:
    after = entry("recording.lost", hours, TWO, **facts())
    found = told(*WHOLE[:6], after, entry("searched", 9000))
    assert [str(TWO) in fault for fault in found.faults] == [True]
    assert (found.lost, found.losses) == (0, [])


def test_a_loss_that_is_dated_back_excuses_no_erasing() -> None:
    """Who can write one more entry cannot make a loss of what should have been erased."""
    for hours, faults in ((23.9, 0), (24, 1), (60, 1)):
        found = told(*WHOLE[:3], entry("key.added", hours), LOST, WHOLE[5], entry("listened", 61))
        assert (len(found.faults), found.lost) == (faults, 1 - faults), hours


def test_what_is_found_after_all_has_to_be_erased() -> None:
    rebuilt = entry("rebuilt", 23.95, TWO, **facts())
    found = told(*WHOLE[:5], LOST, rebuilt, *WHOLE[5:7])
    assert (found.faults, found.lost, found.erased) == ([], 0, 2)
    found = told(*WHOLE[:5], LOST, rebuilt, WHOLE[5], entry("searched", 9000))
    assert [str(TWO) in fault for fault in found.faults] == [True]
    found = told(*WHOLE[:5], LOST, rebuilt, LOST, WHOLE[5], entry("searched", 9000))
    assert (found.faults, found.lost) == ([], 1), "and may be lost again"


def test_what_is_due_for_less_than_a_day_is_not_left_out_yet() -> None:
    found = told(*WHOLE[:6], entry("searched", 47.9))
    assert (found.faults, found.overdue) == ([], 1)


def test_the_story_ends_with_its_latest_entry_and_not_with_one_that_is_dated_back() -> None:
    """Who can write one more entry cannot hide with it that nothing is erased."""
    late = entry("erased", 24.1, TWO, **gone())
    for act in ("searched", "key.added"):
        found = told(*WHOLE[:5], late, entry("key.revoked", 60), entry(act, -9000))
        assert found.told_until == instant(BEGIN + timedelta(hours=60))
        assert [str(ONE) in fault for fault in found.faults] == [True]


def test_an_erasure_that_bears_a_time_to_come_was_early() -> None:
    """Who owns the database can bend its clock for one statement, and no fuse sees it."""
    lines = [make() for make in WHOLE]
    assert story.read(lines, BEGIN + timedelta(hours=24)).faults == []
    faults = story.read(lines, BEGIN - timedelta(hours=1)).faults
    assert [fault.split(" is ")[1] for fault in faults] == [
        "erased at a time that has not come yet"
    ] * 2


def test_a_clock_that_leapt_ahead_leaves_nothing_out() -> None:
    """It was set right; what it wrote down says nothing until that time has come."""
    entries = [*WHOLE[:5], entry("key.added", 9000), entry("searched", 9000)]
    lines = [make() for make in entries]
    found = story.read(lines, BEGIN + timedelta(hours=23))
    assert (found.faults, found.told_until) == ([], instant(BEGIN + timedelta(hours=3)))
    assert len(story.read(lines, BEGIN + timedelta(hours=9999)).faults) == 2


def test_thousands_of_faults_are_not_all_told() -> None:
    entries = [entry("erased", 24, uuid4(), **gone()) for _ in range(300)]
    found = told(*entries)
    assert (len(found.faults), found.erased) == (100, 300)


def test_what_looks_usual_is_read_as_any_other_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick way of reading finds what JSON finds, whatever a text holds."""
    strange = ['"', "\\", '","due":"2000', "}", "]", '\\"', "ä", "\u2028", "x" * 300]
    dice = random.Random(5)
    for _ in range(300):
        due = instant(DUE + timedelta(days=dice.randrange(5)))
        known: dict[str, object] = {"day": dice.choice([*strange, "2026-11-02"]), "due": due}
        known["rule"] = dice.choice([*strange, "P9D"])
        if dice.random() < 0.5:
            known |= {"attempt": dice.choice(strange), "absent": [dice.choice(strange)]}
        if dice.random() < 0.2:
            known["zzz"] = {"due": "2000-01-01T00:00:00.000000Z"}
        act = dice.choice(["stored", "erased"])
        lines = [Entry(0, BEGIN, dice.choice(strange), act, ONE, known).text]
        quick = story.read(lines)
        with monkeypatch.context() as patched:
            patched.setattr(story, "_USUAL", re.compile(b"(?!)"))
            assert story.read(lines) == quick
