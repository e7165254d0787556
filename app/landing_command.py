"""`archive landing`: what lies in the landing buckets, and why it is still there."""

import argparse
import json
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from app import config
from app.command import Commands, command
from app.remote import printable

if TYPE_CHECKING:
    from storage.landing import Landing
    from storage.vault import Vault


def add_parser(commands: Commands) -> None:
    """Add `archive landing`."""
    command(
        commands,
        "landing",
        "Say what lies in the landing buckets, and why it is still there.",
        "  archive landing\n  archive landing --json\n"
        "What was refused stays where it is. It is asked about again a day later, and when the\n"
        "service starts; whoever owns the bucket decides what becomes of it.",
        _landing,
        "print a line of JSON for each",
    )


async def _landing(arguments: argparse.Namespace) -> int:
    from app.landings import opened_at
    from app.vault import opened

    loaded = config.load(arguments.config, os.environ)
    async with opened(loaded, join=True) as vault:
        for place in map(opened_at, loaded.landings):
            try:
                async for facts in _facts(vault, place):
                    print(json.dumps(facts) if arguments.json else _line(facts))
            finally:
                await place.bucket.close()
    return 0


async def _facts(vault: "Vault", place: "Landing") -> AsyncIterator[dict[str, str]]:
    from jobs.landing import pages
    from storage import landing, leftovers
    from storage.database import connection

    async for page in pages(landing.walk(place)):
        async with connection(vault.pool) as lent:
            known = await leftovers.of(lent, vault.ring, place.name, page)
        for held in page:
            left = known.get(held)
            yield {
                "landing": place.name,
                "status": str(left.fate) if left else "there",
                "since": held.at.isoformat() if held.at else "",
                "object": held.key,
                "reason": left.why if left else "",
            }


def _line(facts: dict[str, str]) -> str:
    return "  ".join(printable(text) for text in facts.values() if text)
