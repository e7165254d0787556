"""Talk and silence, measured on peaks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.talk import measure


def test_each_channel_has_its_share() -> None:
    left = [100] * 50 + [2] * 50
    right = [0] * 75 + [90] * 25
    talk = measure([left, right], 100.0)
    assert talk.shares == (0.5, 0.25)
    assert talk.silence == 0.25
    assert talk.silences == ((50.0, 75.0),)


def test_a_breath_is_talk_and_a_pause_is_not() -> None:
    words = [100, 1, 100] + [1] * 20 + [100]
    talk = measure([words], 24 * 0.4)
    assert talk.shares == (4 / 24,)
    assert [pytest.approx(span) for span in talk.silences] == [(1.2, 9.2)]


def test_the_noise_of_a_line_is_silence() -> None:
    assert measure([[3, 2, 3, 1]], 8.0).silences == ((0.0, 8.0),)
    assert measure([[0]], 0.5).silences == ()


@given(
    st.lists(st.lists(st.integers(0, 127), min_size=9, max_size=9), min_size=1, max_size=3),
    st.floats(0.01, 50_000),
)
def test_shares_and_spans_lie_within(channels: list[list[int]], duration: float) -> None:
    talk = measure(channels, duration)
    assert all(0 <= share <= 1 for share in (*talk.shares, talk.silence))
    assert all(0 <= start < stop <= duration * 1.001 for start, stop in talk.silences)
