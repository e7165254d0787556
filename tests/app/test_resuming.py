"""Uploads that go on in parts after their line broke off, against the real service."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app import delivery, resuming
from app.remote import FAULTS, AwayError, RefusedError, Remote
from app.resuming import Parts
from app.spooler import Delivery
from tests.app.faulty import Shell
from tests.roles import connection
from tests.services import Service
from tests.sounds import tone
from tests.web.test_tus_clients import line

AUDIO = tone(30, channels=2)
STARTED = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
SMALL = 100_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (resuming, delivery):
        monkeypatch.setattr(module, "PART", SMALL)


@pytest.fixture
def call(tmp_path: Path) -> Path:
    file = tmp_path / "long.wav"
    file.write_bytes(AUDIO)
    return file


def item(service: Service, call: Path, sha256: bytes = b"") -> Delivery:
    fields = {"call_type": "contract", "started_at": STARTED, "agent": "Änne"}
    digest = sha256 or hashlib.sha256(AUDIO).digest()
    return Delivery(service.ingest, "long", fields, "audio/x-wav", call, len(AUDIO), digest)


async def nothing_unfinished(service: Service) -> None:
    assert not service.vault.shelf.lying()
    async with connection(service.vault.pool) as lent:
        assert not await lent.fetchval("SELECT count(*) FROM upload WHERE recording IS NULL")


async def test_a_line_that_never_carries_the_whole_carries_it_in_parts(
    service: Service, shell: Shell, call: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each connection is cut before it has carried a quarter of it, and some within a part."""
    monkeypatch.setenv("ARCHIVE_TOKEN", service.tokens["uploader"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    cuts = [3 * SMALL, SMALL // 2, SMALL // 3, *[2 * SMALL] * 100]
    async with line(service, *cuts) as (broken, url):
        monkeypatch.setenv("ARCHIVE_URL", url)
        words = ("--call-type", "contract", "--started-at", STARTED, "--agent", "Änne")
        assert await shell("upload", call, *words, "--json", "--retry-for", 30) == 0
        assert broken.broken > 3
    (facts,) = shell.facts["files"]
    receipt = facts["receipt"]
    assert facts["status"] == "stored"
    found = await (await service.get(f"/v1/recordings/{receipt['id']}")).json()
    assert (found["call_id"], found["agent"]) == ("long", "Änne")
    for name in ("call_id", "call_type", "bytes", "sha256"):
        assert receipt[name] == found[name]
    for name in ("started_at", "expires_at"):
        told, known = (datetime.fromisoformat(each[name]) for each in (receipt, found))
        assert abs(told - known) < timedelta(seconds=1)
    heard = await service.get(f"/v1/recordings/{receipt['id']}/audio")
    assert await heard.read() == AUDIO
    await nothing_unfinished(service)


async def test_what_ended_meanwhile_begins_anew(service: Service, call: Path) -> None:
    """The upload was ended between two tries, as it is when its day is over."""
    told: list[int] = []
    async with line(service, SMALL // 2) as (_, url):
        remote = Remote(url, service.tokens["uploader"])
        sent = Parts(remote, item(service, call), told.append)
        async with remote.session() as session:
            with call.open("rb") as file:
                with pytest.raises(FAULTS):
                    await sent.run(session, file)
                async with connection(service.vault.pool) as lent:
                    await lent.execute("DELETE FROM upload")
                with pytest.raises(AwayError):
                    await sent.run(session, file)
                receipt = await sent.run(session, file)
    assert receipt["sha256"] == hashlib.sha256(AUDIO).hexdigest()
    assert sum(told) == len(AUDIO)
    assert len(await service.rows()) == 1


async def test_a_file_that_was_changed_between_two_parts_is_refused_and_not_kept(
    service: Service, call: Path
) -> None:
    """What has come is held against the digest of what was read first."""
    remote = Remote(service.ingest, service.tokens["uploader"])
    other = item(service, call, hashlib.sha256(b"what was read first").digest())
    async with remote.session() as session:
        with call.open("rb") as file, pytest.raises(RefusedError) as refused:
            await Parts(remote, other, lambda _: None).run(session, file)
    assert refused.value.problem.status == 400
    assert await service.rows() == []
    await nothing_unfinished(service)


async def test_what_arrived_before_its_answer_was_lost_is_known(
    service: Service, call: Path
) -> None:
    remote = Remote(service.ingest, service.tokens["uploader"])
    sent = Parts(remote, item(service, call), lambda _: None)
    async with remote.session() as session:
        with call.open("rb") as file:
            first = await sent.run(session, file)
            assert await sent.run(session, file) == first
    assert len(await service.rows()) == 1
