"""The client commands: `archive upload`, `archive search`, `archive fetch`.

They know the archive only by its address (ARCHIVE_URL) and a token (ARCHIVE_TOKEN), so that they
run on a telephone system as well as beside the archive. Exit status 0 done, 1 failed, 2 wrong
usage. For `upload`, done is: the archive holds it, or it lies durably in the spool.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from app import reading, upload
from app.command import Commands, Run, command
from app.reading import BrokenError
from app.remote import AwayError, Patience, RefusedError, Remote, UsageError, printable
from archive.recording import TEXT_FIELDS, CallType, Direction, parse_instant
from archive.search import MOST

_FILTERS = (
    *("from", "to", "number", "agent", "queue", "customer", "contract", "call_id", "source"),
    *("direction", "min_duration", "max_duration"),
)

_ASTERISK = re.compile(r"@(?:\S*-)?(\d{9,11})(?:\.\d+)?")

_UPLOAD = """\
environment:
  ARCHIVE_URL         the ingest door, like https://archive.example:8081
  ARCHIVE_TOKEN       an uploader's key; or ARCHIVE_TOKEN_FILE, the name of a file that holds it
  SSL_CERT_FILE       certificates to trust, when the archive's is not signed by a public authority

examples:
  archive upload call-17.wav --call-type fault_report --started-at 2026-11-24T09:30:00+02:00
  archive upload *.wav --call-type other --started-at 2026-11-24T07:30:00Z --direction inbound
  archive upload 17.g711 --content-type 'audio/PCMA;rate=8000' --call-type contract \\
      --started-at 2026-11-24T07:30:00Z --caller +358401234567
  archive upload --flush

in Asterisk's dialplan (the unique id holds the start of the call; give no caller's name or number
here: a shell reads this line; Asterisk's own environment has to hold ARCHIVE_URL and
ARCHIVE_TOKEN_FILE):
  MixMonitor(${UNIQUEID}.wav,,/opt/call-archive/.venv/bin/archive upload ^{MIXMONITOR_FILENAME}
      --call-type customer_service --started-at @^{UNIQUEID} --call-id ^{UNIQUEID})

An upload can be repeated: the archive knows the call and answers with the same receipt. A cut one
is sent again from its start; one of which 4 MiB had left goes on in parts, from where the archive
has it. What the archive refuses (4xx) is not tried again. While the archive
is away the upload is tried for --retry-for seconds; then a copy goes to the spool, readable by its
owner alone, and the exit status is 0, since nothing can be lost any more. Each later upload that
succeeds, and `archive upload --flush`, deliver the spool, oldest first. What the archive refuses of
it goes to refused/ in the spool with the reason, until the call's year is over. With FILEs the exit
status is about these files; with --flush it is 1 if anything was refused or still waits here. Give
each key a spool of its own: a recording counts as from the source whose key delivers it.
"""

_SEARCH = """\
environment:
  ARCHIVE_URL, ARCHIVE_TOKEN   the retrieval door, and a supervisor's or privacy key

examples:
  archive search --number '040 123 4567' --from 2026-11-01T00:00:00+02:00
  archive search --call-type contract --call-type direct_marketing --min-duration 60 --limit 20
  archive search --queue sales --all --json
"""

_FETCH = """\
environment:
  ARCHIVE_URL, ARCHIVE_TOKEN   the retrieval door, and a supervisor's or privacy key

examples:
  archive fetch 019ab3c4-5d6e-7f80-9123-456789abcdef -o call.wav
  archive fetch 019ab3c4-5d6e-7f80-9123-456789abcdef --format mp3 -o - | ffplay -

