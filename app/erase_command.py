"""`archive erase`: one recording, before its year is over, on the word of two people."""

import argparse
import json
import os
import sys
from uuid import UUID

from app import config
from app.command import Commands, command, own_token


def add_parsers(commands: Commands) -> None:
    """Add the command."""
    parser = command(
        commands,
        "erase",
        "Erase a recording before its year is over: two people ask for it, within a day.",
        "  archive erase 019d2f6e-7c1a-7b44-9a55-0d6c3f5a1e02 --reason 'request 4711'\n"
        "  archive erase ID --reason 'checked' --token-file second   # another person\n"
        "environment:\n  ARCHIVE_TOKEN, ARCHIVE_TOKEN_FILE   your own key, of level privacy or"
        " admin",
        _erase,
    )
    parser.add_argument("id", type=_id)
    parser.add_argument("--reason", required=True, help="why; kept sealed in the ledger")
    parser.add_argument("--token-file", default="", metavar="FILE", help="your own key's")


def _id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError("an id is a UUID") from None


async def _erase(arguments: argparse.Namespace) -> int:
    from app.vault import opened
    from archive import listening
    from archive.errors import MalformedError
    from storage import early
    from storage.four_eyes import RefusedError

    token = own_token(arguments.token_file)
    try:
        reason = listening.reason(arguments.reason)
        async with opened(config.load(arguments.config, os.environ), join=True) as vault:
            came = await early.ask(vault, arguments.id, reason, token)
    except (RefusedError, MalformedError) as error:
        print(f"archive: {error}", file=sys.stderr)
        return 1
    if not came.granted:
        print(
            "archive: the erasure is asked for, and nothing is erased yet: a second person has to"
            " run the same command within 24 hours, with a key of their own; another key of the"
            " same person counts as the same one",
            file=sys.stderr,
        )
    erased = arguments.id in {claim.id for claim in came.outcome.erased}
    facts = {"id": str(arguments.id), "granted": came.granted, "erased": erased}
    if arguments.json:
        print(json.dumps(facts))
    elif came.granted:
        print("erased" if erased else "granted, and not erased yet: the service tries again")
    return 0 if erased else 1
