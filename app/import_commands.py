"""`archive import` as it is typed, and what it says at the end."""

import argparse
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app import values
from app.client import client_command
from app.command import Commands
from app.folder import Folder
from app.import_sources import BucketSource, FolderSource, Source, TableSource
from app.importing import Import, Manner
from app.journal import Journal
from app.remote import Remote, UsageError, printable
from app.watch_commands import add_rules, parallel, rules_of, state_directory
from archive.errors import ArchiveError
from archive.sidecar import Rules

_IMPORT = """\
environment:
  ARCHIVE_URL, ARCHIVE_TOKEN                 the ingest door, and an uploader's key
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY   for s3://

examples:
  archive import /srv/old --call-type other --dry-run
  archive import /srv/old/calls.csv --file-column path --map started_at=begin --zone Europe/Helsinki
  archive import s3://old-calls/2026/ --endpoint https://s3.example --names stem \\
      --sidecar '{name}_metadata.json' --map started_at=startTime --call-type other

How names, sidecars and columns are read: `archive watch --help`. The columns of a CSV are mapped
like a sidecar's; what they say counts more than the name of the file.

It can be broken off and started again: what was sent is not sent again. What is refused is listed
with the reason, a call past its year among it; --again asks once more. Nothing is removed. A dry
run judges by the form of names, times and bytes and by a year in Europe/Helsinki; it sends nothing.
The exit status is 1 if anything was refused or not sent.
"""

_S3 = re.compile(r"s3://([^/]+)/?(.*)", re.DOTALL)


def add_parsers(commands: Commands) -> None:
    """Add `archive import`."""
    parser = client_command(commands, "import", "Hand an old archive over.", _IMPORT, _run)
    parser.add_argument("source", metavar="DIR|FILE.csv|s3://BUCKET/PREFIX")
    add_rules(parser, "freepbx")
    parser.add_argument(
        "--file-column", default="file", metavar="COLUMN", help="of a CSV (default: file)"
    )
    parser.add_argument("--endpoint", help="of s3://, like https://s3.example")
    parser.add_argument("--region", default="us-east-1", help="of s3:// (default: us-east-1)")
    parser.add_argument(
        "--parallel", type=parallel, default=4, metavar="N", help="how many at once (default: 4)"
    )
    parser.add_argument("--dry-run", action="store_true", help="send nothing, only say")
    parser.add_argument("--again", action="store_true", help="ask again about what was refused")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="DIR",
        help="(default: call-archive/import in XDG_STATE_HOME or ~/.local/state)",
    )


async def _run(options: argparse.Namespace) -> int:
    rules = rules_of(options)
    remote = None if options.dry_run else Remote.from_options(options, os.environ)
    manner = Manner(rules, options.retry_for, options.parallel, options.dry_run)
    state = options.state or state_directory(Path(options.source), os.environ, "import")
    async with _source(options, rules) as source:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal(state / "files.db")
        try:
            if options.again:
                journal.ask_again()
            whole = Import(source, journal, manner, as_json=options.json)
            try:
                await whole.run(remote)
            except* (UsageError, ArchiveError) as errors:
                raise errors.exceptions[0] from None
        except ArchiveError as error:
            raise UsageError(error.detail) from None
        finally:
            journal.close()
    _tell(whole, as_json=options.json)
    counts = whole.counts
    return 1 if whole.stopped or counts["refused"] or counts["not sent"] else 0


@asynccontextmanager
async def _source(options: argparse.Namespace, rules: Rules) -> AsyncIterator[Source]:
    if found := _S3.fullmatch(options.source):
        async with _bucket(options, found[1], found[2], rules) as source:
            yield source
        return
    path = Path(options.source)
    table = _is_table(path)
    with Folder(path.parent if table else path) as folder:
        if table:
            yield TableSource(folder, path, options.file_column)
        else:
            yield FolderSource(folder, rules)


def _is_table(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        raise UsageError(f"{printable(str(path))}: {error.strerror}") from None
    return not path.is_dir()


@asynccontextmanager
async def _bucket(
    options: argparse.Namespace, name: str, prefix: str, rules: Rules
) -> AsyncIterator[Source]:
    from minio.credentials.credentials import Credentials

    from storage.objects import ObjectStore
    from storage.s3 import Bucket

    access, secret = (
        os.environ.get(f"AWS_{part}", "") for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")
    )
    if not (options.endpoint and access and secret):
        raise UsageError("s3:// needs --endpoint, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    try:
        values.web_address(options.endpoint)
    except ValueError as error:
        raise UsageError(f"--endpoint {error}") from None
    # Not `connect`, which would make a bucket that is not there.
    bucket = Bucket(
        options.endpoint,
        name,
        Credentials(access, secret),
        region=options.region,
        ca=None,
        patience=30,
    )
    try:
        yield BucketSource(ObjectStore(bucket), prefix, rules)
    finally:
        await bucket.close()


def _tell(whole: Import, *, as_json: bool) -> None:
    if as_json:
        facts = {"counts": whole.counts, "reasons": whole.reasons, "stopped": whole.stopped}
        print(json.dumps(facts))
        return
    for why, count in whole.reasons.most_common():
        print(f"{count:>9,}  {printable(why)}")
    print(", ".join(f"{name} {count:,}" for name, count in sorted(whole.counts.items())))
    if whole.stopped:
        print(f"broken off: {printable(whole.stopped)}")
