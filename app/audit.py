"""The auditor's commands: `archive ledger`, `archive certificate`, `archive witness`.

`verify` needs nothing but the file and the public key: no archive, no network. What is not named of
the two it takes from the archive of this configuration. Exit status 0 when everything holds, 1 when
something does not, 2 for wrong usage.
"""

import argparse
import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from app import config, hashing, own_ledger, shown
from app.command import Commands, Run, command, own_token
from archive import certificate, nights, story
from archive.certificate import Certificate
from archive.ledger import instant
from archive.note import Note, NoteError, Verifier

_KEY = "the ledger's public key, as `archive ledger key` prints it, or a file that holds it"
_OR_OWN = "; without it this archive's own, which shows less"

_TOLD = (
    *("entries", "stored", "rules", "erased", "early", "grants", "late", "lately", "lost"),
    *("losses", "overdue", "nights", "days_closed", "told_until"),
)
"""What of a ledger's story is told, by its own names."""


def add_parsers(commands: Commands) -> None:
    """Add the commands; each sets `run`."""
    ledger = commands.add_parser("ledger", help="Export the ledger, and verify it without it.")
    acts = ledger.add_subparsers(required=True, metavar="ACT")
    command(acts, "key", "Print the ledger's public key.", "  archive ledger key", _print_key)
    export = command(
        acts,
        "export",
        "Write all entries and a signed checkpoint to a file.",
        "  archive ledger export ledger.txt",
        _export,
    )
    export.add_argument("file", type=_new_file, metavar="FILE")
    _words_parser(acts)
    _verify_parser(acts)
    one = commands.add_parser("certificate", help="Verify a certificate.")
    acts = one.add_subparsers(required=True, metavar="ACT")
    check = command(
        acts,
        "verify",
        "Check the certificate of one erasure, or of a night.",
        "  archive certificate verify certificate.json --key key.txt\n"
        "  archive certificate verify certificate.json   # by this archive's own key",
        _telling(_verify_certificate),
    )
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--key", help=_KEY + _OR_OWN)
    _witness_parser(commands)


def _verify_parser(acts: Commands) -> None:
    verify = command(
        acts,
        "verify",
        "Check an export: unrewritten, and every recording that came due erased, none early.",
        "  archive ledger verify   # of this archive, as it is now, by its own key\n"
        "  archive ledger verify ledger.txt --key call-archive/0a1b...+5d6e7f80+AbCd...\n"
        "  archive ledger verify ledger.txt --key key.txt --checkpoint witness/checkpoint \\\n"
        "      --witness witness/witness.pub",
        _telling(_verify_ledger),
    )
    verify.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="an export; without it one is made now"
    )
    verify.add_argument("--key", help=_KEY + _OR_OWN)
    verify.add_argument(
        "--checkpoint",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a checkpoint kept elsewhere, which the export has to go on from; repeatable",
    )
    verify.add_argument(
        "--witness",
        metavar="KEY",
        help="a witness's public key, or a file that holds it: it has to have signed each"
        " --checkpoint",
    )


def _words_parser(acts: Commands) -> None:
    words = command(
        acts,
        "words",
        "Open what entries seal: a search's terms, an act's reason. It is told on the ledger.",
        "  archive ledger words 4711 4712\n"
        "environment:\n  ARCHIVE_TOKEN, ARCHIVE_TOKEN_FILE   your own key, of level privacy",
        _open_words,
    )
    words.add_argument("positions", type=_position, nargs="+", metavar="POSITION")
    words.add_argument("--token-file", default="", metavar="FILE", help="your own key's")


def _new_file(text: str) -> Path:
    file = Path(text)
    if file.is_dir() or not file.parent.is_dir():
        raise argparse.ArgumentTypeError("name a file, in a folder that is there")
    return file


def _position(text: str) -> int:
    if text.isdecimal() and (position := int(text)) < 2**63:
        return position
    raise argparse.ArgumentTypeError("a position is a whole number from 0 on")


