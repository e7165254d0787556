"""A list as CSV: what a spreadsheet would take for a formula, and the form of RFC 4180."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import listing
from archive.recording import Audio, Call, CallType, Direction, Recording
from archive.retention import Period, Policy

POLICY = Policy(ZoneInfo("Europe/Helsinki"), {kind: Period(years=1) for kind in CallType})
STARTED = datetime(2026, 11, 24, 7, 30, tzinfo=UTC)


def recording(**fields: str) -> Recording:
    expiry = POLICY.expiry(CallType.OTHER, STARTED)
    call = Call("c-1", CallType.OTHER, STARTED, expiry, Direction.INBOUND)
    audio = Audio(10, "00" * 32, 61.26, 1, 8000, "pcm_s16le", "wav", ())
    return Recording(uuid4(), "pbx", STARTED, replace(call, **fields), audio)  # type: ignore[arg-type]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_each_call_has_a_line_with_all_that_is_known() -> None:
    one = recording(caller="+358401234567", agent='Åke "Ake", Öst')
    [row] = read(listing.head() + listing.lines([one], POLICY))
    assert row["id"] == str(one.id)
    assert row["started_at"] == "2026-11-24T09:30:00+02:00"
    assert row["duration"] == "61.3"
    assert row["caller"] == "'+358401234567"
    assert row["agent"] == 'Åke "Ake", Öst'
    assert (row["customer"], row["direction"], row["call_type"]) == ("", "inbound", "other")
    assert tuple(row) == listing.COLUMNS


def test_its_lines_end_as_the_rfc_has_it_and_quotes_are_doubled() -> None:
    text = listing.head() + listing.lines([recording(agent='a"b,c')], POLICY)
    assert text.count("\r\n") == 2
    assert text.endswith("\r\n")
    assert '"a""b,c"' in text


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"])  # noqa: RUF001
def test_no_cell_is_a_formula(start: str) -> None:
    assert listing.safe(f"{start}1+1") == f"'{start}1+1"


@given(st.text(max_size=20))
def test_whatever_a_source_says_comes_out_as_it_was(text: str) -> None:
    said = text.replace("\r", "").replace("\n", "").replace("\0", "")
    [row] = read(listing.head() + listing.lines([recording(customer=said)], POLICY))
    assert row["customer"].removeprefix("'") == said.removeprefix("'")
    assert not row["customer"].startswith(("=", "+", "-", "@"))
