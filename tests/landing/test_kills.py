"""kill -9 at each step of taking something from a landing bucket: nothing is lost, nothing doubled.

The real service looks at the bucket and dies; then another look does the rest.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from storage import steps
from storage.objects import ObjectStore
from tests.app.child_service import House
from tests.app.test_crash import no_row_without_bytes_and_no_bytes_without_row
from tests.landing.conftest import Open
from tests.landing.test_landing import AUDIO, KEY, SIDE, variables
from tests.landing.test_systems import RECORDING, genesys, started
from tests.stores.servers import Server


@pytest.mark.parametrize("step", steps.INTAKE + steps.LANDING)
async def test_a_kill_at_each_step(
    open_site: Open,
    database_url: str,
    rclone_server: Server,
    rclone_store: ObjectStore,
    tmp_path: Path,
    step: str,
) -> None:
    site = await open_site(rclone_server, "genesys")
    await site.put(KEY, AUDIO)
    await site.put(SIDE, genesys(started()))
    bucket = rclone_store._bucket._path.removeprefix("/")
    more = {"TEST_CONFIG": str(site.config), **variables(site)}
    child = House(database_url, rclone_server, bucket, tmp_path, more).start(crash_at=step)
    try:
        await child.death()
    finally:
        child.kill()
    there = await site.there()
    assert there == ([SIDE] if step == "cleared" else [KEY, SIDE])
    await site.service.end_leases()
    ours = replace(site)
    while (await ours.look()).failed:  # what was just given up is taken in by the next
        pass
    assert await site.there() == []
    assert {*(await site.calls())} == {RECORDING}
    await site.service.sweep_everything()
    await no_row_without_bytes_and_no_bytes_without_row(site.service)
