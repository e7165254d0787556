"""The table of states, and the diagram that is made from it."""

from pathlib import Path

from archive.lifecycle import STEPS, Event, State, mermaid

DOCS = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def test_nothing_leads_out_of_the_ends_and_only_a_commit_makes_stored() -> None:
    assert {before for before, _ in STEPS}.isdisjoint({State.ERASED, State.ABANDONED})
    assert [step for step, after in STEPS.items() if after is State.STORED] == [
        (State.RECEIVING, Event.COMMIT)
    ]


def test_every_state_but_the_first_is_reached() -> None:
    assert set(STEPS.values()) | {State.RECEIVING} == set(State)


def test_the_diagram_in_the_docs_is_made_from_the_table() -> None:
    assert f"```mermaid\n{mermaid()}```" in DOCS.read_text(encoding="utf-8")
