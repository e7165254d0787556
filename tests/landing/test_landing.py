"""What becomes of what lies in a landing bucket: kept, waited for, refused; never half of it."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app import check, cli, config, landings
from app.config import ConfigError
from archive.errors import ForbiddenError, UnavailableError
from archive.residency import Seen
from jobs import landing as looks
from storage import intake, landing, leftovers, mapped, residency
from storage.holdings import Holding
from storage.landing import Landing
from storage.vault import Vault
from tests.jobs.test_expiry import a_year_ago
from tests.landing.conftest import EXAMPLE, TABLE, Open, Site, versioned
from tests.landing.test_systems import FOLDER, RECORDING, genesys, started
from tests.roles import connection, owned
from tests.sounds import tone
from tests.stores.servers import Server, running_rclone
from tests.web.test_operations import figures

AUDIO = tone(2)
KEY = f"{FOLDER}/{RECORDING}.opus"
SIDE = f"{KEY}_metadata.json"
CALL = "customer_service/{}/call-{}.wav"


def freeswitch(number: int = 1, moment: datetime | None = None) -> str:
    return CALL.format(int((moment or started()).timestamp()), number)


async def left(site: Site) -> list[tuple[str, str]]:
    """What is known of what lies there: fate and reason."""
    async with connection(site.vault.pool) as lent:
        rows = await lent.fetch("SELECT fate, why FROM landing_left ORDER BY fate, why")
    return [(row["fate"], row["why"]) for row in rows]


async def gauges(site: Site) -> dict[str, float]:
    told = await figures(site.service)
    return {name: value for (name, _), value in told.items() if name.startswith("archive_landing")}


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the objects that were opened."""
    seen: list[str] = []
    real = landing.opened

    def opened(place: Landing, held: Holding) -> Any:
        seen.append(held.key)
        return real(place, held)

    monkeypatch.setattr(landing, "opened", opened)
    return seen


async def test_one_without_the_other_waits_and_is_told_of(
    open_site: Open, rclone_server: Server, opens: list[str]
) -> None:
    site = await open_site(rclone_server, "genesys")
    await site.put(KEY, AUDIO)
    await site.put(f"{FOLDER}/alone.opus_metadata.json", genesys(started()))
    found = await site.look()
    assert (found.taken, found.refused, found.left, found.failed) == (0, 0, 2, "")
    assert await left(site) == [("waiting", "waits for what lies beside it")]
    await site.look()
    assert opens == []
    told = await gauges(site)
    assert 0 < told["archive_landing_oldest_seconds"] < 3600
    assert told["archive_landing_refused"] == 0
    await site.service.turn_clock(timedelta(hours=25))
    assert (await gauges(site))["archive_landing_oldest_seconds"] > 24 * 3600
    assert (await gauges(site))["archive_landing_age_seconds"] > 3600
    assert await site.there() == sorted([KEY, f"{FOLDER}/alone.opus_metadata.json"])


