"""The threat model and the map of ASVS name nothing that is not there, and leave nothing out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ASVS = (ROOT / "docs/asvs.md").read_text()
PAGE = (ROOT / "docs/security.md").read_text() + ASVS

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


LEVEL_2 = {
    f"{section}.{number}"
    for section, last in {
        "1.1": 2, "1.2": 9, "1.3": 11, "1.4": 3, "1.5": 2, "2.1": 3, "2.2": 3, "2.3": 4, "2.4": 1,
        "3.2": 2, "3.3": 4, "3.4": 6, "3.5": 5, "3.7": 2, "4.1": 3, "4.2": 1, "4.3": 2, "4.4": 4,
        "5.1": 1, "5.2": 3, "5.3": 2, "5.4": 3, "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5,
        "6.6": 3, "6.8": 4, "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 2, "7.6": 2, "8.1": 2,
        "8.2": 3, "8.3": 1, "8.4": 1, "9.1": 3, "9.2": 4, "10.1": 2, "10.2": 2, "10.3": 4,
        "10.4": 11, "10.5": 5, "10.6": 2, "10.7": 3, "11.1": 2, "11.2": 3, "11.3": 3, "11.4": 4,
        "11.5": 1, "11.6": 1, "12.1": 3, "12.2": 2, "12.3": 4, "13.1": 1, "13.2": 5, "13.3": 2,
        "13.4": 5, "14.1": 2, "14.2": 4, "14.3": 3, "15.1": 3, "15.2": 3, "15.3": 7, "16.1": 1,
        "16.2": 5, "16.3": 4, "16.4": 3, "16.5": 3, "17.1": 1, "17.2": 4, "17.3": 2,
    }.items()
    for number in range(1, last + 1)
}  # fmt: skip
"""The requirements of ASVS 5.0.0 of the levels 1 and 2: in each section they are its first ones."""

LEVEL_3 = {"5.2.4", "8.3.2", "8.3.3", "8.4.2", "11.3.4", "14.2.6", "14.2.7", "14.2.8"}
"""Those of level 3 that docs/asvs.md takes as well, besides what 16.3.2 asks for at that level."""


def items(text: str) -> Iterator[str]:
    """Every requirement that a text names, those of `6.2.1 to 6.2.12` one by one."""
    for section, first, last in re.findall(
        r"\b(\d+\.\d+)\.(\d+)(?: to \d+\.\d+\.(\d+))?(?![.\d])", text
    ):
        for number in range(int(first), int(last or first) + 1):
            yield f"{section}.{number}"


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


def test_each_requirement_of_asvs_is_told_of_once() -> None:
    assert len(LEVEL_2) == 253
    told = [item for row in ROWS for item in items(row[0])]
    for paragraph in ASVS.split("\n\n"):
        if paragraph.startswith("Does not apply: "):
            told += items(paragraph)
    assert sorted(item for item in told if told.count(item) > 1) == []
    assert set(told) == LEVEL_2 | LEVEL_3


def test_the_page_names_enough_to_be_worth_the_look() -> None:
    assert len(TESTS) > 50
    assert len(NAMED) > 40
