"""Mappings: templates, addresses, words, times; and what depends on the audio."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.mapping import Reading, Template, instant, pairs, path_form
from archive.recording import parse_instant


def reading(path: list[str] | None = None, words: list[str] | None = None, **fields: list[str]):  # type: ignore[no-untyped-def]
    return Reading.from_texts(fields, path or [], words or [])


def test_the_first_template_whose_places_all_have_a_value_is_taken() -> None:
    one = reading(agent=["{query.a}-{query.b}", "{header.X-Agent}", "nobody"])
    assert one.read({"query": {"a": "1", "b": "2"}}) == {"agent": "1-2"}
    assert one.read({"query": {"a": "1", "b": ""}}) == {"agent": "nobody"}
    assert one.read({"query": {"a": "1"}, "header": {"x-agent": "anna"}}) == {"agent": "anna"}
    assert reading(agent=["{query.a}"]).read({}) == {}


def test_what_is_said_twice_is_handed_on_as_two() -> None:
    one = reading(agent=["x{query.a}", "y"])
    assert one.read({"query": {"a": ["1", "2"]}}) == {"agent": ["1", "2"]}


def test_what_depends_on_the_audio_waits_for_it_and_no_longer() -> None:
    one = reading(started_at=["{query.t}", "{tag.Date}", "{audio.start}"], queue=["q"])
    assert one.read({"query": {"t": "x"}}) == {"started_at": "x", "queue": "q"}
    assert one.read({"query": {}}) is None
    late = {"tag": {"date": "y"}, "audio": {"start": "z"}}
    assert one.read(late) == {"started_at": "y", "queue": "q"}
    assert one.read({**late, "tag": {}}) == {"started_at": "z", "queue": "q"}


def test_what_holds_otherwise_holds_where_nothing_else_is_said() -> None:
    one = reading(call_type=["{sidecar.line}"]).otherwise("call_type", "other")
    assert one.read({"sidecar": {"line": "contract"}}) == {"call_type": "contract"}
    assert one.read({}) == {"call_type": "other"}


def test_words_are_translated_for_types_and_directions_alone() -> None:
    one = reading(
        words=["Telemarketing = direct_marketing", "in=inbound"],
        call_type=["{query.t}"],
        direction=["{query.d}"],
        queue=["{query.d}"],
    )
    assert one.read({"query": {"t": "TELEMARKETING", "d": "in"}}) == {
        "call_type": "direct_marketing", "direction": "inbound", "queue": "in",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("form", "path", "found"),
    [
        ("{call_id}.{ext}", "a.b.wav", {"call_id": "a.b", "ext": "wav"}),
        ("{call_id}.{ext}", "x/a.wav", None),
        ("{t}/{id}.{ext}", "o%2Fa/a%40b.wav", {"t": "o/a", "id": "a@b", "ext": "wav"}),
        ("{t}/**/r_{id}.{ext}", "o/r_1.mp3", {"t": "o", "id": "1", "ext": "mp3"}),
        ("{t}/**/r_{id}.{ext}", "o/x/y/r_1.mp3", {"t": "o", "id": "1", "ext": "mp3"}),
        ("{t}/**/r_{id}.{ext}", "o/x/y/s_1.mp3", None),
        ("**/{id}", "a/b/c", {"id": "c"}),
        ("a.b/{id}", "axb/c", None),
        ("**/{id}", "x/" * 1023 + "c", {"id": "c"}),
        ("**/{id}", "x/" * 1024 + "c", None),
    ],
)
def test_an_address_is_read_by_its_form(form: str, path: str, found: object) -> None:
    assert reading(path=["no/{x}", form]).path(path) == found


@pytest.mark.parametrize("form", ["", "a//b", "{a}/{a}", "{A}", "a*b", "{a", "/a"])
def test_a_wrong_form_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match="a path"):
        path_form(form)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1764000000", "2025-11-24T16:00:00+00:00"),
        ("1764000000.123456", "2025-11-24T16:00:00.123456+00:00"),
        ("1764000000.1234567", "2025-11-24T16:00:00.123456+00:00"),
        ("1764000000.5", "2025-11-24T16:00:00.500000+00:00"),
        ("1764000000123", "2025-11-24T16:00:00.123000+00:00"),
        ("1764000000123456", "2025-11-24T16:00:00.123456+00:00"),
        ("63931219200", "2025-11-24T16:00:00+00:00"),
        ("2025-11-24T18:00:00+02:00", "2025-11-24T18:00:00+02:00"),
        ("12345", "12345"),
        ("\u0661764000000", "\u0661764000000"),
        ("17640000001234567", "17640000001234567"),
        ("00000000000", "00000000000"),
        ("00031622399", "00031622399"),
        ("00031622400", "0001-01-01T00:00:00+00:00"),
    ],
)
def test_counts_of_seconds_are_times(text: str, meant: str) -> None:
    assert instant(text) == meant


@given(st.integers(10**8, 10**10 - 1), st.integers(0, 999_999))
def test_every_count_of_seconds_is_the_instant_that_it_counts(seconds: int, micro: int) -> None:
    read = parse_instant(instant(f"{seconds}.{micro:06}"))
    assert read == datetime.fromtimestamp(seconds, UTC).replace(microsecond=micro)


@given(st.text("0123456789", min_size=9, max_size=16))
def test_a_count_of_whatever_length_is_a_time_or_left_as_it_is(text: str) -> None:
    assert (read := instant(text)) == text or datetime.fromisoformat(read).tzinfo


@given(st.text())
def test_any_text_is_a_template_or_refused_and_never_breaks(text: str) -> None:
    try:
        template = Template.parse(text)
    except ValueError:
        return
    template.fill({"query": {"a": "b"}})


def test_pairs_keep_what_stands_behind_the_first_colon() -> None:
    assert pairs("Caller:sip:a@b|queue: q |broken|:x|e:") == {
        "caller": "sip:a@b", "queue": "q", "e": "",
    }  # fmt: skip
    assert pairs("") == {}
