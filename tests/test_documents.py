"""What the documents point at is there, and what they say of the files is so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.pools import SIZES

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/*.md")])

_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    dead = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


def test_the_document_names_every_purpose_of_a_lookup_key() -> None:
    code = [*ROOT.glob("storage/**/*.py"), *ROOT.glob("web/**/*.py"), *ROOT.glob("app/**/*.py")]
    used = {p for file in code for p in re.findall(r'lookup_key\("([^"]+)"', file.read_text())}
    section = (ROOT / "docs/format.md").read_text().partition("| purpose | use |")[2]
    rows = section.partition("\n\n")[0].splitlines()[2:]
    assert used == {p for row in rows for p in re.findall(r"`([a-z-]+)`", row.split("|")[1])}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4})make ([a-z]+)", page.read_text(), re.MULTILINE))
    assert named <= targets


def test_the_image_holds_every_package_of_the_program() -> None:
    copied = set(
        re.findall(r"^COPY (\w+)/ ", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    )
    project = (ROOT / "pyproject.toml").read_text()
    packages = set(re.findall(r'"(\w+)\*"', project))
    assert packages == copied - {"frontend"} == {"archive", "storage", "jobs", "web", "app"}


def test_the_connections_that_are_told_are_those_of_the_pools() -> None:
    """Of one service, and of its parts as processes, each with its own of what all share."""
    shared = {
        "sequencer": ("retrieval", "operations", "jobs"),
        "sign_in": ("retrieval", "operations"),
    }
    apart = sum(size * len(shared.get(role, "1")) for role, size in SIZES.items())
    told = f"up to {sum(SIZES.values())} connections, {apart} with"
    assert told in (ROOT / "docs/operations.md").read_text()


@pytest.mark.parametrize("target", ["run", "test", "torture", "fuzz"])
def test_what_serves_pages_makes_them_first(target: str) -> None:
    [needs] = re.findall(rf"^{target}:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "$(PAGES)" in needs


def test_every_503_is_explained() -> None:
    page = (ROOT / "docs/operations.md").read_text().split("## Every 503")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([A-Z].*?) \|", page, re.MULTILINE)
    told = [
        re.compile(".*".join(map(re.escape, each.split("…"))))
        for row in rows
        for each in row.split(" / ")
    ]
    details = [*_unavailable()]
    assert len(details) > 20
    assert [each for each in details if not any(row.search(each) for row in told)] == []


def _unavailable() -> Iterator[str]:
    """What the doors say with a 503, as far as it stands in the code as one text."""
    for folder in ("web", "storage", "storage/audio"):
        for file in (ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Name(id="UnavailableError"), args=[ast.Constant(value=text), *_]
                    ):
                        yield str(text)
