"""TLS of the doors: renewed under them, with real certificates and real handshakes."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import uvloop
from aiohttp import web
from cryptography import x509

from app import listening
from app.check import _Check, _Findings
from app.config import Door, load
from app.listening import Listener
from app.values import Address
from storage.objects import ObjectStore
from storage.vault import Vault
from tests.app.child_service import Child, House
from tests.authority import Authority, Issued
from tests.services import Service, open_service
from tests.sounds import tone
from tests.stores.servers import Server
from tests.web.test_operations import parse
from tests.web.test_upload import query
from web import gauges, tls
from web.tls import TlsError

AUTHORITY, TELEPHONY, OTHERS = Authority("doors"), Authority("telephony"), Authority("others")
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclass(slots=True)
class Folder:
    """The files of a door, as somebody renews them."""

    path: Path

    @property
    def door(self) -> Door:
        ca = self.path / "clients.pem"
        files = self.path / "cert.pem", self.path / "key.pem", ca if ca.exists() else None
        return Door(Address("127.0.0.1", 0), *files)

    def write(self, issued: Issued) -> Issued:
        issued.write(self.path / "cert.pem", self.path / "key.pem")
        return issued

    def trust(self, *authorities: Authority) -> None:
        (self.path / "clients.pem").write_bytes(b"".join(each.pem() for each in authorities))


@dataclass(slots=True)
class At:
    """A door that answers, and its listener."""

    listener: Listener
    shown: tls.Shown
    port: int

    async def renewed(self) -> None:
        """As many looks as a renewal takes."""
        await self.listener.renew()
        await self.listener.renew()

    async def meet(self, client: "Client", session: ssl.SSLSession | None = None) -> "Met":
        return await asyncio.to_thread(client.meet, self.port, session)


@dataclass(slots=True)
class Met:
    """What a client saw: whose certificate, which session, which version."""

    serial: int
    session: ssl.SSLSession | None
    reused: bool
    version: str | None


class Client:
    """A client that trusts the doors' authority, and may show a certificate."""

    def __init__(
        self,
        folder: Path,
        shows: Issued | None = None,
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        ciphers: str = "",
    ) -> None:
        self.context = ssl.create_default_context(cadata=AUTHORITY.pem().decode())
        self.context.minimum_version = self.context.maximum_version = version
        if ciphers:
            self.context.set_ciphers(ciphers)
        if shows:
            shows.write(folder / "client.pem", folder / "client.key")
            self.context.load_cert_chain(folder / "client.pem", folder / "client.key")

    def meet(self, port: int, session: ssl.SSLSession | None = None) -> Met:
        """Shake hands, and ask for a page: with TLS 1.3 a refusal comes only then."""
        with (
            socket.create_connection(("127.0.0.1", port), 20) as raw,
            self.context.wrap_socket(raw, server_hostname="localhost", session=session) as held,
        ):
            held.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := held.recv(1000):
                answer += piece
            if b"hello" not in answer:
                raise ConnectionError("the door hung up")
            shown = x509.load_der_x509_certificate(held.getpeercert(binary_form=True) or b"")
            return Met(shown.serial_number, held.session, bool(held.session_reused), held.version())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write(AUTHORITY.issue())
    return folder


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def opened(folder: Folder, stack: AsyncExitStack) -> At:
    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    shown = listening.shown("ingest", folder.door)
    assert shown
    listener = Listener(runner, folder.door, shown)
    address = await listener.start(stack)
    assert address.startswith("https://127.0.0.1:")
    return At(listener, shown, int(address.rsplit(":", 1)[1]))


