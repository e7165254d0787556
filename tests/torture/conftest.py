"""The room over the servers of the test process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import Postgres
from tests.stores.conftest import rgw_server
from tests.stores.servers import Server
from torture.room import Room, uncapped

__all__ = ["rgw_server"]


@pytest.fixture
def room(
    postgres: Postgres, rclone_server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Room]:
    gateway: Callable[[], Server] = lambda: request.getfixturevalue("rgw_server")  # noqa: E731
    with uncapped():
        yield Room(postgres, rclone_server, gateway, tmp_path)