The bytes as they were sent are checked against their digest, and a cut download goes on where it
broke off. A copy in another format has no digest; when it breaks off it starts again.
"""


def add_parsers(commands: Commands) -> None:
    """Add the three commands; each sets `run`."""
    _upload_parser(commands)
    _search_parser(commands)
    _fetch_parser(commands)


def client_command(
    commands: Commands, name: str, text: str, epilog: str, run: Run
) -> argparse.ArgumentParser:
    parser = command(commands, name, text, "", _telling(run))
    parser.epilog = epilog
    # `--token SECRET` must not be read as a short `--token-file`.
    parser.allow_abbrev = False
    parser.add_argument("--url", help="the door's address (default: ARCHIVE_URL)")
    parser.add_argument("--token-file", metavar="FILE", help="a file that holds the token")
    parser.add_argument(
        "--retry-for",
        type=seconds,
        default=30.0,
        metavar="SECONDS",
        help="how long to go on while the archive is away (default: 30)",
    )
    return parser


def _upload_parser(commands: Commands) -> None:
    text = "Hand recordings over; what the archive cannot take now waits in a spool."
    parser = client_command(commands, "upload", text, _UPLOAD, upload.run)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--call-type", choices=[str(kind) for kind in CallType])
    parser.add_argument(
        "--started-at",
        type=_instant,
        metavar="TIME",
        help="RFC 3339 with an offset, or @ and seconds since 1970 or an Asterisk unique id",
    )
    parser.add_argument("--call-id", help="(default: the file's name without its ending)")
    parser.add_argument("--direction", choices=[str(way) for way in Direction])
    for name in TEXT_FIELDS:
        parser.add_argument(f"--{name}")
    parser.add_argument(
        "--content-type",
        metavar="TYPE",
        help="for headerless audio, like 'audio/PCMA;rate=8000' (default: by the file's ending)",
    )
    parser.add_argument(
        "--spool",
        type=Path,
        metavar="DIR",
        help="(default: call-archive/spool in XDG_STATE_HOME or ~/.local/state)",
    )
    parser.add_argument("--flush", action="store_true", help="only deliver what waits in the spool")


def _search_parser(commands: Commands) -> None:
    text = "Find recordings, newest first."
    parser = client_command(commands, "search", text, _SEARCH, search)
    parser.add_argument("--call-type", action="append", choices=[str(kind) for kind in CallType])
    for name in _FILTERS:
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name)
    parser.add_argument(
        "--limit", type=int, metavar="N", help=f"at most so many in one answer, up to {MOST}"
    )
    parser.add_argument("--all", action="store_true", help="go on to the last page")


def _fetch_parser(commands: Commands) -> None:
    text = "Download a recording."
    parser = client_command(commands, "fetch", text, _FETCH, fetch)
    parser.add_argument("id", metavar="ID")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="- is the output")
    parser.add_argument(
        "--format", choices=["wav", "mp3", "ogg"], help="a copy that plays anywhere"
    )


async def search(options: argparse.Namespace) -> int:
    """`archive search`."""
    remote = Remote.from_options(options, os.environ)
    filters = [("call_type", kind) for kind in options.call_type or ()]
    filters += [(name, value) for name in _FILTERS if (value := getattr(options, name)) is not None]
    if options.limit is not None or options.all:
        filters.append(("limit", str(options.limit or MOST)))
    show = _JsonPages() if options.json else _Table()
    async with remote.session() as session:
        found = reading.pages(session, remote, filters, Patience(options.retry_for))
        async for items, after in found:
            show.page(items)
            if not (options.all and after):
                break
    show.end(after)
    return 0


class _JsonPages:
    """Prints pages as one document, and each as it comes: a search may find a million.

    A search that breaks off leaves a document that is not closed, so that no program takes it for
    the whole.
    """

    def __init__(self) -> None:
        self.lead = '{"items": ['

    def page(self, items: Iterable[Mapping[str, object]]) -> None:
        for item in items:
            print(self.lead, json.dumps(item), sep="", end="")
            self.lead = ",\n"

    def end(self, after: str | None) -> None:
        opening = self.lead if self.lead.startswith("{") else ""
        print(f'{opening}], "next": {json.dumps(after)}}}')


class _Table:
    """Prints pages for people."""

    def __init__(self) -> None:
        self.count = 0

    def page(self, items: Iterable[Mapping[str, object]]) -> None:
        for item in items:
            if not self.count:
                print(_row("started at", "type", "length", "direction", "caller", "callee", "id"))
            self.count += 1
            names = ("started_at", "call_type", "duration", "direction", "caller", "callee", "id")
            started = re.sub(r"\.\d+", "", str(item.get("started_at")))
            shown = {**item, "started_at": started, "duration": _clock(item.get("duration"))}
            print(_row(*(shown.get(name) for name in names)))

    def end(self, after: str | None) -> None:
        if not self.count:
            print("nothing was found", file=sys.stderr)
        elif after:
            print("there are more: narrow the search, or --all", file=sys.stderr)


def _row(*cells: object) -> str:
    texts = ["-" if cell is None else printable(str(cell)) for cell in cells]
    widths = (25, 16, 8, 9, 16, 16, 0)
    return "  ".join(text.ljust(width) for text, width in zip(texts, widths, strict=True))


def _clock(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


async def fetch(options: argparse.Namespace) -> int:
    """`archive fetch`."""
    remote = Remote.from_options(options, os.environ)
    target = None if options.output == "-" else Path(options.output)
    if target is None and options.json:
        raise UsageError("--json and -o - both want the standard output.")
    if target is not None and target.is_dir():
        raise UsageError("-o names a directory; name a file.")
    with tqdm(unit="B", unit_scale=True, leave=False, disable=not sys.stderr.isatty()) as bar:

        def progress(count: int, total: int | None) -> None:
            bar.total = total
            bar.update(count - bar.n)

        async with remote.session() as session:
            patience = Patience(options.retry_for)
            got = await reading.fetch(
                session, remote, options.id, options.format, target, patience, progress
            )
    if options.json:
        print(json.dumps({"id": options.id, "file": str(target), **asdict(got)}))
    elif target:
        checked = "its digest is right" if got.verified else "a copy, without a digest"
        print(f"{printable(str(target))}: {got.size} bytes, {checked}")
    return 0


def _telling(run: Run) -> Run:
    """Run a command and tell what stopped it, in one place."""

    async def act(options: argparse.Namespace) -> int:
        try:
            status = await run(options)
            sys.stdout.flush()
        except UsageError as error:
            print(f"archive: {error}", file=sys.stderr)
            return 2
        except (RefusedError, AwayError, BrokenError) as error:
            print(f"archive: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            # Who read the output has gone, as `head` does; the interpreter's last flush must not
            # fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return status

    return act


def _instant(text: str) -> str:
    if match := _ASTERISK.fullmatch(text):
        return datetime.fromtimestamp(int(match[1]), UTC).isoformat()
    try:
        parse_instant(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "write a time with its offset, like 2026-11-24T09:30:00+02:00"
        ) from None
    return text


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("write a number of seconds, a day's at most")
    return value
