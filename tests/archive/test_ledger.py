"""An entry has one form, and reads back as itself."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.ledger import Entry, canonical

AT = datetime(2026, 11, 24, 14, 0, 0, 120, UTC)
ID = UUID("019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02")

TIMES = st.integers(0, 3 * 10**15).map(lambda late: AT + timedelta(microseconds=late))
FACTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=9,
)


def test_the_form_of_an_entry() -> None:
    here = AT.astimezone(timezone(timedelta(hours=2)))
    entry = Entry(7, here, "k1", "stored", ID, {"b": 1, "a": "ä"}, "00ff")
    assert entry.text.decode() == (
        '{"act":"stored","actor":"k1","at":"2026-11-24T14:00:00.000120Z",'
        '"facts":{"a":"ä","b":1},"recording":"019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02",'
        '"sealed":"00ff"}'
    )
    bare = Entry(8, AT, "system", "night.done", None, {})
    assert bare.text == (
        b'{"act":"night.done","actor":"system","at":"2026-11-24T14:00:00.000120Z","facts":{}}'
    )


@given(st.dictionaries(st.text(max_size=5), FACTS, max_size=4), TIMES, st.booleans())
def test_an_entry_reads_back_as_itself(facts: dict[str, object], at: datetime, whole: bool) -> None:
    entry = Entry(3, at, "k", "a", ID if whole else None, facts)
    assert Entry.parse(3, entry.text) == entry
    assert b"\n" not in entry.text


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{}", b"[]", b"null", b'{"act": "a"}', b'{"act":"a"}', b'{"a":1,"a":1}'),
        b'{"actor":"k","act":"a","at":"2026-11-24T14:00:00.000000Z","facts":{}}',
        b'{"act":"a","actor":"k","at":3,"facts":{}}',
        b'{"act":"a","actor":"k","at":"noon","facts":{}}',
        b'{"act":"a","actor":"k","at":"2026-11-24T14:00:00.000000Z","facts":{},"recording":"x"}',
        b'{"act":"a","actor":"k","at":"2026-11-24T14:00:00.000000Z","extra":1,"facts":{}}',
        b'{"act":"a","actor":"k","at":"2026-11-24T14:00:00.000000Z","facts":{},"sealed":""}',
        b'{"act":"a","actor":"k","at":"2026-11-24T16:00:00.000000+02:00","facts":{}}',
        b'{"act":"a","actor":"k","at":"2026-11-24T14:00:00.000000","facts":{}}',
        b'{"act":"a","actor":"k","at":"0001-01-01T00:00:00+02:00","facts":{}}',
        b'{"act":"a","actor":"k","at":"2026-11-24T14:00:00.000000Z","facts":null}',
    ],
)
def test_anything_else_is_no_entry(text: bytes) -> None:
    with pytest.raises(ValueError):
        Entry.parse(0, text)


def test_there_is_one_form_of_a_number() -> None:
    for known in (1.0, [0.5], {"a": [{"b": 1e9}]}):
        with pytest.raises(TypeError, match="whole numbers"):
            canonical(known)
