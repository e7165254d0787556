"""kill -9 while a recording is fetched: nothing is lost, doubled, or deleted too early there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage import steps
from storage.objects import ObjectStore
from tests.app.child_service import House
from tests.app.test_crash import Services, at, heard, until
from tests.services import Service
from tests.stores.servers import Server
from tests.web import vendors
from tests.web.test_telephony import wire
from tests.web.vendors import AUDIO, Vendor, hurry, rows, vendor

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
