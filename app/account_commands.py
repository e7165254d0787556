"""`archive account`: the people who may sign in, made, changed, locked and reset by who may run
commands on the machine.
"""

import argparse
import json
import os
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app import config
from app.command import Commands, command
from archive.access import Level

if TYPE_CHECKING:
    from storage.credentials import Limits

_LEVELS = [str(level) for level in Level if level is not Level.UPLOADER]


def add_parsers(commands: Commands) -> None:
    """Add `archive account` and its acts."""
    parser = commands.add_parser("account", help="Say which people may sign in, and as what.")
    acts = parser.add_subparsers(required=True, metavar="ACT")
    add = command(
        acts,
        "add",
        "Make an account; its first password is printed once, and holds for three days.",
        "  archive account add --level supervisor --name anna --call-types fault_report,other\n"
        "  archive account add --level auditor --name bo",
        _add,
    )
    add.add_argument("--name", required=True)
    add.add_argument("--person", help="whose it is, as with `archive key add`")
    change = command(
        acts,
        "change",
        "Give an account another level and other limits, at once.",
        "  archive account change anna --level supervisor --queues billing --teams north",
        _change,
    )
    for each in (add, change):
        _add_level(each)
    command(acts, "list", "List all accounts.", "  archive account list --json", _list)
    lock = command(
        acts, "lock", "Lock an account; it is signed out at once.", "  archive account lock anna",
        _lock,
    )  # fmt: skip
    unlock = command(
        acts, "unlock", "Let it sign in again.", "  archive account unlock anna", _unlock
    )
    reset = command(
        acts,
        "reset",
        "Give it a first password again, and let its second factor be set up anew.",
        "  archive account reset anna   # forgot the password, or lost the telephone",
        _reset,
    )
    person = command(
        acts,
        "person",
        "Say whose an account is: two people decide only where both are known.",
        "  archive account person anna anna.koski",
        _person,
    )
    for each in (change, lock, unlock, reset, person):
        each.add_argument("name")
    person.add_argument("person", help="the same word for all keys and accounts of one person")


def _add_level(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--level", required=True, choices=_LEVELS)
    parser.add_argument("--call-types", help="call types that a reader is limited to, by commas")
    parser.add_argument("--queues", help="queues that a reader is limited to, by commas")
    parser.add_argument("--teams", help="teams that a reader is limited to; see `archive team`")


def _limits(arguments: argparse.Namespace) -> "Limits":
    from storage.credentials import Limits

    given = (arguments.call_types, arguments.queues, arguments.teams)
    return Limits(*(text.split(",") if text is not None else None for text in given))


async def _add(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import accounts, persons

    loaded = config.load(arguments.config, os.environ)
    async with keyed(loaded) as (lent, ring), lent.transaction():
        password = await accounts.add(
            lent, ring, arguments.name, Level(arguments.level), _limits(arguments)
        )
        if arguments.person is not None:
            await persons.of_account(lent, arguments.name, arguments.person)
    facts = {"name": arguments.name, "level": arguments.level, "password": password}
    print(json.dumps(facts) if arguments.json else password)
    return 0


async def _change(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import accounts

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        await accounts.change(lent, arguments.name, Level(arguments.level), _limits(arguments))
    return _said(arguments, "changed")


async def _lock(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import accounts

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        await accounts.lock(lent, arguments.name)
    return _said(arguments, "locked")


async def _unlock(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import accounts

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        await accounts.unlock(lent, arguments.name)
    return _said(arguments, "unlocked")


async def _person(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import persons

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        await persons.of_account(lent, arguments.name, arguments.person)
    return _said(arguments, "known")


def _said(arguments: argparse.Namespace, done: str) -> int:
    print(json.dumps({"name": arguments.name, done: True}) if arguments.json else done)
    return 0


async def _reset(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import accounts

    async with keyed(config.load(arguments.config, os.environ)) as (lent, ring):
        password = await accounts.reset(lent, ring, arguments.name)
    facts = {"name": arguments.name, "password": password}
    print(json.dumps(facts) if arguments.json else password)
    return 0


async def _list(arguments: argparse.Namespace) -> int:
    from app.keys import keyed
    from storage import accounts

    async with keyed(config.load(arguments.config, os.environ)) as (lent, _):
        rows = [asdict(row) for row in await accounts.every(lent)]
    if arguments.json:
        print(json.dumps(rows, default=datetime.isoformat))
        return 0
    for row in rows:
        print(_line(row))
    return 0


def _line(row: dict[str, Any]) -> str:
    seen, locked = row["signed_in_at"], row["locked_at"]
    about = [
        *(",".join(row[limit]) for limit in ("call_types", "queues", "teams") if row[limit]),
        f"person {row['person']}" if row["person"] else "",
        "by the provider" if row["provider"] else "",
        "" if row["set_up"] else "not set up yet",
        f"signed in {seen:%Y-%m-%d %H:%M}" if seen else "never signed in",
        f"{row['sessions']} sessions" if row["sessions"] else "",
    ]
    state = f"locked {locked:%Y-%m-%d}" if locked else "valid"
    told = "  ".join(filter(None, about))
    return f"{row['id']}  {row['name']:<24} {row['level']:<11} {state:<18} {told}"