def _witness_parser(commands: Commands) -> None:
    parser = command(
        commands,
        "witness",
        "Keep an archive's checkpoint, and demand that the next one goes on from it.",
        "  ARCHIVE_TOKEN_FILE=auditor.key archive witness https://archive.example:8082 \\\n"
        "      --key key.txt --state /var/lib/archive-witness\n"
        "run it on another machine, under another administrator, from a timer. It exits with 1,\n"
        "and keeps what it had, when the ledger is no continuation: then somebody rewrote it; and\n"
        "when it has not grown for two days, for each night adds to it.\n"
        "STATE/checkpoint is the last one, cosigned; STATE/witness.pub is the witness's own key.",
        _telling(_witness),
    )
    parser.add_argument("url", metavar="URL", help="the operations door")
    parser.add_argument("--key", required=True, help=_KEY)
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="what it keeps")
    parser.add_argument("--token-file", default="", metavar="FILE", help="an auditor's key")


def _telling(run: Run) -> Run:
    """Tell in a line what was wrong with a file or a key."""

    async def told(arguments: argparse.Namespace) -> int:
        try:
            return await run(arguments)
        except own_ledger.UncheckedError as error:
            if arguments.json:
                print(json.dumps({"holds": None, "why": str(error)}))
            print(f"archive: cannot check: {error}", file=sys.stderr)
            return 2
        except (ValueError, OSError) as error:
            if arguments.json:
                print(json.dumps({"holds": False, "why": str(error)}))
            print(f"archive: {error}", file=sys.stderr)
            return 1

    return told


def verifier(text: str) -> Verifier:
    """The key that was given, or that stands in the file that was named. Raises UncheckedError."""
    try:
        if "+" not in text or Path(text).exists():
            text = Path(text).read_text("utf-8")
        return Verifier.parse(text)
    except (ValueError, OSError):
        raise own_ledger.UncheckedError(
            "the key that was named is neither a public key nor a file that holds one"
        ) from None


async def _print_key(arguments: argparse.Namespace) -> int:
    from app.vault import opened

    loaded = config.load(arguments.config, os.environ)
    async with opened(loaded, join=True, whole=False) as vault:
        key = str(vault.signer.verifier)
    print(json.dumps({"key": key}) if arguments.json else key)
    return 0


async def _export(arguments: argparse.Namespace) -> int:
    from app.vault import opened

    async with opened(config.load(arguments.config, os.environ), join=True) as vault:
        size = await own_ledger.write(vault, arguments.file)
        key = str(vault.signer.verifier)
    facts = {"entries": size, "key": key}
    print(json.dumps(facts) if arguments.json else f"{size} entries; key {key}")
    return 0


async def _open_words(arguments: argparse.Namespace) -> int:
    from app.remote import printable
    from app.vault import opened
    from storage import words
    from storage.four_eyes import RefusedError

    token = own_token(arguments.token_file)
    try:
        async with opened(config.load(arguments.config, os.environ), join=True) as vault:
            found = await words.read(vault, token, arguments.positions)
    except RefusedError as error:
        print(f"archive: {error}", file=sys.stderr)
        return 1
    for each in found:
        entry = each.entry
        facts = {"position": entry.position, "at": instant(entry.at), "actor": entry.actor}
        facts |= {"act": entry.act, "recording": str(entry.recording) if entry.recording else None}
        if arguments.json:
            ends_on = each.ends_on.isoformat() if each.ends_on else None
            print(json.dumps({**facts, "ends_on": ends_on, "words": each.said, "why": each.why}))
        else:
            shown = json.dumps(each.said, ensure_ascii=False) if each.said else each.why
            print(*(text for text in facts.values() if text is not None), printable(shown))
    return 0


