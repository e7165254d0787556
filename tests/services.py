"""A whole archive for a test, in this process: three doors, a real Postgres, a real S3 server."""

import io
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import aiohttp
import pytest
import yarl
from aiohttp import web
from multidict import CIMultiDict

from app.config import load
from archive.access import Level
from archive.bounds import FREE, Bounds, read_networks
from archive.recording import CallType
from archive.retention import Period, Policy
from archive.webhook import Webhook
from jobs import expiry, nightly
from storage import clocks, credentials, database, published, sweep, teams, tree
from storage.audio.pool import AudioPool
from storage.credentials import Limits as KeyLimits
from storage.holdings import Holding
from storage.keyring import Ring
from storage.objects import ObjectStore
from storage.scopes import Members
from storage.shelf import Shelf
from storage.signer import Signer
from storage.vault import Limits, Vault
from tests import roles, years
from tests.roles import acting, connection
from web import doors, hooks, ingest, operations, retrieval, telephony, uploads
from web.doors import OpenRoute, Route
from web.limits import Limits as DoorLimits

MAPPINGS = load(Path(__file__).parent.parent / "config.toml", {}).mappings
MAX_BYTES = 20_000_000
MAX_DURATION = 1500.0
FREELY = DoorLimits(10_000, 10_000, read_networks("127.0.0.0/8"))
"""So that nobody is turned away for asking with many wrong keys."""
FORMATS = frozenset({"wav", "mp3", "ogg", "flac", "m4a", "webm", "amr", "g729", "raw"})


