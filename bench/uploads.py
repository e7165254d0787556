"""Taking calls in, beside the same client putting the same bytes straight into the same store."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from bench import audio, tus_server
from bench.report import Figure
from bench.stack import Service, Stack, empty, keys, uploads

SMALL = 1_000_000
LARGE = 100_000_000
"""Bytes of a call."""


def new_calls(service: Service, count: int, *, hours: int = 1, by_name: bool = False) -> list[str]:
    """Addresses for calls that never were before, of so many hours ago."""
    started_at = datetime.now(UTC) - timedelta(hours=hours)
    return uploads(service, count, started_at.strftime("%Y-%m-%dT%H:%M:%SZ"), by_name=by_name)


async def alternate(rounds: int, *sides: Callable[[], Awaitable[float]]) -> tuple[list[float], ...]:
    """Measure each side in turn, the order turned round each time; each side's values."""
    found: tuple[list[float], ...] = tuple([] for _ in sides)
    for number in range(rounds):
        order = list(range(len(sides)))
        for side in order if number % 2 else order[::-1]:
            found[side].append(await sides[side]())
    return found


async def archive_puts(
    stack: Stack,
    service: Service,
    size: int,
    count: int,
    at_once: int,
    *,
    by_name: bool = False,
    **job: Any,
) -> dict[str, Any]:
    """Upload that many new calls to the archive."""
    return await stack.client.run(
        "PUT",
        new_calls(service, count, by_name=by_name),
        body=str(audio.call(stack.folder, size)),
        side="archive",
        headers=service.login("uploader"),
        statuses=[201],
        at_once=at_once,
        **job,
    )


async def archive_tus(
    stack: Stack, service: Service, size: int, count: int, at_once: int
) -> dict[str, Any]:
    """Upload that many new calls to the archive by tus, each whole with its creation; of the day
    before, so that they do not fill the folder of those that are put.
    """
    addresses = [
        address.replace("/recordings/", "/uploads?call_id=").replace("?call_type", "&call_type")
        for address in new_calls(service, count, hours=25)
    ]
    file = audio.call(stack.folder, size)
    return await stack.client.run(
        "POST",
        addresses,
        body=str(file),
        side="archive",
        headers={**service.login("uploader"), **tus_server.whole(file)},
        statuses=[201],
        at_once=at_once,
    )


async def straight_puts(stack: Stack, size: int, count: int, at_once: int) -> dict[str, Any]:
    """Put that many new objects into the store."""
    return await stack.client.run(
        "PUT",
        stack.straight("PUT", keys(count)),
        side="straight",
        body=str(audio.call(stack.folder, size)),
        at_once=at_once,
    )


def _rate(count: int, done: dict[str, Any]) -> float:
    return count / float(done["seconds"])


async def small(stack: Stack, service: Service) -> list[Figure]:
    """1 MB calls, 8 at once: recordings a second, beside the bare store and beside tus."""
    rounds, count = 7, 200
    async with tus_server.running(stack) as tus:

        async def here() -> float:
            return _rate(count, await archive_puts(stack, service, SMALL, count, 8))

        async def straight() -> float:
            return _rate(count, await straight_puts(stack, SMALL, count, 8))

        async def by_tus() -> float:
            return _rate(count, await tus_server.puts(stack, tus, SMALL, count, 8))

        async def here_by_tus() -> float:
            return _rate(count, await archive_tus(stack, service, SMALL, count, 8))

        sides = (here, straight, by_tus, here_by_tus)
        await alternate(1, *sides)
        stack.client.meter.start()
        ours, bare, others, ours_by_tus = await alternate(rounds, *sides)
    return [
        Figure.ratio_of(
            "1 MB calls, 8 uploads at once / straight into the store",
            "recordings/s",
            ours,
            bare,
            least=0.6,
        ),
        Figure.ratio_of(
            "1 MB calls, 8 uploads at once / @tus/server with @tus/s3-store",
            "recordings/s",
            ours,
            others,
            least=4,
        ),
        Figure.ratio_of(
            "1 MB tus uploads, 8 at once / @tus/server with @tus/s3-store",
            "recordings/s",
            ours_by_tus,
            others,
            least=4,
        ),
    ]


async def large(stack: Stack, service: Service) -> list[Figure]:
    """100 MB calls, 2 at once: MB a second."""
    rounds, count = 5, 4

    async def here() -> float:
        done = await archive_puts(stack, service, LARGE, count, 2)
        return _rate(count, done) * LARGE / 1e6

    async def straight() -> float:
        done = await straight_puts(stack, LARGE, count, 2)
        await empty(stack, "straight")
        return _rate(count, done) * LARGE / 1e6

    await alternate(1, here, straight)
    stack.client.meter.start()
    ours, bare = await alternate(rounds, here, straight)
    figure = Figure.ratio_of(
        "100 MB calls, 2 uploads at once / straight into the store", "MB/s", ours, bare, least=0.7
    )
    return [figure]


async def memory(stack: Stack, service: Service) -> list[Figure]:
    """64 uploads of 100 MB at once: the peak of the service's memory."""
    began = time.perf_counter()
    await archive_puts(stack, service, LARGE, 64, 64)
    took = time.perf_counter() - began
    peak, workers = service.peak()
    print(f"  64 x 100 MB took {took:.0f} s; its audio workers' peaks together {workers:.0f} MB")
    goal = "<= 300 MB"
    figure = "64 uploads of 100 MB at once, peak memory of the service"
    return [
        Figure(figure, round(peak, 1), "MB", None, None, goal, peak <= 300),
    ]