async def test_an_object_that_changes_while_it_is_read_is_taken_again(
    open_site: Open, rclone_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    key, other = freeswitch(), tone(2, pitch=600)
    await changes_once(site, monkeypatch, key, other, before=1)
    await site.put(key, AUDIO)
    assert (await site.look()).taken == 0
    assert (await site.calls()) == {}
    assert (await site.look()).taken == 1
    assert [call["audio"] for call in (await site.calls()).values()] == [other]
    assert await site.there() == []


async def test_what_changes_after_it_was_taken_in_is_not_removed(
    open_site: Open, rclone_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    key, other = freeswitch(), tone(2, pitch=600)
    await changes_once(site, monkeypatch, key, other, before=2)
    await site.put(key, AUDIO)
    assert (await site.look()).taken == 1
    assert await site.there() == [key]
    assert (await site.look()).refused == 1
    assert [call["audio"] for call in (await site.calls()).values()] == [AUDIO]
    assert await site.there() == [key]
    assert ("refused", "The call is here with other audio. A call is never overwritten.") in (
        await left(site)
    )


async def changes_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, key: str, content: bytes, before: int
) -> None:
    """Let somebody write the object again just before it is looked at for that time."""
    real, times = landing._is_still, 0

    async def is_still(place: Landing, held: Holding) -> bool:
        nonlocal times
        times += 1
        if times == before:
            await site.put(key, content)
        return await real(place, held)

    monkeypatch.setattr(landing, "_is_still", is_still)


async def test_of_a_bucket_with_versions_the_one_that_was_read_is_removed(
    open_site: Open, rgw_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(versioned(rgw_server), "freeswitch_s3")
    key, other = freeswitch(), tone(2, pitch=600)
    real = landing.remove

    async def remove(place: Landing, held: Holding) -> None:
        monkeypatch.setattr(landing, "remove", real)
        await site.put(key, other)
        await real(place, held)

    monkeypatch.setattr(landing, "remove", remove)
    await site.put(key, AUDIO)
    assert (await site.look()).taken == 1
    [held] = [each async for each in landing.walk(site.place)]
    assert held.latest
    assert held.size == len(other)
    assert [call["audio"] for call in (await site.calls()).values()] == [AUDIO]
    assert (await site.look()).refused == 1
    # And one that was overwritten before it was read is as good a copy: it is told of, too.
    await site.put(freeswitch(2), AUDIO)
    await site.put(freeswitch(2), tone(1))
    await asyncio.to_thread(
        site.minio._create_multipart_upload, site.bucket, freeswitch(3), {}
    )  # and never comes to its end
    found = await site.look()
    assert (found.taken, found.left) == (1, 3)
    assert len(await site.there()) == 3


@pytest.mark.parametrize(
    ("key", "content", "why"),
    [
        (
            "customer_service/{now}/1.wav",
            b"no audio at all " * 100,
            "are no audio format that is known",
        ),
        ("customer_service/{now}/1.wav", b"", "The body is empty."),
        ("customer_service/{old}/1.wav", AUDIO, "started_at lies so far back that the call may"),
        ("sales/{now}/1.wav", AUDIO, "call_type must be one of"),
        ("1.wav", AUDIO, "call_id is required"),
    ],
)
async def test_what_is_refused_stays_and_is_told_of_and_not_read_again(
    open_site: Open, rclone_server: Server, opens: list[str], key: str, content: bytes, why: str
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    old = datetime.fromisoformat(a_year_ago(seconds=-60))
    await site.service.turn_clock(timedelta())
    key = key.format(now=int(started().timestamp()), old=int(old.timestamp()))
    await site.put(key, content)
    assert (await site.look()).refused == 1
    [(fate, reason)] = await left(site)
    assert fate == "refused"
    assert why in reason
    for _ in range(3):
        assert (await site.look()).refused == 1
    assert len(opens) == 1
    assert await site.there() == [key]
    assert (await gauges(site))["archive_landing_refused"] == 1
    assert await site.service.rows() == []
    # A day later it is asked about again, and so it is when the service starts.
    await site.let_come_due()
    assert (await site.look()).refused == 1
    async with connection(site.vault.pool) as lent:
        await leftovers.begin(lent, ["others"])
    assert (await site.look()).refused == 1
    assert len(opens) == 3
    # And once somebody has removed it, it is told of no more, and nothing of it stays known.
    await asyncio.to_thread(site.minio.remove_object, bucket_name=site.bucket, object_name=key)
    await site.look()
    assert (await gauges(site))["archive_landing_refused"] == 0
    await site.let_come_due()
    await site.look()
    assert await left(site) == []


async def test_a_sidecar_that_cannot_be_read_is_refused(
    open_site: Open, rclone_server: Server
) -> None:
    site = await open_site(rclone_server, "genesys")
    await site.put(KEY, AUDIO)
    await site.put(SIDE, b"{")
    assert (await site.look()).refused == 1
    assert await left(site) == [("refused", "what lies beside it is no JSON")]


async def test_a_key_that_is_revoked_stops_it_at_once(
    open_site: Open, rclone_server: Server, opens: list[str]
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    await site.put(freeswitch(), AUDIO)
    await site.service.revoke("uploader")
    found = await site.look()
    assert (found.taken, found.refused) == (0, 0)
    assert "revoked" in found.failed
    assert opens == []
    assert await left(site) == []


async def test_an_archive_that_is_away_refuses_nothing_and_asks_not_for_ever(
    open_site: Open, rclone_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    keys = [freeswitch(number) for number in range(20)]
    await asyncio.gather(*(site.put(key, AUDIO) for key in keys))
    tried = 0

    async def away(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise UnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(intake, "admit", away)
        found = await site.look()
    assert found.failed == "away"
    assert looks.MISSES <= tried <= looks.MISSES + looks.AT_ONCE
    assert await left(site) == []
    assert (await site.look()).taken == len(keys)
    assert await site.there() == []
    assert len(await site.calls()) == len(keys)


async def test_a_clock_that_was_put_back_refuses_nothing_that_lies_there(
    open_site: Open, rclone_server: Server
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    await site.put(freeswitch(), AUDIO)
    await site.service.turn_clock(timedelta(hours=-2))
    found = await site.look()
    assert (found.taken, found.refused, found.left) == (0, 0, 1)
    assert found.failed.startswith("The call starts ahead")
    await site.service.turn_clock(timedelta())
    assert (await site.look()).taken == 1


async def test_starts_that_no_calendar_has_are_refused_and_hinder_nothing_behind_them(
    open_site: Open, rclone_server: Server
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    for number in range(looks.MISSES):
        await site.put(f"customer_service/00000000000/{number}.wav", AUDIO)
    await site.put(freeswitch(), AUDIO)
    found = await site.look()
    assert (found.taken, found.refused, found.failed) == (1, looks.MISSES, "")
    assert [*await site.calls()] == ["call-1"]


async def test_what_the_archive_fails_of_is_noted_and_hinders_what_lies_behind_it_but_once(
    open_site: Open, rclone_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    count = looks.MISSES + looks.AT_ONCE
    for number in range(100, 100 + count):
        await site.put(freeswitch(number, started()), AUDIO)
    await site.put(CALL.format(int(started().timestamp()), "good"), AUDIO)
    real = mapped.admit

    async def admit(vault: Vault, caller: Any, reading: Any, raw: Any, now: datetime) -> Any:
        if raw["path"]["call_id"] != "call-good":
            raise RuntimeError
        return await real(vault, caller, reading, raw, now)

    with monkeypatch.context() as patch:
        patch.setattr(mapped, "admit", admit)
        patch.setattr(leftovers, "_SOONEST", timedelta(hours=1))
        found = await site.look()
        assert (found.taken, found.failed) == (0, "RuntimeError")
        assert looks.MISSES <= found.misses < count
        assert (await site.look()).taken == 1
        found = await site.look()
        assert (found.left, found.refused, found.failed) == (count, 0, "")
    assert [*await site.calls()] == ["call-good"]
    assert await left(site) == [("waiting", looks._FAILED)] * count
    await site.let_come_due()
    assert (await site.look()).taken == count
    assert await site.there() == []


async def test_what_the_store_will_not_remove_is_not_read_again(
    open_site: Open, rclone_server: Server, opens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    await site.put(freeswitch(), AUDIO)

    async def locked(place: Landing, held: Holding) -> None:
        raise ForbiddenError("The object store answered 403 to a DELETE.")

    with monkeypatch.context() as patch:
        patch.setattr(landing, "remove", locked)
        for _ in range(3):
            found = await site.look()
            assert (found.left, found.refused, found.failed) == (1, 0, "")
    assert await left(site) == [
        ("taken", "is taken in; The object store answered 403 to a DELETE.")
    ]
    assert len(opens) == 1
    assert (await gauges(site))["archive_landing_oldest_seconds"] > 0
    await site.look()
    assert await site.there() == []
    assert len(opens) == 1


async def test_thousands_are_looked_at_in_flat_memory(open_site: Open, tmp_path: Path) -> None:
    peaks = []
    with running_rclone(tmp_path / "rclone") as server:
        for count in (2000, 5000):
            site = await open_site(server, "genesys")
            folder = tmp_path / "rclone/data" / site.bucket / "in"
            folder.mkdir()
            for number in range(count):
                (folder / f"{number:06}.opus_metadata.json").touch()
            tracemalloc.start()
            assert (await site.look()).left == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # Two pages of a list are held at the most: the one that is looked at, and the next.
    assert peaks[1] < peaks[0] * 1.3


async def test_it_is_read_only_where_it_was_declared_to_be(
    open_site: Open, rclone_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    await site.put(freeswitch(), AUDIO)
    loaded = configured(site)

    async def elsewhere(bucket: object) -> Seen:
        return Seen("s3.us-west-2.amazonaws.com", frozenset({"us-west-2"}), ())

    monkeypatch.setattr(residency, "look", elsewhere)
    with pytest.raises(ConfigError, match=r"\[landing.others\] country and replicas: .*us-west-2"):
        await landings.check_residency(loaded, site.place)
    # A store that was away at the start is asked before anything is read.
    asked: list[Landing] = []

    async def look(_: object, place: Landing, ending: asyncio.Event) -> looks.Look:
        asked.append(place)
        return looks.Look()

    monkeypatch.setattr(looks, "look", look)
    ending = asyncio.Event()
    running = asyncio.create_task(looks.run(site.vault, site.place, ending))
    await asyncio.sleep(0)
    ending.set()
    await running
    assert asked == []


async def test_archive_landing_and_check_name_what_is_left(
    open_site: Open,
    rclone_server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3")
    await site.put("sales/1.wav", AUDIO)
    await site.look()
    await site.put("contract/1.wav", AUDIO)

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Vault]:
        yield owned(site.vault)

    monkeypatch.setattr("app.vault.opened", opened)
    for name, value in variables(site).items():
        monkeypatch.setenv(name, value)
    arguments = cli._parser().parse_args(["--config", str(site.config), "landing", "--json"])
    assert await arguments.run(arguments) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["status"], each["object"]) for each in told] == [
        ("there", "contract/1.wav"),
        ("refused", "sales/1.wav"),
    ]
    assert "call_type must be one of" in told[1]["reason"]
    arguments = cli._parser().parse_args(["--config", str(site.config), "landing"])
    assert await arguments.run(arguments) == 0
    assert "others  refused  " in capsys.readouterr().out
    findings = await checked(site)
    assert findings == [(False, "1 objects are refused: `archive landing` names them.")]
    await asyncio.to_thread(
        site.minio.remove_object, bucket_name=site.bucket, object_name="sales/1.wav"
    )
    await site.look()
    [(well, text)] = await checked(site)
    assert well
    assert text.startswith("declared FI")
    await site.service.revoke("uploader")
    assert await checked(site) == [(False, "there is no uploader's key of the name in `key`.")]


async def checked(site: Site) -> list[tuple[bool, str]]:
    """What `archive check` says of the landing buckets."""
    loaded = configured(site)
    findings = check._Findings()
    looking = check._Check(loaded, findings, AsyncExitStack())
    looking._pool, looking._ring = owned(site.vault).pool, site.vault.ring
    for place in loaded.landings:
        await findings.look(place.name, partial(looking._landing, place))
    return [(well, text) for _, well, text in findings.lines]


def variables(site: Site) -> dict[str, str]:
    return {
        "ARCHIVE_LANDING_OTHERS_ACCESS_KEY": site.server.access_key,
        "ARCHIVE_LANDING_OTHERS_SECRET_KEY": site.server.secret_key,
    }


def configured(site: Site) -> config.Config:
    return config.load(site.config, variables(site))


ALL = {"ARCHIVE_LANDING_OTHERS_ACCESS_KEY": "a", "ARCHIVE_LANDING_OTHERS_SECRET_KEY": "s"}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "others"', 'name = "a_b"', "[landing] name: must be a name of its own"),
        ('mapping = "genesys"', 'mapping = "genesis"', "mapping: must name a [mapping.NAME]"),
        ('call_type = "other"', 'call_type = "sales"', "call_type: must be one of"),
        ('call_type = "other"', "", "call_type: must be one of"),
        ('endpoint = "https://s3.example"', 'endpoint = "embedded"', "is not taken: the embedded"),
        ('country = "FI"', 'country = "US"', "country: must be the two-letter code"),
        ('country = "FI"', "", "country: is missing"),
        ('key = "pbx"', "", "key: is missing"),
        ('key = "pbx"', 'key = "pbx"\nkeys = "s"', "keys: is no key of this section"),
        ("[[landing]]", "[landing]", "is written as [[landing]]"),
        ('bucket = "land"', 'bucket = "calls"', "bucket: must be another than the archive's own"),
    ],
)
def test_a_wrong_landing_bucket_is_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    table = TABLE.format(
        mapping="genesys", call_type="other", endpoint="https://s3.example", bucket="land",
        prefix="", ca="",
    ).replace("test-uploader", "pbx")  # fmt: skip
    own = 'endpoint = "embedded"\nbucket = "calls"'
    text = EXAMPLE.read_text().replace(own, 'endpoint = "https://s3.example"\nbucket = "calls"')
    assert old in table
    file = tmp_path / "config.toml"
    keys = {"ARCHIVE_OBJECTS_ACCESS_KEY": "a", "ARCHIVE_OBJECTS_SECRET_KEY": "s", **ALL}
    file.write_text(text + table)
    [place] = config.load(file, keys).landings
    assert place.objects.country == "FI"
    file.write_text(text + table.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        config.load(file, keys)
    assert problem in str(caught.value)


def test_a_landing_bucket_needs_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        EXAMPLE.read_text()
        + TABLE.format(
            mapping="jambonz", call_type="", endpoint="https://s3.example", bucket="land",
            prefix="", ca="",
        )
    )  # fmt: skip
    with pytest.raises(ConfigError, match="set ARCHIVE_LANDING_OTHERS_ACCESS_KEY"):
        config.load(file, {})
    inside = tmp_path / "inside.toml"
    inside.write_text(file.read_text() + 'access_key = "a"')
    with pytest.raises(ConfigError, match="access_key: a secret has no place in this file"):
        config.load(inside, {})
    [place] = config.load(file, ALL).landings
    assert "secret_key" not in repr(place)
    assert place.reading.sidecar == ""
