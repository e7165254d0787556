"""The command line: `archive` (also `python -m app`).

Exit status 0 done, 1 failed, 2 wrong usage or configuration. What a command needs is imported when
it runs: a telephone system starts `archive upload` after each call.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import audit, client, config, values
from app.config import ConfigError
from archive.access import Level
from archive.bounds import Bounds

if TYPE_CHECKING:
    from app.serve import Addresses
    from storage.vault import Vault

SAMPLES = Path(__file__).resolve().parent.parent / "samples"

Run = Callable[[argparse.Namespace], Awaitable[int]]


def main() -> None:
    """The entry point of the `archive` command."""
    arguments = _parser().parse_args()
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
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

    if not isinstance(error, (*FAULTS, KeyRefusedError)):
        return 0
    print(f"archive: {error}", file=sys.stderr)
    return 2 if isinstance(error, KeyRefusedError) else 1


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
    _key_parsers(commands)
    _expire_parser(commands)
    _reconcile_parser(commands)
    _rebuild_parser(commands)
    _check_parser(commands)
    audit.add_parsers(commands)
    client.add_parsers(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    examples: str,
    run: Run,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog="examples:\n" + examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _serve_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(
        commands,
        "serve",
        "Run the doors and the jobs; prints the three addresses once ready.",
        "  archive serve\n  ARCHIVE_SERVER_DATA_DIR=/srv/calls archive serve",
        _serve,
    )
    parser.add_argument(
        "--samples", action="store_true", help="take in sample calls at the first start, for trial"
    )


async def _serve(arguments: argparse.Namespace) -> int:
    from app import samples
    from app.serve import serve

    loaded = config.load(arguments.config, os.environ)

    async def then(addresses: "Addresses", vault: "Vault") -> None:
        if arguments.samples:
            await samples.offer(SAMPLES, loaded.server.data_dir, addresses.ingest, vault)

    await serve(loaded, then)
    return 0


def _key_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("key", help="Make, list, rotate and revoke bearer keys.")
    acts = parser.add_subparsers(required=True, metavar="ACT")
    add = _command(
        acts,
        "add",
        "Make a key; its token is printed once.",
        "  archive key add --level uploader --name pbx1 --source pbx1\n"
        "  archive key add --level uploader --name pbx2 --networks 10.1.2.0/24 --rate 20/s"
        " --quota 50GB\n"
        "  archive key add --level supervisor --name anna --call-types fault_report,other",
        _key_add,
    )
    add.add_argument("--level", required=True, choices=[str(level) for level in Level])
    add.add_argument("--name", required=True)
    add.add_argument("--source", help="the telephony system of an uploader (default: NAME)")
    add.add_argument("--call-types", help="call types that a reader is limited to, by commas")
    add.add_argument("--networks", help="where it may come from, like 10.0.0.0/8,2001:db8::/32")
    add.add_argument("--rate", help="how often it may ask, like 20/s, 100/min or 1000/h")
    add.add_argument("--quota", help="what an uploader may hand over in a day, like 50GB")
    listing = _command(acts, "list", "List all keys.", "  archive key list --json", _key_list)
    rotate = _command(
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
    revoke = _command(
        acts, "revoke", "Revoke a key, at once.", "  archive key revoke pbx1", _key_revoke
    )
    revoke.add_argument("name")
    for each in (add, listing, rotate, revoke):
        each.add_argument("--json", action="store_true", help="print facts as JSON")


async def _key_add(arguments: argparse.Namespace) -> int:
    from app.keys import add
    from storage.credentials import KeyRefusedError

    types = arguments.call_types.split(",") if arguments.call_types is not None else None
    level = Level(arguments.level)
    loaded = config.load(arguments.config, os.environ)
    try:
        bounds = Bounds.from_texts(arguments.networks, arguments.rate, arguments.quota)
    except ValueError as error:
        raise KeyRefusedError(str(error)) from None
    token = await add(loaded, arguments.name, level, arguments.source, types, bounds)
    facts = {"name": arguments.name, "level": str(level), "token": token}
    print(json.dumps(facts) if arguments.json else token)
    return 0


async def _key_list(arguments: argparse.Namespace) -> int:
    from app.keys import every

    rows = [asdict(row) for row in await every(config.load(arguments.config, os.environ))]
    if arguments.json:
        print(json.dumps(rows, default=datetime.isoformat))
        return 0
    for row in rows:
        print(_key_line(row))
    return 0


def _key_line(row: dict[str, Any]) -> str:
    types = ",".join(row["call_types"]) if row["call_types"] else "all call types"
    used, quota = row["last_used_at"], row["quota"]
    about = [
        row["source"] or (types if row["level"] in ("supervisor", "privacy") else ""),
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
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def _key_rotate(arguments: argparse.Namespace) -> int:
    from app.keys import rotate

    loaded = config.load(arguments.config, os.environ)
    token, level, until = await rotate(loaded, arguments.name, arguments.overlap)
    facts = {"name": arguments.name, "level": str(level), "token": token}
    facts["former_until"] = until.isoformat()
    print(json.dumps(facts) if arguments.json else token)
    return 0


async def _key_revoke(arguments: argparse.Namespace) -> int:
    from app.keys import revoke

    await revoke(config.load(arguments.config, os.environ), arguments.name)
    print(json.dumps({"name": arguments.name, "revoked": True}) if arguments.json else "revoked")
    return 0


def _expire_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(
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
    parser.add_argument("--json", action="store_true", help="print facts as JSON")


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


def _reconcile_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(
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
        "--most", type=int, default=0, metavar="N", help="let this run remove up to N objects"
    )
    parser.add_argument("--json", action="store_true", help="print facts as JSON")


async def _reconcile(arguments: argparse.Namespace) -> int:
    from app import reconcile

    loaded = config.load(arguments.config, os.environ)
    return await reconcile.run(
        loaded, repair=arguments.repair, most=arguments.most, as_json=arguments.json
    )


def _rebuild_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(
        commands,
        "rebuild",
        "Make a database whole that was lost or put back, out of the bucket, the ring, the ledger.",
        "  archive rebuild   # with no service running; docs/operations.md tells how to restore",
        _rebuild,
    )
    parser.add_argument("--json", action="store_true", help="print facts as JSON")


async def _rebuild(arguments: argparse.Namespace) -> int:
    from app import rebuild

    loaded = config.load(arguments.config, os.environ)
    return await rebuild.run(loaded, as_json=arguments.json)


def _check_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = _command(
        commands,
        "check",
        "Look at configuration, database, object store, keys and clocks: ok, or what to do.",
        "  archive check\n  archive check --json",
        _check,
    )
    parser.add_argument("--json", action="store_true", help="print facts as JSON")


async def _check(arguments: argparse.Namespace) -> int:
    from app import check

    loaded = config.load(arguments.config, os.environ)
    return await check.run(loaded, as_json=arguments.json)
