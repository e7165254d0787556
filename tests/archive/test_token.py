"""The form of a token: a scanner finds it in a leak, and a typo is told without the database."""

import random
import re
import string
from pathlib import Path

import pytest

from archive.token import PATTERN, Token


def test_a_token_is_read_back() -> None:
    token = Token.new()
    assert Token.from_text(token.text()) == token
    again = Token.new(token.id)
    assert (again.id, again.secret != token.secret) == (token.id, True)
    assert token.secret not in repr(token)


def test_a_scanner_finds_it_in_a_leak() -> None:
    text = Token.new().text()
    for around in (f'{{"token": "{text}"}}', f"ARCHIVE_TOKEN={text}\n", f"https://x:{text}@host/"):
        assert re.findall(PATTERN, around) == [text]


def test_the_documents_tell_a_scanner_what_to_look_for() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "operations.md"
    assert f"`\\b{PATTERN}\\b`" in page.read_text()


def test_no_mistyped_character_goes_unnoticed() -> None:
    text = Token.new().text()
    letters = string.ascii_letters + string.digits + "_-"
    for place, right in enumerate(text):
        for wrong in letters.replace(right, ""):
            assert Token.from_text(text[:place] + wrong + text[place + 1 :]) is None
        assert Token.from_text(text[:place] + text[place + 1 :]) is None
        swapped = text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
        assert swapped == text or Token.from_text(swapped) is None


@pytest.mark.parametrize(
    "text", ["", "cra_", "x" * 10000, "crä_" + "a" * 60, "cra_" + "_" * 64, "cra_nobody"]
)
def test_what_is_no_token_is_none(text: str) -> None:
    assert Token.from_text(text) is None


def test_nothing_may_stand_around_it() -> None:
    text = Token.new().text()
    for around in (" ", "\n", "\0", random.choice(string.ascii_letters)):
        assert Token.from_text(around + text) is None
        assert Token.from_text(text + around) is None
