"""`archive watch` as it is typed, and the options that say how files and sidecars are read."""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

from app.backlog import Backlog, Sorter
from app.client import client_command, seconds
from app.command import Commands
from app.folder import Folder
from app.journal import Journal
from app.remote import Remote, UsageError, printable
from app.watch import Manner, Watch
from app.watch_line import Line
from archive import filenames
from archive.recording import CallType, Direction
from archive.sidecar import FIELDS, Rules, check_form

_WATCH = """\
environment:
  ARCHIVE_URL, ARCHIVE_TOKEN   the ingest door, and an uploader's key (or ARCHIVE_TOKEN_FILE)

examples:
  archive watch /var/spool/asterisk/monitor --call-type customer_service
  archive watch /srv/drop --names 3cx --zone Europe/Helsinki --call-type other --delete-after
  archive watch /srv/drop --names stem --sidecar '{stem}.xml' --map started_at=call.start \\
      --map caller=call.from.@number --map call_type=queue --value call_type:600=fault_report
  archive watch /srv/drop --call-type other --once --json
  archive watch /srv/drop --list

A file is sent when its size, its time and its inode were the same for --quiet seconds, and, where
the kernel can say so, nobody has it open for writing. Hidden and temporary names (.x, x.part,
x.filepart, x.tmp ...), links, pipes, and what is no audio by its ending are left alone.

Of FreePBX's names (in-…-…-20261124-093000-1764000000.17.wav) and Asterisk's (1764000000.17.wav) the
call's start is taken from the unique id, which knows no time zone. --names stem takes the file's
name as the call id; a pattern takes its groups as fields: '(?P<call_id>.+)_(?P<caller>\\d+)'.

While the archive is away the files wait where they lie. What it refuses for good is not sent again
as long as it does not change; --list names it, and --again asks once more. A file is removed only
with --delete-after, once the receipt names its digest. Two watchers of a directory hurt nothing;
the second one on the same machine ends at once.
"""


def add_parsers(commands: Commands) -> None:
    """Add `archive watch`."""
    text = "Hand over what appears in a directory, for as long as it runs."
    parser = client_command(commands, "watch", text, _WATCH, _watch)
    parser.add_argument("directory", type=Path, metavar="DIR")
    add_rules(parser, filenames.FREEPBX)
    parser.add_argument(
        "--quiet",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long a file has to stay as it is (default: 10)",
    )
    parser.add_argument(
        "--sidecar-wait",
        type=seconds,
        default=3600.0,
        metavar="SECONDS",
        help="when to tell of audio without a sidecar, or the other way round (default: 3600)",
    )
    parser.add_argument(
        "--parallel", type=parallel, default=4, metavar="N", help="how many at once (default: 4)"
    )
    parser.add_argument(
        "--delete-after", action="store_true", help="remove a file once its receipt is there"
    )
    parser.add_argument("--once", action="store_true", help="end when nothing is left to send")
    parser.add_argument("--list", action="store_true", help="only say what waits or was refused")
    parser.add_argument("--again", action="store_true", help="ask again about what was refused")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="(default: call-archive/watch in XDG_STATE_HOME or ~/.local/state)",
    )


def add_rules(parser: argparse.ArgumentParser, names: str) -> None:
    """Add the options that `rules_of` reads."""
    parser.add_argument("--call-type", choices=[str(kind) for kind in CallType])
    parser.add_argument("--direction", choices=[str(way) for way in Direction])
    parser.add_argument(
        "--names",
        default=names,
        metavar="FORM",
        help=f"{filenames.FREEPBX}, {', '.join(filenames.PRESETS)} or a pattern (default: {names})",
    )
    parser.add_argument(
        "--sidecar",
        metavar="NAME",
        help="the .json, .xml or .csv beside each audio, like '{stem}.json' or '{name}.xml'",
    )
    parser.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        help="where a field stands in a sidecar",
    )
    parser.add_argument(
        "--value",
        action="append",
        default=[],
        metavar="FIELD:TEXT=MEANS",
        help="what a field's text means instead",
    )
    parser.add_argument(
        "--zone", metavar="ZONE", help="of times that are written without an offset"
    )


