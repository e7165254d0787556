"""Raw metadata becomes a call at one door, and every wrong field is named at once."""

import unicodedata
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidError
from archive.recording import Call, CallType, Direction, caseless, parse_instant
from archive.retention import Period, Policy

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
POLICY = Policy(ZoneInfo("Europe/Helsinki"), {kind: Period(years=1) for kind in CallType})
GOOD = {
    "call_id": "1732438800.17",
    "call_type": "fault_report",
    "started_at": "2026-11-24T09:30:00+02:00",
}


def read(**fields: object) -> Call:
    return Call.from_fields({**GOOD, **fields}, POLICY, NOW)


def errors(**fields: object) -> dict[str, str]:
    with pytest.raises(InvalidError) as caught:
        read(**fields)
    return caught.value.errors


def test_a_call_is_read_with_its_expiry() -> None:
    call = read(direction="inbound", caller="040 123 4567", agent="", unknown="ignored")
    assert call.call_type is CallType.FAULT_REPORT
    assert call.direction is Direction.INBOUND
    assert call.caller == "040 123 4567"
    assert call.agent is None
    assert call.expiry.at == datetime(2027, 11, 24, 7, 30, tzinfo=UTC)


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        Call.from_fields({"call_type": "chat", "direction": "up", "agent": "x" * 257}, POLICY, NOW)
    assert caught.value.errors.keys() == {
        "call_id",
        "call_type",
        "started_at",
        "direction",
        "agent",
    }


@pytest.mark.parametrize("kind", ["chat", None])
def test_a_start_is_judged_whatever_the_type_is(kind: object) -> None:
    for start, word in [
        (NOW + timedelta(days=1), "ahead"),
        (NOW - timedelta(days=2 * 366), "kept"),
        (datetime.max.replace(tzinfo=UTC), "calendar"),
    ]:
        found = errors(call_type=kind, started_at=start.isoformat())
        assert found.keys() == {"call_type", "started_at"}
        assert word in found["started_at"]


def test_of_no_type_the_longest_period_tells_whether_a_call_is_past() -> None:
    periods = {kind: Period(days=30) for kind in CallType} | {CallType.CONTRACT: Period(years=3)}
    policy = Policy(POLICY.zone, periods)
    for days, wrong in [(2 * 366, {"call_type"}), (4 * 366, {"call_type", "started_at"})]:
        started = (NOW - timedelta(days=days)).isoformat()
        with pytest.raises(InvalidError) as caught:
            Call.from_fields({**GOOD, "call_type": "chat", "started_at": started}, policy, NOW)
        assert caught.value.errors.keys() == wrong


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("2026-11-24T09:30:00", "offset"),
        ("2026-11-24", "write the time"),
        ("yesterday", "write the time"),
        ("2026-02-30T09:30:00Z", "not a time"),
        ("2026-11-24T25:30:00Z", "not a time"),
    ],
)
def test_a_time_needs_an_offset_and_has_to_exist(text: str, word: str) -> None:
    assert word in errors(started_at=text)["started_at"]


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T07:30:00Z",
        "2026-11-24t07:30:00z",
        "2026-11-24T09:30:00 02:00",
        "2026-11-24 09:30:00+02:00",
        "2026-11-24T09:30:00.000000000+02:00",
        "2026-11-24T09:30:00+0200",
    ],
)
def test_the_same_time_in_other_notations(text: str) -> None:
    assert parse_instant(text) == datetime(2026, 11, 24, 7, 30, tzinfo=UTC)


def test_five_minutes_ahead_are_taken_and_not_a_second_more() -> None:
    limit = NOW + timedelta(minutes=5)
    assert read(started_at=limit.isoformat()).started_at == limit
    assert "ahead" in errors(started_at=(limit + timedelta(seconds=1)).isoformat())["started_at"]


def test_a_call_past_its_year_is_refused_from_the_instant_on() -> None:
    assert "kept" in errors(started_at="2025-11-24T08:00:00Z")["started_at"]
    assert read(started_at="2025-11-24T08:00:01Z").expiry.at == NOW + timedelta(seconds=1)


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True, 1.5])
def test_a_field_that_is_no_text_is_refused(value: object) -> None:
    assert errors(agent=value) == {"agent": "must be one text"}


def test_a_number_of_json_is_taken_as_its_digits() -> None:
    assert read(customer=12345).customer == "12345"


@given(st.text(st.characters(categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1))
def test_control_characters_are_refused(text: str) -> None:
    # Such a text may be empty once blanks are cut off: then it is refused as unprintable, too.
    assert "agent" in errors(agent=f"a{text}b")


@pytest.mark.parametrize(
    "text", ["Anna\u00a0Ää", "\U0001f469\u200d\U0001f4bb Bo", "\u202bعمر\u202c"]
)
def test_a_name_as_a_telephone_shows_it_is_taken(text: str) -> None:
    assert read(agent=text).agent == text


@given(st.text(max_size=300))
def test_whatever_is_sent_the_answer_is_a_call_or_an_error_without_the_value(text: str) -> None:
    try:
        call = read(agent=text, started_at=GOOD["started_at"])
    except InvalidError as error:
        assert set(error.errors) == {"agent"}
        assert len(text) < 4 or text not in error.errors["agent"]
    else:
        assert call.agent is None or 0 < len(call.agent) <= 256


@given(st.text(max_size=40))
def test_no_text_makes_a_time_crash(text: str) -> None:
    try:
        Call.from_fields({**GOOD, "started_at": text}, POLICY, NOW)
    except InvalidError as error:
        assert set(error.errors) == {"started_at"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("M\u00e4kel\u00e4", "Ma\u0308kela\u0308"),
        ("M\u00c4KEL\u00c4", "ma\u0308kela\u0308"),
        ("\u212bke", "\u00e5ke"),
        ("Ti\u1ebfn", "TIE\u0302\u0301N"),
        ("q\u0307\u0323", "Q\u0323\u0307"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u1fb3", "\u0391\u0345"),
    ],
)
def test_a_name_is_the_same_however_its_marks_are_written(one: str, other: str) -> None:
    assert caseless(one) == caseless(other)


@pytest.mark.parametrize(("one", "other"), [("M\u00e4kel\u00e4", "Makela"), ("1\u00b2", "12")])
def test_a_mark_or_a_sign_of_its_own_makes_another_name(one: str, other: str) -> None:
    assert caseless(one) != caseless(other)


@given(st.text(max_size=40))
def test_what_is_compared_by_is_the_same_of_each_form_and_of_itself(text: str) -> None:
    found = caseless(text)
    assert caseless(found) == found
    for form in ("NFC", "NFD"):
        assert caseless(unicodedata.normalize(form, text)) == found
