"""What hearing asks for: reasons of those who have to give one, and how they are written."""

from datetime import timedelta
from urllib.parse import quote

import pytest

from archive.access import Caller, Level
from archive.errors import MalformedError
from archive.listening import HOUR, LONGEST, REASON_HOLDS, USUAL, Rules, reason, reason_of_header


@pytest.mark.parametrize("level", Level)
def test_a_supervisor_alone_is_asked_for_a_reason(level: Level) -> None:
    rules = Rules(frozenset({"contract"}))
    asked = {"contract"} if level is Level.SUPERVISOR else set()
    assert rules.reasons(Caller("k", level)) == asked
    assert USUAL.reasons(Caller("k", level)) == frozenset()


@pytest.mark.parametrize("text", ["a", "x" * LONGEST, "  Reklamaatio 4711, \u00c5ke "])
def test_a_reason_is_one_line(text: str) -> None:
    assert reason(text) == text.strip()
    assert reason_of_header(quote(text)) == text.strip()


@pytest.mark.parametrize("text", ["", "  ", "x" * (LONGEST + 1), "a\nb", "\u2028", None, 7, ["a"]])
def test_what_is_no_reason_is_refused_and_not_repeated(text: object) -> None:
    with pytest.raises(MalformedError) as caught:
        reason(text)
    assert caught.value.detail.startswith("A reason is one line")
    if isinstance(text, str):
        with pytest.raises(MalformedError):
            reason_of_header(quote(text))


def test_a_header_that_is_no_utf8_is_no_reason() -> None:
    with pytest.raises(MalformedError):
        reason_of_header("%FF")


def test_the_times_are_those_that_are_told() -> None:
    assert HOUR == REASON_HOLDS == timedelta(hours=1)
    assert USUAL.recordings_per_hour == 500