def rules_of(options: argparse.Namespace) -> Rules:
    """How files are read. Raises UsageError."""
    given = {"call_type": options.call_type, "direction": options.direction}
    return Rules(
        _names(options.names),
        _sidecar(options.sidecar),
        _zone(options.zone),
        dict(_split(text, "=", "--map FIELD=COLUMN") for text in options.map),
        dict(_value(text) for text in options.value),
        {name: text for name, text in given.items() if text},
    )


def _names(text: str) -> str:
    try:
        groups = re.compile(filenames.PRESETS.get(text, text)).groupindex
    except re.error:
        raise UsageError("--names is no regular expression") from None
    if text != filenames.FREEPBX and (not groups or set(groups) - set(FIELDS)):
        raise UsageError(f"The groups of --names are named like fields: {', '.join(FIELDS)}.")
    return text


def _sidecar(text: str | None) -> str | None:
    try:
        if text is not None:
            check_form(text)
    except ValueError as error:
        raise UsageError(f"--sidecar {error}.") from None
    return text


def _zone(text: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(text) if text else None
    except (KeyError, ValueError, OSError):
        raise UsageError("--zone is a name like Europe/Helsinki.") from None


def _split(text: str, sign: str, form: str) -> tuple[str, str]:
    name, found, rest = text.partition(sign)
    if not found or name.partition(":")[0] not in FIELDS:
        raise UsageError(f"Write {form}; fields are {', '.join(FIELDS)}.")
    return name, rest


def _value(text: str) -> tuple[tuple[str, str], str]:
    name, means = _split(text, "=", "--value FIELD:TEXT=MEANS")
    field, _, value = name.partition(":")
    return (field, value), means


def parallel(text: str) -> int:
    """How many are sent at once."""
    count = int(text) if text.isdecimal() else 0
    if not 1 <= count <= 64:
        raise argparse.ArgumentTypeError("write a number from 1 to 64")
    return count


def state_directory(directory: Path, environ: Mapping[str, str], act: str) -> Path:
    """Where a watcher or an import remembers what it did, unless `--state` names another place."""
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    return Path(state) / "call-archive" / act / name


async def _watch(options: argparse.Namespace) -> int:
    rules = rules_of(options)
    state = options.state or state_directory(options.directory, os.environ, "watch")
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = Folder(options.directory)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    with folder:
        if not options.list and not folder.lock():
            print("archive: another watcher is at work on this directory", file=sys.stderr)
            return 1
        journal = Journal(state / "files.db")
        try:
            if options.list:
                return _list(
                    Sorter(folder, journal, rules, 0, delete_after=False), journal, options
                )
            journal.begin()
            if options.again:
                journal.ask_again()
            return await _run(options, rules, folder, journal)
        finally:
            journal.close()


async def _run(options: argparse.Namespace, rules: Rules, folder: Folder, journal: Journal) -> int:
    manner = Manner(
        rules,
        options.quiet,
        options.sidecar_wait,
        options.retry_for,
        options.parallel,
        options.delete_after,
        options.once,
    )
    line = Line(as_json=options.json)
    try:
        watch = Watch(Remote.from_options(options, os.environ), folder, journal, manner, line)
        left = await watch.run()
    finally:
        line.close()
    if options.once and not options.json:
        print(", ".join(f"{name} {count}" for name, count in sorted(watch.counts.items())))
    wrong = watch.stopped or left.lacking or left.orphans or left.settled
    return 1 if options.once and wrong else 0


def _list(sorter: Sorter, journal: Journal, options: argparse.Namespace) -> int:
    backlog = sorter.look()
    facts = _facts(backlog, journal)
    if options.json:
        print(json.dumps(facts))
        return 0
    for kind, found in facts.items():
        for each in found if isinstance(found, list) else ():
            print("  ".join(printable(text) for text in (kind, *each.values())))
    print(f"{facts['to_send']} to be sent")
    return 0


def _facts(backlog: Backlog, journal: Journal) -> dict[str, object]:
    settled = [(seen, journal.told(seen.key)) for seen in backlog.settled]
    return {
        "settled": [
            {"file": seen.path, "fate": told[1], "reason": told[2]}
            for seen, told in settled
            if told
        ],
        "without_sidecar": [{"file": seen.path} for seen, _ in backlog.lacking],
        "without_audio": [{"file": seen.path} for seen, _ in backlog.orphans],
        "left_alone": [{"file": seen.path} for seen in backlog.others],
        "to_send": len(backlog.ready) + backlog.quieting,
        "more": backlog.more,
    }
