# ruff: noqa: RUF001 - the dashes that people write
"""The line that a person types, in every way that three languages write a day."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import asking
from archive.asking import ANYTHING, Asked, understand

TODAY = date(2026, 11, 25)  # a Wednesday
DAY = timedelta(days=1)


def days(first: str, last: str) -> tuple[date, date]:
    return date.fromisoformat(first), date.fromisoformat(last) + DAY


@pytest.mark.parametrize(
    "line",
    [
        "24.11.2026", "24.11.26", "24.11.", "24/11/2026", "24/11", "2026-11-24",
        "24. marraskuuta 2026", "24. marraskuuta", "24 november 2026", "den 24 november",
        "24 Nov", "24th November 2026", "November 24, 2026", "nov 24", "eilen", "igår", "i går",
        "yesterday", "Yesterday",
    ],
)  # fmt: skip
def test_a_day_is_read_as_each_language_writes_it(line: str) -> None:
    assert understand(line, TODAY) == Asked(*days("2026-11-24", "2026-11-24"))


@pytest.mark.parametrize(
    "line",
    [
        "1.-5.11.2026", "1.–5.11.", "1.11.–5.11.2026", "1.11. - 5.11.", "1–5 Nov 2026", "1-5/11",
        "2026-11-01..2026-11-05", "2026-11-01/2026-11-05", "1 november till 5 november",
        "from 1 Nov to 5 Nov",
        "1.–5. marraskuuta", "5.11.2026-1.11.2026", "between 1 nov and 5 nov",
    ],
)  # fmt: skip
def test_a_range_is_read_as_each_language_writes_it(line: str) -> None:
    assert understand(line, TODAY) == Asked(*days("2026-11-01", "2026-11-05"))


@pytest.mark.parametrize(
    ("line", "first", "last"),
    [
        ("marraskuu 2026", "2026-11-01", "2026-11-30"),
        ("11/2026", "2026-11-01", "2026-11-30"),
        ("2026-02", "2026-02-01", "2026-02-28"),
        ("december", "2025-12-01", "2025-12-31"),
        ("toukokuussa", "2026-05-01", "2026-05-31"),
        ("26.11.", "2025-11-26", "2025-11-26"),
        ("29.2.", "2024-02-29", "2024-02-29"),
        ("20.12.-5.1.2026", "2025-12-20", "2026-01-05"),
        ("viime viikolla", "2026-11-16", "2026-11-22"),
        ("den här veckan", "2026-11-23", "2026-11-29"),
        ("last month", "2026-10-01", "2026-10-31"),
        ("senaste 7 dagarna", "2026-11-19", "2026-11-25"),
        ("tänään", "2026-11-25", "2026-11-25"),
    ],
)
def test_months_weeks_and_days_without_a_year(line: str, first: str, last: str) -> None:
    assert understand(line, TODAY) == Asked(*days(first, last))


@pytest.mark.parametrize(
    ("line", "since", "until"),
    [
        ("24.11.2026-", date(2026, 11, 24), None),
        ("since 24 November", date(2026, 11, 24), None),
        ("24.11. alkaen", date(2026, 11, 24), None),
        ("till 24 november", None, date(2026, 11, 25)),
        ("24.11.2026 asti", None, date(2026, 11, 25)),
    ],
)
def test_a_span_may_be_open(line: str, since: date | None, until: date | None) -> None:
    assert understand(line, TODAY) == Asked(since, until)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("040 123 4567", [(ANYTHING, "040 123 4567")]),
        ("+358 (0)40-123 4567", [(ANYTHING, "+358 (0)40-123 4567")]),
        ("4567", [(ANYTHING, "4567")]),
        ("C-1002", [(ANYTHING, "C-1002")]),
        ("Anna Ääkkönen", [(ANYTHING, "Anna Ääkkönen")]),
        ("Anna 4567", [(ANYTHING, "Anna"), (ANYTHING, "4567")]),
        ("agent:Anna Ääkkönen", [("agent", "Anna Ääkkönen")]),
        ("agentti: anna asiakas:C-1", [("agent", "anna"), ("customer", "C-1")]),
        ('kund:"C 1" 4567', [("customer", "C 1"), (ANYTHING, "4567")]),
        ("31.2.2026", [(ANYTHING, "31.2.2026")]),
        ("99.99.", [(ANYTHING, "99.99.")]),
        ("sip:anna@example.fi", [(ANYTHING, "sip:anna@example.fi")]),
        ("2026", [(ANYTHING, "2026")]),
        ("", []),
    ],
)
def test_all_else_is_looked_for(line: str, parts: list[tuple[str, str]]) -> None:
    assert understand(line, TODAY) == Asked(parts=tuple(parts))


def test_a_day_and_a_number_in_one_line() -> None:
    asked = understand("040 1234567 1.–5.11. agent:Anna", TODAY)
    assert (asked.since, asked.until) == days("2026-11-01", "2026-11-05")
    assert asked.parts == (("agent", "Anna"), (ANYTHING, "040 1234567"))


@given(st.text(max_size=60), st.dates(date(1, 1, 1), date(9999, 12, 31)))
def test_no_line_is_refused(line: str, today: date) -> None:
    asked = understand(line, today)
    assert asked.since is None or asked.until is None or asked.since < asked.until
    assert all(value.strip() for _, value in asked.parts)


@given(st.text("0123456789./- –novjanmarraskuu,", max_size=25))
def test_nor_is_one_that_looks_like_days(line: str) -> None:
    asked = understand(line, TODAY)
    assert asked.since is None or asked.until is None or asked.since < asked.until


@given(st.dates(date(1, 2, 1), date(9999, 11, 30)))
def test_a_preset_is_whole_days(today: date) -> None:
    for name in ("today", "yesterday", "week", "month", "last-month"):
        span = asking.preset(name, today)
        assert span is not None
        assert span[0] < span[1]
    assert asking.preset("never", today) is None


def test_a_line_of_many_parts_is_looked_for_in_part_and_says_so() -> None:
    """Each part is looked for on every day: a text that was pasted would take a minute."""
    words = [f"word {number}" for number in range(200)]
    asked = understand(" ".join(words), TODAY)
    assert len(asked.parts) == asking.MOST
    assert asked.more
    assert asked.parts[:2] == ((ANYTHING, "word"), (ANYTHING, "0"))
    assert not understand("word 1 word 2 word 3 word 4", TODAY).more
