"""The `archive` command as an operator meets it: processes, a data_dir, and nothing else.

One service runs for most of the tests. They come in an order: what needs it first, then what stops
it.
"""

import argparse
import asyncio
import base64
import hashlib
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

import asyncpg
import psutil
import pytest
from minio import Minio

from app import cli, embedded_rclone, serve
from app.embedded import Embedded
from archive.access import Level
from archive.recording import CallType
from archive.residency import Copy, Seen
from storage.objects import ObjectStore
from tests.jobs.test_expiry import a_year_ago
from tests.postgres import Postgres
from tests.services import clock_at
from tests.sounds import tone
from tests.stores.answering import answering
from tests.stores.servers import Server

pytestmark = pytest.mark.xdist_group("commands")

SAMPLES = json.loads((cli.SAMPLES / "samples.json").read_text())


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended."""

    status: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        return json.loads(self.out)


@dataclass(slots=True)
class Archive:
    """A data_dir of a test, the environment that names it, and the service that runs on it."""

    data_dir: Path
    environment: dict[str, str]
    process: "subprocess.Popen[str] | None" = None
    doors: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def command(self, *words: str, **more: str) -> Ended:
        """Run a command as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "app", *words],
            env={**self.environment, **more},
            cwd=self.data_dir.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def serve(self, *words: str) -> None:
        """Start the service; it has printed its addresses and `ready` afterwards."""
        log = self.data_dir.with_name("log")
        with log.open("a") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", *words],
                env=self.environment,
                cwd=self.data_dir.parent,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.said = []
        while (line := self._line()) != "ready":
            name, address = line.split()
            self.doors[name] = address

    def read_samples(self) -> None:
        """Read what `--samples` prints, after `ready`."""
        while len(self.tokens) < len(Level):
            word, *rest = self._line().split()
            if rest and rest[0].startswith("cra_"):
                self.tokens[word] = rest[0]

    def _line(self) -> str:
        assert self.process and self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.data_dir.with_name("log").read_text())
        self.said.append(line.rstrip())
        return line.rstrip()

    def stop(self) -> int:
        """End it as a system does; returns its status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        assert process.stdout
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(40)
        finally:
            process.kill()
            process.stdout.close()

    def ask(
        self,
        door: str,
        path: str,
        level: str,
        method: str = "GET",
        body: bytes | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: its status, headers and body."""
        connection = HTTPConnection(urlsplit(self.doors[door]).netloc, timeout=30)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent["Authorization"] = f"Bearer {self.tokens[level]}"
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def put(self, call_id: str, audio: bytes, **fields: str) -> dict[str, Any]:
        path = f"/v1/recordings/{call_id}?{urlencode(fields)}"
        status, _, body = self.ask("ingest", path, "uploader", "PUT", audio)
        assert status == 201, body
        receipt: dict[str, Any] = json.loads(body)
        return receipt

    def files(self, recording: str) -> list[Path]:
        """What lies on the store's disk with this recording in its name."""
        return [path for path in (self.data_dir / "objects").rglob("*") if recording in str(path)]


