"""Searching an archive of a million recordings, beside one of a hundred thousand.

Each filter is asked for values that many calls have and for values that few or none have, through
the door, one search at a time. Both archives are on one server and are asked in turn.
"""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from bench import fill
from bench.report import Figure, p99
from bench.stack import Service, Stack
from bench.uploads import alternate

LARGE, SMALL = 1_000_000, 100_000
ROUNDS, EACH = 5, 60

Values = Callable[[random.Random, int], list[tuple[str, object]]]


def _customer(dice: random.Random, count: int) -> int:
    return dice.randrange(count // fill.CALLS_A_CUSTOMER)


def _tail(dice: random.Random, count: int) -> str:
    return fill.number_of(_customer(dice, count))[-dice.randint(4, 7) :]


def _time(days: float) -> str:
    return (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")


def _window(dice: random.Random, _: int) -> list[tuple[str, object]]:
    since = dice.uniform(1, 350)
    return [("from", _time(since)), ("to", _time(since - dice.choice((0.04, 1, 30))))]


FILTERS: dict[str, Values] = {
    "nothing": lambda dice, count: [],
    "call_type": lambda dice, count: [("call_type", dice.choice(fill.TYPES))],
    "two call_types": lambda dice, count: [("call_type", kind) for kind in fill.TYPES[-2:]],
    "from": lambda dice, count: [("from", _time(dice.choice((0.01, 1, 300))))],
    "to": lambda dice, count: [("to", _time(dice.uniform(0, 360)))],
    "from and to": _window,
    "number": lambda dice, count: [
        ("number", dice.choice((fill.number_of(_customer(dice, count)), fill.line_of(1))))
    ],
    "last digits of a number": lambda dice, count: [("number", _tail(dice, count))],
    "agent": lambda dice, count: [("agent", f"agent-{dice.choice((0, 10, 199, 999))}")],
    "queue": lambda dice, count: [("queue", f"queue-{dice.choice((0, 9, 99))}")],
    "customer": lambda dice, count: [("customer", f"customer-{_customer(dice, count)}")],
    "contract": lambda dice, count: [("contract", f"contract-{_customer(dice, count)}")],
    "call_id": lambda dice, count: [("call_id", fill.call_id_of(dice.randrange(2 * count)))],
    "source": lambda dice, count: [("source", dice.choice((*fill.SOURCES, "none")))],
    "direction": lambda dice, count: [
        ("direction", dice.choice(("inbound", "outbound", "internal")))
    ],
    "min_duration": lambda dice, count: [("min_duration", dice.choice((30, 600, 6000, 14000)))],
    "max_duration": lambda dice, count: [("max_duration", dice.choice((1000, 60, 5, 1)))],
}
"""What is asked for, by filter: values of an archive of so many recordings."""


async def measure(stack: Stack) -> list[Figure]:
    """The 99th percentile of each filter, in milliseconds."""
    async with AsyncExitStack() as running:
        sides: list[tuple[Service, int]] = []
        for count in (LARGE, SMALL):
            name, database = await fill.year(stack, count)
            service = await running.enter_async_context(stack.service(name, database))
            sides.append((service, count))
        figures = []
        for name, values in FILTERS.items():
            figures += await _filter(stack, name, values, *sides)
        return figures


async def _filter(
    stack: Stack, name: str, values: Values, large: tuple[Service, int], small: tuple[Service, int]
) -> list[Figure]:
    times: dict[int, list[float]] = {LARGE: [], SMALL: []}

    async def ask(service: Service, count: int) -> float:
        dice = random.Random()
        urls = [
            f"{service.retrieval}/v1/recordings?{urlencode(values(dice, count))}"
            for _ in range(EACH)
        ]
        side = f"{count} recordings"
        done = await stack.client.run("GET", urls, side, headers=service.login("privacy"))
        times[count] += [1000 * each for each in done["times"]]
        return 0

    async def ask_large() -> float:
        return await ask(*large)

    async def ask_small() -> float:
        return await ask(*small)

    await alternate(1, ask_large, ask_small)
    for seen in times.values():
        seen.clear()
    await alternate(ROUNDS, ask_large, ask_small)
    figure = Figure.ratio_of(
        f"search by {name}, p99, 1,000,000 recordings / 100,000",
        "ms",
        [p99(times[LARGE])],
        [p99(times[SMALL])],
        most=1.5,
        value_most=25,
    )
    return [figure]
