"""The restore drill: an archive loses its database, has an old one put back, and is made whole.

    .venv/bin/python tools/restore_drill.py

It starts the embedded default in a temporary folder of its own, takes calls in, backs the database
up as docs/operations.md says, takes more in, lets one call's year end, revokes a key, puts the
backup back and follows the same page. Each line is a promise that was tried; the exit status is 0
when all of them held. It touches nothing else and takes about a minute.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen
from zoneinfo import ZoneInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests import years  # noqa: E402

SAMPLE = ROOT / "samples" / "fault.wav"
HELSINKI = ZoneInfo("Europe/Helsinki")
LEFT = timedelta(seconds=25)
"""What the call which is to be erased has left when it comes in."""


class DrillError(Exception):
    """A promise did not hold."""


@dataclass
class Archive:
    """The archive that is drilled: its folder, its doors, its keys and its process."""

    folder: Path
    doors: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[str] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        """What names it."""
        kept = {name: value for name, value in os.environ.items() if name[:8] != "ARCHIVE_"}
        doors = {f"ARCHIVE_DOORS_{d}": "127.0.0.1:0" for d in ("INGEST", "RETRIEVAL", "OPERATIONS")}
        return {**kept, **doors, "ARCHIVE_SERVER_DATA_DIR": str(self.folder / "var")}

    def command(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the archive's to its end."""
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", "app", *words],
            cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    def key(self, level: str, name: str) -> None:
        """Make a key."""
        made = self.command("key", "add", "--json", "--level", level, "--name", name)
        self.keys[name] = json.loads(made.stdout)["token"]

    def start(self) -> None:
        """Serve, and wait until it is ready."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        out = self.process.stdout
        for line in iter(out.readline if out else str, ""):
            if line.strip() == "ready":
                return
            name, _, address = line.partition(" ")
            self.doors[name] = address.strip()
        raise DrillError("the service did not start")

    def stop(self) -> None:
        """End it as a system does."""
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def ask(self, door: str, path: str, key: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request: its status and its body."""
        request = Request(self.doors[door] + path, body, method="PUT" if body else "GET")  # noqa: S310
        request.add_header("Authorization", f"Bearer {self.keys[key]}")
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()

    def upload(self, call_id: str, started: datetime) -> str:
        """Take a call in; returns its id once it is acknowledged."""
        query = urlencode({"call_type": "other", "started_at": started.isoformat()})
        status, body = self.ask(
            "ingest", f"/v1/recordings/{call_id}?{query}", "pbx", SAMPLE.read_bytes()
        )
        expect(status == 201, f"call {call_id} is acknowledged", f"{status} {body!r}")
        return str(json.loads(body)["id"])


def expect(held: bool, promise: str, seen: object = "") -> None:
    """Tell of a promise that was tried."""
    print(f"{'ok   ' if held else 'WRONG'}  {promise}", flush=True)
    if not held:
        raise DrillError(f"{promise}: {seen}")


def until_gone(archive: Archive, identifier: str) -> None:
    """Wait for the certificate of an erasure."""
    deadline = time.monotonic() + 60 + LEFT.total_seconds()
    path = f"/v1/certificates/{identifier}"
    while archive.ask("retrieval", path, "anna")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.5)
    expect(archive.ask("retrieval", path, "anna")[0] == 200, "a call is erased when its year ends")


def possible() -> None:
    """A year has to end in this very minute."""
    if wait := years.until_years_end(datetime.now(UTC), 2 * LEFT):
        raise DrillError(f"no call's year ends now (29 February, clocks changed): try in {wait}")


