"""All searches together, and the part of `docs/protocol.md` that is made from them.

`python -m tests.model.check` prints that part.
"""

from dataclasses import dataclass
from functools import cache, partial

from tests.model import copies, exporting, making, mutants, promises, protocol, redacting
from tests.model.acts import Table
from tests.model.mutants import Mutant
from tests.model.search import Found, explore
from tests.model.state import World

WORLDS = protocol.WORLDS + redacting.WORLDS + exporting.WORLDS
MUTANTS = mutants.MUTANTS + copies.MUTANTS
HARMLESS = mutants.HARMLESS + copies.HARMLESS
TABLES = {
    World: protocol.PROTOCOL,
    redacting.World: redacting.REDACTING,
    making.World: exporting.EXPORTING,
}
"""What is done in each kind of world."""

_JUDGES = {World: promises, redacting.World: redacting, making.World: exporting}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was looked at, and what came of it.

    `broken` tells of each promise that the protocol itself breaks, with the steps that lead there.
    """

    states: int
    transitions: int
    mutants: int
    caught: int
    broken: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether the protocol keeps its promises and no mutant does."""
        return not self.broken and self.caught == self.mutants


def check() -> Verdict:
    """Search every world, and with each mutant."""
    found = [search(world) for world in WORLDS]
    return Verdict(
        sum(each.states for each in found),
        sum(each.transitions for each in found),
        len(MUTANTS),
        sum(bool(search_with(mutant).broken) for mutant in MUTANTS),
        tuple(str(each) for each in found if each.broken),
    )


@cache
def search(world: World) -> Found:
    """The protocol as it is."""
    return _explore(world, TABLES[type(world)])


@cache
def _searched(name: str) -> Found:
    mutant = next(each for each in MUTANTS + HARMLESS if each.name == name)
    return _explore(mutant.world, mutant.table)


def _explore(world: World, table: Table) -> Found:
    judges = _JUDGES[type(world)]
    return explore(world, table, judges.broken, partial(judges.is_clean, world))


def search_with(mutant: Mutant) -> Found:
    """The protocol with a mistake."""
    return _searched(mutant.name)


def document() -> str:
    """The tables of the document: the worlds, the mutants, and the mistakes that do no harm."""
    lines = ["| world | states | transitions | broken |", "|---|---|---|---|"]
    for world in WORLDS:
        found = search(world)
        counts = f"{found.states:,} | {found.transitions:,} | {int(bool(found.broken))}"
        lines.append(f"| {world.name} | {counts} |")
    verdict = check()
    lines += [
        f"| **all** | **{verdict.states:,}** | **{verdict.transitions:,}** |"
        f" **{len(verdict.broken)}** |",
        "",
        f"Mutants: {verdict.mutants}, caught: {verdict.caught}.",
        "",
        "| mutant | promise that it breaks | steps |",
        "|---|---|---|",
    ]
    for mutant in MUTANTS:
        found = search_with(mutant)
        steps = "never at rest" if found.is_stuck else str(len(found.steps))
        lines.append(f"| {mutant.name} | {found.broken} | {steps} |")
    lines += ["", "| mistake that another rule makes good | broken |", "|---|---|"]
    for mutant in HARMLESS:
        lines.append(f"| {mutant.name} | {int(bool(search_with(mutant).broken))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
