"""The command line: `archive` (also `python -m app`).

Exit status 0 done, 1 failed, 2 wrong usage or configuration. What a command needs is imported when
it runs: a telephone system starts `archive upload` after each call.
"""

import argparse
import asyncio
import os
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from app import (
    account_commands,
    audit,
    client,
    config,
    erase_command,
    import_commands,
    key_commands,
    landing_command,
    lines,
    migrate,
    notice_commands,
    records,
    retention_command,
    team_commands,
    watch_commands,
)
from app.command import Commands, Run, command
from app.config import ConfigError

if TYPE_CHECKING:
    from app.serve import Addresses

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def main() -> None:
    """The entry point of the `archive` command."""
    arguments = _parser().parse_args()
    lines.use(machine=arguments.run is _serve)
    try:
        status = _start(arguments.run, arguments)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        status = _told(error)
        if not status:
            raise
    sys.exit(status)


def _told(error: Exception) -> int:
    """Tell an error that a person can mend, in a line; its status, or 0 for any other."""
    if isinstance(error, ConfigError):
        print(error, file=sys.stderr)
        return 2
    from app.check import FAULTS
    from storage.credentials import KeyRefusedError
    from storage.teams import TeamRefusedError

    refused = (KeyRefusedError, TeamRefusedError)
    if not isinstance(error, (*FAULTS, *refused)):
        return 0
    print(f"archive: {error}", file=sys.stderr)
    return 2 if isinstance(error, refused) else 1


def _start(run: Run, arguments: argparse.Namespace) -> int:
    import uvloop

    async def act() -> int:
        return await run(arguments)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(act())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="archive",
        description="Keeps recordings of calls for one year from the call, and no longer.",
    )
    parser.add_argument("--config", type=Path, help="config.toml (default: ./config.toml)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _serve_parser(commands)
    key_commands.add_parsers(commands)
    account_commands.add_parsers(commands)
    migrate.add_parser(commands)
    team_commands.add_parsers(commands)
    _expire_parser(commands)
    erase_command.add_parsers(commands)
    retention_command.add_parsers(commands)
    _reconcile_parser(commands)
    _rebuild_parser(commands)
    _check_parser(commands)
    audit.add_parsers(commands)
    client.add_parsers(commands)
    watch_commands.add_parsers(commands)
    records.add_parsers(commands)
    import_commands.add_parsers(commands)
    notice_commands.add_parser(commands)
    landing_command.add_parser(commands)
    return parser


def _serve_parser(commands: Commands) -> None:
    parser = command(
        commands,
        "serve",
        "Run the doors and the jobs; prints the three addresses once ready.",
        "  archive serve\n  ARCHIVE_SERVER_DATA_DIR=/srv/calls archive serve\n"
        "  archive serve --only ingest   # the others run elsewhere, docs/operations.md tells how",
        _serve,
        "print the addresses as one line of JSON, once ready",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=["ingest", "retrieval", "operations", "jobs"],
        help="run this part, and let other processes run the others; may be repeated",
    )
    parser.add_argument(
        "--samples", action="store_true", help="take in sample calls at the first start, for trial"
    )


async def _serve(arguments: argparse.Namespace) -> int:
    from app import samples
    from app.serve import PARTS, serve

    parts = [part for part in PARTS if part in (arguments.only or PARTS)]
    if arguments.samples and (arguments.only or arguments.json):
        print("archive: --samples goes without --only and --json", file=sys.stderr)
        return 2

    loaded = config.load(arguments.config, os.environ)

    async def then(addresses: "Addresses") -> None:
        if arguments.samples:
            await samples.offer(SAMPLES, loaded, addresses.ingest)
            doors = addresses.retrieval, addresses.operations
            if loaded.sign_in.local:
                await samples.offer_accounts(loaded, doors)

    await serve(loaded, parts, then, as_json=arguments.json)
    return 0


def _expire_parser(commands: Commands) -> None:
    parser = command(
        commands,
        "expire",
        "Erase what is due, or say what is (or will be on a day) and why.",
        "  archive expire\n  archive expire --dry-run\n  archive expire --dry-run --on 2027-03-01\n"
        "  archive expire --release 2026-11-24   # let a blown fuse go on, up to that day\n"
        "environment:\n  ARCHIVE_TOKEN, ARCHIVE_TOKEN_FILE   with --release: your own admin key;"
        " where two\n      or more are valid, two people have to release",
        _expire,
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only say")
    parser.add_argument("--on", type=_day, metavar="DATE", help="with --dry-run")
    parser.add_argument("--release", type=_day, metavar="DATE", help="let a blown fuse go on")
    parser.add_argument(
        "--token-file", default="", metavar="FILE", help="with --release: your own admin key's"
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("write the day like 2026-11-24") from None


async def _expire(arguments: argparse.Namespace) -> int:
    from app import expire

    if (arguments.on and not arguments.dry_run) or (arguments.release and arguments.dry_run):
        print("archive: --on goes with --dry-run, and --release without it", file=sys.stderr)
        return 2
    loaded = config.load(arguments.config, os.environ)
    if arguments.dry_run:
        return await expire.say(loaded, arguments.on, as_json=arguments.json)
    return await expire.act(loaded, arguments.release, arguments.token_file, as_json=arguments.json)


def _reconcile_parser(commands: Commands) -> None:
    parser = command(
        commands,
        "reconcile",
        "Compare rows with objects, both ways; the report first.",
        "  archive reconcile\n"
        "  archive reconcile --repair   # removes what the evidence is against, and only that\n"
        "  archive reconcile --repair --most 5000   # once you know why there are so many",
        _reconcile,
    )
    parser.add_argument("--repair", action="store_true", help="remove what is known to be over")
    parser.add_argument(
        "--most",
        type=_most,
        default=0,
        metavar="N",
        help="with --repair: let this run remove N objects, if that is more than it may by itself",
    )


def _most(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError("write a number of objects, 1 at the least")
    return int(text)


async def _reconcile(arguments: argparse.Namespace) -> int:
    from app import reconcile

    if arguments.most and not arguments.repair:
        print("archive: --most is for --repair; nothing is removed without it", file=sys.stderr)
        return 2
    loaded = config.load(arguments.config, os.environ)
    return await reconcile.run(
        loaded, repair=arguments.repair, most=arguments.most, as_json=arguments.json
    )


def _rebuild_parser(commands: Commands) -> None:
    command(
        commands,
        "rebuild",
        "Make a database whole that was lost or put back, out of the bucket, the ring, the ledger.",
        "  archive rebuild   # with no service running; docs/operations.md tells how to restore",
        _rebuild,
    )


async def _rebuild(arguments: argparse.Namespace) -> int:
    from app import rebuild

    loaded = config.load(arguments.config, os.environ)
    return await rebuild.run(loaded, as_json=arguments.json)


def _check_parser(commands: Commands) -> None:
    command(
        commands,
        "check",
        "Look at configuration, database, object store, keys and clocks: ok, or what to do.",
        "  archive check\n  archive check --json",
        _check,
    )


async def _check(arguments: argparse.Namespace) -> int:
    from app import check

    loaded = config.load(arguments.config, os.environ)
    return await check.run(loaded, as_json=arguments.json)
