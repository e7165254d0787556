#!/usr/bin/env python3
"""Verify a certificate of an erasure or of a night, with nothing but this file, the certificate and
the public key.

    python3 verify_certificate.py certificate.json 'call-archive/0a1b...+5d6e7f80+AbCd...'

It needs Python 3.11 and the package `cryptography`, and nothing of the archive's own code: it is
written a second time, so that it can be read whole. In place of the key its file can be named. Exit
status 0: it holds; 1: it does not; 2: it could not be checked. What it shows and what it does not
is in docs/proof.md.
"""

import base64
import calendar
import hashlib
import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def fail(why: str) -> NoReturn:
    sys.exit(f"DOES NOT HOLD: {why}")


def stop(why: str) -> NoReturn:
    """Nothing was shown, for or against: what was named is no certificate, or no key."""
    print(why, file=sys.stderr)
    sys.exit(2)


def named_key(key: str) -> str:
    """The public key, which was named itself or by its file."""
    parts = r"[^+\s]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}"
    try:
        text = key if re.fullmatch(parts, key.strip()) else Path(key).read_text("utf-8")
    except (OSError, ValueError):
        stop(f"cannot check: {key!r} is neither a public key nor a file that can be read")
    if not re.fullmatch(parts, text.strip()):
        stop(f"cannot check: what the file {key!r} holds is not a public key")
    return text.strip()


