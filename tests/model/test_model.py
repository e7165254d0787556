"""The protocol keeps its promises in every state, and each mutant of it does not.

What a search has found is kept, so that this runs once in one process.
"""

from pathlib import Path

import pytest

from tests.model import check
from tests.model.check import HARMLESS, MUTANTS, TABLES, WORLDS
from tests.model.mutants import Mutant
from tests.model.state import World

DOCS = Path(__file__).parents[2] / "docs" / "protocol.md"

pytestmark = [pytest.mark.xdist_group("model"), pytest.mark.timeout(600)]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_no_promise_is_broken(world: World) -> None:
    found = check.search(world)
    assert not found.broken, str(found)
    assert found.states > 10_000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant) -> None:
    found = check.search_with(mutant)
    assert found.broken, f"{mutant.name}: {found.states} states, and nothing is broken"


@pytest.mark.parametrize("mutant", HARMLESS, ids=lambda mutant: mutant.name)
def test_another_rule_makes_it_good(mutant: Mutant) -> None:
    found = check.search_with(mutant)
    assert not found.broken, str(found)


def test_every_act_belongs_to_a_world() -> None:
    """An act that every search leaves out was never tried."""
    for kind, table in TABLES.items():
        worlds = [world for world in WORLDS if type(world) is kind]
        left = [act.name for act in table.values() if not any(list(act.choices(w)) for w in worlds)]
        assert left == []


def test_the_tables_in_the_docs_are_made_from_the_model() -> None:
    assert check.document() in DOCS.read_text(encoding="utf-8")