async def _verify_ledger(arguments: argparse.Namespace) -> int:
    files = [await asyncio.to_thread(each.read_text, "utf-8") for each in arguments.checkpoint]
    kept = [Note.parse(text) for text in files]
    if arguments.witness:
        _demand_cosigned(kept, verifier(arguments.witness))
    async with own_ledger.at_hand(arguments) as (file, key):
        facts = verify_export(file, verifier(key), kept)
    if arguments.json:
        print(json.dumps(facts))
        return 0 if facts["holds"] else 1
    for fault in facts["faults"]:  # type: ignore[attr-defined]
        print(f"WRONG  {fault}")
    for each in facts["grants"]:  # type: ignore[attr-defined]
        print(f"EARLY  {each}")
    for each in facts["lately"]:  # type: ignore[attr-defined]
        print(f"LATE   {each}")
    for each in facts["losses"]:  # type: ignore[attr-defined]
        print(f"LOST   {each}")
    print(
        f"{'holds' if facts['holds'] else 'DOES NOT HOLD'}: {facts['entries']} entries, told until"
        f" {facts['told_until'] or 'never'},"
        f" {facts['stored']} recordings stored ({_ruled(facts['rules'])}),"
        f" {facts['erased']} erased,"
        f" {facts['early']} of them early, as two keys granted,"
        f" {facts['late']} over a day late,"
        f" {facts['lost']} lost, {facts['overdue']} due within the last day and not erased yet,"
        f" {facts['nights']} nights, {facts['days_closed']} days closed,"
        f" {len(kept)} checkpoints from elsewhere"
    )
    return 0 if facts["holds"] else 1


def _demand_cosigned(kept: list[Note], witness: Verifier) -> None:
    from app.witness import cosigned

    if not kept:
        raise NoteError("--witness is for the checkpoints that --checkpoint names: name one.")
    for each in kept:
        cosigned(each, witness)


def _ruled(rules: object) -> str:
    """By which rules recordings came in: a period that nobody agreed to is seen here alone."""
    assert isinstance(rules, dict)
    return ", ".join(f"{rule}: {count}" for rule, count in rules.items()) or "by no rule"


def verify_export(
    path: Path, key: Verifier, kept: list[Note], now: datetime | None = None
) -> dict[str, object]:
    """Check an export whole, by the reader's clock or as of `now`.

    Raises ValueError or OSError when it cannot be read at all.
    """
    from storage.signer import check

    older = [check(each, key) for each in kept]
    with path.open("rb") as file, hashing.hashing(file, [each.size for each in older]) as hashed:
        told = story.read(hashing.lines(file), now or datetime.now(UTC))
        checkpoint = check(Note.parse(file.read().decode()), key)
        *before, head = hashed()
    faults = list(told.faults)
    if head != (checkpoint.size, checkpoint.root) or told.entries != checkpoint.size:
        faults.insert(0, "the entries are not those of the signed checkpoint: it was changed")
    for each, found in zip(older, before, strict=True):
        if found != (each.size, each.root):
            faults.insert(0, f"it does not go on from the checkpoint of {each.size} entries")
    return {
        "holds": not faults,
        "faults": faults,
        "origin": checkpoint.origin,
        **{name: getattr(told, name) for name in _TOLD},
    }


async def _verify_certificate(arguments: argparse.Namespace) -> int:
    from storage.signer import check

    async with own_ledger.at_hand(arguments) as (file, text):
        key, found = verifier(text), Certificate.parse(file.read_bytes())
    if found.of_night:
        told = nights.accounts(found, lambda note: check(note, key))
        print(json.dumps(shown.night_facts(told)) if arguments.json else shown.night_words(told))
        return 0
    erasure = certificate.erasure(found, lambda note: check(note, key))
    print(json.dumps(shown.facts(erasure)) if arguments.json else shown.words(erasure))
    return 0


async def _witness(arguments: argparse.Namespace) -> int:
    from app.witness import Witness

    token = own_token(arguments.token_file)
    witness = Witness.open(arguments.state, verifier(arguments.key))
    seen = await witness.visit(arguments.url.rstrip("/"), token)
    facts = {"holds": True, "entries": seen.now.size, "before": seen.before}
    print(
        json.dumps(facts)
        if arguments.json
        else f"holds: {seen.now.size} entries, which go on from the {seen.before} seen before"
    )
    return 0
