"""Sidecars: every form becomes the same table, and nothing in one can do any harm."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import sidecar
from archive.sidecar import Rules, UnclearError

HELSINKI = ZoneInfo("Europe/Helsinki")

JSON = b'{"id": 7, "call": {"from": "+358401", "legs": [{"agent": "Anna"}]}, "on": true}'
XML = b'<?xml version="1.0"?><r:a xmlns:r="urn:x"><r:id>7</r:id><call from="+358401"/></r:a>'
CSV = "\ufeffid;from;agent\r\n7;+358401;Ann\u00e4\r\n".encode()


def test_each_form_becomes_a_table() -> None:
    assert sidecar.read("x.json", JSON) == {
        "id": "7",
        "call.from": "+358401",
        "call.legs.0.agent": "Anna",
        "on": "true",
    }
    assert sidecar.read("x.XML", XML) == {"id": "7", "call.@from": "+358401"}
    assert sidecar.read("x.csv", CSV) == {"id": "7", "from": "+358401", "agent": "Annä"}
    assert sidecar.read("x.csv", CSV.decode().encode("utf-8-sig"))["id"] == "7"
    assert sidecar.read("x.csv", "id,agent\n7,Annä".encode("latin-1"))["agent"] == "Annä"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.json", b"[1"),
        ("x.json", b"7"),
        ("x.json", b"[" * 100_000),
        ("x.json", b'{"a":' * 60 + b"1" + b"}" * 60),
        ("x.xml", b"<a>"),
        ("x.xml", b"<a/>trailing"),
        ("x.xml", b"<a>" * 60 + b"</a>" * 60),
        ("x.xml", b'<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>'),
        ("x.xml", b'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><a/>'),
        ("x.xml", b'<?xml version="1.0" encoding="nonsense"?><a/>'),
        ("x.csv", b"id\n1\n2\n"),
        ("x.csv", b""),
        ("x.yaml", b"a: 1"),
        ("x.json", b'"' + b"a" * sidecar.MOST + b'"'),
    ],
)
def test_what_is_none_is_refused_and_not_repeated(name: str, content: bytes) -> None:
    with pytest.raises(UnclearError) as caught:
        sidecar.read(name, content)
    assert "passwd" not in str(caught.value)


@given(st.binary(max_size=300), st.sampled_from(["x.json", "x.xml", "x.csv"]))
def test_no_bytes_do_anything_else(content: bytes, name: str) -> None:
    try:
        table = sidecar.read(name, content)
    except UnclearError:
        return
    assert all(isinstance(text, str) for text in (*table, *table.values()))


def test_a_mapping_finds_fields_and_says_what_they_mean() -> None:
    rules = Rules(
        "stem",
        "{stem}.json",
        columns={"caller": "call.from", "call_type": "queue", "started_at": "began"},
        values={("call_type", "600"): "fault_report"},
        given={"call_type": "other"},
    )
    beside = {"call.from": "+358401", "queue": "600", "began": "1764000000", "agent": "Anna"}
    assert sidecar.describe(rules, "17.wav", beside) == {
        "call_id": "17",
        "call_type": "fault_report",
        "started_at": "2025-11-24T16:00:00+00:00",
        "caller": "+358401",
        "agent": "Anna",
        "queue": "600",
    }
    del beside["queue"]
    assert sidecar.describe(rules, "17.wav", beside)["call_type"] == "other"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-24T09:30:00+0200", "2026-11-24T09:30:00+02:00"),
        ("2026-11-24T09:30:00.5Z", "2026-11-24T09:30:00.500000+00:00"),
        ("2026-11-24 09:30:00", "2026-11-24T09:30:00+02:00"),
        ("20261124093000", "2026-11-24T09:30:00+02:00"),
        ("2026-03-29 03:30:00", "2026-03-29T04:30:00+03:00"),
        ("2026-10-25 03:30:00", "2026-10-25T03:30:00+03:00"),
        ("1764000000", "2025-11-24T16:00:00+00:00"),
        ("@1764000000.25", "2025-11-24T16:00:00.250000+00:00"),
        ("1764000000000", "2025-11-24T16:00:00+00:00"),
        ("1764000000000000", "2025-11-24T16:00:00+00:00"),
    ],
)
def test_a_start_is_read_in_every_form(text: str, meant: str) -> None:
    assert sidecar.instant(text, HELSINKI) == meant


@pytest.mark.parametrize(
    "text", ["2026-11-24 09:30:00", "20261124093000", "soon", "20269924093000"]
)
def test_a_start_without_an_offset_is_nobodys_guess(text: str) -> None:
    with pytest.raises(UnclearError):
        sidecar.instant(text, None)
    if text == "20269924093000":
        with pytest.raises(UnclearError):
            sidecar.instant(text, HELSINKI)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UnclearError, match="says call_type, started_at"):
        sidecar.describe(Rules("stem"), "17.wav", {})


def test_directions_have_many_names() -> None:
    rules = Rules(given={"call_type": "other"})
    for said, meant in (("IN", "inbound"), ("outgoing", "outbound"), ("internal", "internal")):
        found = sidecar.describe(rules, "1764000000.1.wav", {"direction": said})
        assert found["direction"] == meant


def test_braces_in_a_name_are_only_braces() -> None:
    assert Rules(sidecar="{name}_metadata.json").sidecar_of("a{stem}.opus") == (
        "a{stem}.opus_metadata.json"
    )
    assert Rules(sidecar="/cdr/{stem}.cdr.json").sidecar_of("a.wav") == "/cdr/a.cdr.json"


def test_what_lies_beside_an_audio_is_told_by_its_name() -> None:
    form = Rules(sidecar="{name}_metadata.json").sidecars
    assert form
    assert form.fullmatch("a.opus_metadata.json")
    assert not form.fullmatch("_metadata.json")
    assert not form.fullmatch("a.opus_metadata.json.wav")
    # One in another place is known by no name; nor is there one where none is expected.
    assert Rules(sidecar="/cdr/{stem}.json").sidecars is None
    assert Rules().sidecars is None


@pytest.mark.parametrize(
    "form", ["beside.json", "{stem}", "{stem}.wav", "{name}/x.json", "{x}.xml"]
)
def test_a_form_that_names_no_file_beside_is_refused(form: str) -> None:
    sidecar.check_form("{stem}.json")
    with pytest.raises(ValueError, match="is written like"):
        sidecar.check_form(form)