def read(path: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        stop(f"cannot check: {path!r} cannot be read as JSON: {error}")
    if not isinstance(found, dict) or "certificate" not in found:
        stop(f"cannot check: {path!r} is not a certificate")
    return found


def signed_root(note: str, verifier: str) -> tuple[int, bytes]:
    """The size and root in a signed note (C2SP signed-note, tlog-checkpoint)."""
    name, key_id, key = verifier.strip().split("+", 2)
    raw = base64.b64decode(key, validate=True)
    if hashlib.sha256(name.encode() + b"\n" + raw).digest()[:4].hex() != key_id or raw[0] != 1:
        fail("the public key is not one of Ed25519, or not the one of its id")
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    for line in signatures.splitlines():
        dash, who, value = line.split(" ")
        signature = base64.b64decode(value, validate=True)
        if (dash, who, signature[:4].hex()) == ("—", name, key_id):
            try:
                public = Ed25519PublicKey.from_public_bytes(raw[1:])
                public.verify(signature[4:], text.encode())
            except InvalidSignature:
                fail("the checkpoint's signature does not belong to it")
            origin, size, root = text.split("\n")[:3]
            if origin != name:
                fail("the checkpoint is of another ledger")
            return int(size), base64.b64decode(root, validate=True)
    fail("the checkpoint is not signed by this key")


def in_tree(entry: object, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    """Whether the entry is at `index` of the tree (RFC 9162, 2.1.3.2)."""
    text = json.dumps(entry, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    found = hashlib.sha256(b"\0" + text.encode()).digest()
    if type(index) is not int or not 0 <= index < size:
        return False
    fn, sn = index, size - 1
    for each in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            found = hashlib.sha256(b"\1" + each + found).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = hashlib.sha256(b"\1" + found + each).digest()
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and found == root


def of_night(entries: list[dict[str, Any]]) -> None:
    """What is in it of the erased can be made again from all entries; what failed cannot."""
    if len({one["position"] for one in entries}) != len(entries):
        fail("an account is in the certificate twice")
    told = []
    for entry in (one["entry"] for one in entries):
        facts = entry["facts"]
        due, erased, failed = facts["due"], facts["erased"], facts["failed"]
        if {type(each) for each in (due, erased, failed)} != {int}:
            fail("the counts of the night are no numbers")
        if min(erased, failed) < 0 or due != erased + failed:
            fail("the counts of the night do not add up")
        told.append(
            f"holds: the ledger says that by the night of {date.fromisoformat(facts['night'])}, at"
            f" {entry['at']}, {due} recordings were due since the account before: {erased} were"
            f" erased, and {failed} were not; what failed is the archive's word"
        )
    print("\n".join(told))


def last_due(at: str, rule: str) -> date:
    """The last day (UTC) on which what came in then can be due: after the period that its rule
    begins with, on the calendar. A zone, and a call that starts a moment later, are worth a day at
    each end.
    """
    period = rule.partition(" ")[0]
    match = re.fullmatch(r"P(?:(\d{1,2})Y)?(?:(\d{1,3})M)?(?:(\d{1,5})D)?", period)
    years, months, days = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    if not (years or months or days):
        fail(f"the rule {rule!r} cannot be read")
    begin = datetime.fromisoformat(at).astimezone(UTC).date() + timedelta(days=1)
    year, month = divmod(begin.year * 12 + begin.month - 1 + years * 12 + months, 12)
    day = min(begin.day, calendar.monthrange(year, month + 1)[1])
    return date(year, month + 1, day) + timedelta(days=days + 1)


def due_on_its_day(facts: dict[str, Any]) -> datetime:
    """When it was due. Its day, whose key ended with it, is the day of that in some zone."""
    due = datetime.fromisoformat(facts["due"])
    if abs((date.fromisoformat(facts["day"]) - due.astimezone(UTC).date()).days) > 1:
        fail("its day is another one than that of its due time")
    return due


def of_export(acts: dict[str, dict[str, Any]], places: dict[str, int], count: int) -> None:
    least, most = {"export.asked", "export.erased"}, {"export.asked", "export.erased", "day.closed"}
    if not least <= set(acts) <= most or len(acts) != count:
        fail("a certificate of an export has the entries export.asked, export.erased, day.closed")
    asked, erased, closed = acts["export.asked"], acts["export.erased"], acts.get("day.closed")
    if any(asked["facts"][name] != erased["facts"][name] for name in ("export", "day", "due")):
        fail("the export was asked for under another id, day or time")
    due_on_its_day(erased["facts"])
    if not places["export.asked"] < places["export.erased"]:
        fail("the export was erased before it was asked for")
    check_closed(places, closed, erased, "export.erased")
    print(
        f"holds: the ledger says that export {erased['facts']['export']}, a copy of"
        f" {int(asked['facts']['recordings'])} recordings, was to be over by"
        f" {datetime.fromisoformat(asked['facts']['due']).isoformat()} and was erased at"
        f" {erased['at']} ({erased['facts']['why']}); {key_of_day(closed)}"
    )


def of_recording(acts: dict[str, dict[str, Any]], places: dict[str, int], count: int) -> None:
    least, most = {"stored", "erased"}, {"stored", "erased", "day.closed", "erasure.granted"}
    if not least <= set(acts) <= most or len(acts) != count:
        fail(
            "a certificate has the entries stored, erased, day.closed, and erasure.granted if early"
        )
    stored, erased, closed = acts["stored"], acts["erased"], acts.get("day.closed")
    granted = acts.get("erasure.granted")
    same = all(stored["facts"][name] == erased["facts"][name] for name in ("day", "due", "rule"))
    if not same or stored["recording"] != erased["recording"]:
        fail("the recording was stored under another id, day, time or rule")
    due = due_on_its_day(erased["facts"])
    if due.astimezone(UTC).date() > last_due(stored["at"], stored["facts"]["rule"]):
        fail("the recording was to be kept for longer than its rule says")
    early = datetime.fromisoformat(erased["at"]) < due
    two = granted and granted["recording"] == erased["recording"]
    two = two and places["erasure.granted"] < places["erased"]
    keys = granted["facts"].get("keys") if granted else None
    two = two and isinstance(keys, list) and len({str(key) for key in keys}) == 2
    if early and not two:
        fail("the recording was erased before it was due")
    if not places["stored"] < places["erased"]:
        fail("the recording was erased before it was stored")
    check_closed(places, closed, erased, "erased")
    print(
        f"holds: the ledger says that recording {erased['recording']} was due at"
        f" {erased['facts']['due']} ({erased['facts']['rule']}) and was erased at {erased['at']}"
        f"{', early, as two keys granted;' if early else ';'}"
        f" {key_of_day(closed)}"
    )


def check_closed(places: dict[str, int], closed: Any, erased: dict[str, Any], act: str) -> None:
    if closed and closed["facts"]["day"] != erased["facts"]["day"]:
        fail("the day that was closed is another one")
    if closed and places["day.closed"] < places[act]:
        fail("the day was closed before this was erased")


def key_of_day(closed: Any) -> str:
    return (
        f"its day's key {'was destroyed by ' + closed['at'] if closed else 'is not destroyed yet'}"
    )


def main(path: str, verifier: str) -> None:
    verifier = named_key(verifier)
    certificate = read(path)
    if certificate["certificate"] != "call-archive certificate 1":
        fail("this is not a certificate that this verifier knows")
    size, root = signed_root(certificate["checkpoint"], verifier)
    acts: dict[str, dict[str, Any]] = {}
    places: dict[str, int] = {}
    for one in certificate["entries"]:
        proof = [base64.b64decode(each, validate=True) for each in one["proof"]]
        if not in_tree(one["entry"], one["position"], size, proof, root):
            fail(f"the entry {one['entry'].get('act')} is not in the signed tree")
        act = "stored" if one["entry"]["act"] == "rebuilt" else one["entry"]["act"]
        acts[act], places[act] = one["entry"], one["position"]
    if set(acts) == {"night.done"}:
        of_night(certificate["entries"])
        return
    if "export.asked" in acts:
        of_export(acts, places, len(certificate["entries"]))
        return
    of_recording(acts, places, len(certificate["entries"]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        stop(__doc__ or "")
    try:
        main(sys.argv[1], sys.argv[2])
    except (
        *(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError),
        ArithmeticError,
    ) as error:
        fail(f"it cannot be read: {error!r}")