def new_archive(folder: Path) -> Archive:
    folder.mkdir(exist_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ARCHIVE_")}
    doors = {
        f"ARCHIVE_DOORS_{door}": "127.0.0.1:0" for door in ("INGEST", "RETRIEVAL", "OPERATIONS")
    }
    data_dir = folder / "data"
    return Archive(data_dir, {**clean, **doors, "ARCHIVE_SERVER_DATA_DIR": str(data_dir)})


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """A service with the sample calls, for the tests that leave it as it is."""
    archive = new_archive(tmp_path_factory.mktemp("trial"))
    archive.serve("--samples")
    archive.read_samples()
    yield archive
    archive.stop()


@pytest.fixture
def here(
    trial: Archive, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Run a command in this process, which is quicker, beside the service; as `Archive.command`."""

    def run(*words: str, **more: str) -> Ended:
        with monkeypatch.context() as patch:
            for name, value in {**trial.environment, **more}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["archive", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


def test_serve_tells_the_addresses_then_that_it_is_ready_then_what_it_has_for_a_trial(
    trial: Archive,
) -> None:
    assert [line.split()[0] for line in trial.said[:3]] == ["ingest", "retrieval", "operations"]
    assert all(line.split()[1].startswith("http://127.0.0.1:") for line in trial.said[:3])
    assert trial.said[3] == "ready"
    assert trial.said[4] == f"took in {len(SAMPLES)} sample calls"
    assert trial.tokens.keys() == set(Level)
    status, _, body = trial.ask("retrieval", "/v1/recordings?limit=50", "supervisor")
    items = json.loads(body)["items"]
    assert status == 200
    assert {item["call_type"] for item in items if item["source"] == "sample-pbx"} == set(CallType)
    assert json.loads(trial.ask("operations", "/readyz", "auditor")[2])["ready"]
    assert "trial and small sites" in trial.data_dir.with_name("log").read_text()
    assert (trial.data_dir / "sample-keys.json").stat().st_mode & 0o777 == 0o600


def test_an_auditor_needs_the_files_and_the_key_alone(
    trial: Archive, here: Any, tmp_path: Path
) -> None:
    ledger, key, state = tmp_path / "ledger.txt", tmp_path / "key", tmp_path / "witness"
    key.write_text(here("ledger", "key").out)
    seen = here(
        "witness", trial.doors["operations"], "--key", str(key), "--state", str(state),
        ARCHIVE_TOKEN=trial.tokens["auditor"],
    )  # fmt: skip
    assert seen.status == 0, seen.err
    assert here("ledger", "export", str(ledger)).status == 0
    for nowhere in (tmp_path, tmp_path / "none" / "ledger.txt"):
        refused = here("ledger", "export", str(nowhere))
        assert refused.status == 2
        assert "name a file, in a folder that is there" in refused.err
    assert not [*tmp_path.parent.glob("*.new"), *tmp_path.glob("*.new")]
    kept = str(state / "checkpoint")
    words = ("ledger", "verify", str(ledger), "--key", str(key), "--checkpoint", kept)
    held = here(*words, "--json")
    assert (held.status, held.facts["faults"]) == (0, [])
    assert held.facts["stored"] >= len(SAMPLES)
    assert here(*words).out.startswith("holds: ")
    content = ledger.read_bytes()
    ledger.write_bytes(content.replace(b'"act":"stored"', b'"act":"sto"', 1))
    broken = here(*words)
    assert broken.status == 1
    assert "WRONG" in broken.out
    ledger.write_bytes(content[:100])
    cut = here(*words, "--json")
    assert (cut.status, cut.facts["holds"]) == (1, False)
    assert "it was cut" in cut.err
    assert here("ledger", "verify", str(tmp_path / "none"), "--key", str(key)).status == 2
    assert here("ledger", "verify", str(ledger), "--key", "no key").status == 2
    refused = here("witness", trial.doors["operations"], "--key", str(key), "--state", str(state))
    assert refused.status == 1
    assert "401" in refused.err


def test_the_archive_itself_verifies_its_ledger_as_it_is_now(trial: Archive, here: Any) -> None:
    held = here("ledger", "verify", "--json")
    assert (held.status, held.facts["faults"]) == (0, []), held.err
    assert held.facts["stored"] >= len(SAMPLES)
    key = here("ledger", "key").out.strip()
    assert f"checked by this archive's own key, {key}." in held.err
    held = here("ledger", "verify", "--key", key)
    assert held.status == 0
    assert "own key" not in held.err
    other = "call-archive/x+5d6e7f80+" + key.rpartition("+")[2]
    assert here("ledger", "verify", "--key", other).status == 2


def test_what_is_verified_is_laid_where_the_archive_keeps_its_own_and_goes(
    trial: Archive, here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger is larger than the memory that `/tmp` is in a container."""
    lying = {*trial.data_dir.iterdir()}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    held = here("ledger", "verify")
    assert held.status == 0, held.err
    assert {*trial.data_dir.iterdir()} == lying


def test_a_second_service_on_the_same_folder_is_refused(trial: Archive) -> None:
    refused = trial.command("serve")
    assert refused.status == 1
    assert refused.out == ""
    assert refused.err.count("\n") == 1
    assert "is in use by process" in refused.err
    assert "data_dir" in refused.err
    assert json.loads(trial.ask("operations", "/readyz", "auditor")[2])["ready"]


def test_keys_are_made_listed_and_revoked_while_the_service_runs(trial: Archive, here: Any) -> None:
    made = trial.command("key", "add", "--level", "uploader", "--name", "pbx2", "--json")
    assert (made.status, made.facts.keys()) == (0, {"name", "level", "token"})
    assert (made.facts["name"], made.facts["level"]) == ("pbx2", "uploader")
    trial.tokens["pbx2"] = made.facts["token"]
    path = (
        f"/v1/recordings/k1?{urlencode({'call_type': 'other', 'started_at': a_year_ago(days=9)})}"
    )
    status, _, receipt = trial.ask("ingest", path, "pbx2", "PUT", tone())
    assert (status, json.loads(receipt)["source"]) == (201, "pbx2")
    limited = here("key", "add", "--level=supervisor", "--name=anna", "--call-types=other,contract")
    assert (limited.status, limited.out.count("\n")) == (0, 1)
    trial.tokens["anna"] = limited.out.strip()
    seen = json.loads(trial.ask("retrieval", "/v1/recordings", "anna")[2])["items"]
    assert {item["call_type"] for item in seen} == {"other", "contract"}
    rows = {row["name"]: row for row in here("key", "list", "--json").facts}
    assert all(re.fullmatch(r"\S+T\S+[+]00:00", row["created_at"]) for row in rows.values())
    assert rows["pbx2"]["source"] == "pbx2"
    assert rows["anna"]["call_types"] == ["other", "contract"]
    assert rows["anna"]["revoked_at"] is None
    assert not any("cra_" in str(row) or "secret" in str(row) for row in rows.values())
    assert here("key", "revoke", "anna", "--json").facts == {"name": "anna", "revoked": True}
    assert trial.ask("retrieval", "/v1/recordings", "anna")[0] == 401
    listed = here("key", "list").out
    assert f"revoked {datetime.now(UTC):%Y}" in next(x for x in listed.splitlines() if "anna" in x)


def test_a_key_is_bound_rotated_and_seen_in_use(trial: Archive, here: Any) -> None:
    bound = ("--networks=127.0.0.0/8,::1/128", "--rate=100/s", "--quota=50GB")
    made = here("key", "add", "--level=uploader", "--name=pbx7", *bound)
    trial.tokens["old"] = made.out.strip()
    rotated = here("key", "rotate", "pbx7", "--overlap", "PT1H", "--json")
    assert rotated.facts.keys() == {"name", "level", "token", "former_until"}
    trial.tokens["new"] = rotated.facts["token"]
    for token, call in (("old", "r1"), ("new", "r2")):
        asked = {"call_type": "other", "started_at": a_year_ago(days=9)}
        path = f"/v1/recordings/{call}?{urlencode(asked)}"
        assert trial.ask("ingest", path, token, "PUT", tone())[0] == 201
    row = next(row for row in here("key", "list", "--json").facts if row["name"] == "pbx7")
    assert (row["networks"], row["rate"]) == (["127.0.0.0/8", "::1/128"], "100/s")
    assert (row["quota"], row["former_until"]) == (50 * 10**9, rotated.facts["former_until"])
    while "never used" in (line := _listed(here, "pbx7")):
        pass  # it is written beside the request
    assert "100/s  50 GB a day  former token until" in line
    again = here("key", "rotate", "pbx7", "--overlap=PT0S")
    trial.tokens["newest"] = again.out.strip()
    for token, status in (("old", 401), ("new", 401), ("newest", 422)):
        assert trial.ask("ingest", "/v1/recordings/r3", token, "PUT", b"")[0] == status


def test_a_team_is_kept_and_readers_are_limited_to_it(
    trial: Archive, here: Any, tmp_path: Path
) -> None:
    file = tmp_path / "north"
    file.write_text("agent  Anna Virtanen\n\nqueue north\nqueue other one \n", "utf-8")
    assert here("team", "set", "north", str(file)).out == "kept\n"
    assert here("team", "show", "north").out == (
        "agent Anna Virtanen\nqueue north\nqueue other one\n"
    )
    facts = {"team": "north", "agents": ["Anna Virtanen"], "queues": ["north", "other one"]}
    assert here("team", "show", "north", "--json").facts == facts
    assert here("team", "list", "--json").facts == [{"team": "north", "agents": 1, "queues": 2}]
    assert here("team", "list").out.split() == ["north", "1", "agents,", "2", "queues"]
    limits = ("--queues=billing,sales", "--teams=north", "--call-types=other")
    made = here("key", "add", "--level=supervisor", "--name=scoped", *limits)
    trial.tokens["scoped"] = made.out.strip()
    assert json.loads(trial.ask("retrieval", "/v1/recordings", "scoped")[2])["items"] == []
    row = next(row for row in here("key", "list", "--json").facts if row["name"] == "scoped")
    assert (row["queues"], row["teams"]) == (["billing", "sales"], ["north"])
    assert "of billing, sales, team north" in _listed(here, "scoped")
    file.write_text("agent Anna\nsomebody Bo Secret\n")
    refused = here("team", "set", "north", str(file))
    assert (refused.status, refused.out) == (2, "")
    assert "line 2" in refused.err
    assert "Secret" not in refused.err
    assert here("team", "remove", "north", "--json").facts == {"team": "north", "removed": True}
    for words in (("remove", "north"), ("show", "north")):
        again = here("team", *words)
        assert (again.status, again.out) == (2, "")
        assert "no team of this name" in again.err


def _listed(here: Any, name: str) -> str:
    return next(line for line in here("key", "list").out.splitlines() if name in line.split())


def test_a_name_is_given_once(here: Any) -> None:
    words = ("key", "add", "--level=auditor", "--name=twice")
    assert here(*words).status == 0
    again = here(*words)
    assert (again.status, again.out) == (2, "")
    assert "of this name" in again.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("revoke", "nobody"), "no living key"),
        (("rotate", "nobody"), "no living key"),
        (("rotate", "nobody", "--overlap=1d"), "PT744H at the most; PT0S"),
        (("rotate", "nobody", "--overlap=PT999H"), "at the most 31 days"),
        (("add", "--level=admin", "--name=x", "--networks=10.0.0.1/8"), "written like"),
        (("add", "--level=admin", "--name=x", "--rate=20"), "written like"),
        (("add", "--level=uploader", "--name=x", "--quota=50"), "written like"),
        (("add", "--level=admin", "--name=x", "--quota=50GB"), "only an uploader"),
        (("add", "--level=admin", "--name=a b"), "a name has"),
        (("add", "--level=admin", "--name=x", "--source=pbx"), "only an uploader's"),
        (("add", "--level=auditor", "--name=x", "--call-types=other"), "limited to call types"),
        (("add", "--level=privacy", "--name=x", "--call-types=others"), "one or more of"),
        (("add", "--level=owner", "--name=x"), "invalid choice"),
        (("add", "--level=admin"), "--name"),
    ],
)
def test_a_key_that_cannot_be_is_refused_as_wrong_usage(
    here: Any, words: tuple[str, ...], reason: str
) -> None:
    refused = here("key", *words)
    assert (refused.status, refused.out) == (2, "")
    assert reason in refused.err
    assert "Traceback" not in refused.err


