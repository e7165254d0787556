"""Real object stores for the tests: rclone from its wheel, and Ceph's RADOS gateway.

Import the fixtures you need into your `conftest.py`. `object_store` runs a test on all of them;
`rclone_store` and `rgw_store` on one. Each test gets a bucket of its own.

Every xdist worker starts its own rclone (a tenth of a second). One gateway serves all workers of a
run: each holds a shared lock on a file, whoever finds nobody else holding it starts or stops the
daemons, and the lock of a killed worker is gone with it. Its data is held in memory, unless the
environment says `RGW_STORE=bluestore`.
"""

import fcntl
import hashlib
import os
import random
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from storage.objects import ObjectStore

HERE = Path(__file__).parent
CEPH = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")
INSTALL = "apt-get install -y --no-install-recommends ceph-mon ceph-osd radosgw ceph-common"
KINDS = ("rclone", "rgw", "rgw-versioned", "rgw-tls")
VERSIONING = "<VersioningConfiguration><Status>{}</Status></VersioningConfiguration>"


@dataclass(frozen=True, slots=True)
class Server:
    """Where a store answers and with which key; `versioned` says what its new buckets are."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str
    ca: Path | None = None
    versioned: bool = False

    async def connect(
        self, bucket: str = "", *, endpoint: str = "", patience: float = 30
    ) -> ObjectStore:
        """Open a bucket, by default a new one, perhaps through a relay at another `endpoint`."""
        store = await ObjectStore.connect(
            endpoint or self.endpoint,
            bucket or f"test-{uuid.uuid4()}",
            self.access_key,
            self.secret_key,
            ca=self.ca,
            patience=patience,
        )
        if self.versioned and not bucket:
            await set_versioning(store, "Enabled")
        return store


async def set_versioning(store: ObjectStore, status: str) -> None:
    """Make a bucket versioned ("Enabled"), or stop it ("Suspended")."""
    body = VERSIONING.format(status).encode()
    await store._bucket.call("PUT", {"versioning": ""}, body=body)


@contextmanager
def running_rclone(directory: Path) -> Iterator[Server]:
    """Serve `directory` as rclone's S3 on a free port, with the flags of the embedded store."""
    access, secret = secrets.token_hex(10), secrets.token_hex(20)
    log = directory / "rclone.log"
    data = directory / "data"
    data.mkdir(parents=True)
    command = [str(Path(sys.executable).parent / "rclone"), "serve", "s3", "--config", os.devnull]
    command += ["--addr", "127.0.0.1:0", "--vfs-cache-mode", "off"]
    command += ["--vfs-read-wait", "0s", str(data)]
    environment = {**os.environ, "RCLONE_AUTH_KEY": f'"{access},{secret}"'}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        yield Server("rclone", _announced(log, process), access, secret)
    finally:
        process.terminate()
        process.wait(10)


def _announced(log: Path, process: "subprocess.Popen[bytes]") -> str:
    for _ in range(200):
        said = re.search(r"Starting s3 server on \[(http://127\.0\.0\.1:\d+)/\]", log.read_text())
        if said:
            return said[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"rclone did not start: {log.read_text()}")


@contextmanager
def running_rgw(shared: Path) -> Iterator[Server]:
    """Use the gateway of this run; start it as the first that asks, stop it as the last."""
    name = hashlib.sha256(str(shared).encode()).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"rgw-{name}"  # short: its sockets' paths are limited
    with (shared / "rgw.users").open("w") as users, (shared / "rgw.guard").open("w") as guard:
        with _locked(guard):
            if _alone(users):
                _start_rgw(directory)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield _rgw_at(directory)
        finally:
            with _locked(guard):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _alone(users):
                    subprocess.run(
                        [HERE / "rgw-down.sh"], env={**os.environ, "RGW_DIR": str(directory)}
                    )


@contextmanager
def _locked(file: object) -> Iterator[None]:
    fcntl.flock(file, fcntl.LOCK_EX)  # type: ignore[arg-type]
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)  # type: ignore[arg-type]


def _alone(users: object) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
        return True
    return False


def _start_rgw(directory: Path) -> None:
    _require_ceph()
    said = ""
    for _ in range(3):  # another process may take a port between looking and starting
        port = _free_ports(62)
        environment = {
            **os.environ,
            "RGW_DIR": str(directory),
            "RGW_PORT": str(port),
            "RGW_TLS_PORT": str(port + 61),
            "RGW_STORE": os.environ.get("RGW_STORE", "memstore"),
            "RGW_ACCESS": secrets.token_hex(10),
            "RGW_SECRET": secrets.token_hex(20),
        }
        done = subprocess.run(
            [HERE / "rgw-up.sh"], env=environment, capture_output=True, text=True, timeout=110
        )
        said = done.stderr
        if done.returncode == 0:
            return
    raise RuntimeError(f"Ceph's gateway did not start: {said}")


def _rgw_at(directory: Path) -> Server:
    said = dict(line.split("=", 1) for line in (directory / "env").read_text().split())
    return Server("rgw", f"http://{said['S3_ENDPOINT']}", said["S3_ACCESS"], said["S3_SECRET"])


def _over_tls(server: Server, shared: Path) -> Server:
    name = hashlib.sha256(str(shared).encode()).hexdigest()[:12]
    host, port = server.endpoint.removeprefix("http://").split(":")
    ca = Path(tempfile.gettempdir()) / f"rgw-{name}" / "tls.pem"
    return replace(server, kind="rgw-tls", endpoint=f"https://{host}:{int(port) + 61}", ca=ca)


def _require_ceph() -> None:
    """Skip only where nobody could have installed it: a suite without Ceph proves little."""
    missing = [name for name in CEPH if shutil.which(name) is None]
    if not missing:
        return
    say = f"Ceph is not installed ({', '.join(missing)}). As root: {INSTALL}"
    if os.environ.get("CI") == "true" or (os.geteuid() == 0 and shutil.which("apt-get")):
        pytest.fail(say)
    pytest.skip(say)


def _free_ports(count: int) -> int:
    """Find a port with `count` - 1 free ones after it, below those that the system gives out."""
    while True:
        first = random.randrange(20000, 30000)
        sockets = []
        try:
            for port in (first, first + 1, first + 2, first + 3, first + count - 1):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return first
        except OSError:
            continue
        finally:
            for opened in sockets:
                opened.close()


def _shared(factory: pytest.TempPathFactory) -> Path:
    """Name the directory that all workers of this run have in common."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def rclone_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def rgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_rgw(_shared(tmp_path_factory)) as server:
        yield server


@pytest.fixture(params=KINDS)
def object_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """Each kind of store in turn."""
    kind = str(request.param)
    if kind == "rclone":
        found: Server = request.getfixturevalue("rclone_server")
        return found
    server: Server = request.getfixturevalue("rgw_server")
    if kind == "rgw-tls":
        return _over_tls(server, _shared(tmp_path_factory))
    return replace(server, kind=kind, versioned=kind == "rgw-versioned")


@pytest.fixture
async def object_store(object_server: Server) -> AsyncIterator[ObjectStore]:
    """A new bucket in each kind of store in turn."""
    store = await object_server.connect()
    yield store
    await store.close()


@pytest.fixture
async def rclone_store(rclone_server: Server) -> AsyncIterator[ObjectStore]:
    store = await rclone_server.connect()
    yield store
    await store.close()


@pytest.fixture
async def rgw_store(rgw_server: Server) -> AsyncIterator[ObjectStore]:
    store = await rgw_server.connect()
    yield store
    await store.close()
