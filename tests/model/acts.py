"""What an act of the model is: a line of the table, with a guard and an effect."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product

from tests.model.state import State, World

Guard = Callable[..., bool]
Effect = Callable[..., State]


@dataclass(frozen=True, slots=True)
class Act:
    """One durable step, or one fault, of one of those who act.

    `who` says what the guard and the effect are called with besides the state: words of `World`
    ("recordings", "erasers" ...), one number for each.
    """

    name: str
    who: tuple[str, ...]
    guard: Guard
    effect: Effect

    def choices(self, world: World) -> Iterable[tuple[int, ...]]:
        """All that it can be called with in this world; nothing if it is left out of it."""
        if {self.name, self.name.split(":")[0]} & world.without:
            return ()
        return product(*(range(getattr(world, word)) for word in self.who))


Table = dict[str, Act]


def table(*acts: Act) -> Table:
    """The acts by their names."""
    return {act.name: act for act in acts}
