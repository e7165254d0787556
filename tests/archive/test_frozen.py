"""What is frozen of a day, and how it is compared."""

from datetime import date

from archive import frozen, merkle
from archive.frozen import NOTHING, Line, Tally, cap, differences

DAY, NEXT = date(2027, 3, 1), date(2027, 3, 2)


def line(*identifiers: str) -> Line:
    leaves = [merkle.leaf_hash(each.encode()) for each in identifiers]
    return Line(len(leaves), merkle.growth_over(leaves).root)


def tally(then: str = "", both: str = "", now: str = "", waiting: str = "") -> Tally:
    """A day's set: each letter is a recording, known `then`, still there in `both`, new `now`."""
    made = Tally()
    for each in sorted(then + both + now + waiting):
        made.add(each, then=each in then + both, now=each in both + now)
    return made


def test_what_was_there_then_and_what_is_frozen_now_are_told_apart() -> None:
    assert (tally().then, tally().now) == (NOTHING, NOTHING)
    same = tally(both="abc")
    assert (same.then, same.now, same.since) == (line("a", "b", "c"), line("a", "b", "c"), 0)
    mixed = tally(both="bd", now="ac", waiting="e")
    assert mixed.then == line("b", "d")
    assert mixed.now == line("a", "b", "c", "d")
    assert mixed.since == 3


def test_a_set_that_only_grew_by_what_was_stored_is_no_difference() -> None:
    assert differences({DAY: line("a", "b")}, {DAY: tally(both="ab")}, {}) == ""
    found = {DAY: tally(both="ab", now="c"), NEXT: tally(now="x")}
    assert differences({DAY: line("a", "b")}, found, {DAY: 1, NEXT: 1}) == ""
    assert differences({}, {}, {}) == ""


def test_each_difference_is_told_in_numbers() -> None:
    was = {DAY: line("a", "b")}
    more = differences(was, {DAY: tally(both="abc")}, {})
    assert "2027-03-01: frozen 2, of them now 3; stored since 0, of them now 0" in more
    assert "frozen 2, of them now 1;" in differences(was, {DAY: tally(both="a")}, {})
    assert "frozen 2, of them now 0;" in differences(was, {}, {})
    other = differences(was, {DAY: tally(both="ac")}, {})
    assert "frozen 2, of them now 2, but others;" in other
    assert "frozen 0, of them now 1;" in differences({}, {NEXT: tally(both="a")}, {})
    gone = differences(was, {DAY: tally(both="ab")}, {DAY: 2})
    assert "stored since 2, of them now 0" in gone
    days = {date(2027, 3, day): line("a") for day in range(1, 10)}
    assert differences(days, {}, {}).endswith("; and 6 more days")


def test_the_root_over_the_lines_changes_with_each_of_them() -> None:
    lines = {DAY: line("a"), NEXT: line("b")}
    roots = {
        frozen.root_over(each)
        for each in (
            lines,
            {},
            {DAY: line("a")},
            {DAY: line("b"), NEXT: line("a")},
            {DAY: line("a"), NEXT: Line(2, line("b").root)},
        )
    }
    assert len(roots) == 5
    assert frozen.root_over(lines) == frozen.root_over({NEXT: line("b"), DAY: line("a")})


def test_the_cap_is_three_times_the_median_and_never_few() -> None:
    assert cap([]) == 100
    assert cap([0] * 30) == 100
    assert cap([33] * 30) == 100
    assert cap([2740] * 30) == 8220
    assert cap([2740] * 20 + [0] * 10) == 8220
    assert cap([10] * 29 + [1_000_000]) == 100
