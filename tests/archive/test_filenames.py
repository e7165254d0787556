"""Names of files: what they say of a call, and what nobody may read into them."""

import pytest

from archive import filenames


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "in-+358401234567-0451112222-20261124-093000-1764000000.17.wav",
            {
                "call_id": "1764000000.17",
                "started_at": "2025-11-24T16:00:00+00:00",
                "direction": "inbound",
                "callee": "+358401234567",
                "caller": "0451112222",
            },
        ),
        (
            "out-0401234567-3201-20261124-093000-pbx-2-1764000000.17.WAV",
            {
                "call_id": "pbx-2-1764000000.17",
                "started_at": "2025-11-24T16:00:00+00:00",
                "direction": "outbound",
                "callee": "0401234567",
                "caller": "3201",
            },
        ),
        (
            "q-600-anonymous-20261124-093000-1764000000.9.gsm",
            {
                "call_id": "1764000000.9",
                "started_at": "2025-11-24T16:00:00+00:00",
                "queue": "600",
                "caller": "anonymous",
            },
        ),
        (
            "force-*97#-unknown-20261124-093000-1764000000.9.wav",
            {
                "call_id": "1764000000.9",
                "started_at": "2025-11-24T16:00:00+00:00",
                "callee": "*97#",
            },
        ),
        (
            "in-a-b-c-20261124-093000-1764000000.9.wav",
            {
                "call_id": "1764000000.9",
                "started_at": "2025-11-24T16:00:00+00:00",
                "direction": "inbound",
            },
        ),
        (
            "1764000000.17.wav",
            {"call_id": "1764000000.17", "started_at": "2025-11-24T16:00:00+00:00"},
        ),
        (
            "asterisk-01-1764000000.17.wav",
            {"call_id": "asterisk-01-1764000000.17", "started_at": "2025-11-24T16:00:00+00:00"},
        ),
        ("call.wav", {}),
        ("20261124-093000.wav", {}),
    ],
)
def test_a_name_of_asterisk_says_what_it_says(name: str, fields: dict[str, str]) -> None:
    assert filenames.said("freepbx", name) == fields


def test_the_local_time_in_a_name_is_never_the_start_of_the_call() -> None:
    name = "in-1-2-20300101-000000-1764000000.17.wav"
    assert filenames.said("freepbx", name)["started_at"] == "2025-11-24T16:00:00+00:00"


def test_what_is_no_text_is_not_a_number() -> None:
    for odd in ("04\n5", "04\udcff5", "\x1b[31m"):
        found = filenames.said("freepbx", f"in-1-{odd}-20261124-093000-1764000000.17.wav")
        assert "caller" not in found
        assert found["call_id"] == "1764000000.17"
    assert filenames.said("stem", "a\nb.wav") == {}


@pytest.mark.parametrize(
    ("before", "caller", "callee", "call_id"),
    [
        ("[Anna]", "201", "0401234567", "20261124093000(55)"),
        ("[]", "100", "0836826436", "20190211124709(2)"),
        ("[27836826436]", "27836826436", "100", "20190211124743(3)"),
        ("[a_b]", "100", "101", "20190219120918(380)"),
    ],
)
def test_a_name_of_3cx_is_a_call_by_its_time_and_count_and_by_no_number(
    before: str, caller: str, callee: str, call_id: str
) -> None:
    assert filenames.said("3cx", f"{before}_{caller}-{callee}_{call_id}.wav") == {
        "caller": caller,
        "callee": callee,
        "started_at": call_id[:14],
        "call_id": call_id,
    }


def test_a_pattern_names_fields() -> None:
    assert filenames.said(r"(?P<agent>\w+)_(?P<call_id>\d+)", "anna_7.wav") == {
        "agent": "anna",
        "call_id": "7",
    }


def test_headerless_audio_is_declared_by_its_ending() -> None:
    assert filenames.media_type("x.ALAW") == "audio/PCMA;rate=8000"
    assert filenames.media_type("x.WAV") == "application/octet-stream"
    assert [filenames.media_type(name) for name in ("x.sln", "x.txt", "wav", "x.wav.part")] == [
        None,
        None,
        filenames.media_type("wav"),
        None,
    ]
