"""`archive retention`: which periods are in force, and how two people put others into force."""

import argparse
import json
import os
import sys

from app import config
from app.command import Commands, command, own_token


def add_parsers(commands: Commands) -> None:
    """Add the command and its acts."""
    parser = commands.add_parser("retention", help="Show or change the periods that are in force.")
    acts = parser.add_subparsers(required=True, metavar="ACT")
    command(
        acts, "show", "What is in force, and what is wanted.", "  archive retention show", _show
    )
    change = command(
        acts,
        "change",
        "Put what the configuration wants into force: two people run it, within a day.",
        "  archive retention change --token-file anna\n"
        "  archive retention change --token-file bo   # then restart the services\n"
        "environment:\n  ARCHIVE_TOKEN, ARCHIVE_TOKEN_FILE   your own key, of level privacy or"
        " admin",
        _change,
    )
    change.add_argument("--token-file", default="", metavar="FILE", help="your own key's")


async def _show(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import policy

    loaded = config.load(arguments.config, os.environ)
    async with keyed(loaded) as (lent, _):
        found = await policy.standing(lent, loaded.retention)
    wanted = policy.as_facts(loaded.retention)
    facts = {"in_force": policy.as_facts(found.policy), "wanted": wanted, "waits": found.waits}
    if arguments.json:
        print(json.dumps(facts))
        return 0
    for name, text in policy.as_facts(found.policy).items():
        print(f"{name:<18} {text}" + (f"   wanted: {wanted[name]}" if wanted[name] != text else ""))
    return 0


async def _change(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import policy
    from storage.four_eyes import RefusedError

    loaded = config.load(arguments.config, os.environ)
    token = own_token(arguments.token_file)
    try:
        async with keyed(loaded) as (lent, ring):
            done = await policy.change(lent, ring, loaded.retention, token)
    except RefusedError as error:
        print(f"archive: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"in_force": done}))
    elif done:
        print("in force for new recordings, once the services were started anew")
    if not done:
        print(
            "archive: the change is asked for: a second person has to run the same command within"
            " 24 hours, with a key of their own",
            file=sys.stderr,
        )
    return 0 if done else 1
