"""`archive upload`: what becomes of each file, and of what waits in the spool.

A file that is not stored, was not refused and is not in the spool either is a failure: the exit
status 0 says that the archive holds it, or that it lies durably in the spool.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

import aiohttp
from tqdm import tqdm

from app import delivery, spooler
from app.delivery import FileError, Flushed
from app.remote import AwayError, Patience, RefusedError, Remote, UsageError, printable
from app.spooler import Delivery
from archive import filenames
from archive.recording import TEXT_FIELDS

Facts = dict[str, object]

_DONE = frozenset({"stored", "already", "spooled"})


async def run(options: argparse.Namespace) -> int:
    """Upload the files, or with `--flush` none, and then what waits in the spool."""
    _check(options)
    remote = Remote.from_options(options, os.environ)
    directory = options.spool or spooler.default_directory(os.environ)
    flushed = Flushed()
    async with remote.session() as session:
        told = await _every(session, remote, options, directory)
        if options.flush or any(facts["status"] in ("stored", "already") for facts in told):
            retry_for = options.retry_for if options.flush else 0.0
            flushed = await delivery.flush(session, remote, directory, retry_for)
    _tell_spool(flushed, directory)
    if options.json:
        print(json.dumps({"files": told, "spool": _facts_of(flushed, directory)}))
    elif options.flush:
        print(f"delivered {flushed.delivered}, waiting {flushed.waiting}")
    left = options.flush and (flushed.refused or flushed.waiting or flushed.damaged)
    return 1 if left or any(facts["status"] not in _DONE for facts in told) else 0


def _check(options: argparse.Namespace) -> None:
    if options.flush and options.files:
        raise UsageError("--flush delivers the spool: give no FILE with it.")
    if options.flush:
        return
    if not options.files:
        raise UsageError("Name a FILE, or --flush to deliver the spool.")
    if not (options.call_type and options.started_at):
        raise UsageError("--call-type and --started-at are required.")
    if options.call_id is not None and len(options.files) > 1:
        raise UsageError("--call-id names one call: give one FILE with it.")
    stems = Counter(file.stem for file in options.files)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise UsageError(f"Two files would be the same call, {printable(twice[0])}.")
    names = [options.call_id or "", *stems, *(getattr(options, key) or "" for key in TEXT_FIELDS)]
    if not all(name.isprintable() for name in names):
        raise UsageError("A value or a file's name holds characters that cannot be sent.")


async def _every(
    session: aiohttp.ClientSession, remote: Remote, options: argparse.Namespace, directory: Path
) -> list[Facts]:
    told = []
    retry_for = options.retry_for
    for file in options.files:
        facts = await _one(session, remote, options, directory, file, retry_for)
        if not options.json:
            _tell(facts, directory)
        if "away" in facts:
            # The archive is away: the other files need not wait for it again.
            retry_for = 0.0
        told.append(facts)
    return told


async def _one(
    session: aiohttp.ClientSession,
    remote: Remote,
    options: argparse.Namespace,
    directory: Path,
    file: Path,
    retry_for: float,
) -> Facts:
    item: Delivery | None = None
    facts: Facts = {"file": str(file), "call_id": options.call_id or file.stem}
    try:
        item = await asyncio.to_thread(
            delivery.measure,
            remote.url,
            file,
            options.call_id or file.stem,
            _fields(options),
            options.content_type or filenames.media_type(file.name) or filenames.OCTETS,
        )
        stored = await _send(session, remote, item, retry_for)
    except FileError as error:
        return {**facts, "status": "failed", "reason": str(error)}
    except RefusedError as error:
        problem = error.problem.facts()
        return {**facts, "status": "refused", "problem": problem, "reason": str(error)}
    except AwayError as error:
        assert item is not None
        return {**facts, "away": str(error), **await _keep(directory, item)}
    return {**facts, "status": "stored" if stored.new else "already", "receipt": stored.receipt}


async def _send(
    session: aiohttp.ClientSession, remote: Remote, item: Delivery, retry_for: float
) -> delivery.Stored:
    with tqdm(
        total=item.size,
        desc=printable(item.path.name),
        unit="B",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    ) as bar:
        return await delivery.hand_over(session, remote, item, Patience(retry_for), bar.update)


async def _keep(directory: Path, item: Delivery) -> Facts:
    try:
        await asyncio.to_thread(spooler.keep, directory, item)
    except OSError as error:
        reason = f"it could not be spooled: {error.strerror or error}"
        return {"status": "failed", "reason": reason}
    return {"status": "spooled"}


def _fields(options: argparse.Namespace) -> dict[str, str]:
    names = ("call_type", "started_at", "direction", *TEXT_FIELDS)
    return {name: value for name in names if (value := getattr(options, name))}


def _tell(facts: Facts, directory: Path) -> None:
    file = printable(str(facts["file"]))
    receipt = facts.get("receipt")
    if isinstance(receipt, dict):
        told = [facts["status"], receipt.get("id"), "expires", receipt.get("expires_at"), file]
        print("  ".join(printable(str(part)) for part in told))
    elif facts["status"] == "spooled":
        print(f"spooled  {file}")
        print(f"archive: {facts['away']}", file=sys.stderr)
        print(
            f"archive: a copy waits in {directory}; the next upload that succeeds delivers it, "
            "or archive upload --flush",
            file=sys.stderr,
        )
    else:
        print(f"archive: {file} was not stored", file=sys.stderr)
        for key in ("away", "reason"):
            for line in str(facts.get(key, "")).splitlines():
                print(f"archive: {line}", file=sys.stderr)


def _tell_spool(flushed: Flushed, directory: Path) -> None:
    """What a person has to know of the spool; nothing when all went well."""
    lines = [
        f"refused and set aside: {note}: {problem.detail}" for note, problem in flushed.refused
    ]
    lines += [f"this entry of the spool cannot be read: {note}" for note in flushed.damaged]
    if flushed.busy:
        lines.append("another upload is delivering the spool")
    if flushed.waiting:
        lines.append(f"{flushed.waiting} wait in {directory}: {flushed.reason}")
    if flushed.elsewhere:
        lines.append(f"{flushed.elsewhere} in {directory} wait for another archive's address")
    for line in lines:
        print(f"archive: {printable(line)}", file=sys.stderr)


def _facts_of(flushed: Flushed, directory: Path) -> Facts:
    return {
        "delivered": flushed.delivered,
        "refused": [
            {"note": str(note), "problem": problem.facts()} for note, problem in flushed.refused
        ],
        "refused_kept": spooler.refused(directory),
        "waiting": flushed.waiting,
        "elsewhere": flushed.elsewhere,
        "damaged": [str(note) for note in flushed.damaged],
        "busy": flushed.busy,
        "reason": flushed.reason,
    }