def test_the_client_commands_hand_over_find_and_fetch(
    trial: Archive, here: Any, tmp_path: Path
) -> None:
    call = tmp_path / "client-1.wav"
    call.write_bytes(tone(3, channels=2))
    who = {"ARCHIVE_TOKEN": trial.tokens["uploader"], "XDG_STATE_HOME": str(tmp_path)}
    what = ("--call-type", "contract", "--started-at", a_year_ago(days=5), "--queue", "sales")
    words = ("upload", str(call), *what, "--caller", "040 555 1234", "--json")
    sent = trial.command(*words, ARCHIVE_URL=trial.doors["ingest"], **who)
    assert sent.status == 0, sent.err
    assert sent.facts["files"][0]["status"] == "stored"
    receipt = sent.facts["files"][0]["receipt"]
    reader = {"ARCHIVE_URL": trial.doors["retrieval"], "ARCHIVE_TOKEN": trial.tokens["privacy"]}
    found = here("search", "--number", "+358 40 5551234", "--json", **reader)
    assert [item["id"] for item in found.facts["items"]] == [receipt["id"]]
    copy = tmp_path / "copy.wav"
    fetched = here("fetch", receipt["id"], "-o", str(copy), "--json", **reader)
    assert fetched.status == 0, fetched.err
    assert copy.read_bytes() == call.read_bytes()
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == receipt["sha256"]
    uploader = {**reader, "ARCHIVE_TOKEN": trial.tokens["uploader"]}
    refused = here("fetch", receipt["id"], "-o", str(copy), **uploader)
    assert (refused.status, "403" in refused.err) == (1, True)


