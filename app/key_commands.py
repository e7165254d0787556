"""`archive key` as it is typed: its words, and how what came of them is printed."""

import argparse
import json
import os
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from app import config, values
from app.command import Commands, command
from archive.access import Level
from archive.bounds import Bounds


def add_parsers(commands: Commands) -> None:
    """Add `archive key` and its acts."""
    parser = commands.add_parser("key", help="Make, list, rotate and revoke bearer keys.")
    acts = parser.add_subparsers(required=True, metavar="ACT")
    add = command(
        acts,
        "add",
        "Make a key; its token is printed once.",
        "  archive key add --level uploader --name pbx1 --source pbx1\n"
        "  archive key add --level uploader --name pbx2 --networks 10.1.2.0/24 --rate 20/s"
        " --quota 50GB\n"
        "  archive key add --level supervisor --name anna --call-types fault_report,other\n"
        "  archive key add --level supervisor --name bo --queues billing --teams north",
        _key_add,
    )
    add.add_argument("--level", required=True, choices=[str(level) for level in Level])
    add.add_argument("--name", required=True)
    add.add_argument("--source", help="the telephony system of an uploader (default: NAME)")
    add.add_argument("--call-types", help="call types that a reader is limited to, by commas")
    add.add_argument("--queues", help="queues that a reader is limited to, by commas")
    add.add_argument("--teams", help="teams that a reader is limited to; see `archive team`")
    add.add_argument("--person", help="whose it is: two people decide only where both are known")
    add.add_argument("--networks", help="where it may come from, like 10.0.0.0/8,2001:db8::/32")
    add.add_argument("--rate", help="how often it may ask, like 20/s, 100/min or 1000/h")
    add.add_argument("--quota", help="what an uploader may hand over in a day, like 50GB")
    command(acts, "list", "List all keys.", "  archive key list --json", _key_list)
    rotate = command(
        acts,
        "rotate",
        "Give a key a new token, printed once; the former one holds for a while.",
        "  archive key rotate pbx1\n  archive key rotate pbx1 --overlap PT0S   # it leaked",
        _key_rotate,
    )
    rotate.add_argument("name")
    rotate.add_argument(
        "--overlap",
        type=_overlap,
        default=timedelta(hours=24),
        help="how long the former token holds (default: PT24H)",
    )
    revoke = command(
        acts, "revoke", "Revoke a key, at once.", "  archive key revoke pbx1", _key_revoke
    )
    revoke.add_argument("name")
    _add_person(acts)


def _add_person(acts: Commands) -> None:
    person = command(
        acts,
        "person",
        "Say whose a key is: two people decide only where both are known.",
        "  archive key person anna-privacy anna.koski",
        _key_person,
    )
    person.add_argument("name")
    person.add_argument("person", help="the same word for all keys and accounts of one person")


async def _key_add(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import credentials
    from storage.credentials import KeyRefusedError, Limits

    asked = (arguments.call_types, arguments.queues, arguments.teams)
    limits = Limits(*(names if names is None else names.split(",") for names in asked))
    level = Level(arguments.level)
    loaded = config.load(arguments.config, os.environ)
    try:
        bounds = Bounds.from_texts(arguments.networks, arguments.rate, arguments.quota)
    except ValueError as error:
        raise KeyRefusedError(str(error)) from None
    name, source, person = arguments.name, arguments.source, arguments.person
    async with keyed(loaded) as (lent, ring):
        token = await credentials.add(lent, ring, name, level, source, limits, bounds, person)
    facts = {"name": name, "level": str(level), "token": token}
    print(json.dumps(facts) if arguments.json else token)
    return 0


async def _key_list(arguments: argparse.Namespace) -> int:
    from app.keys import database
    from storage import credentials
    from storage.database import connection

    loaded = config.load(arguments.config, os.environ)
    async with database(loaded) as pool, connection(pool) as lent:
        rows = [asdict(row) for row in await credentials.every(lent)]
    if arguments.json:
        print(json.dumps(rows, default=datetime.isoformat))
        return 0
    for row in rows:
        print(_key_line(row))
    return 0


def _key_line(row: dict[str, Any]) -> str:
    types = ",".join(row["call_types"]) if row["call_types"] else "all call types"
    circle = [*(row["queues"] or ()), *(f"team {team}" for team in row["teams"] or ())]
    used, quota = row["last_used_at"], row["quota"]
    about = [
        row["source"] or (types if row["level"] in ("supervisor", "privacy") else ""),
        "of " + ", ".join(circle) if circle else "",
        f"person {row['person']}" if row["person"] else "",
        f"used {used:%Y-%m-%d %H:%M}" if used else "never used",
        "from " + ",".join(row["networks"]) if row["networks"] else "",
        row["rate"] or "",
        f"{quota / 10**9:g} GB a day" if quota else "",
        f"former token until {row['former_until']:%Y-%m-%d %H:%M}" if row["former_until"] else "",
    ]
    state = f"revoked {row['revoked_at']:%Y-%m-%d}" if row["revoked_at"] else "valid"
    told = "  ".join(filter(None, about))
    return f"{row['id']}  {row['name']:<24} {row['level']:<11} {state:<18} {told}"


def _overlap(text: str) -> timedelta:
    try:
        return timedelta(seconds=0 if text == "PT0S" else values.seconds(text))
    except ValueError:
        raise argparse.ArgumentTypeError(
            "write hours and minutes like PT24H, PT744H at the most; PT0S ends the former at once"
        ) from None


async def _key_rotate(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import credentials

    name = arguments.name
    async with keyed(config.load(arguments.config, os.environ)) as (lent, ring):
        token, level, until = await credentials.rotate(lent, ring, name, arguments.overlap)
    facts = {"name": name, "level": str(level), "token": token}
    facts["former_until"] = until.isoformat()
    print(json.dumps(facts) if arguments.json else token)
    return 0


async def _key_revoke(arguments: argparse.Namespace) -> int:
    from app.keys import database
    from storage import credentials
    from storage.database import connection

    loaded = config.load(arguments.config, os.environ)
    async with database(loaded) as pool, connection(pool) as lent:
        await credentials.revoke(lent, arguments.name)
    print(json.dumps({"name": arguments.name, "revoked": True}) if arguments.json else "revoked")
    return 0


async def _key_person(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import persons

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        await persons.of_key(lent, arguments.name, arguments.person)
    print(json.dumps({"name": arguments.name, "known": True}) if arguments.json else "known")
    return 0