async def test_a_renewed_certificate_is_shown_and_open_connections_stay(
    folder: Folder, stack: AsyncExitStack, tmp_path: Path
) -> None:
    at = await opened(folder, stack)
    client = Client(tmp_path)
    before = (await at.meet(client)).serial
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", at.port, ssl=client.context, server_hostname="localhost"
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: door\r\n")
    new = folder.write(AUTHORITY.issue())
    await at.listener.renew()
    assert (await at.meet(client)).serial == before  # seen once: it may be half of it
    await at.listener.renew()
    assert (await at.meet(client)).serial == new.certificate.serial_number != before
    writer.write(b"\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


def test_nobody_is_turned_away_while_it_changes(folder: Folder, tmp_path: Path) -> None:
    """On the loop of the service: asyncio's own loses connections that it has just accepted."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_seen_while_it_changes(folder, tmp_path)) > 1


async def _seen_while_it_changes(folder: Folder, tmp_path: Path) -> int:
    client, done, serials = Client(tmp_path), asyncio.Event(), set[int]()
    async with AsyncExitStack() as stack:
        at = await opened(folder, stack)

        async def keep_coming() -> None:
            while not done.is_set():
                serials.add((await at.meet(client)).serial)

        coming = [asyncio.create_task(keep_coming()) for _ in range(4)]
        for _ in range(20):
            folder.write(AUTHORITY.issue())
            await at.renewed()
            await at.meet(client)
        done.set()
        await asyncio.gather(*coming)
    return len(serials)


WRONG: dict[str, Callable[[Folder], object]] = {
    "a certificate whose key is not there yet": lambda folder: (
        folder.path / "cert.pem"
    ).write_bytes(AUTHORITY.issue().cert),
    "half a certificate": lambda folder: (folder.path / "cert.pem").write_bytes(
        AUTHORITY.issue().cert[:300]
    ),
    "half a key": lambda folder: (folder.path / "key.pem").write_bytes(AUTHORITY.issue().key[:80]),
    "an empty file": lambda folder: (folder.path / "cert.pem").write_bytes(b""),
    "no file": lambda folder: (folder.path / "key.pem").unlink(),
    "an authority that is none": lambda folder: (folder.path / "clients.pem").write_bytes(b"x"),
    "half an authority": lambda folder: (folder.path / "clients.pem").write_bytes(
        OTHERS.pem()[:200]
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_makes_no_pair_is_told_and_the_old_one_stays(
    folder: Folder,
    stack: AsyncExitStack,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    folder.trust(TELEPHONY)
    at = await opened(folder, stack)
    client = Client(tmp_path, TELEPHONY.issue())
    before = (await at.meet(client)).serial
    good = tmp_path / "good"
    shutil.copytree(folder.path, good, ignore=shutil.ignore_patterns("good"))
    WRONG[name](folder)
    for _ in range(4):
        await at.listener.renew()
    assert (await at.meet(client)).serial == before
    assert at.shown.refused
    assert caplog.text.count("cannot be taken up") == 1
    assert 'archive_tls_refused{door="ingest"} 1\n' in page(at.shown)
    shutil.copytree(good, folder.path, dirs_exist_ok=True)
    await at.renewed()
    assert not at.shown.refused
    new = folder.write(AUTHORITY.issue())
    await at.renewed()
    assert (await at.meet(client)).serial == new.certificate.serial_number


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_whose_authority_is_replaced_comes_in_no_more(
    folder: Folder, stack: AsyncExitStack, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Not by a session that it has from before, either."""
    folder.trust(TELEPHONY)
    at = await opened(folder, stack)
    (tmp_path / "new").mkdir()
    old = Client(tmp_path, TELEPHONY.issue(), version)
    new = Client(tmp_path / "new", OTHERS.issue(), version)
    met = await at.meet(old)
    assert (await at.meet(old, met.session)).reused
    with pytest.raises(OSError):
        await at.meet(new)
    folder.trust(OTHERS)
    await at.renewed()
    for session in (None, met.session):
        with pytest.raises(OSError):
            await at.meet(old, session)
    await at.meet(new)


async def test_a_client_without_a_certificate_or_with_anybodys_is_refused(
    folder: Folder, stack: AsyncExitStack, tmp_path: Path
) -> None:
    folder.trust(TELEPHONY)
    at = await opened(folder, stack)
    for shows in (None, OTHERS.issue(), AUTHORITY.issue()):
        with pytest.raises(OSError):
            await at.meet(Client(tmp_path, shows))
    await at.meet(Client(tmp_path, TELEPHONY.issue()))


async def test_old_versions_and_weak_ciphers_are_refused(
    folder: Folder, stack: AsyncExitStack, tmp_path: Path
) -> None:
    at = await opened(folder, stack)
    assert at.shown.context.minimum_version is ssl.TLSVersion.TLSv1_2
    weak = Client(tmp_path, version=VERSIONS[0], ciphers="ECDHE+AES+SHA256:ECDHE+AES+SHA")
    with pytest.raises(OSError):
        await at.meet(weak)
    names = {cipher["name"] for cipher in at.shown.context.get_ciphers()}
    assert all("GCM" in name or "CHACHA20" in name for name in names)
    for version in VERSIONS:
        await at.meet(Client(tmp_path, version=version))


def test_a_start_with_a_broken_pair_is_refused_in_words(folder: Folder) -> None:
    WRONG["half a key"](folder)
    with pytest.raises(TlsError, match=r"ingest door.*no pair"):
        listening.shown("ingest", folder.door)


def test_a_key_that_wants_a_password_does_not_ask_for_it(folder: Folder) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    key = load_pem_private_key((folder.path / "key.pem").read_bytes(), None)
    form = Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    (folder.path / "key.pem").write_bytes(key.private_bytes(*form))
    with pytest.raises(TlsError, match="no pair"):
        listening.shown("ingest", folder.door)


def page(*shown: tls.Shown) -> str:
    from tests.web.test_operations import NOTHING

    return gauges.page(NOTHING, {}, 0, {}, shown)


def test_how_long_it_is_valid_is_told_by_the_one_that_ends_first(folder: Folder) -> None:
    def left(**more: timedelta) -> float:
        folder.write(AUTHORITY.issue(more.get("own", timedelta(days=40))))
        (folder.path / "clients.pem").write_bytes(
            TELEPHONY.pem(more.get("clients", timedelta(days=50))) + OTHERS.pem(timedelta(days=5))
        )
        shown = listening.shown("ingest", folder.door)
        assert shown
        told = parse(page(shown))
        assert told["archive_tls_refused", frozenset({("door", "ingest")})] == 0
        return told["archive_tls_left_seconds", frozenset({("door", "ingest")})] / 86400

    assert left() == pytest.approx(40, abs=0.1)
    assert left(own=timedelta(days=60)) == pytest.approx(50, abs=0.1)
    assert left(clients=timedelta(days=10)) == pytest.approx(10, abs=0.1)
    assert left(own=timedelta(days=-1)) == pytest.approx(-1, abs=0.1)


@pytest.mark.parametrize(("days", "well"), [(13, False), (15, True), (-1, False)])
async def test_check_tells_of_one_that_ends_within_two_weeks(
    folder: Folder, stack: AsyncExitStack, days: int, well: bool
) -> None:
    issued = folder.write(AUTHORITY.issue(timedelta(days=days)))
    environment = {
        f"ARCHIVE_DOORS_INGEST_TLS_{part.upper()}": str(folder.path / f"{part}.pem")
        for part in ("cert", "key")
    }
    findings = _Findings()
    check = _Check(load(None, environment), findings, stack)
    assert await findings.look("tls", check._tls) is well
    assert f"ingest until {issued.certificate.not_valid_after_utc:%Y-%m-%d}" in findings.lines[0][2]
    (folder.path / "key.pem").unlink()
    assert not await findings.look("tls", check._tls)


@pytest.fixture
def child(
    database_url: str,
    rclone_server: Server,
    rclone_store: ObjectStore,
    tmp_path: Path,
    folder: Folder,
) -> Iterator[Child]:
    bucket = rclone_store._bucket._path.removeprefix("/")
    more = {
        f"ARCHIVE_DOORS_INGEST_TLS_{part.upper()}": str(folder.path / f"{part}.pem")
        for part in ("cert", "key")
    }
    child = House(database_url, rclone_server, bucket, tmp_path, more).start()
    yield child
    child.kill()


async def test_the_service_takes_a_renewal_up_under_an_upload(
    child: Child, vault: Vault, folder: Folder, tmp_path: Path
) -> None:
    async with open_service(vault) as service:
        await child.ready()
        port = int(child.ingest.rsplit(":", 1)[1])
        goes_on, sent = asyncio.Event(), tone(20)

        async def body() -> AsyncIterator[bytes]:
            yield sent[:1000]
            await goes_on.wait()
            yield sent[1000:]

        upload = asyncio.create_task(_put(service, child.ingest, body(), tmp_path))
        new = folder.write(AUTHORITY.issue())
        until = datetime.now(UTC) + timedelta(seconds=60)
        while await _serial(port, tmp_path) != new.certificate.serial_number:
            assert datetime.now(UTC) < until, child.said()
            await asyncio.sleep(0.1)
        goes_on.set()
        assert await upload == 201
        assert [row["state"] for row in await service.rows()] == ["stored"]


async def _put(service: Service, url: str, body: AsyncIterator[bytes], folder: Path) -> int:
    context = Client(folder).context
    headers = {"Authorization": f"Bearer {service.tokens['uploader']}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.put(f"{url}/v1/recordings/c", params=query(), data=body, headers=headers) as answer,
    ):
        return answer.status


async def _serial(port: int, folder: Path) -> int:
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=Client(folder).context, server_hostname="localhost"
    )
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(shown).serial_number