def test_expire_says_what_is_due_and_why(trial: Archive, here: Any) -> None:
    nothing = here("expire", "--dry-run", "--json")
    assert (nothing.status, nothing.facts["due"]) == (0, [])
    started = a_year_ago(days=40)
    receipt = trial.put("due", tone(pitch=300), call_type="fault_report", started_at=started)
    expires = datetime.fromisoformat(receipt["expires_at"])
    before = here("expire", "--dry-run", "--json", f"--on={expires.date() - timedelta(days=1)}")
    assert receipt["id"] not in {one["id"] for one in before.facts["due"]}
    then = here("expire", "--dry-run", "--json", f"--on={expires.date()}")
    due = {one["id"]: one for one in then.facts["due"]}[receipt["id"]]
    assert due.keys() == {"id", "call_type", "expires_at", "why"}
    assert datetime.fromisoformat(due["expires_at"]) == expires
    assert "P1Y Europe/Helsinki v1" in due["why"]
    end = datetime.fromisoformat(then.facts["at"]).astimezone(ZoneInfo("Europe/Helsinki"))
    assert (end.date(), end.hour, end.minute) == (expires.date(), 23, 59)
    # Told on the archive's own clock.
    for told in (then.facts["at"], due["expires_at"]):
        local = datetime.fromisoformat(told).astimezone(ZoneInfo("Europe/Helsinki"))
        assert told == local.isoformat()
    assert due["expires_at"] in due["why"]
    text = here("expire", "--dry-run", f"--on={expires.date()}").out
    assert f"{receipt['id']}  fault_report" in text
    assert f"{len(then.facts['due'])} recordings are due at" in text
    assert trial.ask("retrieval", f"/v1/recordings/{receipt['id']}", "supervisor")[0] == 200


def test_expire_and_a_release(here: Any) -> None:
    today = datetime.now(ZoneInfo("Europe/Helsinki")).date()
    done = here("expire", "--json")
    assert (done.status, done.facts["stopped"], done.facts["still_there"]) == (0, None, 0)
    refused = here("expire", f"--release={today + timedelta(days=1)}")
    assert (refused.status, refused.out) == (1, "")
    assert f"today is {today.isoformat()}" in refused.err
    released = here("expire", f"--release={today}")
    assert (released.status, released.out) == (0, "erased 0, still there 0, could not ask 0\n")