def lose(archive: Archive) -> dict[str, Any]:
    """Live a day, with a backup in its middle; then put the backup back."""
    for level, name in (("uploader", "pbx"), ("supervisor", "anna"), ("supervisor", "bo"),
                        ("auditor", "audit")):  # fmt: skip
        archive.key(level, name)
    archive.start()
    ids = {"before": archive.upload("before", datetime.now(HELSINKI))}
    ids["ending"] = archive.upload("ending", years.starting(datetime.now(UTC) + LEFT))
    archive.stop()
    shutil.copytree(archive.folder / "var" / "postgres", archive.folder / "backup", symlinks=True)
    archive.start()
    ids["after"] = archive.upload("after", datetime.now(HELSINKI))
    until_gone(archive, ids["ending"])
    archive.command("key", "revoke", "bo")
    status, note = archive.ask("operations", "/v1/ledger/checkpoint", "audit")
    expect(status == 200, "the ledger is signed, and a copy of the checkpoint kept elsewhere")
    (archive.folder / "checkpoint").write_bytes(note)
    archive.stop()
    shutil.rmtree(archive.folder / "var" / "postgres")
    shutil.move(archive.folder / "backup", archive.folder / "var" / "postgres")
    return ids


def refuses(archive: Archive) -> None:
    """Before it is made whole it does nothing."""
    export = str(archive.folder / "old.txt")
    refused = (("serve",), ("expire",), ("reconcile", "--repair"), ("ledger", "export", export))
    for words in refused:
        done = archive.command(*words)
        said = done.returncode == 1 and "archive rebuild" in done.stderr
        expect(said, f"`archive {' '.join(words[:2])}` refuses the old database", done.stderr)


def make_whole(archive: Archive, ids: dict[str, Any]) -> None:
    """Rebuild, look at what came of it, and let it go on."""
    done = archive.command("rebuild", "--json")
    expect(done.returncode == 0, "`archive rebuild` makes it whole", done.stderr)
    facts = json.loads(done.stdout)
    seen = (facts["ledger_erased"], facts["ledger_revoked"], facts["rebuilt"], facts["strange"])
    expect(seen == (1, 1, 1, 0), "one erased again, one key revoked again, one rebuilt", facts)
    archive.start()
    for name in ("before", "after"):
        status, body = archive.ask("retrieval", f"/v1/recordings/{ids[name]}/audio", "anna")
        same = status == 200 and body == SAMPLE.read_bytes()
        expect(same, f"the call from {name} the backup plays, byte for byte", status)
    path = f"/v1/recordings/{ids['ending']}"
    expect(archive.ask("retrieval", path, "anna")[0] == 410, "what was erased stays erased")
    gone = archive.ask("retrieval", f"/v1/certificates/{ids['ending']}", "anna")[0]
    expect(gone == 200, "and its certificate is there")
    expect(archive.ask("retrieval", path, "bo")[0] == 401, "the revoked key stays revoked")
    told = archive.command("reconcile", "--json")
    expect(told.returncode == 0, "rows and objects agree", told.stdout + told.stderr)
    held = archive.command("expire")
    waits = held.returncode == 1 and "nobody has looked" in held.stderr
    expect(waits, "erasing waits until a person has looked", held.stderr)
    today = datetime.now(HELSINKI).date().isoformat()
    let_go = archive.command("expire", "--release", today)
    expect(let_go.returncode == 0, "and goes on when it is released", let_go.stderr)
    expect(archive.command("expire").returncode == 0, "for good")
    verify(archive)


def verify(archive: Archive) -> None:
    """The ledger goes on from what was seen before the loss."""
    (archive.folder / "key").write_text(archive.command("ledger", "key").stdout)
    export = str(archive.folder / "ledger.txt")
    archive.command("ledger", "export", export)
    kept = ("--checkpoint", str(archive.folder / "checkpoint"))
    held = archive.command("ledger", "verify", export, "--key", str(archive.folder / "key"), *kept)
    expect(held.returncode == 0, "the ledger goes on from before the loss", held.stdout)


def main() -> int:
    """The whole drill."""
    with tempfile.TemporaryDirectory(prefix="restore-drill-") as folder:
        archive = Archive(Path(folder))
        try:
            possible()
            ids = lose(archive)
            refuses(archive)
            make_whole(archive, ids)
        except DrillError as error:
            print(f"the drill failed: {error}", file=sys.stderr)
            return 1
        finally:
            archive.stop()
    print("the restore drill passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
