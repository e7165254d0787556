"""The rules of signing in, and of where one may be sent on to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.sign_in import OF_A_NAME, OF_AN_ADDRESS, Slowing, fault_of, is_told, way_on


@given(st.integers(0, 10**9), st.floats(0, 10**6))
def test_a_wait_is_never_longer_than_the_longest_and_grows_with_the_failures(
    failures: int, since: float
) -> None:
    for slowing in (OF_A_NAME, OF_AN_ADDRESS):
        wait = slowing.wait(failures, since)
        assert 0 <= wait <= slowing.longest
        assert wait <= slowing.wait(failures + 1, since)
        assert slowing.wait(failures, slowing.longest) == 0


def test_the_first_tries_are_free_and_each_further_one_doubles_the_wait() -> None:
    waits = [Slowing(3, 60).wait(failures, 0) for failures in range(11)]
    assert waits == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert Slowing(3, 60).wait(6, 5) == 3


def test_a_guesser_has_few_codes_a_day() -> None:
    tries, clock = 0, 0.0
    while clock < 86400:
        clock += OF_A_NAME.wait(tries, 0)
        tries += 1
    assert tries < 320, "of a million codes, of which three are right at a time"


def test_failures_are_told_seldom() -> None:
    assert [number for number in range(70) if is_told(number)] == [1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("", "short"),
        ("elevenchars", "short"),
        ("twelve chars", ""),
        ("ääkkösiäkin, ja välilyöntejä", ""),
        ("x" * 256, ""),
        ("x" * 257, "long"),
        ("I am Anna.V, really", "name"),
    ],
)
def test_a_password_is_long_and_not_ones_name(password: str, fault: str) -> None:
    assert fault_of(password, "anna.v") == fault


ELSEWHERE = [
    "", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\\/evil.example", "evil.example",
    "https://evil.example", "https:evil.example", "javascript:alert(1)", "data:text/html,x",
    "/a\\..\\..\\//evil.example", "/\t/evil.example", "/\n//evil.example", "/\r\nSet-Cookie: a=b",
    " //evil.example", "\t//evil.example", "/ /evil.example", "/\u2028/evil.example", "/ä",
    "/\x00", "/" + "a" * 2001, "?x", "#x", ".", "@evil.example", ":80", "///evil.example",
]  # fmt: skip


@pytest.mark.parametrize("path", ELSEWHERE)
def test_nobody_is_sent_elsewhere(path: str) -> None:
    assert way_on(path, "/home") == "/home"


@pytest.mark.parametrize("path", ["/", "/a/b?c=d&e=%2F%2Fx#f", "/v1/recordings?from=2026-01-01"])
def test_a_path_of_the_door_is_gone_on_to(path: str) -> None:
    assert way_on(path, "/home") == path