def test_reconcile_finds_rows_and_objects_agreeing(trial: Archive, here: Any) -> None:
    told = here("reconcile", "--json")
    assert told.status == 0, told.out
    facts = told.facts
    assert (facts["lost"], facts["unknown"], facts["removed"], facts["stopped"]) == (0, 0, 0, None)
    assert facts["objects"] >= facts["recordings"] >= len(SAMPLES)
    access = embedded_rclone.read_access(trial.data_dir / "store.json")
    assert access
    client = Minio(f"127.0.0.1:{access.port}", access.access_key, access.secret_key, secure=False)
    name = "2000-01-01/nobody-knows-me"
    client.put_object("calls", name, io.BytesIO(b"x"), 1)
    try:
        wrong = here("reconcile", "--repair")
        assert wrong.status == 1
        assert f"unknown  {name}" in wrong.out
        assert "removed 0\n" in wrong.out
    finally:
        client.remove_object("calls", name)
    assert here("reconcile").status == 0
    for wrong in (("--most=5",), ("--repair", "--most=0"), ("--repair", "--most=-1")):
        refused = here("reconcile", *wrong)
        assert (refused.status, refused.out) == (2, "")
        assert "--most" in refused.err


def test_check_finds_everything_in_order(here: Any) -> None:
    told = here("check")
    assert told.status == 0, told.out
    parts = ["configuration", "audio", "tls", "servers", "database", "object store", "residency"]
    parts += ["keys", "ledger", "clocks", "roles", "fuse"]
    assert [line[:14].strip() for line in told.out.splitlines()] == parts
    assert all(line[15:21].strip() == "ok" for line in told.out.splitlines())
    assert "only holder" in told.out
    assert "decoded in" in told.out
    assert "declared FI; the store names no region; replication could not be asked" in told.out
    facts = here("check", "--json").facts
    assert [row["part"] for row in facts] == parts
    assert all(row["ok"] is True and row["detail"] for row in facts)


NOWHERE = "127.0.0.1:1"
WRONG = [
    ({"DATABASE_URL": f"postgresql://u@{NOWHERE}/x"}, "database", "Look at [database] url"),
    (
        {
            "OBJECTS_ENDPOINT": f"http://{NOWHERE}",
            "OBJECTS_ACCESS_KEY": "a" * 20,
            "OBJECTS_SECRET_KEY": "b" * 40,
        },
        "object store",
        "Look at [objects] endpoint",
    ),
    ({"KEYS_STORE": "file:elsewhere"}, "keys", "restore it with its root"),
    ({"KEYS_ROOT_FILE": "elsewhere.key"}, "keys", "elsewhere.key"),
]


@pytest.mark.parametrize(("settings", "part", "advice"), WRONG)
def test_check_tells_what_is_wrong_and_what_to_do(
    here: Any, settings: dict[str, str], part: str, advice: str
) -> None:
    more = {f"ARCHIVE_{name}": value for name, value in settings.items()}
    found = here("check", "--json", **more)
    assert found.status == 1
    rows = {row["part"]: row for row in found.facts}
    assert rows[part]["ok"] is False
    assert advice in rows[part]["detail"]
    # What does not stand on it was looked at all the same.
    assert [name for name, row in rows.items() if not row["ok"]] == [part]
    assert {"configuration", "servers", "database", "object store"} <= rows.keys()
    assert f"{part:<14} WRONG" in here("check", **more).out


ELSEWHERE = [
    ("region", "", "its region is us-west-2, in a country outside"),
    ("replication", "", "copies to the bucket far-away, and no replica is declared"),
    ("replication", "SE", "copies to the bucket far-away, which is in a country outside"),
]
RULES = (
    "<ReplicationConfiguration><Rule><Destination><Bucket>arn:x:y:us-west-2:1:far-away</Bucket>"
    "</Destination></Rule></ReplicationConfiguration>"
)


@pytest.mark.parametrize(("what", "replicas", "word"), ELSEWHERE)
def test_nothing_starts_on_a_store_that_says_it_is_elsewhere(
    here: Any, what: str, replicas: str, word: str
) -> None:
    with answering() as bucket:
        if what == "region":
            bucket.region = "us-west-2"
        else:
            bucket.answers["replication"] = (200, RULES)
        there = {
            "ARCHIVE_OBJECTS_ENDPOINT": bucket.endpoint,
            "ARCHIVE_OBJECTS_ACCESS_KEY": "a" * 20,
            "ARCHIVE_OBJECTS_SECRET_KEY": "b" * 40,
            "ARCHIVE_OBJECTS_REPLICAS": replicas,
        }
        for words in (("reconcile",), ("expire",)):
            refused = here(*words, **there)
            assert (refused.status, refused.out) == (2, "")
            assert word in refused.err
            assert "[objects] country and replicas" in refused.err


async def test_the_service_does_not_start_there_either(database_url: str, tmp_path: Path) -> None:
    with answering() as bucket:
        bucket.region = "us-west-2"
        refused = new_archive(tmp_path).command(
            "serve",
            ARCHIVE_DATABASE_URL=database_url,
            ARCHIVE_OBJECTS_ENDPOINT=bucket.endpoint,
            ARCHIVE_OBJECTS_ACCESS_KEY="a" * 20,
            ARCHIVE_OBJECTS_SECRET_KEY="b" * 40,
        )
    assert (refused.status, refused.out) == (2, "")
    assert "[objects] country and replicas: the store says" in refused.err


