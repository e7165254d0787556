"""Parts that are made silent: read, joined, compared and turned into samples."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.errors import InvalidError
from archive.redaction import MOST, Span, covers, cuts, from_json, from_text

SPANS = st.lists(
    st.builds(
        lambda start, length, channel: Span(start, start + length, channel),
        st.integers(0, 80),
        st.integers(1, 30),
        st.sampled_from([None, 0, 1]),
    ),
    min_size=1,
    max_size=8,
)


def silent(spans: object, channels: int = 2) -> set[tuple[int, int]]:
    """Each millisecond and channel that is silent, one by one."""
    found: set[tuple[int, int]] = set()
    for span in spans:  # type: ignore[attr-defined]
        for channel in range(channels) if span.channel is None else (span.channel,):
            found |= {(at, channel) for at in range(span.start, span.stop)}
    return found


@given(SPANS)
def test_what_touches_becomes_one_and_nothing_else_changes(spans: list[Span]) -> None:
    found = from_json([each.as_json() for each in spans], 0.09, 2)
    assert silent(found) == {each for each in silent(spans) if each[0] < 90}
    for channel in (None, 0, 1):
        mine = [each for each in found if each.channel == channel]
        assert all(one.stop < other.start for one, other in pairwise(mine))


@given(SPANS, SPANS)
def test_parts_cover_others_if_nothing_of_those_would_be_heard(
    new: list[Span], old: list[Span]
) -> None:
    assert covers(new, old, 2) == (silent(old) <= silent(new))


@given(st.integers(0, 10**7), st.integers(1, 10**6), st.sampled_from([8000, 11025, 44100, 48000]))
def test_in_samples_it_is_never_less(start: int, length: int, rate: int) -> None:
    [(first, last, channel)] = cuts([Span(start, start + length)], rate)
    assert first * 1000 <= start * rate < (first + 1) * 1000
    assert (last - 1) * 1000 < (start + length) * rate <= last * 1000
    assert channel is None


def test_an_address_says_the_same() -> None:
    told = [{"start": 1, "stop": 9}, {"start": 20, "stop": 30, "channel": 1}]
    assert from_text("1-9,20-30@1", 1, 2) == from_json(told, 1, 2)
    assert from_text("900-1500", 1.0004, 1) == (Span(900, 1001),)


@pytest.mark.parametrize("text", ["", ",", "1-2;", "-1-2", "1-1", "1-2@2", "1001-1002", "¹-²"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        from_text(text, 1, 2)


def test_there_are_so_many_at_the_most() -> None:
    many = ",".join(f"{at * 2}-{at * 2 + 1}" for at in range(MOST))
    assert len(from_text(many, 1, 1)) == MOST
    with pytest.raises(InvalidError):
        from_text(f"{many},900-901", 1, 1)
