"""Which passwords are refused because they are tried first."""

import pytest

from storage.passwords import is_guessed

GUESSED = [
    "password1234", "passwordpassword", "123456789012", "qwertyuiop[]", "aaaaaaaaaaaa",
    "iloveyouforever", "salasana1234", "Puheluarkisto1", "samtalsarkiv!", "archive2026!",
    "anna.virtanen1", "virtanenvirtanen", "x" * 256, "abcdefghijkl",
]  # fmt: skip
SAFE = [
    "correct horse battery staple", "a password of one's own", "Xk3-9fkd-22mz-aq71",
    "hauki uitti tuolin katolle", "ei enää yhtään kahvia kiitos", "\ud83d\ude00 puro vie kiven",
]  # fmt: skip


@pytest.mark.parametrize("password", GUESSED)
async def test_what_is_tried_first_is_refused(password: str) -> None:
    assert await is_guessed(password, "anna.virtanen")


@pytest.mark.parametrize("password", SAFE)
async def test_any_other_is_good(password: str) -> None:
    assert not await is_guessed(password, "anna.virtanen")
