"""The landing buckets while the service runs: opened, held against where they were declared to be,
and looked at.
"""

import asyncio
import logging
from contextlib import AsyncExitStack

from minio.credentials.credentials import Credentials

from app.config import Config, ConfigError
from app.landing_settings import TABLE, Place
from jobs import landing as looks
from storage import landing, leftovers
from storage.database import connection
from storage.landing import Landing, MisplacedError
from storage.s3 import Bucket, StoreError
from storage.vault import Vault

log = logging.getLogger("archive")

PATIENCE = 30.0
"""Seconds for which a store may be silent."""

IN_FLIGHT = 15.0
"""Seconds that what is being taken in is given to finish; what does not is taken in again."""


async def start(config: Config, vault: Vault, stack: AsyncExitStack) -> None:
    """Look at all of them until the stack is left. Raises ConfigError where a store says that it
    keeps a bucket elsewhere than was declared.
    """
    async with connection(vault.pool) as lent:
        await leftovers.begin(lent, [place.name for place in config.landings])
    places = [opened_at(place) for place in config.landings]
    for place in places:
        stack.push_async_callback(place.bucket.close)
        try:
            await check_residency(config, place)
        except StoreError as error:
            # The doors open all the same; it is asked again before anything is read.
            log.warning("landing %s: %s", place.name, error.detail)
    ending = asyncio.Event()
    looking = [asyncio.create_task(looks.run(vault, place, ending)) for place in places]
    stack.push_async_callback(_end, looking, ending)


async def check_residency(config: Config, opened: Landing) -> str:
    """What the store says of where it is. Raises ConfigError where that contradicts."""
    try:
        return await landing.check_residency(opened)
    except MisplacedError as error:
        problem = f"{error}: recordings are kept only where it is declared"
        where = f"{TABLE}.{opened.name}"
        raise ConfigError(str(config.path), where, "country and replicas", problem) from None


async def _end(looking: list[asyncio.Task[None]], ending: asyncio.Event) -> None:
    ending.set()
    _, late = await asyncio.wait(looking, timeout=IN_FLIGHT) if looking else ((), ())
    for task in late:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)


def opened_at(place: Place) -> Landing:
    """A bucket, with no connection yet; its `bucket.close` ends it."""
    at = place.objects
    access = Credentials(at.access_key, at.secret_key)
    bucket = Bucket(at.endpoint, at.bucket, access, region=at.region, ca=at.ca, patience=PATIENCE)
    return Landing(
        place.name, place.key, bucket, place.prefix, place.reading, at.country, at.replicas
    )
