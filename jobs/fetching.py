"""When recordings that lie elsewhere are fetched: as soon as a notice came, a few at a time, as the
part of the service that takes in.

Every second the database is asked for notices that are due, and after an absence, when more of them
wait than are fetched at once, as soon as one is fetched. Several services may do so: each
notice is held by one of them. What is broken off by a stop, or by a kill, is taken up again a
minute later.
"""

import asyncio
from collections.abc import Mapping

from archive.webhook import Webhook
from jobs.schedule import tell
from storage import fetching, notices
from storage.notices import Job
from storage.vault import Vault

PULSE = 1.0
"""Seconds between two looks at what is to be fetched."""

AT_ONCE = 8
"""Recordings that are fetched at the same time."""


class Fetching:
    """What fetches, from `start` to `stop`."""

    def __init__(self, vault: Vault, webhooks: Mapping[str, Webhook]) -> None:
        self._vault = vault
        self._webhooks = webhooks
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; without a webhook there is nothing to do."""
        if self._webhooks:
            self._loop = asyncio.create_task(self._go())

    async def stop(self) -> None:
        """Break off what is running; nothing of it is lost."""
        for task in (*self._tasks, self._loop):
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _go(self) -> None:
        while True:
            more = False
            try:
                more = await self._look()
            except Exception as error:  # a boundary of the jobs: it goes on with the next look
                tell("fetching", error)
            if not more:
                await asyncio.sleep(PULSE)
            elif self._tasks:
                await asyncio.wait(self._tasks, timeout=PULSE, return_when=asyncio.FIRST_COMPLETED)

    async def _look(self) -> bool:
        """Begin what there is room for; whether more may wait."""
        room = AT_ONCE - len(self._tasks)
        found = await notices.claim(self._vault, [*self._webhooks], room) if room else []
        for job in found:
            task = asyncio.create_task(self._one(job))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return len(found) == room

    async def _one(self, job: Job) -> None:
        try:
            await fetching.work(self._vault, self._webhooks[job.hook], job)
        except Exception as error:  # the same for one notice
            tell("fetching", error)
