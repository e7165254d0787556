"""The search: every state that can be reached, the shortest way to a bad one, and the way home.

Breadth first, so that the first bad state found is one of those with the fewest steps. When none is
found, all states are walked backwards from the clean ones: a state that is not met on the way can
never come to rest again.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.model.acts import Table
from tests.model.state import State, World

Judge = Callable[[State], str]
"""What promise a state breaks; empty if none."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found: how much there is, and how the first promise is broken, if one is.

    `is_stuck`: what is broken is that some states cannot come to rest; the steps lead to the first.
    """

    states: int
    transitions: int
    broken: str = ""
    steps: tuple[str, ...] = ()
    is_stuck: bool = False

    def __str__(self) -> str:
        lines = [f"{each + 1:4} {step}" for each, step in enumerate(self.steps)]
        return "\n".join([self.broken or "nothing is broken", *lines])


class _Seen:
    """The states in the order they were found, and where each was reached from."""

    def __init__(self, start: State) -> None:
        self.number = {start: 0}
        self.states = [start]
        self.came: list[tuple[int, str]] = [(0, "")]
        self.before: list[list[int]] = [[]]

    def meet(self, state: State, origin: int, step: str) -> bool:
        """Note a step; whether the state is new."""
        known = self.number.get(state)
        if known is not None:
            self.before[known].append(origin)
            return False
        self.number[state] = len(self.states)
        self.states.append(state)
        self.came.append((origin, step))
        self.before.append([origin])
        return True

    def way(self, number: int) -> tuple[str, ...]:
        """The steps to a state, from the first on."""
        steps = []
        while number:
            number, step = self.came[number]
            steps.append(step)
        return tuple(reversed(steps))


def explore(world: World, table: Table, judge: Judge, is_clean: Callable[[State], bool]) -> Found:
    """Look at every state of a world; stops at the first promise that is broken."""
    with _uncollected():
        return _explore(world, table, judge, is_clean)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Millions of tuples and no ring among them: the collector would only look at them all."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _explore(world: World, table: Table, judge: Judge, is_clean: Callable[[State], bool]) -> Found:
    acts = [
        (act.guard, act.effect, chosen, _label(act.name, chosen))
        for act in table.values()
        for chosen in act.choices(world)
    ]
    seen, at, transitions = _Seen(world.start()), 0, 0
    while at < len(seen.states):
        state = seen.states[at]
        for guard, effect, chosen, label in acts:
            if not guard(state, *chosen):
                continue
            transitions += 1
            after = effect(state, *chosen)
            if seen.meet(after, at, label) and (broken := judge(after)):
                return Found(len(seen.states), transitions, broken, seen.way(len(seen.states) - 1))
        at += 1
    return _homeward(seen, transitions, is_clean)


def _homeward(seen: _Seen, transitions: int, is_clean: Callable[[State], bool]) -> Found:
    clean = [at for at, state in enumerate(seen.states) if is_clean(state)]
    home, waiting = set(clean), clean
    while waiting:
        for before in seen.before[waiting.pop()]:
            if before not in home:
                home.add(before)
                waiting.append(before)
    states = len(seen.states)
    if len(home) == states:
        return Found(states, transitions)
    stuck = next(at for at in range(states) if at not in home)
    broken = f"from {states - len(home):,} states nothing leads to rest any more"
    return Found(states, transitions, broken, seen.way(stuck), is_stuck=True)


def _label(name: str, chosen: tuple[int, ...]) -> str:
    return " ".join([name, *(str(each) for each in chosen)])
