"""The model of the protocol, searched to its end, and every mutant of it."""

import asyncio

from tests.model.check import check
from torture.report import Limit, Row, Tally
from torture.room import Room


async def measure(room: Room, limit: Limit) -> list[Row]:
    """Search. It takes a minute or so, and is done whole or not at all."""
    verdict = await asyncio.to_thread(check)
    states, mutants = Tally(verdict.states), Tally(verdict.mutants)
    for fault in verdict.broken:
        states.fail(fault)
    for _ in range(verdict.mutants - verdict.caught):
        mutants.fail("a mutant of the protocol keeps every promise")
    return [
        Row.of("the protocol", "states of its model, all searched", states, 1, "states"),
        Row.of("", "its mutants, each caught", mutants, 1, "mutants"),
    ]
