"""`archive team`: which agents and queues belong together, for readers to be limited to.

Names come from a file or from the standard input, never from the command line: a shell keeps what
is typed, and every user of the machine sees it.
"""

import argparse
import json
import os
import sys
from pathlib import Path

from app import config
from app.command import Commands, command


def add_parsers(commands: Commands) -> None:
    """Add `archive team` and its acts."""
    parser = commands.add_parser("team", help="Say which agents and queues are a team.")
    acts = parser.add_subparsers(required=True, metavar="ACT")
    put = command(
        acts,
        "set",
        "Say who is in a team from now on; replaces who was in it before.",
        "  archive team set north north.txt   # lines like: agent Anna Virtanen, queue billing\n"
        "  archive team show north > north.txt",
        _set,
    )
    put.add_argument("name")
    put.add_argument("file", help="one line a member, `agent NAME` or `queue NAME`; - for stdin")
    show = command(acts, "show", "Print who is in a team.", "  archive team show north", _show)
    show.add_argument("name")
    command(acts, "list", "List all teams.", "  archive team list --json", _list)
    remove = command(
        acts,
        "remove",
        "Remove a team; a reader who is limited to it alone knows of nothing then.",
        "  archive team remove north",
        _remove,
    )
    remove.add_argument("name")


async def _set(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import teams
    from storage.scopes import Members

    agents, queues = _members(_text(arguments.file))
    members = Members(arguments.name, agents, queues)
    loaded = config.load(arguments.config, os.environ)
    async with keyed(loaded) as (lent, ring):
        await teams.put(lent, ring, loaded.retention, members)
    facts = {"team": members.team, "agents": len(agents), "queues": len(queues)}
    print(json.dumps(facts) if arguments.json else "kept")
    return 0


def _text(file: str) -> str:
    return sys.stdin.read() if file == "-" else Path(file).read_text("utf-8")


def _members(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Agents and queues out of lines. Raises TeamRefusedError naming the line, not who is in it."""
    from storage.teams import TeamRefusedError

    found: dict[str, list[str]] = {"agent": [], "queue": []}
    for number, line in enumerate(text.splitlines(), 1):
        kind, _, name = line.strip().partition(" ")
        if not kind:
            continue
        if kind not in found or not name.strip():
            raise TeamRefusedError(f"line {number} is neither `agent NAME` nor `queue NAME`")
        found[kind].append(name.strip())
    return tuple(found["agent"]), tuple(found["queue"])


async def _show(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import teams
    from storage.teams import TeamRefusedError

    async with keyed(config.load(arguments.config, os.environ)) as (lent, ring):
        known = {each.team: each for each in await teams.every(lent, ring)}
    if (team := known.get(arguments.name)) is None:
        raise TeamRefusedError("there is no team of this name")
    if arguments.json:
        print(json.dumps({"team": team.team, "agents": team.agents, "queues": team.queues}))
        return 0
    for kind, names in (("agent", team.agents), ("queue", team.queues)):
        for name in names:
            print(kind, name)
    return 0


async def _list(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import teams

    async with keyed(config.load(arguments.config, os.environ)) as (lent, ring):
        known = await teams.every(lent, ring)
    rows = [{"team": t.team, "agents": len(t.agents), "queues": len(t.queues)} for t in known]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(f"{row['team']:<24} {row['agents']} agents, {row['queues']} queues")
    return 0


async def _remove(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import teams

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        await teams.remove(lent, arguments.name)
    print(json.dumps({"team": arguments.name, "removed": True}) if arguments.json else "removed")
    return 0
