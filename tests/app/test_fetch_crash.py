"""kill -9 while a recording is fetched: nothing is lost, doubled, or deleted early there. And the
command that tells what stays away.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage import steps
from storage.objects import ObjectStore
from tests.app.child_service import House
from tests.app.test_crash import Services, at, heard, until
from tests.roles import connection
from tests.services import Service
from tests.storage.test_fetching import ask
from tests.stores.servers import Server
from tests.web import vendors
from tests.web.test_telephony import wire
from tests.web.vendors import AUDIO, Vendor, fetch, hurry, rows, vendor

EXAMPLE = Path(__file__).parents[2] / "config.toml"


@pytest.fixture
async def host() -> AsyncIterator[Vendor]:
    async with vendor() as found:
        yield found


@pytest.fixture
def services(
    database_url: str,
    rclone_server: Server,
    rclone_store: ObjectStore,
    tmp_path: Path,
    host: Vendor,
) -> Iterator[Services]:
    bucket = rclone_store._bucket._path.removeprefix("/")
    file = tmp_path / "config.toml"
    file.write_text(EXAMPLE.read_text() + vendors.config(host))
    more = {**vendors.environ(), "TEST_CONFIG": str(file)}
    services = Services(House(database_url, rclone_server, bucket, tmp_path, more))
    yield services
    for child in services.started:
        child.kill()
    for child in services.started:
        assert "Traceback" not in child.said()
        assert " 500 " not in child.said()


@pytest.mark.parametrize("step", [*steps.FETCH, "received", "put", "committed"])
async def test_a_kill_while_a_recording_is_fetched(
    service: Service, services: Services, host: Vendor, step: str
) -> None:
    child = await services.start(crash_at=step)
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await wire(at(service, child), *vendors.twilio(host))
    await child.death()
    stored = any(row["state"] == "stored" for row in await service.rows())
    assert stored or not any(method == "DELETE" for method, _, _ in host.asked)

    await service.end_leases()
    await hurry(service.vault)
    child = await services.start()
    if step == "asked":  # it was not answered, so it comes again
        answer = await wire(at(service, child), *vendors.twilio(host))
        assert (answer.status, answer.json()["known"]) == (200, 1)

    async def done() -> bool:
        return [row["state"] for row in await rows(service.vault)] == ["done"]

    await until(done)
    await service.sweep_everything()
    [row] = await service.rows()
    assert row["state"] == "stored"
    assert await heard(at(service, child), str(row["id"])) == AUDIO
    assert len(await service.holdings()) == 1
    asked = [method for method, _, _ in host.asked]
    assert asked[-1] == "DELETE"
    assert asked.index("DELETE") > asked.index("GET")


async def test_what_stays_away_is_listed_tried_again_and_dropped(
    service: Service, services: Services, host: Vendor
) -> None:
    environ = services._house.environment("a")

    def said(*arguments: str, status: int = 0) -> str:
        command = [sys.executable, "-m", "app", "--config", environ["TEST_CONFIG"], "notices"]
        done = subprocess.run(
            [*command, *arguments], env=environ, cwd=EXAMPLE.parent, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        return done.stdout

    hooks = vendors.configured(host)
    host.answers = [vendors.status(403)]
    await ask(service.vault, f"{host.url}/x")
    await fetch(service.vault, hooks)
    [told] = json.loads(said("--json"))
    assert (told["hook"], told["state"], told["tries"]) == ("own", "waiting", 1)
    assert "its host answers 403" in said()
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE notice SET due_at = archive_now() + interval '1 hour'")
    assert await fetch(service.vault, hooks) == 0
    said("--again", told["id"])
    assert await fetch(service.vault, hooks) == 1
    async with connection(service.vault.pool) as lent:
        await lent.execute("UPDATE notice SET state = 'refused', details = NULL")
    assert said("--again", told["id"], status=1) == "refused: drop it\n"
    assert json.loads(said("--again", told["id"], "--json", status=1))["done"] is False
    assert json.loads(said("--drop", told["id"], "--json"))["done"] is True
    assert said() == ""
    for act in ("--again", "--drop"):
        assert said(act, told["id"], status=1) == "no such notice\n"
    assert (await rows(service.vault))[0]["details"] is None
    assert "notice.dropped" in [act for act, _ in await service.acts()]