def test_check_tells_of_a_store_that_says_it_is_elsewhere(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def elsewhere(_: ObjectStore) -> Seen:
        return Seen("s3.example.com", frozenset({"us-west-2"}), (Copy("far-away"),))

    monkeypatch.setattr(ObjectStore, "seen", elsewhere)
    found = here("check", "--json")
    assert found.status == 1
    rows = {row["part"]: row for row in found.facts}
    assert [name for name, row in rows.items() if not row["ok"]] == ["residency"]
    detail = rows["residency"]["detail"]
    assert "us-west-2" in detail
    assert "far-away" in detail
    assert "Look at [objects] country and replicas" in detail


def test_check_knows_another_archives_ring(trial: Archive, here: Any, tmp_path: Path) -> None:
    from storage.keyring import Ring

    Ring.open(tmp_path / "keys", tmp_path / "root", create=True, today=date.today)
    other = {"ARCHIVE_KEYS_STORE": f"file:{tmp_path / 'keys'}"}
    torn = here("check", **other)
    assert (torn.status, "belong together" in torn.out) == (1, True)
    both = here("check", **other, ARCHIVE_KEYS_ROOT_FILE=str(tmp_path / "root"))
    assert (both.status, "not the one of this database" in both.out) == (1, True)
    # Nothing of the other's was changed, and this one's is as it was.
    assert here("check").status == 0


def test_check_knows_a_database_that_is_not_there_and_a_store_that_refuses(
    here: Any, postgres: Postgres, rclone_server: Server
) -> None:
    missing = here("check", ARCHIVE_DATABASE_URL=postgres.url("no_such_database"))
    assert (missing.status, "refuses this user, password or name" in missing.out) == (1, True)
    wrong = {
        "ARCHIVE_OBJECTS_ENDPOINT": rclone_server.endpoint,
        "ARCHIVE_OBJECTS_ACCESS_KEY": rclone_server.access_key,
        "ARCHIVE_OBJECTS_SECRET_KEY": "not-the-secret",
    }
    refused = here("check", **wrong)
    assert (refused.status, "403" in refused.out) == (1, True)
    assert "not-the-secret" not in refused.out


def test_a_wrong_configuration_ends_every_command_with_2(here: Any, tmp_path: Path) -> None:
    for words in (("check",), ("serve",), ("key", "list"), ("expire",)):
        wrong = here(*words, ARCHIVE_JOBS_NIGHTLY="30 3 * * *")
        assert (wrong.status, wrong.out) == (2, "")
        assert "[jobs] nightly" in wrong.err
    assert here("check", ARCHIVE_SERVER_DATA="x").status == 2
    missing = here("--config", str(tmp_path / "none.toml"), "check")
    assert (missing.status, "none.toml: cannot be read" in missing.err) == (2, True)


@pytest.mark.parametrize("end", ["?sslmode=bogus", "?sslrootcert=/nope", "?secret"])
def test_a_url_that_the_driver_cannot_use_ends_with_2_and_is_not_repeated(
    here: Any, tmp_path: Path, end: str
) -> None:
    url = f"postgresql://u:secret@{NOWHERE}/x{end}"
    for words in (("migrate",), ("key", "list"), ("check",), ("reconcile",)):
        wrong = here(*words, ARCHIVE_DATABASE_URL=url)
        assert (wrong.status, wrong.out) == (2, "")
        assert "config.toml: [database] url: " in wrong.err
        assert "secret" not in wrong.err
        assert "bogus" not in wrong.err
        assert "/nope" not in wrong.err
    login = here(
        "serve",
        "--only",
        "ingest",
        ARCHIVE_SERVER_DATA_DIR=str(tmp_path),
        ARCHIVE_DATABASE_URL="",
        ARCHIVE_DATABASE_INGEST_LOGIN=url,
        ARCHIVE_OBJECTS_ENDPOINT=f"http://{NOWHERE}",
        ARCHIVE_OBJECTS_ACCESS_KEY="a" * 20,
        ARCHIVE_OBJECTS_SECRET_KEY="b" * 40,
    )
    assert login.status == 2, login.err
    assert "config.toml: [database] ingest_login: " in login.err


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("dance",),
        ("serve", "--port=1"),
        ("serve", "--samples", "--json"),
        ("key",),
        ("expire", "--on=2027-03-01"),
        ("expire", "--dry-run", "--release=2026-11-24"),
        ("expire", "--dry-run", "--on=tomorrow"),
        ("expire", "--release=0"),
        ("check", "everything"),
        ("upload",),
        ("fetch", "x"),
    ],
)
def test_wrong_usage_ends_with_2(here: Any, words: tuple[str, ...]) -> None:
    wrong = here(*words)
    assert (wrong.status, wrong.out) == (2, "")
    assert wrong.err


@pytest.mark.parametrize(
    "words",
    [
        "serve",
        "key add",
        "key list",
        "key rotate",
        "key revoke",
        "expire",
        "reconcile",
        "check",
        "upload",
        "search",
        "fetch",
    ],
)
def test_help_has_examples(here: Any, words: str) -> None:
    told = here(*words.split(), "--help")
    assert told.status == 0
    assert f"examples:\n  archive {words}" in told.out


