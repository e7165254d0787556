"""`archive cdr import` and `archive gaps`: handing call detail records over, and what they show."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import aiohttp

from app.client import client_command
from app.command import Commands
from app.remote import (
    FAULTS,
    AwayError,
    Patience,
    Remote,
    UsageError,
    check,
    printable,
    read_object,
    reason_of,
)
from archive import cdr
from archive.recording import parse_instant
from archive.sidecar import UnclearError

_BATCH, _BYTES = 500, 2**19
"""Records that are sent at once, and after how many bytes fewer are."""

_WHOLE = 2**23
"""Bytes of a file that may be in any form; a larger one is a CSV, or JSON as it is."""

_IMPORT = """\
environment:
  ARCHIVE_URL, ARCHIVE_TOKEN   the ingest door, and an uploader's key (or ARCHIVE_TOKEN_FILE)

examples:
  archive cdr import /var/log/asterisk/cdr-csv/Master.csv
  archive cdr import cdr.csv --zone Europe/Helsinki
  archive cdr import /var/log/freeswitch/json_cdr/*.cdr.json

Asterisk's CSV with or without a heading, FreeSWITCH's json_cdr, and rows of our own fields
(call_id, started_at, duration, answered, caller ...) as CSV or JSON. The start of an Asterisk call
is taken from its unique id. FreeSWITCH's err-log-dir is read as well, whatever `encode` is. An
import can be repeated. The exit status is 1 if a record was not understood, or a file holds none.
"""

_GAPS = """\
environment:
  ARCHIVE_URL, ARCHIVE_TOKEN   the operations door, and a key of level auditor or admin

examples:
  archive gaps
  archive gaps --source pbx1 --from 2026-11-01T00:00:00+02:00 --json

Answered calls that have no recording though it should be there ([intake] expected_within), by
source and hour; of the last seven days, if nothing else is said.
"""


def add_parsers(commands: Commands) -> None:
    """Add the two commands."""
    acts = commands.add_parser("cdr", help="Hand call detail records over.").add_subparsers(
        required=True, metavar="ACT"
    )
    parser = client_command(acts, "import", "Say which calls there were.", _IMPORT, _run_import)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--zone", help="of times that are written without an offset")
    parser = client_command(commands, "gaps", "Count calls without a recording.", _GAPS, _run_gaps)
    for name in ("from", "to"):
        parser.add_argument(f"--{name}", dest=name, type=_instant, metavar="TIME")
    parser.add_argument("--source")


def _instant(text: str) -> str:
    try:
        parse_instant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


async def _run_import(options: argparse.Namespace) -> int:
    remote = Remote.from_options(options, os.environ)
    query = [("zone", options.zone)] if options.zone else []
    counts: Counter[str] = Counter()
    async with remote.session() as session:
        for file in options.files:
            rows = _rows(file)
            done = 0
            while batch := _next(file, rows):
                body = json.dumps(batch).encode()
                told = await _ask(session, remote, "POST", "/v1/cdr", query, options, body)
                _count(counts, told, file, done)
                done += len(batch)
            if not done:
                counts["wrong"] += 1
                print(f"archive: {printable(str(file))} holds no records", file=sys.stderr)
    if options.json:
        print(json.dumps(counts))
    else:
        print(", ".join(f"{name} {count}" for name, count in counts.items()))
    return 1 if counts["wrong"] else 0


def _next(file: Path, rows: Iterator[dict[str, str]]) -> list[dict[str, str]]:
    batch, size = [], 0
    try:
        for row in islice(rows, _BATCH):
            batch.append(row)
            size += len(json.dumps(row))
            if size > _BYTES:
                break
        return batch
    except (UnclearError, OSError) as error:
        raise UsageError(f"{printable(str(file))}: {error}") from None


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """The records of a file, as they are asked for; of a CSV no more of it is held than that."""
    with file.open("rb") as raw:
        start = raw.read(_WHOLE)
        if len(start) < _WHOLE or start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            yield from cdr.rows_of(cdr.text_of(start + raw.read()))
            return
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
        yield from cdr.csv_rows(text)


def _count(counts: Counter[str], told: dict[str, object], file: Path, done: int) -> None:
    for name, value in told.items():
        if isinstance(value, int):
            counts[name] += value
    errors = told.get("errors")
    for number, why in errors.items() if isinstance(errors, dict) else ():
        # Records are counted from 1, the heading of a CSV not among them.
        place = f"{file}, record {done + int(number.removeprefix('record ')) + 1}"
        print(f"archive: {printable(f'{place}: {why}')}", file=sys.stderr)


async def _ask(
    session: aiohttp.ClientSession,
    remote: Remote,
    method: str,
    path: str,
    query: list[tuple[str, str]],
    options: argparse.Namespace,
    body: bytes | None = None,
) -> dict[str, object]:
    """Ask until the archive answers, or for --retry-for seconds."""
    patience = Patience(options.retry_for)
    headers = {"Content-Type": "application/json"} if body else {}
    while True:
        try:
            async with session.request(
                method,
                remote.address(path, query),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=120),
            ) as response:
                if body and response.status == 422:
                    # Every record of this batch is wrong; those of the next may not be.
                    problem = await read_object(response)
                    return {"wrong": len(json.loads(body)), "errors": problem.get("errors")}
                await check(response)
                return await read_object(response)
        except AwayError as away:
            if not await patience.wait(away.retry_after):
                raise
        except ValueError:
            raise AwayError("This is not how an archive answers.") from None
        except FAULTS as fault:
            if not await patience.wait(None):
                raise AwayError(reason_of(fault)) from None


async def _run_gaps(options: argparse.Namespace) -> int:
    remote = Remote.from_options(options, os.environ)
    query = [
        (name, value)
        for name in ("from", "to", "source")
        if (value := getattr(options, name)) is not None
    ]
    async with remote.session() as session:
        found = await _ask(session, remote, "GET", "/v1/gaps", query, options)
    if options.json:
        print(json.dumps(found))
        return 0
    hours = found.get("hours")
    for hour in hours if isinstance(hours, list) else ():
        if hour.get("missing"):
            told = (hour.get(name) for name in ("hour", "source", "missing", "answered"))
            print("{}  {}  {} of {} missing".format(*(printable(str(each)) for each in told)))
    sums = (printable(str(found.get(name))) for name in ("missing", "answered", "awaited"))
    print("{} of {} answered calls have no recording, {} may still get theirs".format(*sums))
    return 0
