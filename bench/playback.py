"""Hearing calls, beside the same client reading objects of the same size from the same store."""

import json
from typing import Any

from bench import audio, uploads
from bench.report import Figure
from bench.stack import Service, Stack, empty, keys


async def _stored(
    stack: Stack, service: Service, size: int, count: int
) -> tuple[list[str], list[str]]:
    """Store calls in the archive and objects in the store; their addresses to read them from."""
    done = await uploads.archive_puts(stack, service, size, count, 2, keep=True)
    ours = [
        f"{service.retrieval}/v1/recordings/{json.loads(a)['id']}/audio" for a in done["answers"]
    ]
    named = keys(count, "heard")
    body = str(audio.call(stack.folder, size))
    await stack.client.run("PUT", stack.straight("PUT", named), body=body, at_once=2)
    return ours, stack.straight("GET", named)


async def plays(stack: Stack, service: Service) -> list[Figure]:
    """1 MB calls played, 8 at once: recordings a second."""
    rounds, count, times = 7, 100, 3
    ours, bare = await _stored(stack, service, uploads.SMALL, count)

    async def here() -> float:
        headers = service.login("privacy")
        return _rate(
            await stack.client.run("GET", ours * times, side="archive", headers=headers, at_once=8)
        )

    async def straight() -> float:
        return _rate(await stack.client.run("GET", bare * times, side="straight", at_once=8))

    def _rate(done: dict[str, Any]) -> float:
        if done["bytes"] != count * times * uploads.SMALL:
            raise RuntimeError("not all bytes arrived")
        return count * times / float(done["seconds"])

    await uploads.alternate(1, here, straight)
    stack.client.meter.start()
    values, beside = await uploads.alternate(rounds, here, straight)
    await empty(stack, "heard")
    figure = Figure.ratio_of(
        "1 MB calls played, 8 at once / straight from the store",
        "recordings/s",
        values,
        beside,
        least=0.6,
    )
    return [figure]


async def first_byte(stack: Stack, service: Service) -> list[Figure]:
    """The first byte of a range in the middle of 100 MB, one listener: milliseconds."""
    rounds, count = 9, 40
    ours, bare = await _stored(stack, service, uploads.LARGE, 1)
    wanted = {"Range": f"bytes={uploads.LARGE // 2}-{uploads.LARGE // 2 + 999_999}"}

    async def first(urls: list[str], headers: dict[str, str]) -> float:
        # The bare store answers a range with 200; the bytes that came are checked instead.
        done = await stack.client.run(
            "GET",
            urls * count,
            side="archive" if headers else "straight",
            headers={**headers, **wanted},
            statuses=[200, 206],
        )
        if done["bytes"] != count * 1_000_000:
            raise RuntimeError("not the bytes of the range")
        return 1000 * sorted(map(float, done["first"]))[count // 2]

    async def here() -> float:
        return await first(ours, service.login("privacy"))

    async def straight() -> float:
        return await first(bare, {})

    await uploads.alternate(1, here, straight)
    stack.client.meter.start()
    values, beside = await uploads.alternate(rounds, here, straight)
    await empty(stack, "heard")
    figure = Figure.ratio_of(
        "first byte of a range in the middle of 100 MB / straight from the store",
        "ms",
        values,
        beside,
        most=3,
    )
    return [figure]
