"""`archive notices`: recordings elsewhere that a system told of and that are not here yet."""

import argparse
import json
import os
from dataclasses import asdict
from uuid import UUID

from app import config
from app.command import Commands, command


def add_parser(commands: Commands) -> None:
    """Add `archive notices`."""
    parser = command(
        commands,
        "notices",
        "List recordings elsewhere that were told of and are not fetched, and why.",
        "  archive notices\n"
        "  archive notices --again ID   # now, and not after its pause; not what is refused\n"
        "  archive notices --drop ID    # for good: nobody is told of it any more",
        _notices,
    )
    act = parser.add_mutually_exclusive_group()
    act.add_argument("--again", type=UUID, metavar="ID", help="fetch it now")
    act.add_argument("--drop", type=UUID, metavar="ID", help="give it up")


async def _notices(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import notices

    loaded = config.load(arguments.config, os.environ)
    async with keyed(loaded) as (lent, _):
        if asked := arguments.again or arguments.drop:
            if arguments.again:
                state = await notices.again(lent, asked)
            else:
                state = "done" if await notices.drop(lent, asked) else None
            done = state not in {None, "refused"}
            facts = {"notice": str(asked), "done": done}
            words = "done" if done else "refused: drop it" if state else "no such notice"
            print(json.dumps(facts) if arguments.json else words)
            return 0 if done else 1
        left = await notices.left(lent)
    if arguments.json:
        print(json.dumps([asdict(each) for each in left], default=str))
        return 0
    for each in left:
        print(
            f"{each.id}  {each.hook:<12} {each.state:<9} {each.asked_at:%Y-%m-%d %H:%M}"
            f"  {each.tries} tries  {each.failure or ''}".rstrip()
        )
    return 0