def test_every_command_tells_its_facts_as_json_too() -> None:
    parsers, leaves = [cli._parser()], 0
    while parsers:
        parser = parsers.pop()
        branches = [
            each for each in parser._actions if isinstance(each, argparse._SubParsersAction)
        ]
        parsers += [parser for branch in branches for parser in branch.choices.values()]
        if not branches:
            leaves += 1
            assert "--json" in parser.format_usage(), parser.prog
    assert leaves > 30


def test_serve_tells_the_addresses_that_it_has_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    serve.tell(serve.Addresses("http://i", "", "http://o"), as_json=True)
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert json.loads(said) == {"ingest": "http://i", "operations": "http://o"}


def test_what_the_system_refuses_is_told_in_a_line(here: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for words in (("serve",), ("key", "list"), ("check",)):
        refused = here(*words, ARCHIVE_SERVER_DATA_DIR=str(tmp_path / "file" / "data"))
        assert refused.status == 1
        assert "file" in refused.out + refused.err
        assert "Traceback" not in refused.err


def test_no_process_of_it_leaves_its_memory_on_a_disk(
    trial: Archive, here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits are inherited, so it may have been there before: what a start sets is seen as well."""
    asked: list[tuple[int, tuple[int, int]]] = []
    real = resource.setrlimit

    def limit(which: int, to: tuple[int, int]) -> None:
        asked.append((which, to))
        real(which, to)

    monkeypatch.setattr(resource, "setrlimit", limit)
    assert here("expire", "--dry-run").status == 0
    assert (resource.RLIMIT_CORE, (0, 0)) in asked
    assert trial.process
    assert psutil.Process(trial.process.pid).rlimit(psutil.RLIMIT_CORE) == (0, 0)


def test_a_call_of_nearly_a_year_ago_plays_until_its_year_is_over(
    trial: Archive, here: Any, tmp_path: Path
) -> None:
    audio = tone(20, pitch=523)
    receipt = trial.put(
        "the-call",
        audio,
        call_type="customer_service",
        started_at=a_year_ago(seconds=50),
        agent="Anna",
        caller="0409998887",
    )
    path = f"/v1/recordings/{receipt['id']}"
    end = datetime.fromisoformat(receipt["expires_at"]).timestamp()
    status, headers, body = trial.ask("retrieval", path + "/audio", "supervisor")
    assert (status, body) == (200, audio)
    digest = base64.b64encode(hashlib.sha256(audio).digest()).decode()
    assert headers.get("Repr-Digest", f"sha-256=:{digest}:") == f"sha-256=:{digest}:"
    part = trial.ask("retrieval", path + "/audio", "supervisor", Range="bytes=200000-200999")
    assert (part[0], part[2]) == (206, audio[200_000:201_000])
    found = trial.ask("retrieval", "/v1/recordings?number=0409998887", "supervisor")
    assert [item["id"] for item in json.loads(found[2])["items"]] == [receipt["id"]]
    assert trial.files(receipt["id"])
    assert time.time() < end, "this machine was too slow for the test"
    ahead = max(0.0, end - time.time() - 2)
    turn_the_database(trial, ahead)
    status, asked = 200, 0.0
    while status == 200:
        assert asked < end - ahead
        time.sleep(0.02)  # each look is an entry, of which a thousand are asked for below
        asked = time.time()
        status = trial.ask("retrieval", path, "supervisor")[0]
    assert status == 410
    assert time.time() >= end - ahead
    assert trial.ask("retrieval", path + "/audio", "supervisor")[0] == 410
    until = time.monotonic() + 20
    while trial.files(receipt["id"]) and time.monotonic() < until:
        time.sleep(0.1)
    assert trial.files(receipt["id"]) == []
    acts = acts_of(trial, receipt["id"])
    assert [act["act"] for act in acts][:3] == ["stored", "listened", "listened"]
    # A look that began before its end may be told behind the erasing.
    [erased] = [act for act in acts if act["act"] == "erased"]
    assert {act["act"] for act in acts[acts.index(erased) + 1 :]} <= {"viewed"}
    assert erased["facts"]["absent"] == ["objects", "uploads"]
    assert "P1Y" in erased["facts"]["rule"]
    assert "Anna" not in str(acts)
    found = trial.ask("retrieval", "/v1/recordings?number=0409998887", "supervisor")
    assert json.loads(found[2])["items"] == []
    assert details_in_the_database(trial, receipt["id"]) == (set(), 0)
    metrics = trial.ask("operations", "/metrics", "auditor")[2].decode()
    assert "archive_recordings_overdue 0\n" in metrics
    certificate = tmp_path / "certificate.json"
    address = f"/v1/certificates/{receipt['id']}"
    certificate.write_bytes(trial.ask("retrieval", address, "supervisor")[2])
    words = ("certificate", "verify", str(certificate), "--key", here("ledger", "key").out.strip())
    held = here(*words, "--json")
    assert (held.status, held.facts["recording"]) == (0, receipt["id"])
    assert here(*words).out.startswith("holds: ")
    held = here(*words[:3])
    assert held.status == 0
    assert "this archive's own key" in held.err
    certificate.write_bytes(certificate.read_bytes().replace(b'"erased"', b'"stored"'))
    assert here(*words, "--json").facts["holds"] is False


def acts_of(archive: Archive, recording: str) -> list[dict[str, Any]]:
    """The ledger's entries of a recording; the last may be a moment behind the store."""
    until = time.monotonic() + 10
    while True:
        body = archive.ask("operations", "/v1/ledger?limit=1000", "auditor")[2]
        acts = [one for one in json.loads(body)["items"] if one["recording"] == recording]
        if acts[-1]["act"] == "erased" or time.monotonic() > until:
            return acts
        time.sleep(0.1)


@asynccontextmanager
async def in_the_database(archive: Archive) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The embedded database, beside a service or without one."""
    async with Embedded(archive.data_dir, want_postgres=True, want_s3=False, join=True) as found:
        connection = await asyncpg.connect(found.database_url)
        try:
            yield connection
        finally:
            await connection.close()


def turn_the_database(archive: Archive, seconds: float) -> None:
    """Set its clock ahead: by less than clocks may be apart."""

    async def turn() -> None:
        async with in_the_database(archive) as lent:
            await lent.execute(clock_at(timedelta(seconds=seconds)))

    asyncio.run(turn())


def details_in_the_database(archive: Archive, recording: str) -> tuple[set[str], int]:
    """What the embedded database still says of a recording: details, and terms to find it by."""

    async def look() -> tuple[set[str], int]:
        async with in_the_database(archive) as lent:
            row = await lent.fetchrow("SELECT * FROM recording WHERE id = $1", recording)
            terms = await lent.fetchval("SELECT count(*) FROM term WHERE recording = $1", recording)
        tombstone = {"id", "source", "call_type", "expires_on", "state", "epoch"}
        return {name for name, value in row.items() if value is not None} - tombstone, terms

    return asyncio.run(look())


def test_from_nothing_over_a_stop_in_mid_upload_to_an_erasure_without_a_service(
    tmp_path: Path,
) -> None:
    archive = new_archive(tmp_path)
    made = archive.command("key", "add", "--level=uploader", "--name=pbx", "--json")
    assert made.status == 0, made.err
    archive.tokens["uploader"] = made.facts["token"]
    assert not (archive.data_dir / "lock").read_bytes()  # the servers went with the command
    archive.serve()
    audio = tone(30)
    path = "/v1/recordings/cut?" + urlencode(
        {"call_type": "other", "started_at": a_year_ago(seconds=50)}
    )
    half = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield audio[:100_000]
        half.set()
        time.sleep(1)
        yield audio[100_000:]

    answers: list[tuple[int, bytes]] = []

    def upload() -> None:
        connection = HTTPConnection(urlsplit(archive.doors["ingest"]).netloc, timeout=30)
        headers = {"Authorization": f"Bearer {archive.tokens['uploader']}"}
        connection.request("PUT", path, pieces(), headers, encode_chunked=True)
        answer = connection.getresponse()
        answers.append((answer.status, answer.read()))
        connection.close()

    sender = threading.Thread(target=upload)
    sender.start()
    assert half.wait(20)
    time.sleep(0.3)
    assert archive.stop() == 0
    sender.join(30)
    assert answers[0][0] == 201, answers
    receipt = json.loads(answers[0][1])
    with pytest.raises(ConnectionRefusedError):
        archive.ask("ingest", "/openapi.json", "uploader")
    assert archive.files(receipt["id"])
    end = datetime.fromisoformat(receipt["expires_at"]).timestamp()
    turn_the_database(archive, max(0.0, end - time.time()))
    due = archive.command("expire", "--dry-run", "--json")
    assert [one["id"] for one in due.facts["due"]] == [receipt["id"]]
    assert archive.files(receipt["id"])
    done = archive.command("expire", "--json")
    nothing_left = {"erased": 1, "still_there": 0, "could_not_ask": 0, "stopped": None}
    assert (done.status, done.facts) == (0, nothing_left)
    assert archive.files(receipt["id"]) == []


def test_the_sample_keys_are_shown_again_at_the_second_start(trial: Archive) -> None:
    tokens = dict(trial.tokens)
    assert trial.stop() == 0
    trial.tokens = {}
    trial.serve("--samples")
    trial.read_samples()
    assert trial.tokens.items() <= tokens.items()
    assert not any("took in" in line for line in trial.said)
    assert trial.ask("retrieval", "/v1/recordings", "supervisor")[0] == 200


def test_a_door_that_is_taken_is_told_in_a_line(trial: Archive, tmp_path: Path) -> None:
    trial.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = trial.command("serve", ARCHIVE_DOORS_RETRIEVAL=address)
    assert refused.status == 1
    assert refused.out == ""
    assert "address already in use" in refused.err
    assert "Traceback" not in refused.err