@dataclass(slots=True)
class Service:
    """The doors' addresses, a token for each level, and what a test needs to look behind them."""

    vault: Vault
    session: aiohttp.ClientSession
    ingest: str
    retrieval: str
    operations: str
    tokens: dict[str, str] = field(default_factory=dict)
    gone_on: bool = False

    @property
    def limits(self) -> Limits:
        return self.vault.limits

    async def put(
        self,
        call_id: str,
        audio: Any,
        params: dict[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = "uploader",
        content_type: str = "audio/x-wav",
    ) -> aiohttp.ClientResponse:
        """PUT a recording, as a telephony system does."""
        await self._go_on()
        url = yarl.URL(
            f"{self.ingest}/v1/recordings/{quote(call_id, safe='')}", encoded=True
        ).update_query(params)
        sent = CIMultiDict({"Content-Type": content_type, **self._login(token)})
        for name in headers or {}:
            sent.popall(name, None)
        sent.extend(headers or {})
        data = io.BytesIO(audio) if isinstance(audio, bytes) else audio
        return await self.session.put(url, data=data, headers=sent)

    async def raw_put(self, path: str, audio: bytes) -> aiohttp.ClientResponse:
        """PUT to an address exactly as it is written."""
        url = yarl.URL(self.ingest + path, encoded=True)
        return await self.session.put(url, data=audio, headers=self._login("uploader"))

    async def post(self, path: str, body: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        await self._go_on()
        return await self.session.post(
            self.ingest + path, data=body, headers={**self._login("uploader"), **headers}
        )

    async def form(self, parts: Sequence[tuple[str, str | bytes]]) -> aiohttp.ClientResponse:
        """POST a form whose parts come in this order."""
        with aiohttp.MultipartWriter("form-data") as form:
            for name, content in parts:
                part = form.append(content)
                part.set_content_disposition("form-data", name=name)
        return await self.session.post(
            self.ingest + "/v1/recordings", data=form, headers=self._login("uploader")
        )

    async def get(
        self, path: str, token: str = "supervisor", **headers: str
    ) -> aiohttp.ClientResponse:
        """GET from the retrieval door; `path` may be a whole address."""
        url = path if path.startswith("http") else self.retrieval + path
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.session.get(url, headers={**self._login(token), **sent})

    async def operate(self, path: str, token: str | None = "auditor") -> aiohttp.ClientResponse:
        """GET from the operations door."""
        return await self.session.get(self.operations + path, headers=self._login(token))

    async def ask(self, method: str, url: str, token: str | None) -> aiohttp.ClientResponse:
        """Any method to any address."""
        headers = self._login(token)
        return await self.session.request(method, url, headers=headers, allow_redirects=False)

    def _login(self, token: str | None) -> dict[str, str]:
        if token is None:
            return {}
        return {"Authorization": f"Bearer {self.tokens.get(token, token)}"}

    async def key(
        self,
        level: str,
        name: str,
        call_types: list[str] | None = None,
        bounds: Bounds = FREE,
        queues: list[str] | None = None,
        among: list[str] | None = None,
        person: str | None = None,
    ) -> str:
        """Make one more key."""
        async with connection(self.vault.pool) as lent:
            return await credentials.add(
                lent,
                self.vault.ring,
                name,
                Level(level),
                limits=KeyLimits(call_types, queues, among),
                bounds=bounds,
                person=person,
            )

    async def team(self, name: str, agents: Sequence[str] = (), queues: Sequence[str] = ()) -> None:
        """Say who is in a team."""
        async with connection(self.vault.pool) as lent:
            members = Members(name, tuple(agents), tuple(queues))
            await teams.put(lent, self.vault.ring, self.vault.policy, members)

    async def revoke(self, level: str) -> None:
        async with connection(self.vault.pool) as lent:
            await credentials.revoke(lent, f"test-{level}")

    async def turn_clock(self, by: timedelta) -> None:
        """Set the archive's clock ahead (or back) of the machine's."""
        await set_clock(self.vault, by)
        self.gone_on = bool(years.CLOCK.ahead)

    async def turn_all_clocks(self, by: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set every clock ahead alike: of database, machine, key holder and store."""
        await set_clock(self.vault, by)
        monkeypatch.setattr(clocks, "service_now", lambda: years.now() + by)
        real = self.vault.objects

        async def ahead() -> datetime:
            return await real.clock() + by

        turned: Any = Faulty(real, clock=ahead)
        self.vault = replace(self.vault, objects=turned)

    async def _go_on(self) -> None:
        """Let the database's clock follow the others to where years end, as if the archive had
        been made there: without the keys of the days before.
        """
        if years.CLOCK.ahead and not self.gone_on:
            await self.turn_clock(timedelta())
            ring, today = self.vault.ring, self.vault.policy.day_of(years.now())
            with ring._locked():
                state = ring._load()
                keys = {day: key for day, key in state.content.days.items() if day >= today}
                ring._save(replace(state.content, days=keys), state.root)

    async def end_leases(self) -> None:
        """Let the time of everybody who holds a recording be over."""
        async with connection(self.vault.pool) as lent:
            await lent.execute(
                "UPDATE recording SET lease_until = archive_now() - interval '1 second'"
                " WHERE state IN ('receiving', 'erasing', 'abandoned')"
                " AND lease_until > archive_now()"
            )

    async def rows(self) -> list[dict[str, Any]]:
        """Every row of a recording, but those of uploads that were given up."""
        async with connection(self.vault.pool) as lent:
            rows = await lent.fetch("SELECT * FROM recording WHERE state <> 'abandoned'")
        return [dict(row) for row in rows]

    async def holdings(self) -> list[Holding]:
        """Everything that the store holds of recordings, in every version."""
        held = await self.vault.objects.holdings("")
        return [holding for holding in held if not holding.key.startswith(published.PREFIX)]

    async def acts(self) -> list[tuple[str, str | None]]:
        """The ledger: each act and the recording it is about, in their order."""
        await tree.sequence(self.vault)
        async with connection(self.vault.pool) as lent:
            rows = await lent.fetch("SELECT act, recording FROM ledger ORDER BY position")
        return [(row["act"], row["recording"] and str(row["recording"])) for row in rows]

    async def erase(self) -> expiry.Report:
        """What the running service does several times a second."""
        return await expiry.run(self.vault)

    async def night(self) -> nightly.Night:
        return await nightly.run(self.vault)

    async def sweep_everything(self) -> None:
        """Sweep as if all leases were over, twice."""
        for _ in range(2):
            await self.end_leases()
            await sweep.run(self.vault)


class Faulty:
    """A real part with some of its methods replaced: where a fault is put."""

    def __init__(self, real: object, **faults: object) -> None:
        self._real = real
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return self._faults.get(name) or getattr(self._real, name)


async def set_clock(vault: Vault, by: timedelta) -> None:
    """Turn the database's `archive_now()`."""
    async with connection(vault.pool) as lent:
        await lent.execute(clock_at(by + years.CLOCK.ahead))


async def stop_clock(vault: Vault, moment: datetime) -> None:
    """Let the database's `archive_now()` stand still, at the very microsecond."""
    async with connection(vault.pool) as lent:
        await lent.execute(stopped_at(moment))


def stopped_at(moment: datetime) -> str:
    """The statement that lets `archive_now()` stand still."""
    return (
        "CREATE OR REPLACE FUNCTION archive_now() RETURNS timestamptz LANGUAGE sql VOLATILE"
        f" AS $$SELECT '{moment.isoformat()}'::timestamptz$$"
    )


def clock_at(by: timedelta) -> str:
    """The statement that turns `archive_now()`."""
    return (
        "CREATE OR REPLACE FUNCTION archive_now() RETURNS timestamptz LANGUAGE sql VOLATILE"
        f" AS $$SELECT clock_timestamp() + interval '{by.total_seconds()} seconds'$$"
    )


@asynccontextmanager
async def open_vault(
    database_url: str,
    objects: ObjectStore,
    folder: Path,
    limits: Limits | None = None,
    *,
    as_roles: bool = False,
) -> AsyncIterator[Vault]:
    """A vault over a fresh database and bucket; both are the caller's to end.

    It works as the owner of the tables, or else as the jobs' role (`tests.roles`).
    """
    policy = Policy(ZoneInfo("Europe/Helsinki"), {kind: Period(years=1) for kind in CallType})
    async with AsyncExitStack() as stack:
        if as_roles:
            pools = await stack.enter_async_context(roles.opened(database_url))
            pool, sequencer, sign_in = (pools[one] for one in ("jobs", "sequencer", "sign_in"))
        else:
            pool = sequencer = sign_in = await database.open_pool(database_url)
            stack.push_async_callback(pool.close)
        ring = Ring.open(
            folder / "ring",
            folder / "root.key",
            create=True,
            today=lambda: policy.day_of(clocks.service_now()),
        )
        probes, players = AudioPool(2), AudioPool(4)
        stack.push_async_callback(probes.close)
        stack.push_async_callback(players.close)
        spool = folder / "spool"
        spool.mkdir(mode=0o700, exist_ok=True)
        vault = Vault(
            pool,
            sequencer,
            sign_in,
            objects,
            ring,
            Signer.open(folder / "ring", f"call-archive/{ring.id}", create=True),
            probes,
            players,
            policy,
            limits or Limits(MAX_BYTES, MAX_DURATION, FORMATS),
            spool,
            Counter(),
            Shelf(folder / "uploads"),
        )
        nightly.make_keys(vault, await database.now(pool))
        yield vault


def ways_in(webhooks: Mapping[str, Webhook] | None = None) -> list[Route | OpenRoute]:
    """All addresses of the ingest door, with the mappings of the example."""
    own = [*ingest.routes(), *telephony.routes(MAPPINGS), *uploads.routes()]
    return [*own, *hooks.routes(webhooks or {})]


@asynccontextmanager
async def open_service(
    vault: Vault,
    bears: DoorLimits = DoorLimits(),  # noqa: B008 - it is frozen
    webhooks: Mapping[str, Webhook] | None = None,
) -> AsyncIterator[Service]:
    """The three doors over a vault, on free ports, and a key of each level."""
    async with AsyncExitStack() as stack:
        retrieval_url = await _door(
            stack, acting(vault, "retrieval"), "", retrieval.routes(), bears
        )
        ingest_url = await _door(
            stack, acting(vault, "ingest"), retrieval_url, ways_in(webhooks), bears
        )
        operations_url = await _door(
            stack, acting(vault, "operations"), retrieval_url, operations.routes(), bears
        )
        session = await stack.enter_async_context(aiohttp.ClientSession())
        service = Service(vault, session, ingest_url, retrieval_url, operations_url)
        async with connection(vault.pool) as lent:
            for level in Level:
                source = "pbx" if level is Level.UPLOADER else None
                person = None if source else f"who-is-{level}"
                token = await credentials.add(
                    lent, vault.ring, f"test-{level}", level, source, person=person
                )
                service.tokens[str(level)] = token
        yield service


async def _door(
    stack: AsyncExitStack,
    vault: Vault,
    public: str,
    routes: Any,
    bears: DoorLimits = DoorLimits(),  # noqa: B008 - it is frozen
) -> str:
    runner = doors.runner(doors.build(vault, public, routes, bears=bears), 5)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"
