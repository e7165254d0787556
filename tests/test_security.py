"""The threat model names nothing that is not there, and leaves no threat without an answer."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/security.md").read_text()

ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("|") and not line.startswith("|--")
]
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
NAMED = sorted(
    set(
        re.findall(
            r"`((?:app|archive|jobs|storage|web|tools|deploy|tests)/[\w./-]+)(?:: (\w+))?`", PAGE
        )
    )
)
"""Files of the repository, each with what of it is named, if anything."""


def defined(file: str) -> set[str]:
    return set(re.findall(r"^\s*(?:async def|def|class) (\w+)", (ROOT / file).read_text(), re.M))


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_every_test_that_the_page_names_is_there(file: str, name: str) -> None:
    assert name in defined(file)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_control_that_the_page_names_is_there(file: str, name: str) -> None:
    assert (ROOT / file).is_file() or (ROOT / file).is_dir()
    assert not name or name in defined(file)


def test_every_threat_and_item_has_a_control_and_a_test_or_says_that_there_is_none() -> None:
    rows = [row for row in ROWS if row[0] not in ("threat", "item")]
    assert len(rows) > 50
    for row in rows:
        assert len(row) == 3, row
        assert "::test_" in row[2] or "*not yet*" in row[2], row


def test_the_page_names_enough_to_be_worth_the_look() -> None:
    assert len(TESTS) > 50
    assert len(NAMED) > 40
